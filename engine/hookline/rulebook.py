"""The orchestrations and schedules of a datastore, as a client has them too: ``datastore.orchestrations.put(...)``."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hookline.item import Item
from hookline.orchestrations import Orchestrations
from hookline.outcome import Claimed, Outcome
from hookline.rule import Orchestration, Rule, Runs, Schedule, Stored, Tick
from hookline.rules import Rules
from hookline.schedules import Schedules

if TYPE_CHECKING:
    from hookline.datastore import Datastore

R = TypeVar("R", bound=Rule)
A = TypeVar("A")


class Rulebook(Generic[R, A]):
    """The stored rules of one kind. Servers with the role ``orchestrator`` run them."""

    def __init__(self, rules: Rules[R, Any], read: Callable[[Any], A]) -> None:
        self._rules = rules
        self._read = read

    async def put(self, name: str, rule: R) -> Stored[R]:
        """Store a rule under a name, in place of the one that has it. Its next time stays where its times do.

        Raises:
            Invalid: it could not be run.
            ReservedKey, Unavailable, OutcomeUnknown
        """
        return self._stored(await self._rules.put(name, rule))

    async def get(self, name: str) -> Stored[R]:
        """One rule.

        Raises:
            NotFound: there is none of this name.
            Invalid, Corrupt, Unavailable
        """
        return self._stored(await self._rules.get(name))

    async def all(self) -> list[Stored[R]]:
        """The rules, in order of their names.

        Raises:
            Corrupt, Unavailable
        """
        found: list[Stored[R]] = []
        cursor: str | None = None
        while True:
            page = await self._rules.page(cursor=cursor)
            found += map(self._stored, page.items)
            cursor = page.cursor
            if cursor is None:
                return found

    async def enable(self, name: str) -> Stored[R]:
        """Let a rule run at its times; one with ``every`` at once.

        Raises:
            NotFound: there is none of this name.
            Invalid, Corrupt, Unavailable, OutcomeUnknown
        """
        return self._stored(await self._rules.enable(name, True))

    async def disable(self, name: str) -> Stored[R]:
        """Let a rule run by hand alone.

        Raises:
            NotFound: there is none of this name.
            Invalid, Corrupt, Unavailable, OutcomeUnknown
        """
        return self._stored(await self._rules.enable(name, False))

    async def delete(self, name: str) -> None:
        """Remove a rule, and what came of its runs. What it claimed or created stays as it is.

        Raises:
            NotFound: there is none of this name.
            Invalid, Corrupt, Unavailable, OutcomeUnknown
        """
        await self._rules.delete(name)

    async def run(self, name: str) -> A:
        """Run a rule now, also one that is disabled -> what an orchestration claimed, or the item of a schedule.

        Raises:
            NotFound: there is none of this name.
            Exists: the schedule's item is there already.
            HooklineError: it could not be run.
        """
        return self._read(await self._rules.run_by_hand(name))

    async def runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Runs:
        """What came of the runs of a rule, the last ones first.

        Raises:
            NotFound: there is none of this name.
            Invalid, Corrupt, Unavailable
        """
        page = await self._rules.runs(name, limit=limit, cursor=cursor)
        return Runs([item.content for item in page.items], page.cursor)

    async def next(self, name: str, count: int = 10) -> list[Tick]:
        """The next times of a rule, without the random delay; none if it runs by hand alone.

        Raises:
            NotFound: there is none of this name.
            Invalid, Corrupt, Unavailable
        """
        return [Tick(**tick) for tick in await self._rules.next(name, count)]

    def _stored(self, item: Item) -> Stored[R]:
        told = item.metadata
        return Stored(
            item.sort_field,
            self._rules.rule(item),
            told.get("scheduled_at"),
            told.get("last_run"),
            item.version,
            item.updated_at,
            item.triggers,
        )


def orchestrations(datastore: Datastore) -> Rulebook[Orchestration, Claimed]:
    """Those of a datastore."""
    return Rulebook(Orchestrations(datastore), lambda claimed: claimed)


def schedules(datastore: Datastore) -> Rulebook[Schedule, Outcome]:
    """Those of a datastore."""
    return Rulebook(Schedules(datastore), attrgetter("only"))
