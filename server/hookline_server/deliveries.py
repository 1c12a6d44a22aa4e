"""Reading and changing deliveries by hand: those of all lanes together."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from hookline import Datastore, Item, bulk
from hookline.bulk import Progress
from hookline.depth import key_names
from hookline.errors import Invalid, NotFound, PreconditionFailed
from hookline.outcome import item_of
from hookline_server.delivery import WAITING, read
from hookline_server.endpoint import DELIVERIES, lane_of
from hookline_server.role import Surviving
from hookline_server.turns import Turns

log = logging.getLogger(__name__)

_ID = re.compile(r"([0-9a-f]{20})\.([!-~]{1,200})", re.ASCII)
_LANES_A_PAGE = 100
"""Lanes that one page looks into: behind that many it is shorter, with a cursor."""
REDRIVABLE = ("failed", "cancelled")
_NONE = "no delivery has this id; what succeeded at once is kept only where its key has recordDeliveries"


def id_of(item: Item) -> str:
    """What a delivery is called outside: its endpoint, and its webhook-id."""
    return f"{item.key.removeprefix(DELIVERIES)}.{item.sort_field}"


def read_id(written: str) -> tuple[str, str]:
    """The id of a delivery -> its lane and its webhook-id.

    Raises:
        NotFound: no delivery has such an id.
    """
    match = _ID.fullmatch(written)
    if match is None:
        raise NotFound("no delivery has this id")
    return lane_of(match[1]), match[2]


def describe(item: Item, *, whole: bool = False) -> dict[str, Any]:
    """A delivery as it reads over HTTP; ``whole`` with the body that it posts, as far as it is still kept."""
    content, known = item.content, item.metadata
    shown = {
        "id": id_of(item),
        "endpoint": item.key.removeprefix(DELIVERIES),
        "url": content["url"],
        "webhookId": content["webhookId"],
        "event": known.get("event"),
        "item": content["source"],
        "status": item.status,
        "attempts": known["attempts"],
        "maxAttempts": known.get("max_attempts"),
        "nextAt": known.get("scheduled_at") if item.status == "scheduled" else None,
        "lastError": known.get("last_error"),
        "occurredAt": known.get("occurred_at"),
        "createdAt": item.created_at,
        "updatedAt": item.updated_at,
        "log": known.get("attempt_log", []),
    }
    return shown | ({"payload": content.get("payload")} if whole else {})


async def get(datastore: Datastore, delivery_id: str) -> Item:
    """One delivery.

    Raises:
        NotFound: there is none of this id; one that succeeded at once is kept only where its key has recordDeliveries.
        Corrupt, Unavailable
    """
    lane, sort_field = read_id(delivery_id)
    try:
        return await datastore.get(lane, sort_field)
    except NotFound:
        raise NotFound(_NONE) from None


async def page(
    datastore: Datastore, where: Mapping[str, Any], endpoint: str | None, limit: int, cursor: str | None
) -> tuple[list[Item], str | None]:
    """Some of the deliveries that match, of one endpoint or of all, one after the other; and where to go on.

    It is shorter, with a cursor, where a lane has more than one query looks at.

    Raises:
        Invalid: the cursor is not one of this query.
        Corrupt, Unavailable
    """
    found: list[Item] = []
    for place, (lane, inner) in enumerate(await _lanes(datastore, endpoint, cursor), 1):
        step = await datastore.query(lane, where=where, limit=limit - len(found), cursor=inner)
        found += step.items
        if step.cursor is not None or len(found) == limit or place == _LANES_A_PAGE:
            return found, f"{lane.removeprefix(DELIVERIES)}.{step.cursor or ''}"
    return found, None


async def redrive(datastore: Datastore, delivery_id: str) -> Item:
    """Put a delivery that failed, or was cancelled, back in line, with all its attempts before it.

    Raises:
        NotFound: there is none of this id.
        PreconditionFailed: it is in another status.
        Corrupt, Unavailable, OutcomeUnknown
    """
    return await _set_status(datastore, delivery_id, REDRIVABLE, "not_started")


async def cancel(datastore: Datastore, delivery_id: str) -> Item:
    """Attempt a delivery no more; an attempt under way may still arrive.

    Raises:
        NotFound: there is none of this id.
        PreconditionFailed: it has ended already.
        Corrupt, Unavailable, OutcomeUnknown
    """
    item = await _set_status(datastore, delivery_id, WAITING, "cancelled")
    await _pass_on(datastore, item)
    return item


async def _pass_on(datastore: Datastore, item: Item) -> None:
    """One was cancelled: where its trigger is ordered, it is the turn of the next. Best effort: it asks as well."""
    with Surviving(log, f"the turn behind {item.sort_field}"):
        delivery = read(item)
        if delivery.target.options.ordered:
            await Turns(datastore).end(delivery)


async def _set_status(datastore: Datastore, delivery_id: str, before: tuple[str, ...], status: str) -> Item:
    lane, sort_field = read_id(delivery_id)
    only_if = {"status": {"in": list(before)}}
    try:
        outcome = await datastore.update(
            lane, sort_field, metadata={"status": status}, only_if=only_if, triggers=False, reserved=True
        )
    except NotFound:
        raise NotFound(_NONE) from None
    except PreconditionFailed:  # without its item, which is the engine's own form of a delivery
        raise PreconditionFailed(f"the delivery is not in one of {', '.join(before)}") from None
    return item_of(outcome)


async def redrive_all(
    datastore: Datastore, where: Mapping[str, Any], endpoint: str | None, cursor: str | None
) -> AsyncGenerator[Progress, None]:
    """Put all failed deliveries that match back in line.

    Raises:
        Invalid, Corrupt, Unavailable, OutcomeUnknown
    """
    async for progress in _change_all(datastore, bulk.redrive, where, endpoint, cursor):
        yield progress


async def cancel_all(
    datastore: Datastore, where: Mapping[str, Any], endpoint: str | None, cursor: str | None
) -> AsyncGenerator[Progress, None]:
    """Cancel all that match of those that wait.

    Raises:
        Invalid, Corrupt, Unavailable, OutcomeUnknown
    """
    wanted = {"status": {"in": list(WAITING)}, **where}
    change = partial(bulk.cancel, then=partial(_pass_on, datastore.unmarked()))
    async for progress in _change_all(datastore, change, wanted, endpoint, cursor):
        yield progress


async def _change_all(
    datastore: Datastore, change: Any, where: Mapping[str, Any], endpoint: str | None, cursor: str | None
) -> AsyncGenerator[Progress, None]:
    done = passed_over = 0
    lanes = await _lanes(datastore, endpoint, cursor)
    for place, (lane, inner) in enumerate(lanes):
        async for step in change(datastore, lane, dict(where), cursor=inner, reserved=True):
            at = None
            if step.cursor is not None:
                at = f"{lane.removeprefix(DELIVERIES)}.{step.cursor}"
            elif place + 1 < len(lanes):
                at = f"{lane.removeprefix(DELIVERIES)}."
            yield Progress(done + step.done, passed_over + step.passed_over, at)
        done, passed_over = done + step.done, passed_over + step.passed_over
    if not lanes:
        yield Progress(0, 0, None)


async def _lanes(datastore: Datastore, endpoint: str | None, cursor: str | None) -> list[tuple[str, str | None]]:
    """The lanes that are still to be looked into, in order, each with the cursor to begin at."""
    if endpoint is None:
        known, _ = await key_names(datastore.connection, datastore.calls.partitions, "r:hookline", pages=sys.maxsize)
        names = [name for name in known if name.startswith(DELIVERIES)]
    else:
        names = [lane_of(endpoint)]
    if cursor is None:
        return [(name, None) for name in names]
    reached, dot, inner = cursor.partition(".")
    if not dot or not re.fullmatch(r"[0-9a-f]{20}", reached):
        raise Invalid.at("/cursor", "expected the cursor of the page before")
    if endpoint not in (None, reached):
        raise Invalid.at("/cursor", "expected the cursor of the page before, of the same endpoint")
    here: list[tuple[str, str | None]] = [(lane_of(reached), inner)] if inner else []
    return here + [(name, None) for name in names if name > lane_of(reached)]
