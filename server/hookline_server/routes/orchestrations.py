"""``/v1/orchestrations``: stored rules that claim items with triggers on."""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.errors import NotFound
from hookline.grant import ADMIN
from hookline.item import check_key
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import JSON
from hookline_server.caller import caller_of
from hookline_server.operation import Operation, Reply
from hookline_server.orchestrator import ORCHESTRATIONS, Orchestration, Orchestrator, describe
from hookline_server.routes import Resource
from hookline_server.view import describe_claimed

LIST_MAX = 1000
_EXAMPLE = {"key": "jobs", "where": {"type": "report_generation"}, "limit": 10, "every": "1m"}


def _name(request: Request) -> str:
    return check_key(request.path_params["name"], "/name")


def _orchestrator(request: Request) -> Orchestrator:
    # Rules are kept in a key of the engine's own. What an API key is limited to are the keys that they claim from.
    return Orchestrator(caller_of(request).whole)


async def _check_stored(request: Request) -> None:
    """Refuse to touch a rule for a key that the caller is not allowed.

    Raises:
        KeyNotAllowed
    """
    grant = caller_of(request).grant
    if grant.patterns:
        with contextlib.suppress(NotFound):
            grant.check(ADMIN, (await _orchestrator(request).get(_name(request))).content["key"])


@Operation(
    name="putOrchestration",
    takes={JSON[0]: (Orchestration,)},
    example=_EXAMPLE,
    replies={
        201: Reply(
            "The rule is new.",
            shapes.StoredOrchestration,
            ("Location",),
            links=("getOrchestration", "runOrchestration", "deleteOrchestration"),
        ),
        200: Reply("The rule was replaced.", shapes.StoredOrchestration),
    },
    refuses=("reserved_key",),
    writes=True,
)
async def put(request: Request) -> Response:
    """Store an orchestration.

    A rule that claims matching items with triggers on. With ``every`` the servers run it, first at once.
    """
    head.read_query(request)
    rule = await body.read_json(request, Orchestration)
    caller_of(request).grant.check(ADMIN, rule.key)
    await _check_stored(request)
    item = await _orchestrator(request).put(_name(request), rule)
    if item.version > 1:
        return Answer(describe(item))
    return Answer(describe(item), 201, {"Location": f"/v1/orchestrations/{item.sort_field}"})


@Operation(
    name="getOrchestration", replies={200: Reply("The rule.", shapes.StoredOrchestration)}, refuses=("not_found",)
)
async def get(request: Request) -> Response:
    """Read an orchestration.

    With its last and next run.
    """
    head.read_query(request)
    item = await _orchestrator(request).get(_name(request))
    caller_of(request).grant.check(ADMIN, item.content["key"])
    return Answer(describe(item))


@Operation(name="listOrchestrations", replies={200: Reply("The rules.", shapes.Orchestrations)})
async def index(request: Request) -> Response:
    """List orchestrations.

    All rules, in order of name.
    """
    head.read_query(request)
    caller = caller_of(request)
    page = await caller.whole.query(ORCHESTRATIONS, limit=LIST_MAX)
    shown = [describe(item) for item in page.items if caller.grant.covers(item.content["key"])]
    return Answer({"items": shown, "cursor": page.cursor})


@Operation(name="deleteOrchestration", replies={204: Reply("It is gone.")}, refuses=("not_found",), writes=True)
async def delete(request: Request) -> Response:
    """Delete an orchestration.

    What it claimed stays claimed.
    """
    head.read_query(request)
    await _check_stored(request)
    await _orchestrator(request).delete(_name(request))
    return Answer(status=204)


@Operation(
    name="runOrchestration",
    replies={200: Reply("What it claimed.", shapes.Claimed)},
    refuses=("not_found", "paused", "outbox_full"),
    writes=True,
)
async def run(request: Request) -> Response:
    """Run an orchestration now."""
    head.read_query(request)
    await _check_stored(request)
    return Answer(describe_claimed(await _orchestrator(request).run_once(_name(request))))


routes = [
    Route("/v1/orchestrations", index, methods=["GET"]),
    Resource("/v1/orchestrations/{name}", GET=get, PUT=put, DELETE=delete),
    Route("/v1/orchestrations/{name}/run", run, methods=["POST"]),
]
