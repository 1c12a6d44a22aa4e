"""Orchestrations: stored rules that claim matching items with triggers on, so that their workers are called."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hookline import Claimed, Datastore, Item
from hookline.bound import check_max_in_flight
from hookline.calls import CLAIM_MAX
from hookline.clock import parse_duration
from hookline.errors import Invalid, NotFound, ReservedKey
from hookline.item import RESERVED_PREFIX, check_key
from hookline.where import compile_where
from hookline_server.fields import Duration, Filters, InFlight, Key
from hookline_server.rules import Rule, Rules

ORCHESTRATIONS = "hookline.orchestrations"
_LOCK_MIN_MS = 1000


class Orchestration(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: claim up to ``limit`` items of ``key`` that match ``where``, so that their workers are called.

    With ``max_in_flight``, so many of those that it claimed are kept started at once, and no more.
    """

    key: Key
    where: Filters = {}  # noqa: RUF012 - msgspec copies it
    limit: int = 10
    lock_for: Duration = "10m"
    max_in_flight: InFlight | None = None

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

    async def claim(self, datastore: Datastore, name: str) -> Claimed:
        """Claim for the rule of this name.

        Raises:
            HooklineError
        """
        return await datastore.claim(
            self.key,
            worker_id=f"orchestration:{name}",
            limit=self.limit,
            lock_for=self.lock_for,
            where=self.where,
            max_in_flight=self.max_in_flight,
            triggers="on",
        )


class Orchestrations(Rules[Orchestration, Claimed]):
    """Keeps and runs orchestrations."""

    key = ORCHESTRATIONS
    noun = "orchestration"
    kind = Orchestration
    repeatable = False

    def __init__(self, datastore: Datastore, ran: Callable[[str, Orchestration], None] | None = None) -> None:
        super().__init__(datastore, ran)
        self._refilled: Counter[str] = Counter()

    async def perform(
        self, view: Callable[[int], Datastore], item: Item, rule: Orchestration, ticks: Sequence[int]
    ) -> Claimed:
        """Claim what matches: once, for ticks that were missed have nothing of their own to do."""
        return await rule.claim(view(ticks[0]), item.sort_field)

    async def refill(self, name: str, rule: Orchestration) -> Claimed:
        """Claim between the ticks; the next one that this server runs tells how much.

        Raises:
            HooklineError
        """
        claimed = await rule.claim(self._datastore, name)
        self._refilled[name] += len(claimed.items)
        return claimed

    async def mine(self, name: str) -> Orchestration | None:
        """The rule, if it has slots to fill, and this server is the last that ran it.

        Raises:
            Unavailable, Corrupt
        """
        with contextlib.suppress(NotFound):
            item = await self.get(name)
            rule = self.rule(item)
            if rule.max_in_flight and rule.enabled and rule.recurrence and item.metadata.get("ran_by") == self.server:
                return rule
        return None

    def since(self, name: str) -> dict[str, Any]:
        """What was claimed since the last tick that this server ran."""
        refilled = self._refilled.pop(name, 0)
        return {"refilled": refilled} if refilled else {}

    def tell(self, answer: Claimed) -> dict[str, Any]:
        """What a run has claimed, and what it met."""
        told: dict[str, Any] = {
            "claimed": len(answer.items) + answer.gone,
            "expiredLocks": answer.expired,
            "lostRaces": answer.lost,
            "deadLettered": answer.buried,
        }
        return told | ({"error": str(answer.failure)} if answer.failure else {})
