"""Rules as values: what is to be done, and when; and what is told of one that is stored. No store."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec

from hookline.bound import check_max_in_flight
from hookline.calls import CLAIM_MAX
from hookline.clock import Duration, format_time, parse_duration
from hookline.errors import Invalid, ReservedKey
from hookline.item import NOT_STARTED, RESERVED_PREFIX, Trigger, check_key
from hookline.recurrence import Recurrence, read_recurrence
from hookline.where import compile_where

NAME, TICK, LOCAL_TICK = "{schedule.name}", "{schedule.tick}", "{schedule.localTick}"
"""What stands in the texts of a schedule for its name, and for the tick in UTC and by the clock of its time zone."""
LATE_MS = 60_000
"""A tick that is later than that, and than the rule's jitter, was missed."""
_LOCK_MIN_MS = 1000


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule for ``key`` runs ``every`` so often, or by ``cron`` in a time zone; by hand alone with neither of them.

    ``jitter``: each run begins up to so much later than its tick, at random.
    """

    key: str
    every: Duration | None = None
    cron: str | None = None
    time_zone: str = "UTC"
    jitter: Duration = 0
    enabled: bool = True

    def made_up(self, passed: list[int], now: int) -> list[int]:  # noqa: ARG002 - of a kind that has ticks of their own
        """Of the ticks that have passed, in order and at least one, those that are to be run: by default the last."""
        return passed[-1:]

    @property
    def recurrence(self) -> Recurrence | None:
        """Its ticks; None if it runs by hand alone."""
        return read_recurrence(self.every, self.cron, self.time_zone)

    @property
    def jitter_ms(self) -> int:
        """The longest delay."""
        return parse_duration(self.jitter)

    def check(self) -> None:
        """Refuse what could not be run.

        Raises:
            Invalid: a field is out of bounds.
        """
        try:
            jitter_ms = self.jitter_ms
        except ValueError as error:
            raise Invalid.at("/jitter", str(error)) from None
        recurrence = self.recurrence
        if recurrence and jitter_ms and jitter_ms > recurrence.distance():
            raise Invalid.at("/jitter", "expected no more than the shortest time between two runs")

    def timing(self) -> tuple[object, ...]:
        """What the ticks follow from."""
        return (self.every, self.cron, self.time_zone, self.enabled)


class Orchestration(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: claim up to ``limit`` items of ``key`` that match ``where``, so that their workers are called.

    With ``max_in_flight``, so many of those that it claimed are kept started at once, and no more.
    """

    where: dict[str, Any] = {}
    limit: int = 10
    lock_for: Duration = "10m"
    max_in_flight: int | None = None

    def check(self) -> None:
        """Refuse what could not be run.

        Raises:
            Invalid: a field is out of bounds.
            ReservedKey: no rule may claim items of the engine's own keys.
        """
        if check_key(self.key).startswith(RESERVED_PREFIX):
            raise ReservedKey
        compile_where(self.where)
        if not 1 <= self.limit <= CLAIM_MAX:
            raise Invalid.at("/limit", f"expected a whole number from 1 to {CLAIM_MAX}")
        try:
            if parse_duration(self.lock_for) < _LOCK_MIN_MS:
                raise Invalid.at("/lockFor", "expected at least 1 second")
        except ValueError as error:
            raise Invalid.at("/lockFor", str(error)) from None
        if self.max_in_flight is not None:
            check_max_in_flight(self.max_in_flight)
        super().check()


class Schedule(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: create this item at each tick.

    ``catch_up`` says what becomes of ticks that were missed by more than :data:`LATE_MS`: ``skip`` creates nothing for
    them, ``one`` an item for the last of them, ``all`` one for each, up to 1,000. The item is a job, ``not_started``,
    unless ``metadata`` has a ``status``; None makes it a document.
    """

    sort_field: str = f"{NAME}-{TICK}"
    content: Any = None
    metadata: dict[str, Any] = msgspec.field(default_factory=lambda: {"status": NOT_STARTED})
    trigger_urls: Any = None
    catch_up: Literal["skip", "one", "all"] = "one"

    def item(self, name: str, tick: int, recurrence: Recurrence) -> dict[str, Any]:
        """The item of a tick, but for what it triggers."""
        values = {NAME: name, TICK: format_time(tick), LOCAL_TICK: recurrence.local(tick)}
        metadata = {"status": NOT_STARTED} | self.metadata
        template = {"sort_field": self.sort_field, "content": self.content, "metadata": metadata}
        return {"key": self.key} | {field: _filled(value, values) for field, value in template.items()}

    def made_up(self, passed: list[int], now: int) -> list[int]:
        """By ``catch_up``; of those that are not late every one, which is 62 at most: they are a second apart."""
        if self.catch_up == "all":
            return passed
        late = bisect_left(passed, now - LATE_MS - self.jitter_ms)
        return passed[max(0, late - 1) if self.catch_up == "one" else late :]

    def check(self) -> None:
        """Refuse what could not be run.

        Raises:
            Invalid: a field is out of bounds.
            ReservedKey: no rule may create items of the engine's own keys.
        """
        if check_key(self.key).startswith(RESERVED_PREFIX):
            raise ReservedKey
        if TICK not in self.sort_field and LOCAL_TICK not in self.sort_field:
            raise Invalid.at("/sortField", f"expected {TICK} or {LOCAL_TICK} in it, so that each tick has its own item")
        super().check()


R = TypeVar("R", bound=Rule)


@dataclass(frozen=True, slots=True)
class Stored(Generic[R]):
    """A rule that is stored, when it runs, and what came of its last run. Its triggers are without their API keys."""

    name: str
    rule: R
    next_run: str | None
    last_run: dict[str, Any] | None
    version: int
    updated_at: str
    triggers: tuple[Trigger, ...] = ()


@dataclass(frozen=True, slots=True)
class Runs:
    """A page of what came of runs, the last ones first."""

    items: list[dict[str, Any]]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Tick:
    """When a rule is due: in UTC, and by the clock of its time zone."""

    at: str
    local: str


def _filled(value: Any, values: dict[str, str]) -> Any:
    """A value with what its texts have places for."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, dict):
        return {name: _filled(each, values) for name, each in value.items()}
    return value
