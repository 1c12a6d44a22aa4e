"""``/v1/orchestrations``: stored rules that claim items with triggers on."""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.errors import NotFound
from hookline.grant import ADMIN
from hookline.item import check_key
from hookline_server import body, head
from hookline_server.answer import Answer
from hookline_server.caller import caller_of
from hookline_server.orchestrator import ORCHESTRATIONS, Orchestration, Orchestrator, describe
from hookline_server.routes import resource
from hookline_server.view import describe_claimed

LIST_MAX = 1000


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


async def put(request: Request) -> Response:
    """Store a rule; with ``every`` the servers run it, first at once."""
    head.read_query(request)
    rule = await body.read_json(request, Orchestration)
    caller_of(request).grant.check(ADMIN, rule.key)
    await _check_stored(request)
    item = await _orchestrator(request).put(_name(request), rule)
    if item.version > 1:
        return Answer(describe(item))
    return Answer(describe(item), 201, {"Location": f"/v1/orchestrations/{item.sort_field}"})


async def get(request: Request) -> Response:
    """One rule, with its last and next run."""
    head.read_query(request)
    item = await _orchestrator(request).get(_name(request))
    caller_of(request).grant.check(ADMIN, item.content["key"])
    return Answer(describe(item))


async def index(request: Request) -> Response:
    """All rules, in order of name."""
    head.read_query(request)
    caller = caller_of(request)
    page = await caller.whole.query(ORCHESTRATIONS, limit=LIST_MAX)
    shown = [describe(item) for item in page.items if caller.grant.covers(item.content["key"])]
    return Answer({"items": shown, "cursor": page.cursor})


async def delete(request: Request) -> Response:
    """Remove a rule; what it claimed stays claimed."""
    head.read_query(request)
    await _check_stored(request)
    await _orchestrator(request).delete(_name(request))
    return Answer(status=204)


async def run(request: Request) -> Response:
    """Run a rule now, by hand."""
    head.read_query(request)
    await _check_stored(request)
    return Answer(describe_claimed(await _orchestrator(request).run_once(_name(request))))


routes = [
    Route("/v1/orchestrations", index, methods=["GET"]),
    resource("/v1/orchestrations/{name}", GET=get, PUT=put, DELETE=delete),
    Route("/v1/orchestrations/{name}/run", run, methods=["POST"]),
]
