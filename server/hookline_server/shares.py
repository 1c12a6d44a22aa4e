"""Shares: how much each may have at once of what all need, though some never give back what they have."""

from __future__ import annotations

import asyncio
from collections import deque

GREED = 2
"""How many times what is free one may have: alone two thirds of all, and two of them two fifths each."""


class Shares:
    """So many of something. Who asks is given one as long as there is more to be had by others, so these find some."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: dict[str, int] = {}  # a Counter's way to end an entry takes as long as all of take_now
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, who: str) -> None:
        """Have one, once that is fair; to be given back."""
        if who not in self._queues and self._has_room(who):
            self._hold(who)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back(who)
            raise

    def take_now(self, who: str) -> bool:
        """Have one, to be given back, if that is fair now."""
        mine = self._held.get(who, 0)
        if mine >= GREED * self._free:
            return False
        self._free -= 1
        self._held[who] = mine + 1
        return True

    def give_back(self, who: str) -> None:
        """End what :meth:`take` or :meth:`take_now` began."""
        self._free += 1
        left = self._held[who] - 1
        if left:
            self._held[who] = left
        else:
            del self._held[who]
        if self._queues:
            # Who has the fewest comes first.
            for each in sorted(self._queues, key=lambda each: self._held.get(each, 0)):
                self._admit(each)

    def _has_room(self, who: str) -> bool:
        return self._free > 0 and self._held.get(who, 0) < GREED * self._free

    def _hold(self, who: str) -> None:
        self._free -= 1
        self._held[who] = self._held.get(who, 0) + 1

    def _admit(self, who: str) -> None:
        """Let those in who have waited, as far as there is room."""
        queue = self._queues[who]
        while queue and (queue[0].done() or self._has_room(who)):
            turn = queue.popleft()
            if not turn.done():  # else it was cancelled
                self._hold(who)
                turn.set_result(None)
        if not queue:
            del self._queues[who]
