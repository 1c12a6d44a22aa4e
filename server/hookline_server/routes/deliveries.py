"""``/v1/deliveries``: webhooks that did not succeed at once, of all endpoints together."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.errors import Invalid
from hookline_server import body, deliveries, head
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import whole_of
from hookline_server.routes import resource
from hookline_server.routes.bulk import advance

_FIELDS = {"status": "status", "event": "event", "key": "item_key", "sortField": "item_sort_field"}
"""What deliveries are selected by -> the metadata that says it."""
_SELECTION = ("endpoint", "since", "until", *_FIELDS)


class Selected(Body):
    """Which deliveries; all that is left out selects all."""

    endpoint: str | None = None
    event: str | None = None
    key: str | None = None
    sort_field: str | None = None
    since: str | None = None
    until: str | None = None
    cursor: str | None = None

    def where(self) -> dict[str, Any]:
        """The filters."""
        given = {"event": self.event, "key": self.key, "sortField": self.sort_field}
        return _where({**given, "since": self.since, "until": self.until})


async def index(request: Request) -> Response:
    """The deliveries that match, endpoint by endpoint."""
    given = head.read_query(request, "limit", "cursor", *_SELECTION)
    limit = head.read_limit(given.get("limit", "50"))
    found, cursor = await deliveries.page(
        whole_of(request), _where(given), _endpoint(given.get("endpoint")), limit, given.get("cursor")
    )
    shown = {"items": [deliveries.describe(item) for item in found], "cursor": cursor}
    return Answer(shown, headers=head.next_page(request, given, cursor))


async def get(request: Request) -> Response:
    """One delivery, with its attempts and its body."""
    head.read_query(request)
    item = await deliveries.get(whole_of(request), request.path_params["id"])
    return Answer(deliveries.describe(item, whole=True))


async def redrive(request: Request) -> Response:
    """Put one failed delivery back in line."""
    head.read_query(request)
    return Answer(deliveries.describe(await deliveries.redrive(whole_of(request), request.path_params["id"])))


async def cancel(request: Request) -> Response:
    """Attempt one delivery no more."""
    head.read_query(request)
    return Answer(deliveries.describe(await deliveries.cancel(whole_of(request), request.path_params["id"])))


async def redrive_all(request: Request) -> Response:
    """Put all failed deliveries that match back in line, such as those since a time."""
    head.read_query(request)
    given = await body.read_json(request, Selected)
    steps = deliveries.redrive_all(whole_of(request), given.where(), _endpoint(given.endpoint), given.cursor)
    return await advance(steps)


async def cancel_all(request: Request) -> Response:
    """Cancel all that match of those that wait."""
    head.read_query(request)
    given = await body.read_json(request, Selected)
    steps = deliveries.cancel_all(whole_of(request), given.where(), _endpoint(given.endpoint), given.cursor)
    return await advance(steps)


def _where(given: dict[str, Any]) -> dict[str, Any]:
    where: dict[str, Any] = {field: given[name] for name, field in _FIELDS.items() if given.get(name) is not None}
    bounds = {test: given[name] for name, test in (("since", "gte"), ("until", "lt")) if given.get(name) is not None}
    return where | ({"occurred_at": bounds} if bounds else {})


def _endpoint(written: str | None) -> str | None:
    if written is not None and not re.fullmatch("[0-9a-f]{20}", written):
        raise Invalid.at("/endpoint", "expected the id of an endpoint: 20 hexadecimal digits")
    return written


routes = [
    Route("/v1/deliveries", index, methods=["GET"]),
    Route("/v1/deliveries/redrive", redrive_all, methods=["POST"]),
    Route("/v1/deliveries/cancel", cancel_all, methods=["POST"]),
    resource("/v1/deliveries/{id}", GET=get),
    Route("/v1/deliveries/{id}/redrive", redrive, methods=["POST"]),
    Route("/v1/deliveries/{id}/cancel", cancel, methods=["POST"]),
]
