"""The worker: claims the jobs of a key, runs their handlers, and says what became of them.

One *exchange* a turn settles what is done and claims for the slots that are free. Two may be in flight, so that the
store works while handlers run. Where nothing is to be claimed, a claim waits in the store's line until something is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
from collections import deque
from functools import partial
from typing import Any

from hookline import registry
from hookline.clock import Duration, parse_duration
from hookline.errors import (
    HooklineError,
    Incompatible,
    Invalid,
    InvalidApiKey,
    KeyNotAllowed,
    MissingScope,
    OutboxFull,
    OutcomeUnknown,
    Refused,
    ReservedKey,
    TooManyFields,
    Unavailable,
)
from hookline.handlers import Handlers
from hookline.holding import LOST, RELEASED, Held, Lane
from hookline.item import check_key
from hookline.outcome import Claimed, Outcome
from hookline.progress import Progress
from hookline.registry import QUIET, STOP, Presence
from hookline.source import Source, check_source

EXCHANGE_MAX = 50
"""Jobs that one exchange settles, and claims: together one call of the store."""
EXCHANGES_MAX = 2
WAIT = 20.0
"""Seconds for which a claim waits; :data:`TURN` where more handlers wait than slots are free, so that each has one."""
TURN = 0.5
REST = 1.0
"""Seconds after which a key is asked again that gives no claims now: one that is paused."""
BACKOFF_MAX = 5.0
_FATAL = (ReservedKey, InvalidApiKey, KeyNotAllowed, MissingScope)
"""Refusals that time does not change: who runs a worker has to know."""
_NOT_NOW = (Unavailable, OutcomeUnknown, OutboxFull)

log = logging.getLogger(__name__)


class Worker(Handlers):
    """Runs the jobs of one key.

    Args:
        source: an open :class:`Datastore`, or a :class:`Client`.
        key: whose items are the jobs.
        concurrency: jobs that run at the same time.
        lock_for: how long a claim holds. It is prolonged at a third of that, so this is how long a job waits whose
            worker has died.
        grace: seconds that :meth:`stop` gives the handlers that run; what is left then is given back.
        worker_id: what the claims are made as; by default of host, process and chance.

    Raises:
        Invalid: one of them is no such thing.
    """

    def __init__(
        self,
        source: Source,
        key: str,
        *,
        concurrency: int = 10,
        lock_for: Duration = 60,
        grace: float = 25.0,
        worker_id: str | None = None,
    ) -> None:
        super().__init__()
        check_source(source)
        check_key(key)
        if concurrency < 1:
            raise Invalid.at("/concurrency", "expected a whole number from 1")
        self.source = source
        self.key = key
        self.concurrency = concurrency
        self.lock_for = lock_for
        self.grace = grace
        self.worker_id = worker_id or f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock_s = parse_duration(lock_for) / 1000
        self._most = max(1, min(EXCHANGE_MAX, -(-concurrency // EXCHANGES_MAX)))
        # What has run and cannot be told is held as well: without an end to that, a stop would lose ever more results.
        self._held_max = 2 * concurrency + EXCHANGE_MAX
        self._exchanges: set[asyncio.Task[None]] = set()
        self._used = 0
        self._has_ended = False
        self._start_anew()

    def _start_anew(self) -> None:
        """It may run once more; what goes on of the last time keeps its slots."""
        self._held: dict[str, Held] = {}
        self._done: deque[Held] = deque()
        self._untold: list[Held] = []
        self._failures, self._paused, self._let_in = 0, False, False
        self._fatal: Exception | None = None
        self.claiming, self._stopping = True, False
        self._wake, self._tell_again = asyncio.Event(), asyncio.Event()
        self._progress = Progress(self.source)
        for lane in self.lanes:
            lane.idle = lane.resting = False

    @property
    def in_flight(self) -> int:
        """Jobs that are held now."""
        return len(self._held)

    def quiet(self) -> None:
        """Claim no more; what runs goes on."""
        self.claiming = False
        for lane in self.lanes:
            if lane.waiting:
                lane.waiting.cancel()
        self._wake.set()

    def stop(self) -> None:
        """Claim no more, finish what runs within the grace, give the rest back; then :meth:`run` returns.

        Once it has, this is nothing to do with the next run; before the first, that ends at once.
        """
        if not self._has_ended:
            self._stopping = True
            self.quiet()

    async def run(self) -> None:
        """Work until :meth:`stop`; it may be run again after that.

        Raises:
            Invalid, ReservedKey: the key or the filters of a handler are no such things.
            HooklineError: the server takes no calls of ours. Whatever is raised, what ran was finished or given back.
        """
        if not self.lanes:
            raise Invalid.at("/handlers", "expected at least one function with @worker.handles()")
        self._loop, self._has_ended = asyncio.get_running_loop(), False
        works = (self._renew, self._settle_again, self._progress.run, self._be_seen)
        beside = [asyncio.create_task(work()) for work in works]
        for task in beside:
            task.add_done_callback(self._ended_beside)
        try:
            while not self._stopping:
                self._turn()
                await self._wake.wait()
                self._wake.clear()
            await self._drain(self.grace)
        except asyncio.CancelledError:
            self.stop()
            await self._drain(min(self.grace, 2.0), finish=False)
            raise
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            self.processes.close()
            fatal, self._has_ended = self._fatal, True
            self._start_anew()
        if fatal:
            raise fatal

    def _ended_beside(self, task: asyncio.Task[None]) -> None:
        """Without what prolongs its locks a worker must not go on: others would run the same jobs."""
        if not task.cancelled() and (error := task.exception()):
            self._end(error)

    def _turn(self) -> None:
        """Start what there is room for."""
        if self._paused:
            return
        while len(self._exchanges) < EXCHANGES_MAX:
            batch = self._next_batch()
            lane = None if batch and batch[0].updates else self._hungry()
            limit = min(self._most, self.concurrency - self._used) if lane else 0
            if not batch and not limit:
                break
            self._used += limit
            task = asyncio.create_task(self._exchange(batch, lane, limit))
            self._exchanges.add(task)
            task.add_done_callback(partial(self._exchanged, limit))
        if self.claiming:
            self._wait_in_line()

    def _exchanged(self, limit: int, task: asyncio.Task[None]) -> None:
        self._exchanges.discard(task)
        # Not at the end of its work, which a task that is cancelled before it begins never comes to.
        self._used -= limit
        if not task.cancelled() and (error := task.exception()):
            self._end(error)
        self._wake.set()

    def _next_batch(self) -> list[Held]:
        """What is done, as much as one exchange settles; what is settled by an update goes by itself."""
        batch: list[Held] = []
        done = self._done
        while done and len(batch) < self._most and done[0].updates == (batch[0].updates if batch else done[0].updates):
            batch.append(done.popleft())
        return batch

    def _hungry(self) -> Lane | None:
        """The handler to claim for next: each in turn, but those for which there is nothing."""
        if not self.claiming or self._used >= self.concurrency or len(self._held) >= self._held_max:
            return None
        for lane in self.lanes:
            if not (lane.idle or lane.resting):
                self.lanes.remove(lane)
                self.lanes.append(lane)
                return lane
        return None

    def _wait_in_line(self) -> None:
        idle = [lane for lane in self.lanes if lane.idle and lane.waiting is None and not lane.resting]
        scarce = len(self.lanes) > self.concurrency - len(self._held)
        for place, lane in enumerate(idle):
            free = self.concurrency - self._used
            if free <= 0 or len(self._held) >= self._held_max:
                break
            limit = max(1, min(self._most, free // (len(idle) - place)))
            self._used += limit
            lane.waiting = asyncio.create_task(self._wait(lane, limit, TURN if scarce else WAIT))
            lane.waiting.add_done_callback(partial(self._waited, lane, limit))

    # Exchanges

    async def _exchange(self, batch: list[Held], lane: Lane | None, limit: int) -> None:
        began, claimed = self._loop.time(), None
        calls = [held.call for held in batch]
        try:
            if lane is None:
                settle = self.source.run if batch[0].updates else self.source.settle
                outcomes = await settle(calls)
            elif not batch:
                outcomes, claimed = [], await self.source.claim(self.key, limit=limit, **self._options(lane))
            else:
                outcomes, claimed = await self.source.exchange(calls, self.key, limit=limit, **self._options(lane))
        except (Invalid, MissingScope) as error:
            if not batch or (isinstance(error, MissingScope) and not batch[0].updates):
                raise
            await self._settle_each(batch, error)
        except HooklineError as error:
            for held in batch:
                held.sent = True
            self._done.extendleft(reversed(batch))
            self._meet(error, lane)
        else:
            self._failures, self._let_in = 0, True
            for held, outcome in zip(batch, outcomes, strict=True):
                self._settled(held, outcome)
        if claimed and lane:
            self._begin(lane, claimed, began)
            lane.idle = len(claimed.items) < limit and claimed.failure is None
            if claimed.failure:
                self._meet(claimed.failure, lane)

    async def _wait(self, lane: Lane, limit: int, wait: float) -> None:
        """Wait for jobs, slots reserved. Cancelled, the claim gives back what it has just taken."""
        try:
            claimed = await self.source.claim(self.key, limit=limit, wait=wait, **self._options(lane))
            self._failures, self._let_in = 0, True
            # The lock began when the item was taken, just now: whoever waits has one that is up to WAIT old.
            self._begin(lane, claimed, self._loop.time())
            lane.idle = len(claimed.items) < limit
            self.lanes.remove(lane)
            self.lanes.append(lane)
        except HooklineError as error:
            self._meet(error, lane)
        except Exception as error:
            self._end(error)

    def _waited(self, lane: Lane, limit: int, _: asyncio.Task[None]) -> None:
        self._used -= limit
        lane.waiting = None
        self._wake.set()

    def _options(self, lane: Lane) -> dict[str, Any]:
        return {"worker_id": self.worker_id, "lock_for": self.lock_for, "where": lane.where}

    def _meet(self, error: HooklineError, lane: Lane | None) -> None:
        """Go on later, if that may help."""
        if isinstance(error, Refused) and not isinstance(error, _FATAL) and lane:
            lane.resting = True
            self._loop.call_later(REST * random.uniform(1, 1.2), self._rested, lane)  # noqa: S311 - spreads load
        elif self._passes(error):
            self._back_off(error)
        else:
            self._end(error)

    def _passes(self, error: HooklineError) -> bool:
        """Whether it may be over later: so a store that has let us in before, and does not now."""
        return isinstance(error, _NOT_NOW) or (self._let_in and isinstance(error, Incompatible))

    def _back_off(self, error: HooklineError) -> None:
        if self._paused:
            return
        delay = self._delay(self._failures)
        if self._failures == 0:
            log.warning("no answer, trying again until there is one: %s", error)
        self._failures += 1
        # What the timer calls ends the pause, whatever the clock says by then: uvloop's timers come up to 1 ms early.
        self._paused = True
        self._loop.call_later(delay, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._wake.set()

    def _rested(self, lane: Lane) -> None:
        lane.resting = False
        self._wake.set()

    def _delay(self, failures: int) -> float:
        """Seconds before another try after so many."""
        longest = 0.5 if self._stopping else BACKOFF_MAX
        return min(longest, 0.05 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311 - spreads load

    def _end(self, error: BaseException) -> None:
        """What cannot be got over ends the worker, once what runs is finished."""
        self._fatal = self._fatal or (error if isinstance(error, Exception) else RuntimeError(repr(error)))
        self.stop()

    async def _settle_each(self, batch: list[Held], error: HooklineError) -> None:
        """One of many can't be taken, so nothing was: alone, each shows whether it is the one."""
        if len(batch) == 1:
            batch[0].refuse(self.source.calls, error)
            self._done.append(batch[0])
            return
        for place, held in enumerate(batch):
            try:
                (outcome,) = await self.source.run([held.call])
                self._settled(held, outcome)
            except (Invalid, MissingScope) as error:
                await self._settle_each([held], error)
            except HooklineError as error:
                self._done.extend(batch[place:])
                self._meet(error, None)
                return

    def _settled(self, held: Held, outcome: Outcome) -> None:
        """What became of a result. Where that is not known, or not now, it is sent again: the token keeps it single."""
        error = None if outcome.ok else outcome.error()
        if error and self._passes(error):
            if not self._untold:
                log.warning("%s: what became of it could not be told, trying again until it is: %s", held.job, error)
            held.sent = True
            self._untold.append(held)
            self._tell_again.set()
            return
        if isinstance(error, TooManyFields | Invalid):
            held.refuse(self.source.calls, error)
            self._done.append(held)
            return
        self._held.pop(held.token, None)
        if error and not (held.sent and outcome.word == "stale_token"):
            log.warning("%s: what became of it was not taken: %s", held.job, error)

    async def _settle_again(self) -> None:
        """Tell again what could not be told; beside the exchanges, for the jobs of other partitions go on by those."""
        failures = 0
        while True:
            await self._tell_again.wait()
            self._tell_again.clear()
            await asyncio.sleep(self._delay(failures))
            batch, self._untold = self._untold, []
            try:
                outcomes = await self.source.run([held.call for held in batch])
            except (Invalid, MissingScope) as error:
                await self._settle_each(batch, error)
            except HooklineError as error:
                self._untold = batch + self._untold
                if not self._passes(error):
                    self._end(error)
            else:
                for held, outcome in zip(batch, outcomes, strict=True):
                    self._settled(held, outcome)
            failures = failures + 1 if self._untold else 0
            if failures:
                self._tell_again.set()
            self._wake.set()

    def _begin(self, lane: Lane, claimed: Claimed, locked_at: float) -> None:
        for item in claimed.items:
            held = Held(item, self._progress.tell, locked_at)
            self._held[held.token] = held
            if self._stopping:
                held.abandon(self.source.calls)
                self._done.append(held)
                continue
            self._used += 1
            held.task = self._loop.create_task(lane.run(held.job))
            held.task.add_done_callback(partial(self._ended, held))

    def _ended(self, held: Held, task: asyncio.Task[Any]) -> None:
        self._used -= 1
        self._progress.forget(held)
        if held.fate == LOST:
            if held.call is None:  # else it was given back, and is held until that has been taken
                self._held.pop(held.token, None)
        else:
            held.judge(self.source.calls, task)
            self._done.append(held)
        self._wake.set()

    async def _renew(self) -> None:
        """Prolong the locks of what is held, in one batch; who has lost one is told."""
        pause = self._lock_s / 3
        while True:
            await asyncio.sleep(pause)
            pause, now = self._lock_s / 3, self._loop.time()
            held = [each for each in self._held.values() if now - each.locked_at > self._lock_s / 6]
            if not held:
                continue
            calls = self.source.calls
            try:
                outcomes = await self.source.settle([each.extend(calls, self.lock_for) for each in held])
            except HooklineError as error:
                log.warning("locks could not be prolonged, trying again: %s", error)
                pause = min(pause, 1.0)
                continue
            for each, outcome in zip(held, outcomes, strict=True):
                if outcome.ok:
                    each.prolonged(now, outcome.locked_until_ms)
                elif outcome.failure:
                    pause = min(pause, 1.0)
                elif each.token in self._held and each.running:
                    log.warning("%s: stopped, since %s", each.job, outcome.error())
                    each.give_up(LOST)

    def _presence(self) -> Presence:
        told = registry.tellable(self.handlers)
        return Presence(
            self.key, self.worker_id, socket.gethostname(), os.getpid(), told, self.concurrency, self.in_flight
        )

    async def _be_seen(self) -> None:
        await registry.be_seen(self.source, self._presence, {QUIET: self.quiet, STOP: self.stop})

    async def _drain(self, grace: float, *, finish: bool = True) -> None:
        """Finish what runs or give it back, within the grace."""
        deadline = self._loop.time() + grace
        cancel_at = deadline - min(grace / 3, 5.0) if finish else self._loop.time()
        if not await self._turns_until(cancel_at):
            for held in [*self._held.values()]:
                held.give_up(RELEASED)
            if not await self._turns_until(deadline - min(grace / 6, 2.0)):
                for held in self._held.values():
                    if held.running:  # it does not let itself be cancelled
                        held.abandon(self.source.calls)
                        self._done.append(held)
                await self._turns_until(deadline)
        for task in self._exchanges:
            task.cancel()
        if self._held:
            log.warning("%d jobs are left to be claimed again when their locks end", len(self._held))

    async def _turns_until(self, moment: float) -> bool:
        """Go on without claims until nothing is held, or until the moment -> whether nothing is."""
        while self._held or self._exchanges or any(lane.waiting for lane in self.lanes):
            self._turn()
            left = moment - self._loop.time()
            if left <= 0:
                return False
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return False
            self._wake.clear()
        return True
