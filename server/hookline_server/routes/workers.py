"""``/v1/workers``: who works now, and what they are asked to do."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import registry
from hookline.grant import ADMIN, WORK
from hookline.registry import Presence
from hookline_server import body, head
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import caller_of
from hookline_server.routes import resource


class Told(Body):
    """What a worker tells of itself."""

    host: str
    pid: int
    handlers: list[str]
    concurrency: int
    in_flight: int


class Signal(Body):
    """What a worker is asked to do: ``quiet`` or ``stop``."""

    signal: str


async def index(request: Request) -> Response:
    """The workers that live, of the keys that the caller may see."""
    head.read_query(request)
    caller = caller_of(request)
    found = await registry.workers(caller.whole)
    return Answer({"workers": [each.to_dict() for each in found if caller.grant.covers(each.key)]})


async def heartbeat(request: Request) -> Response:
    """A worker lives: what it is asked to do is the answer."""
    key, worker_id = _identity(request, WORK)
    told = (await body.read_json(request, Told)).given()
    presence = Presence(key, worker_id, **told | {"handlers": tuple(told["handlers"])})
    return Answer({"signal": await registry.heartbeat(caller_of(request).whole, presence)})


async def leave(request: Request) -> Response:
    """A worker has ended."""
    await registry.leave(caller_of(request).whole, *_identity(request, WORK))
    return Answer(status=204)


async def signal(request: Request) -> Response:
    """Ask a worker for something."""
    identity = _identity(request, ADMIN)
    wanted = await body.read_json(request, Signal)
    await registry.signal_worker(caller_of(request).whole, *identity, wanted.signal)
    return Answer(status=204)


def _identity(request: Request, scope: str) -> tuple[str, str]:
    """Key and worker, which the caller's API key must cover.

    Raises:
        MissingScope, KeyNotAllowed
    """
    head.read_query(request)
    key, worker_id = head.read_identity(request)
    caller_of(request).grant.check(scope, key)
    return key, worker_id


routes = [
    Route("/v1/workers", index, methods=["GET"]),
    resource("/v1/workers/{key}/{worker_id:path}", PUT=heartbeat, DELETE=leave, POST=signal),
]
