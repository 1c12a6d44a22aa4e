"""Rounds of the loop: of bodies that take milliseconds each, one is read in each, so that others come between."""

from __future__ import annotations

import asyncio
from collections import deque

ROUND_FROM = 8_192
"""Bytes of a body from which it is read in a round of its own: at worst that takes some 2 ms."""


class Rounds:
    """Gives one round of the loop to each who asks, in order; at once to who asks first in a round."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Wait for a round, which lasts until the caller waits for something else."""
        if self._taken:
            round_ = asyncio.get_running_loop().create_future()
            self._waiting.append(round_)
            await round_
        else:
            self._taken = True
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """The next round is another's."""
        while self._waiting:
            round_ = self._waiting.popleft()
            if not round_.done():  # else whoever waited for it has gone
                round_.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._taken = False
