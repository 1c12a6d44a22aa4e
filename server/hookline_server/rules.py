"""Running rules when they are due: whichever server is free claims them, so none leads.

Who claimed a rule does what it says, writes down what came of it, and lets it wait for its next tick. A server that
dies before that leaves the tick to another, which finds by its idempotency key, made of rule and tick, what was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from hookline import Datastore, Item
from hookline.clock import format_time, parse_time
from hookline.errors import HooklineError, NotFound, OutboxFull, OutcomeUnknown, Unavailable
from hookline.rule import LATE_MS, Rule
from hookline.rules import Rules, due
from hookline_server.role import Surviving

log = logging.getLogger(__name__)

RUN_LOCK = 30.0
"""Seconds that one run of a rule may take before another server goes on with it."""
RECALLED = 300.0
"""Seconds for which the store knows what a run has done."""
RETRY = 5.0
"""Seconds after which a run that the store could not take is tried again."""
TICKS_MAX = 1000
"""Ticks that one run makes up for."""
TURN = 100
"""Of these, how many are run before other rules have their turn: more than a rule has that lets missed ones go."""
_TOGETHER = 10
"""Rules that one claim takes."""
_PASSING = (Unavailable, OutcomeUnknown, OutboxFull)


R = TypeVar("R", bound=Rule)
A = TypeVar("A")


class Running(Rules[R, A]):
    """Rules that are run when they are due as well."""

    repeatable: ClassVar[bool] = True
    """Whether a tick may still be run when the store has forgotten what an earlier run of it has done."""

    def __init__(self, datastore: Datastore, ran: Callable[[str, R], None] | None = None) -> None:
        """``ran`` is told of each tick that was run here, by the name of its rule."""
        super().__init__(datastore)
        self._ran = ran
        self.server = secrets.token_hex(8)
        """By which a rule tells who has run it last."""
        self._unsure_until = 0.0
        """Until when rules may be claimed here that nobody runs: what was not answered may still be carried out."""

    def since(self, name: str, rule: R) -> dict[str, Any]:  # noqa: ARG002 - of a kind that has more
        """What else was done for a rule since this server ran its last tick, in figures."""
        return {}

    async def run_due(self) -> None:
        """Run the rules that are due.

        Raises:
            Unavailable, OutcomeUnknown, Corrupt
        """
        if time.monotonic() < self._unsure_until:
            await self._give_back()
        more = True
        while more:
            with self._unsure():
                claimed = await self._datastore.claim(
                    self.key, worker_id=self.server, limit=_TOGETHER, lock_for=RUN_LOCK, triggers="off", reserved=True
                )
            again = await asyncio.gather(*map(self._run_surviving, claimed.items))
            more = len(claimed.items) == _TOGETHER or any(again)
            if any(again):  # They stand last in the line of their own partition alone.
                self._datastore.claims.move_on(self.key)

    @contextlib.contextmanager
    def _unsure(self) -> Iterator[None]:
        """Of what the store did not answer, something may be claimed until the lock ends."""
        try:
            yield
        except (Unavailable, OutcomeUnknown):
            self._unsure_until = time.monotonic() + self._datastore.settings.call_timeout + RUN_LOCK
            raise

    async def _give_back(self) -> None:
        """Let what is claimed here and run by nobody be claimed anew: no run is under way now."""
        where = {"status": "started", "worker_id": self.server}
        left = await self._datastore.query(self.key, where=where, limit=_TOGETHER)
        calls = [
            self._datastore.calls.update(
                self.key,
                item.sort_field,
                metadata={"status": "not_started"},
                version=item.version,
                triggers=False,
                reserved=True,
            )
            for item in left.items
        ]
        await self._datastore.run(calls)

    async def _run_surviving(self, item: Item) -> bool:
        with Surviving(log, f"a run of {self.noun} {item.sort_field}"), self._unsure():
            return await self._run(item)
        return False

    async def _run(self, item: Item) -> bool:
        """Run a rule that was claimed, or one turn of that -> whether the run waits for its next turn."""
        rule, told = self.rule(item), item.metadata
        now, begun = parse_time(told["started_at"]), told["attempts"] > 1
        recurrence = rule.recurrence
        if recurrence is None:
            return False
        tick, until = told["tick"], told.get("until")
        run = told.get("run") or {"tick": format_time(tick), "by": "tick", "startedAt": told["started_at"]}
        if until is None:
            passed = await recurrence.passed(tick, now, TICKS_MAX) or [tick]
            ticks = rule.made_up(passed, now)
            if begun and not (self.repeatable and tick in ticks):
                until = tick  # what was begun is gone on with by itself
        if until is None:
            since, (tick, until) = now, (ticks[0], ticks[-1]) if ticks else (passed[-1], passed[-1] - 1)
            run["tick"] = format_time(tick)
            if skipped := len(passed) - len(ticks):
                run["skipped"] = skipped
            late = now - parse_time(told["scheduled_at"]) > LATE_MS
            # Which ones are run since when must stay so, also for who goes on with them.
            started = {"tick": tick, "until": until, "scheduled_at": told["started_at"]}
            if len(ticks) > TURN:
                return await self._stand_behind(item, started | {"run": run})
            if (late or ticks != [told["tick"]]) and not await self._update(item, started):
                return False
        else:
            ticks, since = await recurrence.ahead(tick, TURN + 1, until), max(tick, until)
        ticks, more = ticks[:TURN], ticks[TURN:]
        if begun and not self.repeatable and now - parse_time(told["scheduled_at"]) > RECALLED * 1000:
            run |= {"abandoned": True, "error": "interrupted: what it has done is not known any more"}
        elif ticks and not await self._perform_noted(item, rule, ticks, run):
            again = {"status": "scheduled", "scheduled_at": f"+{round(RETRY * 1000)}ms"}
            await self._update(item, again | {"tick": tick, "until": until})
            return False
        if more:
            return await self._stand_behind(item, {"tick": more[0], "scheduled_at": told["started_at"], "run": run})
        await self._end(item, rule, run, due(rule, recurrence.after(tick, since), now))
        return False

    async def _perform_noted(self, item: Item, rule: R, ticks: list[int], run: dict[str, Any]) -> bool:
        """Run these ticks, and add what came of them to ``run`` -> whether the store could take it."""
        try:
            done = self.tell(await self.perform(lambda at: self._once(item, at), item, rule, ticks))
        except _PASSING as error:
            log.warning("%s %s: %s; it is tried again", self.noun, item.sort_field, error)
            return False
        except HooklineError as error:
            log.warning("%s %s: %s", self.noun, item.sort_field, error)
            run["error"] = str(error)
        else:
            run |= {name: run.get(name, 0) + each if type(each) is int else each for name, each in done.items()}
            run |= self.since(item.sort_field, rule)
        return True

    async def _end(self, item: Item, rule: R, run: dict[str, Any], waiting: dict[str, Any]) -> None:
        """Keep what came of a run, and let its rule wait for the next."""
        record = f"{parse_time(run['tick']):015d}"
        try:
            run = await self.record(item.sort_field, rule, record, run)
        except _PASSING as error:  # the rule itself has it as its last one
            log.warning("a run of %s %s is not in the list of its runs: %s", self.noun, item.sort_field, error)
        ended = {"attempts": 0, "until": None, "run": None, "priority": None, "last_run": run, "ran_by": self.server}
        if not await self._update(item, ended | waiting):
            if await self._is_gone(item):  # and what came of its runs with it, but for this one
                await self.forget(item.sort_field, rule, record)
        elif self._ran:
            self._ran(item.sort_field, rule)

    async def _is_gone(self, item: Item) -> bool:
        """Whether a rule was deleted, also where another has its name by now."""
        try:
            return (await self.get(item.sort_field)).created_at != item.created_at
        except NotFound:
            return True

    async def _stand_behind(self, item: Item, metadata: dict[str, Any]) -> bool:
        """Let a run wait for its next turn until no other rule is due -> whether this server still had it."""
        return await self._update(item, {"status": "not_started", "priority": 0, "attempts": 0} | metadata)

    def _once(self, item: Item, tick: int) -> Datastore:
        """The datastore, in which what is done for a tick of a rule is done once."""
        name, caller = f"{self.key} {item.sort_field} {tick}", f"rule of {self.rule(item).key}"
        return self._datastore.once(name, caller=caller, keep=RECALLED, everywhere=True)

    async def _update(self, item: Item, metadata: dict[str, Any]) -> bool:
        """Change a rule that this server has claimed -> whether it still had it."""
        call = self._datastore.calls.update(
            self.key, item.sort_field, metadata=metadata, token=item.token, triggers=False, reserved=True
        )
        (outcome,) = await self._datastore.run([call])
        if not outcome.ok:
            log.info("%s %s was changed while it ran: %s", self.noun, item.sort_field, outcome.word)
        return outcome.ok
