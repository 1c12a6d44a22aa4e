"""``/v1/keys/{key}/settings``: how a key's items are claimed, retried, indexed, bounded and kept; and its pause."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Datastore
from hookline.keysettings import KeySettings
from hookline_server import body, head
from hookline_server.answer import Json
from hookline_server.body import Body
from hookline_server.routes import resource
from hookline_server.view import describe_settings


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


async def get(request: Request) -> Response:
    """The settings as they hold, defaults included, and how far the indexes are that are being built."""
    head.read_query(request)
    return await _describe(request, await _datastore(request).key_settings(head.read_key(request)))


async def put(request: Request) -> Response:
    """Replace the settings."""
    head.read_query(request)
    given = (await body.read_json(request, NewSettings)).given()
    return await _describe(request, await _datastore(request).configure(head.read_key(request), **given))


async def pause(request: Request) -> Response:
    """Give out no claims of the key until it is resumed; who holds an item goes on."""
    return await _set_paused(request, paused=True)


async def resume(request: Request) -> Response:
    """Let the key's items be claimed again."""
    return await _set_paused(request, paused=None)


async def _set_paused(request: Request, *, paused: bool | None) -> Response:
    head.read_query(request)
    return await _describe(request, await _datastore(request).configure(head.read_key(request), paused=paused))


async def _describe(request: Request, settings: KeySettings) -> Response:
    return Json(describe_settings(settings, await _datastore(request).builds(head.read_key(request))))


def _datastore(request: Request) -> Datastore:
    datastore: Datastore = request.app.state.datastore
    return datastore


routes = [
    resource("/v1/keys/{key}/settings", GET=get, PUT=put),
    Route("/v1/jobs/{key}/pause", pause, methods=["POST"]),
    Route("/v1/jobs/{key}/resume", resume, methods=["POST"]),
]
