"""Searches: reads that look at many items. Of one namespace few are at a node of the store at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hookline.errors import Overloaded

SEARCHES_MAX = 4
"""Of one namespace at one node: the links to it are there for all namespaces, and for what is no search."""


class Searches:
    """The turns of one namespace's searches, by node. Who waits longer than ``patience`` seconds is told so."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._turns: dict[object, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(SEARCHES_MAX))

    @property
    def crowded(self) -> bool:
        """Whether one may have to wait for others."""
        return any(turn.locked() for turn in self._turns.values())

    @asynccontextmanager
    async def turn(self, node: object) -> AsyncIterator[None]:
        """Be one of those that are at a node.

        Raises:
            Overloaded: it took too long until there was room.
        """
        turns = self._turns[node]
        if turns.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await turns.acquire()
            except TimeoutError:
                raise Overloaded from None
        else:
            await turns.acquire()
        try:
            yield
        finally:
            turns.release()
