"""Changes to all items of a key that match: cancel, redrive, delete. A request makes a bounded part of them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import bulk
from hookline.bulk import Progress
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import datastore_of
from hookline_server.fields import Cursor, Filters
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes.item import TRIGGERS
from hookline_server.view import describe_progress

ITEMS_MAX, SECONDS_MAX = 1000, 1.0
"""What one request changes, or passes over, at most, but for the rest of a step; and how long it takes for that."""


class Selected(Body):
    """Which items of the key, and from where on."""

    where: Filters | UnsetType = UNSET
    cursor: Cursor | UnsetType | None = UNSET


class Doomed(Body):
    """Which items are to be deleted: all of the key only if ``where`` says so, by having no filters."""

    where: Filters
    cursor: Cursor | None = None


_DONE = {200: Reply("How far it is.", shapes.Progress)}


@Operation(
    name="cancelJobs",
    takes={JSON: (Selected,)},
    example={"where": {"type": "report_generation"}},
    replies=_DONE,
    refuses=("reserved_key", "outbox_full"),
    writes=True,
)
async def cancel(request: Request) -> Response:
    """Cancel the items that match.

    Those with status ``not_started``, unless ``where`` names another: scheduled ones only then. With a ``cursor`` in
    the answer, send the same again with it.
    """
    head.read_query(request)
    given = (await body.read_json(request, Selected)).given()
    return await advance(bulk.cancel(datastore_of(request), head.read_key(request), **given))


@Operation(
    name="redriveJobs",
    takes={JSON: (Selected,)},
    example={"where": {"type": "report_generation"}},
    replies=_DONE,
    refuses=("reserved_key", "outbox_full"),
    writes=True,
)
async def redrive(request: Request) -> Response:
    """Put the dead letters that match back in line.

    Those with status ``failed``. With a ``cursor`` in the answer, send the same again with it.
    """
    head.read_query(request)
    given = (await body.read_json(request, Selected)).given()
    return await advance(bulk.redrive(datastore_of(request), head.read_key(request), **given))


@Operation(
    name="deleteItems",
    query=TRIGGERS,
    takes={JSON: (Doomed,)},
    example={"where": {"status": "completed", "completed_at": {"lt": "2024-01-01T00:00:00Z"}}},
    replies=_DONE,
    refuses=("reserved_key", "outbox_full"),
    writes=True,
)
async def delete(request: Request) -> Response:
    """Delete the items that match.

    ``where`` must be there, and ``{}`` is every item of the key. With a ``cursor`` in the answer, send the same again
    with it.
    """
    triggers = head.read_triggers(request)
    given = (await body.read_json(request, Doomed)).given()
    return await advance(bulk.delete(datastore_of(request), head.read_key(request), triggers=triggers, **given))


async def advance(steps: AsyncGenerator[Progress, None]) -> Response:
    """As many steps as one request may take."""
    until = time.monotonic() + SECONDS_MAX

    def enough(progress: Progress) -> bool:
        return progress.done + progress.passed_over >= ITEMS_MAX or time.monotonic() >= until

    return Answer(describe_progress(await bulk.advance(steps, enough)))


routes = [
    Route("/v1/jobs/{key}/cancel", cancel, methods=["POST"]),
    Route("/v1/jobs/{key}/redrive", redrive, methods=["POST"]),
    # An item whose sortField is "delete" has every method but this.
    Route("/v1/items/{key}/delete", delete, methods=["POST"]),
]
