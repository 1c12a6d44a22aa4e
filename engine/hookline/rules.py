"""Rules: what is stored under a name and runs at its ticks. Common to orchestrations and schedules.

A rule is an item of a key of the engine's own, which waits there until its next tick is due; a server runs it then.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from hookline import bulk
from hookline.clock import format_time
from hookline.errors import Corrupt, HooklineError, IdempotencyKeyReused, NotFound
from hookline.item import STARTED, Item, check_key
from hookline.optimistic import try_again
from hookline.outcome import item_of
from hookline.query import Page
from hookline.rule import Rule

if TYPE_CHECKING:
    from hookline.datastore import Datastore

log = logging.getLogger(__name__)

LIST_MAX = 1000
RUNS_KEPT = 1000
"""Runs of a rule that are kept, for no longer than :data:`_RUNS_AGE_MS`."""
_RUNS_AGE_MS = 30 * 86_400_000


R = TypeVar("R", bound=Rule)
A = TypeVar("A")


class Rules(ABC, Generic[R, A]):
    """The rules of one kind: stored, and run by hand. ``A`` is what a run gives."""

    key: ClassVar[str]
    noun: ClassVar[str]
    kind: type[R]

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    @abstractmethod
    async def perform(self, view: Callable[[int], Datastore], item: Item, rule: R, ticks: Sequence[int]) -> A:
        """Do what a rule says for these ticks, what is done for each in the datastore that ``view`` gives for it.

        Raises:
            HooklineError
        """

    @abstractmethod
    def tell(self, answer: A) -> dict[str, Any]:
        """What a run has done, in figures."""

    # Stored

    def rule(self, item: Item) -> R:
        """The rule that an item holds.

        Raises:
            Corrupt: it holds none: an archive may have brought anything.
        """
        try:
            return msgspec.convert(item.content, self.kind)
        except msgspec.ValidationError as error:
            detail = f"{self.noun} {item.sort_field} cannot be read: {error}; delete it, or store it anew"
            raise Corrupt(detail) from None

    def _readable(self, item: Item) -> R | None:
        try:
            return self.rule(item)
        except Corrupt as error:
            log.warning("%s", error)
            return None

    async def put(self, name: str, rule: R) -> Item:
        """Store a rule under a name. The next tick stays what it was where the rule's timing does.

        What ran on another key is forgotten: who may see what runs on this one need not be allowed that.

        Raises:
            Invalid: the rule could not be run.
            Unavailable, OutcomeUnknown
        """
        check_key(name, "/name")
        rule.check()

        async def write(stored: Item | None, now: int) -> Item:
            await self._keep_runs(name, rule)
            before = self._readable(stored) if stored else None
            outcome = await self._datastore.create(
                self.key,
                name,
                content=self.content(rule),
                metadata={"max_attempts": 0} | self._waiting(rule, stored if before else None, now),
                match=stored.version if stored else None,
                upsert=True,
                triggers=False,
                reserved=True,
                **self.fields(rule),
            )
            if before and before.key != rule.key:
                await self._forget_runs(name, before)
            return item_of(outcome)

        return await self._write(name, write)

    def content(self, rule: R) -> dict[str, Any]:
        """The part of a rule that is readable."""
        content: dict[str, Any] = msgspec.to_builtins(rule)
        return content

    def fields(self, rule: R) -> dict[str, Any]:  # noqa: ARG002 - of a kind that has more
        """What else a rule's item has."""
        return {}

    async def enable(self, name: str, enabled: bool) -> Item:
        """Let a rule run at its ticks, one with ``every`` at once; or by hand alone.

        Raises:
            NotFound: there is none of this name.
            Unavailable, OutcomeUnknown
        """

        async def write(stored: Item | None, now: int) -> Item:
            if stored is None:
                raise NotFound(f"no {self.noun} has this name")
            rule = msgspec.structs.replace(self.rule(stored), enabled=enabled)
            names = ("status", "tick", "until", "run", "priority", "scheduled_at")
            gone = dict.fromkeys(names)
            outcome = await self._datastore.update(
                self.key,
                name,
                content={**stored.content, "enabled": enabled},
                metadata=gone | self._waiting(rule, stored, now) | {"attempts": 0},
                match=stored.version,
                triggers=False,
                reserved=True,
            )
            return item_of(outcome)

        return await self._write(name, write)

    async def _write(self, name: str, write: Callable[[Item | None, int], Awaitable[Item]]) -> Item:
        """Change a rule as it stands."""
        if again := await self._datastore.recall(self.key, name):
            return item_of(again)

        async def change() -> Item:
            stored = None
            with contextlib.suppress(NotFound):
                stored = await self.get(name)
            return await write(stored, await self._datastore.connection.now_ms())

        return await try_again(change)

    def _waiting(self, rule: R, stored: Item | None, now: int) -> dict[str, Any]:
        """The metadata of a rule that was just written: when it runs first, and how it ran last."""
        told = stored.metadata if stored else {}
        shown = ("last_run", "ran_by") if stored and self.rule(stored).key == rule.key else ()
        last: dict[str, Any] = {name: told[name] for name in shown if name in told}
        recurrence = rule.recurrence
        if not (recurrence and rule.enabled):
            return last
        if stored and "tick" in told and self.rule(stored).timing() == rule.timing():
            # Of attempts it is told whether the tick was begun: who goes on with it finds what was done already.
            waiting = {name: told[name] for name in ("tick", "status", "scheduled_at", "attempts")}
            return last | waiting | ({"status": "not_started"} if stored.status == STARTED else {})
        return last | due(rule, recurrence.first(now), now)

    async def delete(self, name: str) -> None:
        """Remove a rule, and what came of its runs.

        Raises:
            NotFound: there is none of this name.
        """
        with self._named():
            # A repeated request is about the rule that it removed, not one that has the name by now.
            if not await self._datastore.recall(self.key, name):
                rule = self._readable(await self.get(name))
                if rule:
                    await self._forget_runs(name, rule)  # before, so that a repeat of what fails here finds the rule
                await self._datastore.delete(self.key, name, triggers=False, reserved=True)
                if rule:
                    await self._forget_runs(name, rule)

    async def get(self, name: str) -> Item:
        """A rule as it is stored.

        Raises:
            NotFound: there is none of this name.
        """
        with self._named():
            return await self._datastore.get(self.key, name)

    async def page(self, prefix: str = "", limit: int = LIST_MAX, cursor: str | None = None) -> Page:
        """The rules whose names begin so, in order of name; 1,000 at most. One that cannot be read is passed over.

        Raises:
            Invalid: the cursor is not one of such a page.
        """
        where = {"sortField": {"prefix": prefix}}
        page = await self._datastore.query(self.key, where=where, limit=limit, cursor=cursor)
        return replace(page, items=[item for item in page.items if self._readable(item)])

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except NotFound:
            raise NotFound(f"no {self.noun} has this name") from None

    def describe(self, item: Item) -> dict[str, Any]:
        """A rule as it reads outside."""
        return {
            "name": item.sort_field,
            **msgspec.to_builtins(self.rule(item)),
            "nextRun": item.metadata.get("scheduled_at"),
            "lastRun": item.metadata.get("last_run"),
            "version": item.version,
            "updatedAt": item.updated_at,
        }

    async def next(self, name: str, count: int) -> list[dict[str, str]]:
        """The next ticks of a rule, in UTC and by the clock of its time zone; none if it runs by hand alone.

        Raises:
            NotFound: there is none of this name.
        """
        item = await self.get(name)
        recurrence = self.rule(item).recurrence
        if recurrence is None or "tick" not in item.metadata:
            return []
        ticks = await recurrence.ahead(item.metadata["tick"], count)
        return [{"at": format_time(tick), "local": recurrence.local(tick)} for tick in ticks]

    # Runs

    def _runs_of(self, name: str, rule: R) -> str:
        """The key in which the runs of a rule are kept, another for each key that it works on.

        So a run that ends after the name was taken for another key is not among those of that.
        """
        return f"hookline.runs.{hashlib.sha256(f'{self.key}/{name}/{rule.key}'.encode()).hexdigest()[:16]}"

    async def _forget_runs(self, name: str, rule: R) -> None:
        async for _ in bulk.delete(self._datastore, self._runs_of(name, rule), {}, triggers=False, reserved=True):
            pass

    async def forget(self, name: str, rule: R, sort_field: str) -> None:
        """Remove the record of one run, if it is there."""
        call = self._datastore.calls.delete(self._runs_of(name, rule), sort_field, triggers=False, reserved=True)
        await self._datastore.unmarked().run([call])

    async def _keep_runs(self, name: str, rule: R) -> None:
        each = -(-RUNS_KEPT // self._datastore.calls.partitions)
        kept = {f"keep:{status}": f"{_RUNS_AGE_MS} {each}" for status in ("completed", "failed")}
        await self._datastore.unmarked().change_settings(self._runs_of(name, rule), kept)

    async def runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Page:
        """What came of the runs of a rule, the last ones first: the contents of the items.

        Raises:
            NotFound: there is none of this name.
            Invalid: the cursor is none.
        """
        key = self._runs_of(name, self.rule(await self.get(name)))
        return await self._datastore.query(key, order="sortField:desc", limit=limit, cursor=cursor)

    async def run_by_hand(self, name: str) -> A:
        """Run a rule now.

        Raises:
            NotFound: there is none of this name.
            HooklineError: it could not be run.
        """
        item = await self.get(name)
        rule, now = self.rule(item), await self._datastore.connection.now_ms()
        run = {"tick": None, "by": "hand", "startedAt": format_time(now)}
        sort_field = f"{now:015d}-{secrets.token_hex(4)}"
        try:
            tick = await self._datastore.moment()
            answer = await self.perform(lambda _: self._datastore, item, rule, [tick])
        except IdempotencyKeyReused:
            raise
        except HooklineError as error:
            await self.record(name, rule, sort_field, {**run, "error": str(error)})
            raise
        if not getattr(answer, "replayed", False):
            await self.record(name, rule, sort_field, run | self.tell(answer))
        return answer

    async def record(self, name: str, rule: R, sort_field: str, run: dict[str, Any]) -> dict[str, Any]:
        """Keep what came of a run -> the same, ended. Who went on with one knows all of it, so the last word stays."""
        now = await self._datastore.connection.now_ms()
        run = {**run, "endedAt": format_time(now)}
        metadata = {"status": "failed" if "error" in run else "completed"}
        call = self._datastore.calls.create(
            self._runs_of(name, rule),
            sort_field,
            content=run,
            metadata=metadata,
            upsert="error" not in run,
            triggers=False,
            reserved=True,
        )
        (outcome,) = await self._datastore.unmarked().run([call])
        if not outcome.ok and outcome.word != "exists":
            log.warning("a run of %s %s cannot be kept: %s", self.noun, name, outcome.word)
        return run


def due(rule: Rule, tick: int, now: int) -> dict[str, Any]:
    """The metadata of a rule that waits for a tick."""
    due = tick + random.randint(0, rule.jitter_ms)  # noqa: S311 - spreads runs, guards nothing
    # With a time to come, the engine makes it wait.
    return {"status": "scheduled" if due > now else "not_started", "tick": tick, "scheduled_at": format_time(due)}
