"""``/v1/keys``: what the namespace holds, key by key; and the settings of a key, and its pause."""

from __future__ import annotations

import weakref
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from typing import Annotated, ClassVar
from weakref import WeakKeyDictionary

from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Datastore
from hookline.grant import READ
from hookline.item import EVENTS, RESERVED_PREFIX
from hookline.keysettings import KeySettings
from hookline.stats import by_key, weigh
from hookline.trigger import read_triggers
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body, Packs
from hookline_server.caller import caller_of, datastore_of
from hookline_server.fields import (
    Backoff,
    Cursor,
    Indexes,
    LockFor,
    MaxAttempts,
    MaxLength,
    PageLimit,
    PassedOver,
    Paused,
    RecordDeliveries,
    Retention,
    TriggerUrls,
)
from hookline_server.fresh import Fresh
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource
from hookline_server.view import describe_key, describe_settings

_COUNTS = {"refused_claims": "refusedClaims", "lost_locks": "lostLocks", "expired_locks": "expiredLocks"}


class _Settings(Body):
    packs: ClassVar[Packs] = {"trigger_urls": partial(read_triggers, events=EVENTS)}
    passed_over: ClassVar[tuple[str, ...]] = ("generation", "building")

    generation: PassedOver | UnsetType = UNSET
    building: PassedOver | UnsetType = UNSET


class NewSettings(_Settings):
    """The settings of a key: what is left out, or null, has its default."""

    max_attempts: MaxAttempts = None
    lock_for: LockFor = None
    backoff: Backoff = None
    paused: Paused = None
    max_length: MaxLength = None
    indexes: Indexes = None
    retention: Retention = None
    record_deliveries: RecordDeliveries = None
    trigger_urls: TriggerUrls = None


class Changes(_Settings):
    """Settings to change: what is left out stays, null brings a default back."""

    max_attempts: MaxAttempts | UnsetType = UNSET
    lock_for: LockFor | UnsetType = UNSET
    backoff: Backoff | UnsetType = UNSET
    paused: Paused | UnsetType = UNSET
    max_length: MaxLength | UnsetType = UNSET
    indexes: Indexes | UnsetType = UNSET
    retention: Retention | UnsetType = UNSET
    record_deliveries: RecordDeliveries | UnsetType = UNSET
    trigger_urls: TriggerUrls | UnsetType = UNSET


_SETTINGS = {200: Reply("The settings as they hold.", shapes.Settings)}


@Operation(
    name="listKeys",
    query={
        "prefix": Annotated[str, Meta(description="What their names begin with.")],
        "limit": PageLimit,
        "cursor": Cursor,
    },
    replies={200: Reply("A page of keys.", shapes.Keys, ("Link",))},
)
async def index(request: Request) -> Response:
    """List keys.

    In order of their names, with how many items they have and about how many bytes those take.
    """
    given = head.read_query(request, "prefix", "limit", "cursor")
    limit = head.read_limit(given.get("limit", "100"))
    caller = caller_of(request)
    caller.grant.check(READ)
    prefix = given.get("prefix", "")
    held = await _reading(caller.whole, prefix)
    begin = max(bisect_left(held.names, prefix), bisect_right(held.names, given.get("cursor", "")))
    named = takewhile(lambda name: name.startswith(prefix), islice(held.names, begin, None))
    names = [*islice(filter(caller.grant.covers, named), limit + 1)]
    page, cursor = names[:limit], names[limit - 1] if len(names) > limit else None
    datastore = caller.whole
    weights = await weigh(datastore.connection, datastore.calls.partitions, page)
    shown = [
        {
            **describe_key(name, held.statuses[name]),
            **{outside: held.counts.get(name, {}).get(inside, 0) for inside, outside in _COUNTS.items()},
            "bytes": weight,
        }
        for name, weight in zip(page, weights, strict=True)
    ]
    return Answer({"keys": shown, "cursor": cursor}, headers=head.next_page(given, cursor))


_MANY = 1000
"""Of no more keys a reading costs little, and who has just written something sees it."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What a namespace holds: the names in order, how many of each key are in which status, and what it counts."""

    names: list[str]
    statuses: dict[str, dict[str, int]]
    counts: dict[str, dict[str, int]]


_readings: WeakKeyDictionary[Datastore, dict[str, Fresh[_Held]]] = WeakKeyDictionary()


def _are_many(held: _Held) -> bool:
    return len(held.names) > _MANY


async def _reading(datastore: Datastore, prefix: str) -> _Held:
    """All keys of a namespace, or by that prefix the engine's own; many as they were a second ago at most."""
    ref = weakref.ref(datastore)
    registry = RESERVED_PREFIX if prefix.startswith(RESERVED_PREFIX) else ""

    async def read() -> _Held:
        whole = ref()
        if whole is None:
            raise TypeError("who asks has the datastore")
        stats = await whole.stats(registry)
        statuses = await by_key(stats)
        return _Held([*statuses], statuses, stats.counts)

    return await _readings.setdefault(datastore, {}).setdefault(registry, Fresh(read, _are_many)).get()


@Operation(name="getSettings", replies=_SETTINGS, refuses=("reserved_key",))
async def get(request: Request) -> Response:
    """Read the settings of a key.

    As they hold, defaults included, and how far the indexes are that are being built.
    """
    head.read_query(request)
    return await _describe(request, await datastore_of(request).key_settings(head.read_key(request)))


@Operation(
    name="putSettings",
    takes={JSON: (NewSettings,)},
    example={"maxAttempts": 5, "lockFor": "2m", "indexes": {"customer.id": "string"}},
    replies=_SETTINGS,
    refuses=("reserved_key",),
    writes=True,
)
async def put(request: Request) -> Response:
    """Replace the settings of a key.

    What is left out, or null, has its default.
    """
    head.read_query(request)
    given = (await body.read_json(request, NewSettings)).given()
    return await _describe(request, await datastore_of(request).configure(head.read_key(request), **given))


@Operation(
    name="changeSettings",
    takes={JSON: (Changes,)},
    example={"maxAttempts": 5, "backoff": None},
    replies=_SETTINGS,
    refuses=("reserved_key",),
    writes=True,
)
async def patch(request: Request) -> Response:
    """Change settings of a key.

    What is left out stays, null brings a default back.
    """
    head.read_query(request)
    given = (await body.read_json(request, Changes)).given()
    return await _describe(request, await datastore_of(request).configure(head.read_key(request), **given))


@Operation(name="pauseJobs", replies=_SETTINGS, refuses=("reserved_key",), writes=True)
async def pause(request: Request) -> Response:
    """Pause a key.

    No claims until it is resumed; who holds an item goes on.
    """
    return await _set_paused(request, paused=True)


@Operation(name="resumeJobs", replies=_SETTINGS, refuses=("reserved_key",), writes=True)
async def resume(request: Request) -> Response:
    """Resume a key.

    Its items can be claimed again.
    """
    return await _set_paused(request, paused=None)


async def _set_paused(request: Request, *, paused: bool | None) -> Response:
    head.read_query(request)
    return await _describe(request, await datastore_of(request).configure(head.read_key(request), paused=paused))


async def _describe(request: Request, settings: KeySettings) -> Response:
    return Answer(describe_settings(settings, await datastore_of(request).builds(head.read_key(request))))


routes = [
    Route("/v1/keys", index, methods=["GET"]),
    Resource("/v1/keys/{key}/settings", GET=get, PUT=put, PATCH=patch),
    Route("/v1/jobs/{key}/pause", pause, methods=["POST"]),
    Route("/v1/jobs/{key}/resume", resume, methods=["POST"]),
]
