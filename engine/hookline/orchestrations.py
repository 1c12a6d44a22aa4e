"""Orchestrations: stored rules that claim matching items with triggers on, so that their workers are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hookline.codec import WORD_MAX
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
        worker_id=_worker(name),
        limit=rule.limit,
        lock_for=rule.lock_for,
        where=rule.where,
        max_in_flight=rule.max_in_flight,
        triggers="on",
    )


def _worker(name: str) -> str:
    """As which the rule of this name claims. No name has a ``#``, so none is taken for a long one's."""
    worker_id = f"orchestration:{name}"
    if len(worker_id) <= WORD_MAX:
        return worker_id
    mark = "#" + hashlib.sha256(name.encode()).hexdigest()[:32]
    return worker_id[: WORD_MAX - len(mark)] + mark


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
