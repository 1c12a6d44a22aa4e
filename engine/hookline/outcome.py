"""What became of an operation, and what a claim took."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hookline.errors import REFUSALS, HooklineError
from hookline.item import Item

WARNINGS = {
    "lock_past": "locked_until is already past: anyone may claim the item at once",
    "lock_ignored": "locked_until was dropped: only an item with status started is locked",
    "never_due": "scheduled_at does nothing on an item without status: with status scheduled it is a job for then",
}


class Outcome(msgspec.Struct, frozen=True):
    """What became of one operation.

    ``word`` is ``ok`` or the code of an error. ``item`` is the item after it (or, refused, as it stands); settling
    gives only ``version``, ``status`` and ``locked_until_ms``. ``warnings`` are sentences. ``version`` is the one that
    the operation made, also where the answer had to be asked for again and the item has moved on. ``failure`` is the
    store's, where among many operations this one met it. ``replayed``: this is the answer of before, under the same
    idempotency key. ``detail`` is what its error says, where that is not the usual.
    """

    word: str
    key: str
    sort_field: str
    item: Item | None = None
    warnings: tuple[str, ...] = ()
    version: int | None = None
    status: str | None = None
    locked_until_ms: int | None = None
    failure: HooklineError | None = None
    replayed: bool = False
    detail: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the operation was accepted."""
        return self.word == "ok"

    def error(self) -> HooklineError:
        """The error of an operation that was not accepted."""
        return self.failure or REFUSALS[self.word](self.detail, item=self.item)


def item_of(outcome: Outcome) -> Item:
    """The item that an accepted write gives."""
    if outcome.item is None:
        raise TypeError(f"{outcome.word}: an accepted write shows its item")
    return outcome.item


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change of all that match came to. ``passed_over`` were changed by others after they had been found."""

    done: int
    passed_over: int


class Claimed(msgspec.Struct, frozen=True):
    """What a claim took. ``next_ms`` is when there may be more: the earliest due time or lock expiry.

    ``more`` says that one call's work did not reach to the end; then ``after`` is where it ended, having examined so
    many.
    ``failure`` is what kept it from taking more, or anything, where the caller has something else to learn as well.
    ``replayed``: this is the answer of before, under the same idempotency key, but for ``gone`` items that were deleted
    since. ``expired`` of the items were taken over from a lock that had expired; beside them ``buried`` were found out
    of attempts, and ``lost`` were taken by another claim first. ``held``, of a claim with a bound: the sortFields of
    what its worker holds, these items included; ``barred``: nothing was taken, for another claim had counted since.
    ``left``: something stays in line that could not be taken.
    ``paused``: the key is, so nothing of it can be claimed. ``empty``, of a claim with filters: nothing is in line at
    all. ``broken``: sortField and token of what was taken
    and can be no item: that becomes a dead letter.
    """

    items: list[Item]
    next_ms: int | None = None
    more: bool = False
    after: list[bytes] | None = None
    examined: int = 0
    failure: HooklineError | None = None
    replayed: bool = False
    gone: int = 0
    expired: int = 0
    buried: int = 0
    lost: int = 0
    held: tuple[str, ...] = ()
    barred: str | None = None
    paused: bool = False
    empty: bool = False
    left: bool = False
    broken: tuple[tuple[str, str], ...] = ()
