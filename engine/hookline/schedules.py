"""Schedules: stored rules that create an item at each of their ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hookline import codec
from hookline.errors import Exists
from hookline.item import Item
from hookline.outcome import Outcome
from hookline.recurrence import Recurrence
from hookline.rule import Schedule
from hookline.rules import Rules

if TYPE_CHECKING:
    from hookline.datastore import Datastore

SCHEDULES = "hookline.schedules"
_TOGETHER = 100
"""Items that are created at once."""


@dataclass(frozen=True, slots=True)
class Created:
    """What a run has created; ``existed`` are the items that were there already."""

    outcomes: list[Outcome]
    existed: int = 0

    @property
    def only(self) -> Outcome:
        """The one item of a run by hand.

        Raises:
            Exists: it was there already.
        """
        if not self.outcomes:
            raise Exists
        return self.outcomes[0]

    @property
    def replayed(self) -> bool:
        """Whether this is what was created before, under the same idempotency key."""
        return any(outcome.replayed for outcome in self.outcomes)


class Schedules(Rules[Schedule, Created]):
    """The schedules of a datastore."""

    key = SCHEDULES
    noun = "schedule"
    kind = Schedule

    async def put(self, name: str, rule: Schedule) -> Item:
        """Store a schedule under a name. An API key that a trigger does not name stays what it was for the same URL.

        Raises:
            Invalid: it, or the item that it describes, could not be created.
            ReservedKey, Unavailable, OutcomeUnknown
        """
        rule.check()
        example = rule.item(name, 0, rule.recurrence or Recurrence())
        self._datastore.calls.create(**example, trigger_urls=rule.trigger_urls)
        return await super().put(name, rule)

    def content(self, rule: Schedule) -> dict[str, Any]:
        """All but the triggers, whose API keys are sealed."""
        return {name: value for name, value in super().content(rule).items() if name != "triggerUrls"}

    def fields(self, rule: Schedule) -> dict[str, Any]:
        """The triggers of the items, kept as the schedule's own: those of the engine's own items fire nothing."""
        return {"trigger_urls": rule.trigger_urls}

    def describe(self, item: Item) -> dict[str, Any]:
        """A schedule as it reads outside, its triggers without their API keys."""
        return super().describe(item) | {"triggerUrls": [trigger.to_dict() for trigger in item.triggers]}

    async def perform(
        self, view: Callable[[int], Datastore], item: Item, rule: Schedule, ticks: Sequence[int]
    ) -> Created:
        """Create the item of each tick that has none yet."""
        triggers, recurrence = self._triggers(item), rule.recurrence or Recurrence()

        async def create(tick: int) -> Outcome:
            return await view(tick).create(**rule.item(item.sort_field, tick, recurrence), trigger_urls=triggers)

        outcomes: list[Outcome] = []
        existed, left = 0, iter(ticks)
        while batch := list(islice(left, _TOGETHER)):
            for done in await asyncio.gather(*map(create, batch), return_exceptions=True):
                if isinstance(done, Exists):
                    existed += 1
                elif isinstance(done, BaseException):
                    raise done
                else:
                    outcomes.append(done)
        return Created(outcomes, existed)

    def tell(self, answer: Created) -> dict[str, Any]:
        """How many items a run has created."""
        return {"created": len(answer.outcomes)} | ({"existed": answer.existed} if answer.existed else {})

    def _triggers(self, item: Item) -> list[dict[str, Any]]:
        """The triggers of a schedule as they are written, with their secrets."""
        owner = codec.identity(self._datastore.settings.namespace, self.key, item.sort_field)
        return codec.open_triggers(item.sealed_triggers, self._datastore.secrets, owner)
