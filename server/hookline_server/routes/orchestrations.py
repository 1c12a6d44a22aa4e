"""``/v1/orchestrations``: stored rules that claim items with triggers on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline_server import head, ruleshapes, shapes
from hookline_server.answer import Answer
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.orchestrations import Orchestration, Orchestrations
from hookline_server.routes import Resource, rules
from hookline_server.view import describe_claimed

_PATH = "/v1/orchestrations"
_EXAMPLE = {"key": "jobs", "where": {"type": "report_generation"}, "limit": 10, "every": "1m"}


@Operation(
    name="putOrchestration",
    takes={JSON: (Orchestration,)},
    example=_EXAMPLE,
    replies={
        201: Reply(
            "The orchestration is new.",
            ruleshapes.StoredOrchestration,
            ("Location",),
            links=("getOrchestration", "runOrchestration", "deleteOrchestration"),
        ),
        200: Reply("The orchestration was replaced.", ruleshapes.StoredOrchestration),
    },
    refuses=("reserved_key",),
    writes=True,
)
async def put(request: Request) -> Response:
    """Store an orchestration.

    A rule that claims matching items with triggers on. The servers run it, with ``every`` first at once.
    """
    return await rules.put(request, Orchestrations, _PATH)


@Operation(
    name="getOrchestration",
    replies={200: Reply("The orchestration.", ruleshapes.StoredOrchestration)},
    refuses=("not_found",),
)
async def get(request: Request) -> Response:
    """Read an orchestration.

    With its last and next run.
    """
    return await rules.get(request, Orchestrations)


@Operation(
    name="listOrchestrations",
    query=rules.PAGE,
    replies={200: Reply("A page of orchestrations.", ruleshapes.Orchestrations, ("Link",))},
)
async def index(request: Request) -> Response:
    """List orchestrations.

    In order of name; a page has 1,000 unless ``limit`` says otherwise.
    """
    return await rules.index(request, Orchestrations)


@Operation(name="deleteOrchestration", replies={204: Reply("It is gone.")}, refuses=("not_found",), writes=True)
async def delete(request: Request) -> Response:
    """Delete an orchestration.

    What it claimed stays claimed.
    """
    return await rules.delete(request, Orchestrations)


@Operation(
    name="enableOrchestration",
    replies={200: Reply("It runs at its next tick.", ruleshapes.StoredOrchestration)},
    refuses=("not_found", "precondition_failed"),
    writes=True,
)
async def enable(request: Request) -> Response:
    """Enable an orchestration."""
    return await rules.enable(request, Orchestrations, enabled=True)


@Operation(
    name="disableOrchestration",
    replies={200: Reply("It runs by hand alone.", ruleshapes.StoredOrchestration)},
    refuses=("not_found", "precondition_failed"),
    writes=True,
)
async def disable(request: Request) -> Response:
    """Disable an orchestration.

    A claim that is under way is finished; no further one is made.
    """
    return await rules.enable(request, Orchestrations, enabled=False)


@Operation(name="listOrchestrationRuns", query=rules.PAGE, replies=rules.RUNS, refuses=("not_found",))
async def runs(request: Request) -> Response:
    """List runs of an orchestration.

    The last ones first; 1,000 are kept, for 30 days.
    """
    return await rules.runs(request, Orchestrations)


@Operation(name="previewOrchestration", query=rules.COUNT, replies=rules.NEXT, refuses=("not_found",))
async def upcoming(request: Request) -> Response:
    """Preview the next runs of an orchestration.

    In UTC and by the clock of its time zone, without the random delay.
    """
    return await rules.upcoming(request, Orchestrations)


@Operation(
    name="runOrchestration",
    replies={200: Reply("What it claimed.", shapes.Claimed)},
    refuses=("not_found", "paused", "outbox_full"),
    writes=True,
)
async def run(request: Request) -> Response:
    """Run an orchestration now."""
    head.read_query(request)
    orchestrations = await rules.check_stored(request, Orchestrations)
    return Answer(describe_claimed(await orchestrations.run_by_hand(rules.name_of(request))))


routes = [
    Route(_PATH, index, methods=["GET"]),
    Resource("/v1/orchestrations/{name}", GET=get, PUT=put, DELETE=delete),
    Route("/v1/orchestrations/{name}/run", run, methods=["POST"]),
    Route("/v1/orchestrations/{name}/enable", enable, methods=["POST"]),
    Route("/v1/orchestrations/{name}/disable", disable, methods=["POST"]),
    Route("/v1/orchestrations/{name}/runs", runs, methods=["GET"]),
    Route("/v1/orchestrations/{name}/next", upcoming, methods=["GET"]),
]
