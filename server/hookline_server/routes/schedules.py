"""``/v1/schedules``: stored rules that create items."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hookline.outcome import item_of
from hookline_server import head, ruleshapes, shapes
from hookline_server.answer import Answer
from hookline_server.operation import Operation, Reply
from hookline_server.routes import rules
from hookline_server.schedules import Schedules
from hookline_server.view import describe, location_of


@Operation(
    name="runSchedule",
    replies={201: Reply("The item that it created.", shapes.WrittenItem, ("Location",))},
    refuses=("not_found", "exists", "key_full", "outbox_full"),
    writes=True,
)
async def run(request: Request) -> Response:
    """Run a schedule now.

    It creates an item as at a tick of this moment.
    """
    head.read_query(request)
    schedules = await rules.check_stored(request, Schedules)
    outcome = (await schedules.run_by_hand(rules.name_of(request))).only
    return Answer(describe(outcome), 201, {"Location": location_of(item_of(outcome))})


routes = rules.routes_of(
    Schedules,
    ruleshapes.StoredSchedule,
    ruleshapes.Schedules,
    run,
    example={
        "key": "jobs",
        "cron": "0 9 * * MON-FRI",
        "timeZone": "Europe/Berlin",
        "content": {"report": "daily", "for": "{schedule.tick}"},
        "metadata": {"status": "not_started", "type": "report_generation"},
    },
    says={
        "put": "A rule that creates an item at each of its ticks. The servers run it, with ``every`` first at once.",
        "delete": "What it created stays.",
        "disable": "What a run has under way is finished, up to 100 items; what it had left to make up for is not.",
    },
)
