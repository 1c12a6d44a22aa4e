"""Claims over the partitions of a namespace, at once or waited for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hookline.away import AT_ONCE, Away
from hookline.batcher import Batcher
from hookline.bound import Bound
from hookline.call import Call
from hookline.calls import GIVEN_MAX, Calls
from hookline.connection import Connection
from hookline.errors import HooklineError, Refused, Unavailable
from hookline.item import FAILED
from hookline.link import LATE, Hold
from hookline.once import Once
from hookline.outcome import Claimed, Outcome
from hookline.seen import Seen, filters_of
from hookline.together import Together
from hookline.waiters import Place, Waiters
from hookline.wake import Wakes
from hookline.where import Where

POLL = 1.0
"""Seconds after which the first who waits looks again by itself: it covers lost wake messages and filtered claims."""
_LEAST = 0.01
"""Seconds after which it looks again at the earliest, unless it is told of something."""
FRUITLESS_MAX = 20_000
"""Items that one claim looks at without finding any that meet its filters."""
REST = 4
"""A search of the whole line that found nothing is not repeated for so many times as long as it took. Meanwhile those
who wait with the same filters look at the front of the line alone."""
REST_MAX = 20.0
"""Seconds of that rest, at most."""
_STEP_LEAST = 50
"""Items that each step counts as, at least: one may have done no more than to bring what is due into line."""

_IN_LINE = (b"started", b"not_started")
"""What the place begins with where a claim along the line ended early."""

log = logging.getLogger(__name__)
T = TypeVar("T")
Perform = Callable[[Call], Awaitable[Outcome | Claimed]]
PerformHeld = Callable[[Call, Hold], Awaitable[Outcome | Claimed | None]]
"""Makes a claim that is held back -> None where it has to be made the usual way."""


class _Walk:
    """The way of a claim over the partitions: where it is, what it has found, how long it has looked in vain."""

    def __init__(self, partition: int, partitions: int, most: int, marks: Once | None) -> None:
        """It looks at ``most`` items in vain; without ``marks`` each second at the front, and then it goes on."""
        self.partition = partition
        self.found = 0
        self.after: list[bytes] | None = None
        self.everywhere = marks is None or marks.everywhere
        self.left = partitions if self.everywhere else 1
        """Partitions that are still to be looked at, this one included."""
        self.failure: HooklineError | None = None
        self.unreached: Unavailable | None = None
        self._parts: list[Claimed] = []
        self._partitions = partitions
        self._most = most
        self._fruitless = 0
        self._marks = marks
        self._behind: list[bytes] | None = None
        self._looked = time.monotonic()
        self._repeats = False

    def wants(self, limit: int) -> bool:
        """Whether to go on: what a first one took is asked for to its end, for a rule may have a lower limit by now."""
        return self.found < limit or (self._repeats and self._marks is not None and self._marks.everywhere)

    def note(self, claimed: Claimed, wanted: int, *, stops: bool) -> None:
        """Go on behind what was looked at; on the next partition where this one has no more, or it was enough."""
        self._parts.append(claimed)
        found = len(claimed.items) + claimed.gone
        self.found += found
        self._repeats |= claimed.replayed
        if claimed.replayed or wanted <= 0:
            wanted = GIVEN_MAX
        self._fruitless = 0 if claimed.items else self._fruitless + max(claimed.examined, _STEP_LEAST)
        if found < wanted and (stops or not claimed.more or self._fruitless >= self._most):
            self.leave()
            return
        if self._behind:
            self.after, self._behind, self._looked = self._behind, None, time.monotonic()
        elif self._marks is None and time.monotonic() - self._looked > POLL:
            self.after, self._behind = None, claimed.after
        else:
            self.after = claimed.after

    @property
    def ahead(self) -> list[int]:
        """The partitions that are still to be looked at, this one included."""
        return [(self.partition + place) % self._partitions for place in range(self.left)]

    def leave(self) -> None:
        """Go to the next partition."""
        self.partition, self.left = (self.partition + 1) % self._partitions, self.left - 1
        self.after = self._behind = None

    def find_nothing(self, nothing: Claimed) -> None:
        """Go to the next partition, as it is known what this one gives."""
        self._parts.append(nothing)
        self.leave()

    def pass_over(self) -> None:
        """Go to the next partition, as this one gives nothing now: it may to a repeat."""
        self.leave()
        if self._marks and self._marks.everywhere:
            self._marks.pass_over()

    def together(self, bound: Bound | None, *, given: bool) -> Claimed:
        """What was taken of all partitions, with what kept it from more.

        Raises:
            HooklineError: that, where nothing was taken, nor ``given`` before.
        """
        parts = self._parts
        failure = self.failure or next((part.failure for part in parts if part.failure), None)
        if failure is None and not parts:
            failure = self.unreached
        items = [item for part in parts for item in part.items]
        if failure and not (given or items):
            raise failure
        dues = [part.next_ms for part in parts if part.next_ms is not None]
        return Claimed(
            items,
            bound.next_ms if bound else min(dues, default=None),
            failure=failure,
            replayed=any(part.replayed for part in parts),
            gone=sum(part.gone for part in parts),
            expired=sum(part.expired for part in parts),
            buried=sum(part.buried for part in parts),
            lost=sum(part.lost for part in parts),
            held=bound.held if bound else (),
            paused=bool(parts) and parts[-1].paused,
            after=next((part.after for part in parts if part.after), None),
        )


class Claims:
    """Takes items of a key, partition after partition. ``options`` are the arguments of :meth:`Calls.claim`.

    ``max_in_flight`` among them: so many items at once may have a live lock by claims of the worker that name a bound.
    """

    def __init__(
        self,
        calls: Calls,
        wakes: Wakes,
        batcher: Batcher,
        connection: Connection,
        together: Together,
        perform: Perform,
        perform_held: PerformHeld,
    ) -> None:
        self.waiters = Waiters(wakes)
        self._calls = calls
        self._wakes = wakes
        self._batcher = batcher
        self._perform = perform
        self._connection = connection
        self._perform_held = perform_held
        self._rotation: dict[str, int] = {}
        self._rested: dict[tuple[str, bytes], float] = {}
        self._seen = Seen(connection, together, wakes)
        self._away = Away(connection)
        self._ballots = 0

    def partition(self, key: str) -> int:
        """The partition that the next claim begins with."""
        return self._rotation.get(key, 0)

    def move_on(self, key: str) -> None:
        """Let the next claim begin with the next partition, also where this one has more."""
        self._rotate(key, (self.partition(key) + 1) % self._calls.partitions)

    async def wait(
        self, key: str, limit: int, seconds: float, options: dict[str, Any], marks: Once | None = None
    ) -> Claimed:
        """Take items; none there, wait so long for one.

        Raises:
            Refused, Unavailable, OutcomeUnknown
        """
        deadline = time.monotonic() + seconds
        filters = filters_of(options["where"])
        # Any claim that is held back must do for whatever becomes ready.
        special = filters or "max_in_flight" in options or marks or limit > GIVEN_MAX
        holds = self._connection.can_hold(key) and not special
        # Who has its claims held back is told by the bell.
        rests, trusts = bool(filters) and not marks, not holds
        bound = options.get("max_in_flight")
        # Who may take less than others looks for itself alone: where it finds nothing, they may find something.
        alone = repr((bound and options["worker_id"], bound, marks and marks.partition()))
        async with self.waiters.place(key, filters + alone.encode()) as place:
            claimed: Claimed | None = None
            least = _LEAST
            if holds and (hold := self._hold_unseen(place, key, seconds)):
                claimed = await self._take_held(place, hold, self._calls.claim(key, limit=limit, **options))
                holds = not hold.refused
            while True:
                if claimed is None:
                    began = time.monotonic()
                    front = rests and began < self._rested.get((key, filters), 0.0)
                    claimed = await self.at_once(key, limit, options, marks, front=front, trusts=trusts)
                    if rests and not front and not claimed.items:
                        self._rest(key, filters, claimed, time.monotonic() - began)
                left = deadline - time.monotonic()
                place.found = bool(claimed.items)
                if place.found or claimed.replayed or left <= 0 or self._wakes.released:
                    return claimed
                due = max(least, _seconds_until(claimed.next_ms))
                # If our clock is ahead of the store's, it is not due yet: so we ask less and less often.
                least = min(POLL, 2 * least) if due == least else _LEAST
                hold = self._hold(place, key, min(left, due)) if holds else None
                if hold is None:
                    stale = self._seen.stale_in(key, self._calls.partitions, filters, POLL) if trusts else POLL
                    await place.pause(left, min(stale, due))
                    claimed = claimed if self._wakes.released else None
                else:
                    claimed = await self._take_held(place, hold, self._calls.claim(key, limit=limit, **options))
                    holds = not hold.refused

    def see(self, call: Call, claimed: Claimed, asked: float) -> None:
        """Note of a claim, asked for at a moment (``time.monotonic``), whether it has seen the line to its end.

        Of what it took, what can be no item becomes a dead letter: else it would be claimed each time its lock ends.
        """
        if claimed.broken:
            self._batcher.begin(self._bury(call.key, claimed.broken))
        self._seen.note(call, claimed, asked)

    async def _bury(self, key: str, broken: Sequence[tuple[str, str]]) -> None:
        for sort_field, token in broken:
            log.error("%s/%s: its hash can be no item, so it becomes a dead letter", key, sort_field)
            change = {"status": FAILED, "last_error": "its hash can be no item"}
            fields: dict[str, Any] = {"metadata": change, "token": token, "triggers": False, "reserved": True}
            await self._perform(self._calls.update(key, sort_field, **fields))

    def _hold_unseen(self, place: Place, key: str, seconds: float) -> Hold | None:
        """Hold a claim back without a look, where one has just seen that nothing is left: the bell tells the rest."""
        nothing = self._seen.nothing(key, 0, b"", POLL)
        if nothing is None or self._wakes.released:
            return None
        return self._hold(place, key, min(seconds, _seconds_until(nothing.next_ms)))

    def _hold(self, place: Place, key: str, seconds: float) -> Hold | None:
        """Hold a claim back; None where it is better to wait, or no link is free.

        The store ends a hold late, so it must not be the last, nor end when something is due.
        """
        if not place.first or seconds < POLL + LATE:
            return None
        hold = self._connection.hold(key, POLL, place.event.set)
        if hold:
            place.event.clear()  # whatever has been told has rung the bell as well
        return hold

    def _rest(self, key: str, filters: bytes, claimed: Claimed, seconds: float) -> None:
        """Let those who wait look at the front alone for a while, since to look for so long at all was in vain.

        By an index it is no line that is walked, and what has come last may be anywhere.
        """
        now, rest = time.monotonic(), min(REST_MAX, REST * seconds)
        if rest > POLL and claimed.after and claimed.after[0] in _IN_LINE:
            going_on = {line: until for line, until in self._rested.items() if until > now}
            self._rested = {**going_on, (key, filters): now + rest}

    async def at_once(
        self,
        key: str,
        limit: int,
        options: dict[str, Any],
        marks: Once | None = None,
        *,
        front: bool = False,
        trusts: bool = False,
    ) -> Claimed:
        """Take items that are there now; those at the ``front`` of the line, if there are any.

        Raises:
            Refused, Unavailable, OutcomeUnknown
        """
        taking = self.take(key, limit, options, marks, front=front, trusts=trusts)
        return await self.whole(key, taking, _itself, keep=marks is not None)

    async def _take_held(self, place: Place, hold: Hold, call: Call) -> Claimed | None:
        """Let the store hold a claim back -> what it took; None where it is better to look."""
        place.hold, leave = hold, self._batcher.enter()
        try:
            # In no task of its own: each turn of the loop that it takes, a job that has just been made waits.
            claimed = await self._ask_held(call, hold)
        except asyncio.CancelledError:
            hold.end()
            # Whether it took something is asked for.
            await self._give_back_whole(call.key, self._batcher.begin(self._ask_held(call, hold)), _itself, keep=False)
            raise
        finally:
            place.hold = None
            leave()
        if claimed and not claimed.items and (claimed.more or hold.refused):
            return None  # it has not seen all, or stands for one that may not have run
        return claimed

    async def _ask_held(self, call: Call, hold: Hold) -> Claimed | None:
        try:
            outcome = await self._perform_held(call, hold)
        finally:
            hold.drop()
        if isinstance(outcome, Outcome):
            raise outcome.error()
        if outcome:
            # The bell tells what comes after it; but one that was lost stands for a claim of nothing.
            self.see(call, outcome, -math.inf if hold.refused else time.monotonic())
            if outcome.failure and not outcome.items:
                raise outcome.failure
        return outcome

    async def whole(
        self, key: str, work: Coroutine[Any, Any, T], claimed: Callable[[T], Claimed | None], *, keep: bool
    ) -> T:
        """Take items; whoever goes away meanwhile gets nothing, so what was taken for it is given back.

        But for a request that may come again: what was taken is kept for its repeat. ``claimed`` is of what work gives.
        """
        taking = self._batcher.begin(work)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            await self._give_back_whole(key, taking, claimed, keep=keep)
            raise

    async def _give_back_whole(
        self, key: str, taking: asyncio.Task[T], claimed: Callable[[T], Claimed | None], *, keep: bool
    ) -> None:
        """Give back to its end, also where who waits for it is cancelled once more."""
        await asyncio.shield(self._batcher.begin(self._give_back(key, taking, claimed, keep=keep)))

    async def _give_back(
        self, key: str, taking: asyncio.Task[T], claimed: Callable[[T], Claimed | None], *, keep: bool
    ) -> None:
        with contextlib.suppress(HooklineError):
            taken = claimed(await taking)
            if taken and not keep:
                # Also of the engine's own keys, as it was taken.
                calls = [
                    self._calls.release(key, item.sort_field, item.token or "", reserved=True) for item in taken.items
                ]
                await asyncio.gather(*map(self._perform, calls), return_exceptions=True)

    async def take(
        self,
        key: str,
        limit: int,
        options: dict[str, Any],
        marks: Once | None = None,
        *,
        given: bool = False,
        front: bool = False,
        trusts: bool = False,
    ) -> Claimed:
        """Stay on one partition while that has work, then rotate; the limit is split, never exceeded.

        With ``marks`` it looks at a single partition, where the repeat of its request will look too; or at all of them
        in the same order, if that says so. Of all of them one that cannot be reached has nothing, unless none can be.
        Where it finds none at the ``front`` of a partition's line, it looks no further there. One that ``trusts`` does
        not ask where a line has just been seen to its end, and nothing was told of it since. What was taken is locked
        already, so the caller must have it: a failure after that, or after something was ``given``, comes with it.
        """
        options = dict(options)
        most_held = options.pop("max_in_flight", None)
        bound = await self._bound(key, options["worker_id"], most_held) if most_held is not None else None
        start, partitions = marks.partition() if marks else self.partition(key), self._calls.partitions
        walk = _Walk(start, partitions, 0 if front else FRUITLESS_MAX, marks)
        broken_off, looks = False, not marks
        trusts = trusts and not (marks or bound)
        nothing = self._seen.untold(key, partitions, options["where"], POLL) if trusts else {}
        # A repeat has to look where the first did, and a bound holds over all of them.
        away = self._away.now() if walk.everywhere and not bound else None
        # A repeat has to ask however much is held: what it was given before may be what fills the bound.
        while walk.left and walk.wants(limit) and not (bound and bound.full and not marks):
            partition = walk.partition
            if partition in nothing:
                walk.find_nothing(nothing[partition])
                if bound:
                    bound.note_due(partition, nothing[partition].next_ms)
                continue
            if away and partition in away:
                walk.pass_over()
                continue
            if looks and partition != start:
                looks, known = False, {*nothing, *(away or ())}
                nothing |= await self._look(key, walk, known, options["where"])
                continue
            most, began = min(limit - walk.found, GIVEN_MAX), time.monotonic()
            call = self._calls.claim(key, **_share(walk, most, bound), front=front, **options)
            always = given or walk.found > 0 or (marks is not None and marks.everywhere)
            call = marks.mark(call, always=always) if marks else call
            self._away.look(partition)
            try:
                claimed = await self._ask(call)
            except Refused as error:
                walk.failure = error
                walk.pass_over()
                continue
            except HooklineError as error:
                if isinstance(error, Unavailable) and away is not None:
                    walk.unreached, away = error, away | self._away.add(partition, began)
                    continue
                walk.failure, broken_off = error, True
                break
            if marks:
                marks.count(claimed, always=always)
            walk.note(claimed, most, stops=self._wakes.released and not marks)
            if bound:
                bound.note(partition, claimed)
        if not marks:
            # One with a bound seldom comes to the end of a partition, and must not leave the others waiting; nor must
            # one that gives no answer.
            self._rotate(key, (walk.partition + (bound is not None or broken_off)) % partitions)
        return walk.together(bound, given=given)

    async def _look(self, key: str, walk: _Walk, known: set[int], where: Where | None) -> dict[int, Claimed]:
        """Ask all at once which of the partitions ahead have nothing -> what those give; who has something tells it."""
        ahead = [partition for partition in walk.ahead if partition not in known]
        if len(ahead) > 1:
            with contextlib.suppress(HooklineError, TimeoutError):
                async with asyncio.timeout(AT_ONCE):
                    return await self._seen.look(key, ahead, where)
        return {}

    def _rotate(self, key: str, partition: int) -> None:
        """Begin there next; of keys that are asked for in vain nothing is kept."""
        if partition:
            self._rotation[key] = partition
        else:
            self._rotation.pop(key, None)

    async def _bound(self, key: str, worker_id: str, most: int) -> Bound:
        bound = Bound(self._calls, key, worker_id, most, self._ballots)
        await bound.count(self._ask)
        self._ballots = max(self._ballots, bound.number)
        return bound

    async def _ask(self, call: Call) -> Claimed:
        asked = time.monotonic()
        outcome = await self._perform(call)
        self._away.discard(call.partition)
        if isinstance(outcome, Outcome):
            raise outcome.error()
        self.see(call, outcome, asked)
        return outcome


def _share(walk: _Walk, most: int, bound: Bound | None) -> dict[str, Any]:
    """The arguments of a claim of so many where the walk is; one of none tells what was taken before."""
    share = {"limit": max(1, most), "partition": walk.partition, "after": walk.after}
    return {**share, **(bound.limits(walk.partition) if bound else {}), **({"in_flight": 0} if most <= 0 else {})}


def _seconds_until(ms: float | None) -> float:
    return math.inf if ms is None else ms / 1000 - time.time()


def _itself(taken: Claimed | None) -> Claimed | None:
    return taken
