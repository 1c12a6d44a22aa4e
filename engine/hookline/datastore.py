"""The datastore: every verb of the engine over one store, for one item or many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Self, Unpack

from msgspec import structs

from hookline import agreement, codec, keys, registry, rulebook
from hookline.arguments import (
    ClaimArguments,
    CreateArguments,
    DeleteArguments,
    ExchangeArguments,
    SettingsArguments,
    UpdateArguments,
)
from hookline.batcher import Batcher, drop
from hookline.call import Call
from hookline.calls import CLAIM_MAX, GIVEN_MAX, check_limit, given_settings
from hookline.claims import Claims
from hookline.errors import IdempotencyKeyReused, OutcomeUnknown, Refused, ReservedKey, Unavailable
from hookline.group import AT_ONCE_MAX, OPERATIONS_MAX, Alone, Group, Placed, Result, grouped
from hookline.item import RESERVED_PREFIX, check_key
from hookline.keysettings import KeySettings, Known, encode_settings, read_settings
from hookline.link import Hold
from hookline.nodes import Nodes
from hookline.outcome import Claimed, Outcome
from hookline.registry import Presence, Workers
from hookline.repeating import Repeating
from hookline.row import Row
from hookline.rule import Orchestration, Schedule
from hookline.secret import SecretBox
from hookline.settings import Settings
from hookline.tally import note
from hookline.trace import PARENT
from hookline.wake import Wakes
from hookline.where import compile_where

_NOTHING_KNOWN = Known()
FULL_FOR = 1.0
"""Seconds after a key was found full elsewhere as well: to refuse one costs as much as before then."""


class Datastore(Repeating):
    """The engine over one store. ``async with Datastore(url, settings, secrets) as datastore: ...``.

    ``calls``, ``claims`` and ``upkeep`` are there once it is open: the store knows how many partitions there are.
    For ``url`` see :class:`Connection`.
    """

    def __init__(
        self,
        url: str | Nodes,
        settings: Settings,
        secrets: SecretBox,
        *,
        now_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        super().__init__(url, settings, secrets, now_ms=now_ms)
        self.wakes = Wakes(self.connection, keys.wake_channel)
        self._batcher = Batcher(self.connection)
        self._known: dict[tuple[str, int], Known] = {}
        self._full_until: dict[str, float] = {}
        """By key until when (monotonic seconds) a create that finds no room is not tried elsewhere."""

    async def open(self) -> None:
        """Check the store and open the namespace.

        Raises:
            Incompatible: the store cannot be used as it is.
            Unavailable: it cannot be reached.
        """
        await super().open()
        self._batcher.loop = self.loop
        self.wakes.released = self.changes.released = False
        self.claims = Claims(
            self.calls, self.wakes, self._batcher, self.connection, self.together, self._perform, self._perform_held
        )

    async def close(self) -> None:
        """Let those go who wait for items, wait for what is under way, then close."""
        self.wakes.release()
        self.changes.release()
        try:
            await self._batcher.close()
        finally:  # also where whoever waits for that gives up
            await self.wakes.close()
            await super().close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # Writing

    async def recall(self, key: str, sort_field: str) -> Outcome | None:
        """What the next write, of this item, was answered already; for who would read the item before it.

        Raises:
            IdempotencyKeyReused: the key came with another request before.
            Unavailable, OutcomeUnknown
        """
        if self.marks is None or self.marks.body is None:
            return None
        await self._begin_if(several=False)
        self.marks.recalled = True
        request = {"key": key, "sort": sort_field, "recall": True}
        call = Call("patch_drain", self.calls.partition(key, sort_field), key, sort_field, request)
        outcome = _settled(await self._perform(self.marks.mark(call)))
        if outcome.failure or outcome.word == IdempotencyKeyReused.code:
            raise outcome.error()
        if not outcome.ok:
            return None
        self.marks.count(outcome)
        return outcome

    async def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Run many operations -> their outcomes in order. Not atomic; operations on the same item run in order.

        An operation that met a failure of the store has it as its outcome; those that were to run after it are not
        sent.

        Raises:
            Unavailable, OutcomeUnknown: that became of every operation.
        """
        if self.marks:
            await self._begin_if(several=len(calls) > 1)
            calls = [self.marks.mark(call, ahead) for ahead, call in enumerate(calls)]
        outcomes = await self._attempt(calls)
        failures = [outcome.failure for outcome in outcomes if outcome.failure]
        if failures and len(failures) == len(calls):
            raise failures[0]
        return self._counted(outcomes)

    def _counted(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Outcomes of many, each of which has its place in the request."""
        if self.marks:
            for outcome in outcomes:
                if outcome.word == IdempotencyKeyReused.code and self.marks.body is not None:
                    raise outcome.error()
                self.marks.count(outcome, always=True)
        return outcomes

    async def _attempt(self, calls: Sequence[Call]) -> list[Any]:
        """Operations -> the Outcome or Claimed of each, a failure included."""
        in_parts = len(calls) > OPERATIONS_MAX or len({(call.key, call.sort_field) for call in calls}) < len(calls)
        work = self._carry_out(calls)
        # A client that goes away must not leave a batch, nor an item, between two of its operations.
        return await (self._batcher.whole(work) if in_parts else work)

    async def _carry_out(self, calls: Sequence[Call]) -> list[Any]:
        """All of them, at the same time where order allows; waited for in order, as a task for each would cost most."""
        outcomes: list[Outcome | Claimed | None] = [None] * len(calls)
        left: list[Placed] = list(enumerate(calls))
        failed = False
        while left:
            sent: list[tuple[Group, asyncio.Future[list[Result]]]] = []
            later, again = left[AT_ONCE_MAX:], list[Placed]()
            try:
                for group in grouped(left[:AT_ONCE_MAX], self._pack, self._read, later):
                    sent.append((group, self._batcher.submit(group)))
                    if len(left) > OPERATIONS_MAX:
                        await asyncio.sleep(0)  # it leaves before the next is packed
                for group, answer in sent:
                    for (place, _), outcome in zip(group.members, await group.told(answer), strict=True):
                        if isinstance(outcome, Call):
                            again.append((place, outcome))
                            continue
                        outcomes[place] = outcome
                        failed = failed or outcome.failure is not None
            except BaseException:
                for _, answer in sent:
                    drop(answer)
                raise
            if failed:
                error = Unavailable("an operation before this one failed")
                for place, call in later:
                    outcomes[place] = call.failed(error)
                later = []
            left = sorted(again + later, key=itemgetter(0))
        return outcomes

    async def _perform_held(self, call: Call, hold: Hold) -> Outcome | Claimed | None:
        """One claim, once its hold lets it through -> what became of it; None where it has to be made the usual way."""
        none = structs.replace(call, request={**call.request, "limit": 0})
        packed = (self._pack(each, PARENT.get()) for each in (call, none))
        answer = await self.connection.held(hold, call.script, *packed)
        result = self._read(call, answer[0]) if answer else call
        return None if isinstance(result, Call) else result

    async def _perform(self, call: Call) -> Outcome | Claimed:
        """One operation -> what became of it, or of the one in its place."""
        while True:
            (result,) = await self._batcher.submit(Alone(call, self._pack, self._read))
            if not isinstance(result, Call):
                return result
            call = result

    def _pack(self, call: Call, parent: str) -> bytes | Row:
        return call.pack(self._known.get((call.key, call.partition), _NOTHING_KNOWN), parent)

    def _read(self, call: Call, answer: list[Any]) -> Result:
        """What became of an operation; the same where the key has other settings than was known: they are known now."""
        if answer[0] == b"settings_changed":
            settings = dict(answer[2][b"settings"] or {})  # an empty table comes as a list
            self._known[call.key, call.partition] = Known.decode(settings)
            return call
        tried = answer[0] == b"key_full" and call.elsewhere is not None
        if tried and time.monotonic() >= self._full_until.get(call.key, 0.0):
            if call.elsewhere:
                return self.calls.elsewhere(call)
            if len(self._full_until) >= AT_ONCE_MAX:
                self._full_until.clear()
            self._full_until[call.key] = time.monotonic() + FULL_FOR
        result = call.decode(answer)
        note(call, result)
        return result

    async def _accept(self, call: Call) -> Outcome:
        if self.marks:
            await self._begin_if(several=False)
            call = self.marks.mark(call)
        outcome = _settled(await self._perform(call))
        if not outcome.ok:
            raise outcome.error()
        if self.marks:
            self.marks.count(outcome)
        return outcome

    async def create(self, key: str, sort_field: str | None = None, **fields: Unpack[CreateArguments]) -> Outcome:
        """Create an item (:meth:`Calls.create`); without a sortField it gets one that is unique and time-ordered.

        Raises:
            Exists: it is there already, and ``upsert`` is not set.
            NotFound, VersionConflict, PreconditionFailed, Locked, NotClaimable, Paused: it may not be replaced so.
            Invalid, ReservedKey, KeyFull, Corrupt, OutboxFull, StoreFull, Unavailable, OutcomeUnknown
        """
        return await self._accept(self.calls.create(key, sort_field, partition=self.partition_ahead(0), **fields))

    async def update(self, key: str, sort_field: str, **fields: Unpack[UpdateArguments]) -> Outcome:
        """Update an item (:meth:`Calls.update`).

        Raises:
            NotFound: there is no such item.
            VersionConflict, PreconditionFailed, Locked, StaleToken, Cancelled, NotClaimable, Paused: it, or its key,
                does not allow the update.
            Invalid, ReservedKey, TooManyFields, Corrupt, OutboxFull, StoreFull, Unavailable, OutcomeUnknown
        """
        return await self._accept(self.calls.update(key, sort_field, **fields))

    async def delete(self, key: str, sort_field: str, **fields: Unpack[DeleteArguments]) -> Outcome:
        """Delete an item (:meth:`Calls.delete`); the outcome has the item as it was.

        Raises:
            NotFound: there is no such item.
            VersionConflict, PreconditionFailed, StaleToken, Cancelled: it does not allow that.
            Invalid, ReservedKey, Corrupt, OutboxFull, Unavailable, OutcomeUnknown
        """
        return await self._accept(self.calls.delete(key, sort_field, **fields))

    async def settle(self, calls: Sequence[Call]) -> list[Outcome]:
        """End or prolong claims: calls made by ``calls.complete / fail / release / extend`` -> outcomes in order.

        Raises:
            Unavailable, OutcomeUnknown
        """
        return await self.run(calls)

    async def exchange(
        self, calls: Sequence[Call], key: str, *, worker_id: str, limit: int = 1, **options: Unpack[ExchangeArguments]
    ) -> tuple[list[Outcome], Claimed]:
        """Settle, and claim up to ``limit`` items again, in one call of the store per partition.

        Of the partitions in which nothing is settled, those are not asked of which this process has just seen that
        nothing is left, and was told of nothing since.
        Whatever was settled or claimed is told: what kept the rest from it is in the outcomes and in
        ``Claimed.failure``.

        Raises:
            Invalid, ReservedKey
            Unavailable, OutcomeUnknown: that became of everything.
        """
        asked: dict[str, Any] = {**options, "worker_id": worker_id, "where": compile_where(options.get("where"))}
        check_limit(limit, CLAIM_MAX)
        exchange = self._exchange(calls, key, limit, asked)
        return await self.claims.whole(key, exchange, itemgetter(1), keep=self.marks is not None)

    async def _exchange(
        self, calls: Sequence[Call], key: str, limit: int, options: dict[str, Any]
    ) -> tuple[list[Outcome], Claimed]:
        unbound = self.marks.partition() if self.marks else self.claims.partition(key)
        partition = calls[0].partition if calls else unbound
        first = self.calls.claim(key, limit=min(limit, GIVEN_MAX), partition=partition, **options)
        following = structs.replace(first, script="settle")
        if self.marks:
            await self._begin_if(several=len(calls) > 0)
            following = self.marks.mark(following, len(calls), always=len(calls) > 0)
            calls = [self.marks.mark(call, ahead) for ahead, call in enumerate(calls)]
        asked = time.monotonic()
        *outcomes, claimed = await self._attempt([*calls, following])
        settled = self._counted([_settled(outcome) for outcome in outcomes])
        if isinstance(claimed, Outcome):
            claimed = Claimed([], failure=claimed.error())
            if self.marks:  # a repeat may be given something by it, and must find what was claimed instead
                self.marks.pass_over()
        else:
            self.claims.see(following, claimed, asked)
            if self.marks:
                self.marks.count(claimed, always=len(calls) > 0)
        goes_on = claimed.more or limit > GIVEN_MAX or self.calls.partitions > 1
        left = limit - len(claimed.items) - claimed.gone
        elsewhere = isinstance(claimed.failure, Unavailable) and not self.marks
        if left > 0 and goes_on and (not claimed.failure or isinstance(claimed.failure, Refused) or elsewhere):
            rest = await self.claims.take(key, left, options, self.marks, given=True, trusts=True)
            failure = rest.failure if elsewhere else claimed.failure or rest.failure
            claimed = structs.replace(rest, items=claimed.items + rest.items, failure=failure)
        if claimed.failure and not claimed.items and all(outcome.failure for outcome in settled):
            raise claimed.failure
        return settled, claimed

    # Claims

    async def claim(
        self,
        key: str,
        *,
        worker_id: str,
        limit: int = 1,
        wait: float = 0,
        **options: Unpack[ClaimArguments],
    ) -> Claimed:
        """Claim up to ``limit`` items (:meth:`Calls.claim`); none there, wait up to ``wait`` seconds for one.

        Raises:
            Invalid, ReservedKey, Corrupt, OutboxFull, Unavailable, OutcomeUnknown
        """
        self._check_loop()
        check_limit(limit, CLAIM_MAX)
        asked: dict[str, Any] = {**options, "worker_id": worker_id, "where": compile_where(options.get("where"))}
        if self.marks:
            await self._begin_if(several=False)
        if wait > 0:
            return await self.claims.wait(key, limit, wait, asked, self.marks)
        return await self.claims.at_once(key, limit, asked, self.marks)

    async def sweep(self) -> list[str]:
        """Promote what is due, bury, remove and build, as :class:`Upkeep` does -> the keys that are corrupt.

        Raises:
            Corrupt: the list of what is due is.
            Unavailable: no answer; what a lost step has done stays, and a repeat goes on behind it.
        """
        return await self.upkeep.sweep()

    # Rules

    @property
    def orchestrations(self) -> rulebook.Rulebook[Orchestration, Claimed]:
        """The stored orchestrations."""
        return rulebook.orchestrations(self)

    @property
    def schedules(self) -> rulebook.Rulebook[Schedule, Outcome]:
        """The stored schedules."""
        return rulebook.schedules(self)

    # Workers

    async def heartbeat(self, presence: Presence) -> str | None:
        """Say that a worker lives -> ``quiet`` or ``stop`` if it is asked to, as its own loop does every few seconds.

        Raises:
            Invalid, Unavailable, OutcomeUnknown
        """
        return await registry.heartbeat(self, presence)

    async def leave(self, presence: Presence) -> None:
        """A worker has ended.

        Raises:
            Invalid, Unavailable, OutcomeUnknown
        """
        await registry.leave(self, presence.key, presence.worker_id)

    async def workers(self) -> Workers:
        """The workers that live, at most 10,000.

        Raises:
            Corrupt, Unavailable
        """
        return await registry.workers(self)

    async def signal_worker(self, presence: Presence, signal: str) -> None:
        """Ask a worker to claim no more (``quiet``), or to ``stop``; it learns of it by its next heartbeat.

        Raises:
            NotFound: no such worker has been heard of.
            Invalid, Unavailable, OutcomeUnknown
        """
        await registry.signal_worker(self, presence.key, presence.worker_id, signal)

    # Settings of a key

    async def configure(self, key: str, **settings: Unpack[SettingsArguments]) -> KeySettings:
        """Change settings of a key -> what holds then. None brings a default back, what is not named stays.

        ``max_attempts``: claims before an item becomes a dead letter, 0 is no limit. ``lock_for``: how long a claim
        holds. ``backoff``: before a failed item is claimed again: a duration, a list of them, one for each attempt, or
        ``{"first", "longest"}``, doubling and jittered. ``paused``: no claims until it is resumed. ``max_length``: as
        many items the key may hold, shared evenly by its partitions. ``indexes``: ``{field: number | string | time}``,
        see :mod:`hookline.index`; a new one is built by the servers, or by :meth:`Upkeep.build_all`. ``retention``:
        ``{completed | failed | cancelled: {"age", "count"}}``, beyond which items are removed, the oldest first.
        ``record_deliveries``: webhooks that succeed at once are told of as well.
        ``trigger_urls``: called for the items of the key, in the forms of an item's own; by default for every event.

        Raises:
            Invalid: a flaw for each bad setting.
            ReservedKey, Corrupt, Unavailable
            OutcomeUnknown: no answer; or the change has reached a part of the partitions, and :meth:`key_settings`
                brings it to the rest.
        """
        check_key(key)
        if key.startswith(RESERVED_PREFIX):
            raise ReservedKey
        changes = given_settings(settings)
        seal = partial(
            codec.encode_triggers, secrets=self.secrets, owner=codec.identity(self.settings.namespace, key, "")
        )
        values, gone = encode_settings(changes, self.calls.partitions, seal)
        return read_settings(key, await self.change_settings(key, values, gone), self.calls.partitions)

    async def change_settings(
        self, key: str, values: Mapping[str, str | bytes], gone: Sequence[str] = ()
    ) -> dict[bytes, bytes]:
        """:meth:`configure` in the form in which settings are stored -> all of them; it raises the same but Invalid."""
        self._check_loop()
        return await agreement.change(self.connection, self.calls.partitions, key, values, gone)

    async def key_settings(self, key: str) -> KeySettings:
        """The settings of a key; where a change has not reached all partitions, it does so now.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable
        """
        try:
            return await self.configure(key)
        except OutcomeUnknown as error:  # who reads has changed nothing
            raise Unavailable(str(error)) from error

    async def pause(self, key: str) -> None:
        """Give out no claims of a key until it is resumed. Who holds an item goes on.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable, OutcomeUnknown
        """
        await self.configure(key, paused=True)

    async def resume(self, key: str) -> None:
        """Let a key's items be claimed again, and wake who waits for them.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable, OutcomeUnknown
        """
        await self.configure(key, paused=None)


def _settled(outcome: Outcome | Claimed) -> Outcome:
    if isinstance(outcome, Outcome):
        return outcome
    raise TypeError("a claim has items, not an outcome")
