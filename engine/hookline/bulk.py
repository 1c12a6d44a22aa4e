"""Changes to all items that match: delete, redrive, cancel. In bounded steps that say how far they are."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hookline.call import Call
from hookline.clock import parse_time
from hookline.errors import Corrupt, HooklineError, Invalid, OutboxFull, ReservedKey
from hookline.item import RESERVED_PREFIX, Item, check_key
from hookline.where import require_where

if TYPE_CHECKING:
    from hookline.datastore import Datastore

STEP = 100
"""Items of one step."""
_ENDS = (OutboxFull.code, Corrupt.code)
Then = Callable[[Item], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a change of many has come. With ``cursor`` it can be gone on with; None: it is through.

    ``passed_over`` counts the items that changed, or went, between being found and being changed.
    """

    done: int
    passed_over: int
    cursor: str | None


def delete(
    datastore: Datastore,
    key: str,
    where: object,
    *,
    triggers: bool = True,
    cursor: str | None = None,
    reserved: bool = False,
) -> AsyncGenerator[Progress, None]:
    """Delete the items of a key that match; ``{}`` is every item, and None is refused.

    Raises:
        Invalid, ReservedKey, OutboxFull, Corrupt, Unavailable, OutcomeUnknown
    """
    require_where(where)

    def call(item: Item) -> Call:
        return datastore.calls.delete(key, item.sort_field, version=item.version, triggers=triggers, reserved=reserved)

    return _change(datastore, key, where, call, cursor, reserved=reserved)


def redrive(
    datastore: Datastore,
    key: str,
    where: dict[str, Any] | None = None,
    *,
    cursor: str | None = None,
    reserved: bool = False,
) -> AsyncGenerator[Progress, None]:
    """Put the dead letters of a key that match back in line, with all their attempts before them.

    Raises:
        Invalid, ReservedKey, OutboxFull, Corrupt, Unavailable, OutcomeUnknown
    """
    return _set_status(datastore, key, {**(where or {}), "status": "failed"}, "not_started", cursor, reserved=reserved)


def cancel(
    datastore: Datastore,
    key: str,
    where: dict[str, Any] | None = None,
    *,
    cursor: str | None = None,
    reserved: bool = False,
    then: Then | None = None,
) -> AsyncGenerator[Progress, None]:
    """Cancel the items of a key that match: by default those ``not_started``. Who holds one learns of it as it extends.

    ``then`` is told of each that was cancelled, as it was found.

    Raises:
        Invalid, ReservedKey, OutboxFull, Corrupt, Unavailable, OutcomeUnknown
    """
    where = {"status": "not_started", **(where or {})}
    return _set_status(datastore, key, where, "cancelled", cursor, reserved=reserved, then=then)


async def advance(steps: AsyncGenerator[Progress, None], enough: Callable[[Progress], bool]) -> Progress:
    """Go on with a change until it is through, or it is ``enough`` -> how far it is.

    What fails after the first step is met again by who goes on; until then what was done is told.

    Raises:
        HooklineError: of the first step.
    """
    progress: Progress | None = None
    async with aclosing(steps):
        try:
            async for progress in steps:
                if enough(progress):
                    break
        except HooklineError:
            if progress is None:
                raise
    if progress is None:
        raise TypeError("a change of many tells of every step")
    return progress


def _set_status(
    datastore: Datastore,
    key: str,
    where: dict[str, Any],
    status: str,
    cursor: str | None,
    *,
    reserved: bool,
    then: Then | None = None,
) -> AsyncGenerator[Progress, None]:
    def call(item: Item) -> Call:
        return datastore.calls.update(
            key, item.sort_field, metadata={"status": status}, version=item.version, reserved=reserved
        )

    return _change(datastore, key, where, call, cursor, reserved=reserved, then=then)


async def _change(
    datastore: Datastore,
    key: str,
    where: object,
    call: Callable[[Item], Call],
    cursor: str | None,
    *,
    reserved: bool = False,
    then: Then | None = None,
) -> AsyncGenerator[Progress, None]:
    """Walk the items that match and change each at the version that was found, which it is once.

    What changes while it runs comes by again at the end of its index: that is passed over, so the walk has an end.
    Of a step that fails half way the part that was done is told first, with a cursor by which the rest is found again.
    """
    if check_key(key).startswith(RESERVED_PREFIX) and not reserved:
        raise ReservedKey
    datastore = datastore.unmarked()
    begun, cursor = _read_cursor(cursor) if cursor else (await datastore.connection.now_ms(), None)
    done = passed_over = 0
    while True:
        page = await datastore.query(key, where=where, limit=STEP, cursor=cursor)
        wanted = [item for item in page.items if parse_time(item.updated_at) <= begun]
        outcomes = await datastore.run([call(item) for item in wanted])
        failure = next((each.error() for each in outcomes if each.failure or each.word in _ENDS), None)
        changed = [item for item, outcome in zip(wanted, outcomes, strict=True) if outcome.ok]
        if failure and not changed:
            raise failure
        if then:
            for item in changed:
                await then(item)
        done += len(changed)
        if failure:
            yield Progress(done, passed_over, f"{begun}-{cursor or ''}")
            raise failure
        passed_over, cursor = passed_over + len(page.items) - len(changed), page.cursor
        yield Progress(done, passed_over, cursor and f"{begun}-{cursor}")
        if cursor is None:
            return


def _read_cursor(cursor: str) -> tuple[int, str | None]:
    """When the walk began, which stays the bound of what it changes, and where its query goes on, or begins: None."""
    begun, dash, rest = cursor.partition("-")
    if not (dash and begun.isascii() and begun.isdigit() and len(begun) <= 15):
        raise Invalid.at("/cursor", "expected the cursor of the steps before, with the same key and filters")
    return int(begun), rest or None
