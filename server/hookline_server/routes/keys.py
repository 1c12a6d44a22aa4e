"""``/v1/keys``: what the namespace holds, key by key; and the settings of a key, and its pause."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.keysettings import KeySettings
from hookline.stats import weigh
from hookline_server import body, head
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import datastore_of
from hookline_server.routes import resource
from hookline_server.view import describe_settings

_COUNTS = {"refused_claims": "refusedClaims", "lost_locks": "lostLocks", "expired_locks": "expiredLocks"}


class NewSettings(Body):
    """The settings of a key: what is left out, or null, has its default."""

    max_attempts: Any = None
    lock_for: Any = None
    backoff: Any = None
    paused: Any = None
    max_length: Any = None
    indexes: Any = None
    retention: Any = None
    trigger_urls: Any = None


async def index(request: Request) -> Response:
    """The keys in order of their names, with how many items they have and about how many bytes those take."""
    given = head.read_query(request, "prefix", "limit", "cursor")
    limit = head.read_limit(given.get("limit", "100"))
    datastore = datastore_of(request)
    stats = await datastore.stats(given.get("prefix", ""))
    statuses: dict[str, dict[str, int]] = {}
    for row in stats.rows:
        counted = statuses.setdefault(row.key, {})
        counted[row.status] = counted.get(row.status, 0) + row.count
    names = sorted(name for name in statuses if name > given.get("cursor", ""))
    page, cursor = names[:limit], names[limit - 1] if len(names) > limit else None
    weights = await weigh(datastore.connection, datastore.calls.partitions, page)
    shown = [
        {
            "key": name,
            "items": statuses[name].pop("", 0),
            "statuses": statuses[name],
            **{outside: stats.counts.get(name, {}).get(inside, 0) for inside, outside in _COUNTS.items()},
            "bytes": weight,
        }
        for name, weight in zip(page, weights, strict=True)
    ]
    return Answer({"keys": shown, "cursor": cursor}, headers=head.next_page(request, given, cursor))


async def get(request: Request) -> Response:
    """The settings as they hold, defaults included, and how far the indexes are that are being built."""
    head.read_query(request)
    return await _describe(request, await datastore_of(request).key_settings(head.read_key(request)))


async def put(request: Request) -> Response:
    """Replace the settings."""
    head.read_query(request)
    given = (await body.read_json(request, NewSettings)).given()
    return await _describe(request, await datastore_of(request).configure(head.read_key(request), **given))


async def pause(request: Request) -> Response:
    """Give out no claims of the key until it is resumed; who holds an item goes on."""
    return await _set_paused(request, paused=True)


async def resume(request: Request) -> Response:
    """Let the key's items be claimed again."""
    return await _set_paused(request, paused=None)


async def _set_paused(request: Request, *, paused: bool | None) -> Response:
    head.read_query(request)
    return await _describe(request, await datastore_of(request).configure(head.read_key(request), paused=paused))


async def _describe(request: Request, settings: KeySettings) -> Response:
    return Answer(describe_settings(settings, await datastore_of(request).builds(head.read_key(request))))


routes = [
    Route("/v1/keys", index, methods=["GET"]),
    resource("/v1/keys/{key}/settings", GET=get, PUT=put),
    Route("/v1/jobs/{key}/pause", pause, methods=["POST"]),
    Route("/v1/jobs/{key}/resume", resume, methods=["POST"]),
]
