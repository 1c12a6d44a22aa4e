"""Slots: how many things are under way at once, without letting the slow ones keep the others out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict

from hookline_server.alarm import Alarm

PATIENCE = 1.0
"""Seconds after which what is still under way no longer counts."""
GATHER = 0.01
"""Seconds that who wants many slots waits for half of them, once one is free."""
LATE_MAX = 256
"""How many of those there may be; beyond, they count like all others."""
LATE_OF_ORIGIN = LATE_MAX // 4
"""How many posts to one origin may be late; with more, no further one begins there."""


class Slots:
    """So many slots; what holds one longer than :data:`PATIENCE` gives it back and goes on as one of the late."""

    def __init__(self, count: int) -> None:
        self._count = self.free = count
        self.late = 0
        self._line: OrderedDict[asyncio.Future[None], int] = OrderedDict()
        """Those who wait, in turn, and how many each waits for."""
        self._patience = Alarm[Slot](PATIENCE, self._give_up)

    async def reserve(self, most: int, seconds: float, *, many: bool = False) -> int:
        """Set aside what is free, at most so many, waiting at most so long for the first -> how many.

        Each is then to be taken, or given back. ``many`` waits a moment for more, where few are free.
        """
        reserved = await self._wait(1, seconds)
        if not reserved:
            return 0
        wanted = min(most, self._count // 2) - reserved
        if many and wanted > 0:
            try:
                reserved += await self._wait(wanted, GATHER, first=True)
            except BaseException:
                self.give_back(reserved)
                raise
        more = min(self.free, most - reserved)
        self.free -= more
        return reserved + more

    async def _wait(self, wanted: int, seconds: float, *, first: bool = False) -> int:
        """Set so many aside once they are free -> how many: none if that takes longer than so many seconds.

        In turn; ``first`` goes before all others.
        """
        if self.free >= wanted and (first or not self._line):
            self.free -= wanted
            return wanted
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line[turn] = wanted
        if first:
            self._line.move_to_end(turn, last=False)
        try:
            # Not wait_for, which up to Python 3.11 forgets that it was cancelled if a slot is freed at the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await turn
        except BaseException:
            if not turn.cancelled():  # its turn came at the same moment
                self.free += wanted
            raise
        finally:
            self._line.pop(turn, None)
            self._serve()
        return 0 if turn.cancelled() else wanted

    def _serve(self) -> None:
        """Set aside what is free for those who wait: each slot wakes one of them, and not thousands."""
        while self._line and self.free >= next(iter(self._line.values())):
            turn, wanted = self._line.popitem(last=False)
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)

    def take(self) -> Slot:
        """Take one of those that were set aside."""
        slot = Slot(self)
        self._patience.watch(slot)
        return slot

    def give_back(self, count: int = 1) -> None:
        """So many more are free."""
        self.free += count
        self._serve()

    def release(self, slot: Slot) -> None:
        """A slot that was taken is held no longer."""
        self._patience.drop(slot)
        if slot.late:
            self.late -= 1
        else:
            self.give_back()

    def _give_up(self, slot: Slot) -> None:
        if self.late < LATE_MAX:
            self.late += 1
            slot.late = True
            self.give_back()


class Slot:
    """One slot that is held. To be released once."""

    __slots__ = ("_slots", "late")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.late = False

    def release(self) -> None:
        """End it."""
        self._slots.release(self)


class Origins:
    """The posts under way, by scheme, host and port: one host that hangs at many URLs must not keep others out."""

    def __init__(self) -> None:
        self._late: Counter[str] = Counter()
        self._patience = Alarm[Post](PATIENCE, self._note)

    def is_slow(self, origin: str) -> bool:
        """Whether no further post should begin there now."""
        return self._late[origin] >= LATE_OF_ORIGIN

    def begin(self, origin: str) -> Post:
        """A post begins. To be ended once."""
        post = Post(origin)
        self._patience.watch(post)
        return post

    def end(self, post: Post) -> None:
        """It is answered, or given up."""
        self._patience.drop(post)
        if post.late:
            self._late[post.origin] -= 1
            if not self._late[post.origin]:
                del self._late[post.origin]

    def _note(self, post: Post) -> None:
        post.late = True
        self._late[post.origin] += 1


class Post:
    """One post that is under way."""

    __slots__ = ("late", "origin")

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.late = False
