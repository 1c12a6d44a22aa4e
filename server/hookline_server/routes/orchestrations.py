"""``/v1/orchestrations``: stored rules that claim items with triggers on."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.item import check_key
from hookline_server import body, head
from hookline_server.answer import Answer
from hookline_server.orchestrator import ORCHESTRATIONS, Orchestration, Orchestrator, describe
from hookline_server.routes import resource
from hookline_server.view import describe_claimed

LIST_MAX = 1000


def _name(request: Request) -> str:
    return check_key(request.path_params["name"], "/name")


async def put(request: Request) -> Response:
    """Store a rule; with ``every`` the servers run it, first at once."""
    head.read_query(request)
    orchestrator: Orchestrator = request.app.state.orchestrations
    item = await orchestrator.put(_name(request), await body.read_json(request, Orchestration))
    if item.version > 1:
        return Answer(describe(item))
    return Answer(describe(item), 201, {"Location": f"/v1/orchestrations/{item.sort_field}"})


async def get(request: Request) -> Response:
    """One rule, with its last and next run."""
    head.read_query(request)
    orchestrator: Orchestrator = request.app.state.orchestrations
    return Answer(describe(await orchestrator.get(_name(request))))


async def index(request: Request) -> Response:
    """All rules, in order of name."""
    head.read_query(request)
    page = await request.app.state.datastore.query(ORCHESTRATIONS, limit=LIST_MAX)
    return Answer({"items": [describe(item) for item in page.items], "cursor": page.cursor})


async def delete(request: Request) -> Response:
    """Remove a rule; what it claimed stays claimed."""
    head.read_query(request)
    orchestrator: Orchestrator = request.app.state.orchestrations
    await orchestrator.delete(_name(request))
    return Answer(status=204)


async def run(request: Request) -> Response:
    """Run a rule now, by hand."""
    head.read_query(request)
    orchestrator: Orchestrator = request.app.state.orchestrations
    return Answer(describe_claimed(await orchestrator.run_once(_name(request))))


routes = [
    Route("/v1/orchestrations", index, methods=["GET"]),
    resource("/v1/orchestrations/{name}", GET=get, PUT=put, DELETE=delete),
    Route("/v1/orchestrations/{name}/run", run, methods=["POST"]),
]
