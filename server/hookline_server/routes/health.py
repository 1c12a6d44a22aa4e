"""``/livez`` and ``/readyz``: whether the process runs, and whether it can serve."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.errors import HooklineError
from hookline_server import shapes
from hookline_server.answer import Answer
from hookline_server.operation import Operation, Reply
from hookline_server.problem import RETRY_AFTER

_PATIENCE = 2.0
"""Seconds that the checks may take together: whoever asks has a deadline of its own."""
_NO_STORE = {"Cache-Control": "no-store"}


@Operation(name="livez", replies={200: Reply("It answers.", shapes.Alive)})
async def livez(request: Request) -> Response:  # noqa: ARG001
    """Whether the process answers.

    The store is not asked, since a restart would not help it.
    """
    return Answer({"status": "ok"}, 200, _NO_STORE)


@Operation(
    name="readyz",
    replies={
        200: Reply("They can.", shapes.Health),
        503: Reply("They cannot: `checks` has what is wrong.", shapes.Health, ("Retry-After",)),
    },
)
async def readyz(request: Request) -> Response:
    """Whether the store and the other parts can serve.

    503 while the store does not answer or is a replica, and once the process is about to stop. For load balancers.
    """
    checks = {"store": "no answer"}
    try:
        async with asyncio.timeout(_PATIENCE):
            await request.app.state.datastore.connection.ready()
            checks["store"] = "ok"
            if request.app.state.ready is not None:
                checks |= await request.app.state.ready()
    except (HooklineError, TimeoutError):
        pass
    if all(found == "ok" for found in checks.values()):
        return Answer({"status": "ok", "checks": checks}, 200, _NO_STORE)
    return Answer({"status": "unavailable", "checks": checks}, 503, {**_NO_STORE, "Retry-After": RETRY_AFTER})


routes = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
]
