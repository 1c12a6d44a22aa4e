"""``/v1/endpoints``: the URLs that webhooks go to, as far as something is known, or wanted, of them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hookline.errors import Invalid
from hookline.stats import Stats
from hookline.url import check_url
from hookline_server import body, head
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import whole_of
from hookline_server.endpoint import Endpoint, Endpoints, lane_of
from hookline_server.event import endpoint_of
from hookline_server.routes import resource


class NewEndpoint(Body):
    """The endpoint at a URL, to be configured before anything has gone wrong there."""

    url: str


class NewSettings(Body):
    """What people decide of an endpoint: what is left out, or null, has its default."""

    status: str | None = None
    reason: str | None = None
    concurrency: Any = None
    rate: Any = None


async def index(request: Request) -> Response:
    """The endpoints that are stored, with how many deliveries each has in which status."""
    given = head.read_query(request, "status", "limit", "cursor")
    where = {"status": given["status"]} if "status" in given else {}
    limit = head.read_limit(given.get("limit", "50"))
    found, cursor = await Endpoints(whole_of(request)).page(where, limit, given.get("cursor"))
    shown = [await _describe(request, endpoint) for endpoint in found]
    return Answer({"items": shown, "cursor": cursor}, headers=head.next_page(request, given, cursor))


async def post(request: Request) -> Response:
    """Store the endpoint at a URL, so that it can be configured: 201 with its id; also if it is there already."""
    head.read_query(request)
    url = (await body.read_json(request, NewEndpoint)).url
    try:
        check_url(url)
    except ValueError as error:
        raise Invalid.at("/url", str(error)) from None
    endpoints, endpoint_id = Endpoints(whole_of(request)), endpoint_of(url)
    await endpoints.note(endpoint_id, url, {})
    shown = await _describe(request, await endpoints.get(endpoint_id))
    return Answer(shown, 201, {"Location": f"/v1/endpoints/{endpoint_id}"})


async def get(request: Request) -> Response:
    """One endpoint."""
    head.read_query(request)
    return Answer(await _describe(request, await Endpoints(whole_of(request)).get(_id(request))))


async def put(request: Request) -> Response:
    """Replace what is decided of an endpoint. Made active, it begins anew; relays follow within a second."""
    head.read_query(request)
    given = (await body.read_json(request, NewSettings)).given()
    return Answer(await _describe(request, await Endpoints(whole_of(request)).configure(_id(request), given)))


async def _describe(request: Request, endpoint: Endpoint) -> dict[str, Any]:
    stats: Stats = await whole_of(request).stats(lane_of(endpoint.id))
    counts: dict[str, int] = {}
    for row in stats.rows:
        if row.status and row.count:
            counts[row.status] = counts.get(row.status, 0) + row.count
    return endpoint.to_dict() | {"deliveries": counts}


def _id(request: Request) -> str:
    endpoint_id: str = request.path_params["id"]
    return endpoint_id


routes = [
    resource("/v1/endpoints", GET=index, POST=post),
    resource("/v1/endpoints/{id}", GET=get, PUT=put),
]
