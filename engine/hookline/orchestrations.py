"""Orchestrations: stored rules that claim matching items with triggers on, so that their workers are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hookline.item import Item
from hookline.outcome import Claimed
from hookline.rule import Orchestration
from hookline.rules import Rules

if TYPE_CHECKING:
    from hookline.datastore import Datastore

ORCHESTRATIONS = "hookline.orchestrations"


async def claim(datastore: Datastore, name: str, rule: Orchestration) -> Claimed:
    """Claim for the rule of this name.

    Raises:
        HooklineError
    """
    return await datastore.claim(
        rule.key,
        worker_id=f"orchestration:{name}",
        limit=rule.limit,
        lock_for=rule.lock_for,
        where=rule.where,
        max_in_flight=rule.max_in_flight,
        triggers="on",
    )


class Orchestrations(Rules[Orchestration, Claimed]):
    """The orchestrations of a datastore."""

    key = ORCHESTRATIONS
    noun = "orchestration"
    kind = Orchestration

    async def perform(
        self, view: Callable[[int], Datastore], item: Item, rule: Orchestration, ticks: Sequence[int]
    ) -> Claimed:
        """Claim what matches: once, for ticks that were missed have nothing of their own to do."""
        return await claim(view(ticks[0]), item.sort_field, rule)

    def tell(self, answer: Claimed) -> dict[str, Any]:
        """What a run has claimed, and what it met."""
        told: dict[str, Any] = {
            "claimed": len(answer.items) + answer.gone,
            "expiredLocks": answer.expired,
            "lostRaces": answer.lost,
            "deadLettered": answer.buried,
        }
        return told | ({"error": str(answer.failure)} if answer.failure else {})
