"""``/v1/workers``: who works now, and what they are asked to do."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import registry
from hookline.grant import ADMIN, WORK
from hookline.registry import Presence
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import caller_of
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource


class Told(Body):
    """What a worker tells of itself."""

    host: str
    pid: shapes.Count
    handlers: Annotated[
        list[str],
        Meta(description=f"Their names: {registry.TOLD_MAX} characters at most, one more each, with the host."),
    ]
    concurrency: shapes.Count
    in_flight: shapes.Count


class Signal(Body):
    """What a worker is asked to do: ``quiet`` or ``stop``."""

    signal: Annotated[str, Meta(extra_json_schema={"enum": [registry.QUIET, registry.STOP]})]


@Operation(name="listWorkers", replies={200: Reply("Who works now.", shapes.Workers)})
async def index(request: Request) -> Response:
    """List workers.

    Those heard of in the last 20 seconds, at most 10,000.
    """
    head.read_query(request)
    caller = caller_of(request)
    found = await registry.workers(caller.whole, caller.grant.covers)
    return Answer({"workers": [each.to_dict() for each in found], "leftOut": found.left_out})


@Operation(
    name="heartbeat",
    takes={JSON: (Told,)},
    example={"host": "a", "pid": 7, "handlers": ["report"], "concurrency": 10, "inFlight": 2},
    replies={200: Reply("What the worker is asked to do.", shapes.Heard)},
    writes=True,
)
async def heartbeat(request: Request) -> Response:
    """Tell that a worker lives.

    Every few seconds; what it is asked to do is the answer.
    """
    key, worker_id = _identity(request, WORK)
    told = (await body.read_json(request, Told)).given()
    presence = Presence(key, worker_id, **told | {"handlers": tuple(told["handlers"])})
    return Answer({"signal": await registry.heartbeat(caller_of(request).whole, presence)})


@Operation(name="leave", replies={204: Reply("It is listed no more.")}, writes=True)
async def leave(request: Request) -> Response:
    """Tell that a worker has ended."""
    await registry.leave(caller_of(request).whole, *_identity(request, WORK))
    return Answer(status=204)


@Operation(
    name="signalWorker",
    takes={JSON: (Signal,)},
    example={"signal": "quiet"},
    replies={204: Reply("It learns of it by its next heartbeat.")},
    refuses=("not_found",),
    writes=True,
)
async def signal(request: Request) -> Response:
    """Ask a worker to claim no more, or to stop."""
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
    Resource("/v1/workers/{key}/{worker_id:path}", PUT=heartbeat, DELETE=leave, POST=signal),
]
