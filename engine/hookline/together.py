"""Reads of several partitions: what is at one node of the store is read there in one call."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from hookline.connection import Connection
from hookline.errors import HooklineError, Unavailable

TOGETHER_MAX = 16
"""Partitions of one call."""
_APART = 10.0
"""Seconds for which each is read by itself after a node has refused to read several: their slots were moved."""

Part = Sequence[int]
"""The partitions of one call."""
Request = Callable[[Part], object]
"""What a script is asked for some partitions; it runs at the first of them, and finds the others by their tags."""
Answers = list[tuple[Part, Any]]


class Together:
    """Reads partitions of a namespace by scripts that have the flag ``allow-cross-slot-keys``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._apart_until = 0.0

    async def read(self, script: str, partitions: Part, request: Request) -> Answers:
        """Do as :meth:`Connection.read` does for all of these partitions -> what each call was answered.

        Raises:
            Unavailable, StoreFull
        """
        return await self._ask(self._connection.read, script, self.parts(partitions), request)

    async def search(self, script: str, partitions: Part, request: Request, *, apart: bool = False) -> Answers:
        """Do as :meth:`Connection.search` does for all of these partitions, or ``apart`` for each by itself.

        Raises:
            Overloaded, Unavailable, StoreFull
        """
        return await self._ask(self._connection.search, script, self.parts(partitions, apart=apart), request)

    def parts(self, partitions: Part, *, apart: bool = False) -> list[Part]:
        """The partitions of each call; one that no node has is by itself, for it fails."""
        if apart or len(partitions) == 1 or monotonic() < self._apart_until:
            return [(partition,) for partition in partitions]
        at_node: dict[object, list[int]] = defaultdict(list)
        for partition in partitions:
            try:
                node = self._connection.node_of(partition)
            except Unavailable:
                node = partition
            at_node[node].append(partition)
        return [
            some[start : start + TOGETHER_MAX]
            for some in at_node.values()
            for start in range(0, len(some), TOGETHER_MAX)
        ]

    async def _ask(
        self, ask: Callable[[str, int, object], Awaitable[Any]], script: str, parts: Sequence[Part], request: Request
    ) -> Answers:
        async def answers(part: Part) -> Answers:
            try:
                return [(part, await ask(script, part[0], request(part)))]
            except HooklineError as error:
                # Refused, and for no reason that holds for each of them as well.
                if len(part) == 1 or type(error) is not HooklineError:
                    raise
                self._apart_until = monotonic() + _APART
                return await self._ask(ask, script, [(partition,) for partition in part], request)

        # A task for the only one would cost as much as five items.
        found = [await answers(parts[0])] if len(parts) == 1 else await asyncio.gather(*map(answers, parts))
        return [answer for each in found for answer in each]
