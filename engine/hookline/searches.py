"""Searches: reads that look at many items. Of one namespace few are at a node of the store at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hookline.errors import Overloaded, Unavailable

SEARCHES_MAX = 4
"""Of one namespace at one node: the links to it are there for all namespaces, and for what is no search."""


class _Turns(asyncio.Semaphore):
    """Those at one node, and how many of them have been answered so far."""

    answered = 0


class Searches:
    """The turns of one namespace's searches, by node. Who waits longer than ``patience`` seconds is told so."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._turns: dict[object, _Turns] = defaultdict(lambda: _Turns(SEARCHES_MAX))

    @property
    def crowded(self) -> bool:
        """Whether one may have to wait for others."""
        return any(turn.locked() for turn in self._turns.values())

    @asynccontextmanager
    async def turn(self, node: object) -> AsyncIterator[None]:
        """Be one of those that are at a node.

        Raises:
            Overloaded: it took too long until there was room.
            Unavailable: it did, for the node answers none of those that are there.
        """
        turns = self._turns[node]
        if turns.locked():
            answered = turns.answered
            try:
                async with asyncio.timeout(self._patience):
                    await turns.acquire()
            except TimeoutError:
                if turns.answered == answered:
                    raise Unavailable("the store has answered no search meanwhile") from None
                raise Overloaded from None
        else:
            await turns.acquire()
        try:
            yield
            turns.answered += 1
        finally:
            turns.release()
