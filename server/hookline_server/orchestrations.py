"""Orchestrations: stored rules that claim matching items with triggers on, so that their workers are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import Meta

from hookline import Claimed, Datastore, Item
from hookline.calls import CLAIM_MAX, IN_FLIGHT_MAX
from hookline.clock import parse_duration
from hookline.errors import Invalid, ReservedKey
from hookline.item import RESERVED_PREFIX, check_key
from hookline.where import compile_where
from hookline_server.fields import Duration, Filters, Key
from hookline_server.rules import Rule, Rules

ORCHESTRATIONS = "hookline.orchestrations"
_LOCK_MIN_MS = 1000


class Orchestration(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: claim up to ``limit`` items of ``key`` that match ``where``, so that their workers are called.

    With ``max_in_flight``, no more than so many of those that it claimed are started at once.
    """

    key: Key
    where: Filters = {}  # noqa: RUF012 - msgspec copies it
    limit: int = 10
    lock_for: Duration = "10m"
    max_in_flight: Annotated[
        int | None,
        Meta(extra_json_schema={"minimum": 1, "maximum": IN_FLIGHT_MAX}),
    ] = None

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
        super().check()


class Orchestrations(Rules[Orchestration, Claimed]):
    """Keeps and runs orchestrations."""

    key = ORCHESTRATIONS
    noun = "orchestration"
    kind = Orchestration
    repeatable = False

    async def put(self, name: str, rule: Orchestration) -> Item:
        """Store a rule under a name.

        Raises:
            Invalid: it could not be run.
            Unavailable, OutcomeUnknown
        """
        # What the partitions share cannot be less than one for each.
        self._datastore.calls.claim("jobs", worker_id=_worker(name), max_in_flight=rule.max_in_flight)
        return await super().put(name, rule)

    async def perform(
        self, view: Callable[[int], Datastore], item: Item, rule: Orchestration, ticks: Sequence[int]
    ) -> Claimed:
        """Claim what matches: once, for ticks that were missed have nothing of their own to do."""
        return await view(ticks[0]).claim(
            rule.key,
            worker_id=_worker(item.sort_field),
            limit=rule.limit,
            lock_for=rule.lock_for,
            where=rule.where,
            max_in_flight=rule.max_in_flight,
            triggers="on",
        )

    def tell(self, answer: Claimed) -> dict[str, Any]:
        """What a run has claimed, and what it met."""
        told: dict[str, Any] = {
            "claimed": len(answer.items) + answer.gone,
            "expiredLocks": answer.expired,
            "lostRaces": answer.lost,
            "deadLettered": answer.buried,
        }
        return told | ({"error": str(answer.failure)} if answer.failure else {})


def _worker(name: str) -> str:
    return f"orchestration:{name}"
