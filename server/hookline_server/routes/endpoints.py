"""``/v1/endpoints``: the URLs that webhooks go to, as far as something is known, or wanted, of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from hookline.depth import read_depths
from hookline.errors import Invalid
from hookline.url import check_url
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import whole_of
from hookline_server.endpoint import (
    ACTIVE,
    CONCURRENCY_MAX,
    DISABLED,
    PAUSED,
    RATE_MAX,
    REASON_MAX,
    Endpoint,
    Endpoints,
    check_status,
    lane_of,
)
from hookline_server.event import endpoint_of
from hookline_server.fields import Cursor, PageLimit
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource

Status = Annotated[
    str,
    Meta(description="Whether webhooks go there.", extra_json_schema={"enum": [ACTIVE, PAUSED, DISABLED]}),
]


class NewEndpoint(Body):
    """The endpoint at a URL, to be configured before anything has gone wrong there."""

    url: Annotated[
        str,
        Meta(
            description="Where webhooks go to, as triggers write it.",
            extra_json_schema={"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength": 2048},
        ),
    ]


class EndpointSettings(Body):
    """What people decide of an endpoint: what is left out, or null, has its default."""

    status: Status | None = None
    reason: Annotated[str, Meta(description="Why, for people.", extra_json_schema={"maxLength": REASON_MAX})] | None = (
        None
    )
    concurrency: (
        Annotated[
            int,
            Meta(
                description="Attempts at once, of each server.",
                extra_json_schema={"minimum": 1, "maximum": CONCURRENCY_MAX},
            ),
        ]
        | None
    ) = None
    rate: (
        Annotated[
            float,
            Meta(
                description="Attempts a second, of each server.",
                extra_json_schema={"exclusiveMinimum": 0, "maximum": RATE_MAX},
            ),
        ]
        | None
    ) = None


@Operation(
    name="listEndpoints",
    query={
        "status": Status,
        "limit": PageLimit,
        "cursor": Cursor,
    },
    replies={200: Reply("A page of endpoints.", shapes.Endpoints, ("Link",))},
)
async def index(request: Request) -> Response:
    """List endpoints.

    Those that failed, or were configured, with how many deliveries each has in which status.
    """
    given = head.read_query(request, "status", "limit", "cursor")
    where = {"status": check_status(given["status"])} if "status" in given else {}
    limit = head.read_limit(given.get("limit", "50"))
    found, cursor = await Endpoints(whole_of(request)).page(where, limit, given.get("cursor"))
    shown = await _describe(request, found)
    return Answer({"items": shown, "cursor": cursor}, headers=head.next_page(given, cursor))


@Operation(
    name="createEndpoint",
    takes={JSON: (NewEndpoint,)},
    example={"url": "https://worker.example/run"},
    replies={201: Reply("The endpoint, also if it was there already.", shapes.Endpoint, ("Location",))},
    writes=True,
)
async def post(request: Request) -> Response:
    """Store the endpoint at a URL.

    So that it can be configured before anything failed there.
    """
    head.read_query(request)
    url = (await body.read_json(request, NewEndpoint)).url
    try:
        check_url(url)
    except ValueError as error:
        raise Invalid.at("/url", str(error)) from None
    endpoints, endpoint_id = Endpoints(whole_of(request)), endpoint_of(url)
    await endpoints.note(endpoint_id, url, {})
    (shown,) = await _describe(request, [await endpoints.get(endpoint_id)])
    return Answer(shown, 201, {"Location": f"/v1/endpoints/{endpoint_id}"})


@Operation(name="getEndpoint", replies={200: Reply("The endpoint.", shapes.Endpoint)}, refuses=("not_found",))
async def get(request: Request) -> Response:
    """Read an endpoint."""
    head.read_query(request)
    (shown,) = await _describe(request, [await Endpoints(whole_of(request)).get(_id(request))])
    return Answer(shown)


@Operation(
    name="putEndpoint",
    takes={JSON: (EndpointSettings,)},
    example={"status": "paused", "reason": "maintenance"},
    replies={200: Reply("The endpoint as it is now.", shapes.Endpoint)},
    refuses=("not_found",),
    writes=True,
)
async def put(request: Request) -> Response:
    """Configure an endpoint.

    Replaces what was decided. Made active, it begins anew; relays follow within a second.
    """
    head.read_query(request)
    given = (await body.read_json(request, EndpointSettings)).given()
    (shown,) = await _describe(request, [await Endpoints(whole_of(request)).configure(_id(request), given)])
    return Answer(shown)


async def _describe(request: Request, endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    datastore = whole_of(request)
    lanes = [lane_of(endpoint.id) for endpoint in endpoints]
    depths = (await read_depths(datastore.connection, datastore.calls.partitions, lanes)).keys
    return [
        endpoint.to_dict() | {"deliveries": {status: count for status, count in depth.statuses.items() if count}}
        for endpoint, depth in zip(endpoints, depths, strict=True)
    ]


def _id(request: Request) -> str:
    endpoint_id: str = request.path_params["endpoint"]
    return endpoint_id


routes = [
    Resource("/v1/endpoints", GET=index, POST=post),
    Resource("/v1/endpoints/{endpoint}", GET=get, PUT=put),
]
