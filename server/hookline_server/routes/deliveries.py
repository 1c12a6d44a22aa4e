"""``/v1/deliveries``: webhooks that did not succeed at once, of all endpoints together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.clock import parse_time
from hookline.errors import Invalid
from hookline.item import EVENTS
from hookline_server import body, deliveries, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import whole_of
from hookline_server.fields import Cursor, PageLimit
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource
from hookline_server.routes.bulk import advance

_FIELDS = {"status": "status", "event": "event", "key": "item_key", "sortField": "item_sort_field"}
"""What deliveries are selected by -> the metadata that says it."""
_BOUNDS = {"since": "gte", "until": "lt"}
"""The ends of when the events were -> the comparison that each is."""
_SELECTION = ("endpoint", "since", "until", *_FIELDS)
_STATUSES = ("scheduled", "not_started", "started", "failed", "cancelled", "completed")

_Endpoint = Annotated[str, Meta(description="The id of an endpoint.")]
_Event = Annotated[str, Meta(description="What happened to the item.", extra_json_schema={"enum": list(EVENTS)})]
_Key = Annotated[str, Meta(description="The key of the item.")]
_SortField = Annotated[str, Meta(description="The sortField of the item.")]
_TIME = {"format": "date-time"}
_Since = Annotated[str, Meta(description="Events from this time on, RFC 3339.", extra_json_schema=_TIME)]
_Until = Annotated[str, Meta(description="Events before this time, RFC 3339.", extra_json_schema=_TIME)]


class SelectedDeliveries(Body):
    """Which deliveries; all that is left out selects all."""

    endpoint: _Endpoint | None = None
    event: _Event | None = None
    key: _Key | None = None
    sort_field: _SortField | None = None
    since: _Since | None = None
    until: _Until | None = None
    cursor: Cursor | None = None

    def where(self) -> dict[str, Any]:
        """The filters."""
        given = {"event": self.event, "key": self.key, "sortField": self.sort_field}
        return _where({**given, "since": self.since, "until": self.until})


@Operation(
    name="listDeliveries",
    query={
        "endpoint": _Endpoint,
        "status": Annotated[str, Meta(description="Their status.", extra_json_schema={"enum": list(_STATUSES)})],
        "event": _Event,
        "key": _Key,
        "sortField": _SortField,
        "since": _Since,
        "until": _Until,
        "limit": PageLimit,
        "cursor": Cursor,
    },
    replies={200: Reply("A page of deliveries, endpoint by endpoint.", shapes.Deliveries, ("Link",))},
)
async def index(request: Request) -> Response:
    """List webhooks that did not succeed at once.

    Those that match, endpoint by endpoint.
    """
    given = head.read_query(request, "limit", "cursor", *_SELECTION)
    _check_word("status", given.get("status"), _STATUSES)
    limit = head.read_limit(given.get("limit", "50"))
    found, cursor = await deliveries.page(
        whole_of(request), _where(given), _endpoint(given.get("endpoint")), limit, given.get("cursor")
    )
    shown = {"items": [deliveries.describe(item) for item in found], "cursor": cursor}
    return Answer(shown, headers=head.next_page(given, cursor))


@Operation(name="getDelivery", replies={200: Reply("The delivery.", shapes.WholeDelivery)}, refuses=("not_found",))
async def get(request: Request) -> Response:
    """Read a delivery.

    With its attempts and its body.
    """
    head.read_query(request)
    item = await deliveries.get(whole_of(request), request.path_params["delivery"])
    return Answer(deliveries.describe(item, whole=True))


@Operation(
    name="redriveDelivery",
    replies={200: Reply("It is back in line.", shapes.Delivery)},
    refuses=("not_found", "precondition_failed"),
    writes=True,
)
async def redrive(request: Request) -> Response:
    """Redrive a failed delivery."""
    head.read_query(request)
    return Answer(deliveries.describe(await deliveries.redrive(whole_of(request), request.path_params["delivery"])))


@Operation(
    name="cancelDelivery",
    replies={200: Reply("It is cancelled.", shapes.Delivery)},
    refuses=("not_found", "precondition_failed"),
    writes=True,
)
async def cancel(request: Request) -> Response:
    """Cancel a delivery.

    An attempt under way may still arrive.
    """
    head.read_query(request)
    return Answer(deliveries.describe(await deliveries.cancel(whole_of(request), request.path_params["delivery"])))


@Operation(
    name="redriveDeliveries",
    takes={JSON: (SelectedDeliveries,)},
    example={"since": "2027-01-01T00:00:00Z"},
    replies={200: Reply("How far it is.", shapes.Progress)},
    writes=True,
)
async def redrive_all(request: Request) -> Response:
    """Redrive all failed deliveries that match.

    Such as those since a time.
    """
    head.read_query(request)
    given = await body.read_json(request, SelectedDeliveries)
    steps = deliveries.redrive_all(whole_of(request), given.where(), _endpoint(given.endpoint), given.cursor)
    return await advance(steps)


@Operation(
    name="cancelDeliveries",
    takes={JSON: (SelectedDeliveries,)},
    example={"key": "jobs"},
    replies={200: Reply("How far it is.", shapes.Progress)},
    writes=True,
)
async def cancel_all(request: Request) -> Response:
    """Cancel all waiting deliveries that match."""
    head.read_query(request)
    given = await body.read_json(request, SelectedDeliveries)
    steps = deliveries.cancel_all(whole_of(request), given.where(), _endpoint(given.endpoint), given.cursor)
    return await advance(steps)


def _check_word(name: str, written: str | None, words: Sequence[str]) -> None:
    if written is not None and written not in words:
        raise Invalid.at(f"/{name}", f"expected one of {', '.join(words)}")


def _where(given: dict[str, Any]) -> dict[str, Any]:
    _check_word("event", given.get("event"), EVENTS)
    where: dict[str, Any] = {field: given[name] for name, field in _FIELDS.items() if given.get(name) is not None}
    bounds = {test: _time(name, given[name]) for name, test in _BOUNDS.items() if given.get(name) is not None}
    return where | ({"occurred_at": bounds} if bounds else {})


def _time(name: str, written: str) -> str:
    try:
        parse_time(written)
    except ValueError as error:
        raise Invalid.at(f"/{name}", str(error)) from None
    return written


def _endpoint(written: str | None) -> str | None:
    if written is not None and not re.fullmatch("[0-9a-f]{20}", written):
        raise Invalid.at("/endpoint", "expected the id of an endpoint: 20 hexadecimal digits")
    return written


routes = [
    Route("/v1/deliveries", index, methods=["GET"]),
    Route("/v1/deliveries/redrive", redrive_all, methods=["POST"]),
    Route("/v1/deliveries/cancel", cancel_all, methods=["POST"]),
    Resource("/v1/deliveries/{delivery}", GET=get),
    Route("/v1/deliveries/{delivery}/redrive", redrive, methods=["POST"]),
    Route("/v1/deliveries/{delivery}/cancel", cancel, methods=["POST"]),
]
