"""Schedules: stored rules that create an item at each of their ticks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hookline import Datastore, Item, Outcome, codec
from hookline.clock import format_time
from hookline.errors import Exists, Invalid, ReservedKey
from hookline.item import NOT_STARTED, RESERVED_PREFIX, check_key
from hookline_server.fields import CatchUp, Content, Key, Metadata, TriggerUrls
from hookline_server.recurrence import Recurrence
from hookline_server.rules import Rule, Rules

SCHEDULES = "hookline.schedules"
NAME, TICK, LOCAL_TICK = "{schedule.name}", "{schedule.tick}", "{schedule.localTick}"
"""What stands in the texts of a schedule for its name, and for the tick in UTC and by the clock of its time zone."""
_TOGETHER = 100
"""Items that are created at once."""


class Schedule(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: create this item at each tick.

    ``catch_up`` says what becomes of ticks at which no server was there: ``skip`` creates nothing for them, ``one`` an
    item for the last of them, ``all`` one for each, up to 1,000.
    """

    key: Key
    sort_field: Annotated[
        str,
        Meta(description=f"Of the items: `{TICK}` or `{LOCAL_TICK}` is in it, so that each tick has one of its own."),
    ] = f"{NAME}-{TICK}"
    content: Content = None
    metadata: Metadata = msgspec.field(default_factory=lambda: {"status": NOT_STARTED})
    trigger_urls: TriggerUrls = None
    catch_up: CatchUp = "one"

    def item(self, name: str, tick: int, recurrence: Recurrence) -> dict[str, Any]:
        """The item of a tick, but for what it triggers."""
        values = {NAME: name, TICK: format_time(tick), LOCAL_TICK: recurrence.local(tick)}
        template = {"sort_field": self.sort_field, "content": self.content, "metadata": self.metadata}
        return {"key": self.key} | {field: _filled(value, values) for field, value in template.items()}

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


@dataclass(frozen=True, slots=True)
class Created:
    """What a run has created; ``existed`` are the items that were there already."""

    outcomes: list[Outcome]
    existed: int = 0


class Schedules(Rules[Schedule, Created]):
    """Keeps and runs schedules."""

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
