"""Shares: how much each may have at once of what all need, though some never give back what they have."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

GREED = 2
"""How many times what is free one may have: alone two thirds of all, and two of them two fifths each."""


class Shares:
    """So many of something. Who asks is given one as long as there is more to be had by others, so these find some."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
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

    def give_back(self, who: str) -> None:
        """End what :meth:`take` began."""
        self._free += 1
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]
        # Who has the fewest comes first.
        for each in sorted(self._queues, key=self._held.__getitem__):
            self._admit(each)

    def _has_room(self, who: str) -> bool:
        return self._free > 0 and self._held[who] < GREED * self._free

    def _hold(self, who: str) -> None:
        self._free -= 1
        self._held[who] += 1

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
