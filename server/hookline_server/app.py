"""The HTTP application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from hookline import Datastore
from hookline_server.edge import Edge
from hookline_server.gate import Gate
from hookline_server.guard import guarded
from hookline_server.problem import respond
from hookline_server.routes import batch, bulk, commands, health, item, items, jobs, keys, orchestrations

ROUTES: list[Route] = [
    guarded(route)
    for route in (
        *items.routes,
        *item.routes,
        *jobs.routes,
        *batch.routes,
        *bulk.routes,
        *commands.routes,
        *orchestrations.routes,
        *keys.routes,
        *health.routes,
    )
]
"""Every route, behind its guard. The first that matches wins, so what is called most comes first."""

Ready = Callable[[], Awaitable[Mapping[str, str]]]


def create_app(
    datastore: Datastore, gate: Gate | None = None, *, cors_origins: Collection[str] = (), ready: Ready | None = None
) -> Starlette:
    """The application over an open datastore, which stays the caller's to close.

    Args:
        datastore: the namespace of who is asked for no API key. Routes find theirs by ``caller.datastore_of(request)``.
        gate: tells who asks; without one everybody may do everything.
        cors_origins: sites whose pages may use the API in a browser, such as ``https://app.example``; ``*`` is all.
        ready: further checks of ``/readyz``: name -> ``ok``, or what is wrong.
    """
    app = Starlette(
        routes=ROUTES, middleware=[Middleware(Edge, cors_origins)], exception_handlers={HTTPException: respond}
    )
    # An unknown path is answered as one, not sent elsewhere.
    app.router.redirect_slashes = False
    app.state.datastore = datastore
    app.state.gate = gate
    app.state.ready = ready
    app.state.under_way = set()
    return app
