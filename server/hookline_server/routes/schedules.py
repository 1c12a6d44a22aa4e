"""``/v1/schedules``: stored rules that create items."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.outcome import item_of
from hookline_server import head, ruleshapes, shapes
from hookline_server.answer import Answer
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource, rules
from hookline_server.schedules import Schedule, Schedules
from hookline_server.view import describe, location_of

_PATH = "/v1/schedules"
_EXAMPLE = {
    "key": "jobs",
    "cron": "0 9 * * MON-FRI",
    "timeZone": "Europe/Berlin",
    "content": {"report": "daily", "for": "{schedule.tick}"},
    "metadata": {"status": "not_started", "type": "report_generation"},
}


@Operation(
    name="putSchedule",
    takes={JSON: (Schedule,)},
    example=_EXAMPLE,
    replies={
        201: Reply(
            "The schedule is new.",
            ruleshapes.StoredSchedule,
            ("Location",),
            links=("getSchedule", "runSchedule", "deleteSchedule"),
        ),
        200: Reply("The schedule was replaced.", ruleshapes.StoredSchedule),
    },
    refuses=("reserved_key",),
    writes=True,
)
async def put(request: Request) -> Response:
    """Store a schedule.

    A rule that creates an item at each of its ticks. The servers run it, with ``every`` first at once.
    """
    return await rules.put(request, Schedules, _PATH)


@Operation(name="getSchedule", replies={200: Reply("The schedule.", ruleshapes.StoredSchedule)}, refuses=("not_found",))
async def get(request: Request) -> Response:
    """Read a schedule.

    With its last and next run.
    """
    return await rules.get(request, Schedules)


@Operation(
    name="listSchedules",
    query=rules.PAGE,
    replies={200: Reply("A page of schedules.", ruleshapes.Schedules, ("Link",))},
)
async def index(request: Request) -> Response:
    """List schedules.

    In order of name; a page has 1,000 unless ``limit`` says otherwise.
    """
    return await rules.index(request, Schedules)


@Operation(name="deleteSchedule", replies={204: Reply("It is gone.")}, refuses=("not_found",), writes=True)
async def delete(request: Request) -> Response:
    """Delete a schedule.

    What it created stays.
    """
    return await rules.delete(request, Schedules)


@Operation(
    name="enableSchedule",
    replies={200: Reply("It runs at its next tick.", ruleshapes.StoredSchedule)},
    refuses=("not_found", "precondition_failed"),
    writes=True,
)
async def enable(request: Request) -> Response:
    """Enable a schedule."""
    return await rules.enable(request, Schedules, enabled=True)


@Operation(
    name="disableSchedule",
    replies={200: Reply("It runs by hand alone.", ruleshapes.StoredSchedule)},
    refuses=("not_found", "precondition_failed"),
    writes=True,
)
async def disable(request: Request) -> Response:
    """Disable a schedule.

    What a run has under way is finished, up to 100 items; what it had left to make up for is not.
    """
    return await rules.enable(request, Schedules, enabled=False)


@Operation(name="listScheduleRuns", query=rules.PAGE, replies=rules.RUNS, refuses=("not_found",))
async def runs(request: Request) -> Response:
    """List runs of a schedule.

    The last ones first; 1,000 are kept, for 30 days.
    """
    return await rules.runs(request, Schedules)


@Operation(name="previewSchedule", query=rules.COUNT, replies=rules.NEXT, refuses=("not_found",))
async def upcoming(request: Request) -> Response:
    """Preview the next runs of a schedule.

    In UTC and by the clock of its time zone, without the random delay.
    """
    return await rules.upcoming(request, Schedules)


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


routes = [
    Route(_PATH, index, methods=["GET"]),
    Resource("/v1/schedules/{name}", GET=get, PUT=put, DELETE=delete),
    Route("/v1/schedules/{name}/run", run, methods=["POST"]),
    Route("/v1/schedules/{name}/enable", enable, methods=["POST"]),
    Route("/v1/schedules/{name}/disable", disable, methods=["POST"]),
    Route("/v1/schedules/{name}/runs", runs, methods=["GET"]),
    Route("/v1/schedules/{name}/next", upcoming, methods=["GET"]),
]
