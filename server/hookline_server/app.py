"""The HTTP application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from starlette.routing import Route

from hookline import Datastore
from hookline_server.bodies import Bodies
from hookline_server.edge import Edge
from hookline_server.egress import Egress
from hookline_server.gate import Gate
from hookline_server.guard import guarded
from hookline_server.metrics import Metrics, Served
from hookline_server.openapi import Document
from hookline_server.peers import Peers
from hookline_server.rate import Rate
from hookline_server.rounds import Rounds
from hookline_server.router import Application
from hookline_server.routes import (
    apikeys,
    batch,
    bulk,
    commands,
    deliveries,
    document,
    endpoints,
    health,
    item,
    items,
    jobs,
    keys,
    metrics,
    orchestrations,
    schedules,
    triggers,
    workers,
)
from hookline_server.shares import Shares
from hookline_server.traffic import Traffic

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
        *schedules.routes,
        *workers.routes,
        *keys.routes,
        *deliveries.routes,
        *endpoints.routes,
        *triggers.routes,
        *apikeys.routes,
        *health.routes,
        *document.routes,
        *metrics.routes,
    )
]
"""Every route, behind its guard.

The first that matches wins, so what is called most comes first.
"""

PROBES = [route for route in ROUTES if route.path in ("/livez", "/readyz", "/metrics")]
"""What a process is asked that does something else than to answer."""

Ready = Callable[[], Awaitable[Mapping[str, str]]]


def create_app(
    datastore: Datastore,
    gate: Gate | None = None,
    *,
    datastores: Served | None = None,
    cors_origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    ready: Ready | None = None,
    rate: Rate | None = None,
    requests: Shares | None = None,
    peers: Peers | None = None,
    log_requests: str = "off",
    traces: bool = False,
    egress: Egress | None = None,
    routes: Sequence[Route] = ROUTES,
) -> Application:
    """The application over an open datastore, which stays the caller's to close.

    Args:
        datastore: the namespace of who is asked for no API key. Routes find theirs by ``caller.datastore_of(request)``.
        gate: tells who asks; without one everybody may do everything.
        datastores: those of which ``/metrics`` tells what they hold, if that is not ``datastore`` alone.
        cors_origins: sites whose pages may use the API in a browser, such as ``https://app.example``; ``*`` is all.
        hosts: names by which the server is asked, beside those of loopback, as long as ``gate`` asks for no API key;
            None: any.
        ready: further checks of ``/readyz``: name -> ``ok``, or what is wrong.
        rate: that of the requests of one caller, if it has a limit.
        requests: those that may be under way; of them each caller has a share.
        log_requests: the level at which each request is logged, or ``off``.
        traces: whether each request is a span.
        egress: the way out of the webhooks that are sent on request.
        routes: all that it answers.
        peers: the figures of the other processes that serve the same port.
    """
    traffic = Traffic(routes, log_requests)
    app = Application(routes)
    app.requests = requests
    app.state.bodies = Bodies()
    app.state.rounds = Rounds()
    app.edge = Edge(app.router, traffic, app.state.bodies, cors_origins, hosts, gate)
    if traces:
        from hookline_server.traces import Traced

        app.edge = Traced(app.edge, traffic)
    app.state.datastore = datastore
    app.state.rate = rate
    app.state.gate = gate
    app.state.ready = ready
    app.state.egress = egress
    app.state.under_way = set()
    app.state.document = Document(ROUTES)

    async def home() -> list[Datastore]:
        return [app.state.datastore]

    app.state.metrics = Metrics(datastores or home, peers)
    return app
