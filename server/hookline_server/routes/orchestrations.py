"""``/v1/orchestrations``: stored rules that claim items with triggers on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hookline_server import head, ruleshapes, shapes
from hookline_server.answer import Answer
from hookline_server.operation import Operation, Reply
from hookline_server.orchestrations import Orchestrations
from hookline_server.routes import rules
from hookline_server.view import describe_claimed


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


routes = rules.routes_of(
    Orchestrations,
    ruleshapes.StoredOrchestration,
    ruleshapes.Orchestrations,
    run,
    example={"key": "jobs", "where": {"type": "report_generation"}, "limit": 10, "every": "1m"},
    says={
        "put": "A rule that claims matching items with triggers on. The servers run it, with ``every`` first at once.",
        "delete": "What it claimed stays claimed.",
        "disable": "A claim that is under way is finished; no further one is made.",
    },
)
