"""What any server does for all keys, in bounded steps and without a leader."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hookline.errors import Corrupt, HooklineError, StoreFull, Unavailable

if TYPE_CHECKING:  # what only reads the values that are defined here, a client, needs no store
    from hookline.connection import Connection
    from hookline.together import Part, Together

log = logging.getLogger(__name__)
T = TypeVar("T")

WORK = 1000
"""Work of one step, in items that are looked at, unless 1.5 ms of the store end it (lib/clock.lua)."""
OUTLOOK_S = 1.0
"""Seconds in which a node says what there is to do: one that takes longer is silent, and others do not wait for it."""
_SECONDS = 3.0
"""How long one sweep goes on at most, in seconds."""
_BUILD_WORK = 300
"""Items that one step of building indexes looks at."""
_PAGE = 1000
"""Entries of a registry that one command looks at."""


@dataclass(frozen=True, slots=True)
class Build:
    """How far an index is: so many items of the key are in it, or need not be, of so many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to do in a partition: so many events in its outbox, and when there is something else.

    ``next_ms`` is in ms since 1970: 0 is now, infinity is never. ``more``: there are rules that it does not tell of.
    """

    events: int
    next_ms: float
    more: bool = False


async def _all_of(works: Iterable[Awaitable[T]]) -> list[T]:
    """What came of all; where one fails, that is raised once the others have ended."""
    found = await asyncio.gather(*works, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return [each for each in found if not isinstance(each, BaseException)]


class Upkeep:
    """Sweeps the partitions of a namespace.

    What is due is promoted, what has expired too often buried, what need not be kept removed; and indexes are built.
    A burial is an event, and is put off while an outbox has ``outbox_max`` of them.
    """

    def __init__(self, connection: Connection, together: Together, partitions: int, outbox_max: int) -> None:
        self._connection = connection
        self._together = together
        self._partitions = partitions
        self._outbox_max = outbox_max
        self._ends: dict[int, dict[str, Any]] = {}

    async def sweep(self) -> list[str]:
        """One sweep, in bounded steps, for some seconds at most -> the keys that are corrupt.

        After each step it pauses for as long as that took, so the store is busy with it for half of the time at most.

        Raises:
            Corrupt: the list of what is due is.
            Unavailable: no answer; what a lost step has done stays, and a repeat goes on behind it.
        """
        # None waits for a node that is silent.
        return [key for found in await _all_of(map(self._sweep_part, self.parts())) for key in found]

    def parts(self) -> list[Part]:
        """The partitions whose :meth:`outlook` is one call, for all of them."""
        return self._together.parts(range(self._partitions))

    async def _sweep_part(self, part: Part) -> list[str]:
        return [key for found in await _all_of(map(self._sweep, await self._due(part))) for key in found]

    async def _due(self, part: Part) -> Part:
        """The partitions in which there may be something to sweep, or to build; all, where one cannot be asked."""
        if len(part) == 1:
            return part
        try:
            async with asyncio.timeout(OUTLOOK_S):
                outlooks = await self.outlook(part)
        except TimeoutError:
            raise Unavailable("the store does not say what there is to sweep") from None
        except HooklineError:  # one that moves, say: the others are there
            return part
        return [partition for partition in part if outlooks[partition].next_ms == 0]

    async def _sweep(self, partition: int) -> list[str]:
        corrupt: list[str] = []
        put_off, builds = 0, True
        began = time.monotonic()
        while True:
            at = time.monotonic()
            end = self._ends.get(partition, {"places": {}, "passed": []})
            request = {"work": WORK, "outbox_max": self._outbox_max, **end}
            answer = await self._connection.read("sweep", partition, request)
            if answer.get(b"unreadable"):
                raise Corrupt
            corrupt += [key.decode() for key in answer[b"corrupt"]]
            put_off += answer[b"put_off"]
            # An empty table comes as a list.
            self._ends[partition] = {"places": dict(answer[b"places"]), "passed": answer[b"passed"]}
            builds = builds and bool(answer[b"builds"])
            if builds:
                try:
                    rows, _ = await self._step(partition, None, _BUILD_WORK)
                    builds = any(rest is not False for _, rest in rows)  # false: it cannot be built
                except StoreFull:  # an index can wait, and what is swept may make room
                    builds = False
            now = time.monotonic()
            if not (answer[b"more"] or builds) or now - began > _SECONDS:
                break
            await asyncio.sleep(now - at)
        if put_off:
            log.warning("%d jobs whose last lock has expired stay started for now: the outbox has no room", put_off)
        return list(dict.fromkeys(corrupt))

    async def outlook(self, part: Part | None = None, *, rules: bool = False) -> dict[int, Outlook]:
        """What servers have to do in each partition, or in some; ``rules`` that are in line among that.

        Raises:
            Unavailable
        """

        def request(part: Part) -> object:
            return {"tags": [self._connection.tag(partition) for partition in part], "rules": rules}

        answers = await self._together.read("outlook", part or range(self._partitions), request)
        return {
            partition: Outlook(events, math.inf if next_ms is False else next_ms, more)
            for part, found in answers
            for partition, (events, next_ms, more) in zip(part, found, strict=True)
        }

    async def next_ms(self) -> float:
        """When servers have something to do next, in ms since 1970: 0 is now, infinity is never.

        That is: to deliver events or to retry them, to run rules, to build indexes, and what a sweep does.

        Raises:
            Unavailable
        """
        outlooks = await self.outlook(rules=True)
        first = min(0 if outlook.events else outlook.next_ms for outlook in outlooks.values())
        long = [partition for partition, outlook in outlooks.items() if outlook.more] if first else []
        return 0 if any(await asyncio.gather(*map(self._has_rules, long))) else first

    async def _has_rules(self, partition: int) -> bool:
        """Whether a rule is in line. By pages: there may be many, and others ask the store meanwhile."""
        registry = f"{self._connection.tag(partition)}:r:hookline"
        cursor = b"0"
        while True:
            scan = ("SSCAN", registry, cursor, "MATCH", "*\0not_started", "COUNT", _PAGE)
            cursor, found = await self._connection.command_on(registry, *scan)
            if found or cursor == b"0":
                return bool(found)

    async def build(self, key: str, work: int) -> dict[str, Build]:
        """Look at so many items of each partition for the indexes of a key that are not complete -> how far these are.

        With no work that is told alone, at the memory limit too.

        Raises:
            Corrupt, Unavailable
        """
        steps = await asyncio.gather(*(self._step(partition, key, work) for partition in range(self._partitions)))
        total = sum(size for _, size in steps)
        left: Counter[str] = Counter()
        for rows, _ in steps:
            for name, rest in rows:
                left[name.decode()] += rest
        return {name: Build(total - rest, total) for name, rest in left.items()}

    async def _step(self, partition: int, key: str | None, work: int) -> tuple[list[Any], int]:
        """A step in one partition -> each index with how many items are left, and how many items the key has."""
        request = {"work": work} if key is None else {"work": work, "key": key}
        script = "backfill" if work else "backfill_drain"
        word, rows, size = await self._connection.read(script, partition, request)
        if word == b"corrupt" or (key is not None and any(rest is False for _, rest in rows)):
            raise Corrupt
        return rows, size

    async def build_all(self, key: str) -> AsyncIterator[dict[str, Build]]:
        """Build the indexes of a key to their end, in steps that say how far they are.

        Raises:
            Corrupt, Unavailable
        """
        while builds := await self.build(key, _BUILD_WORK):
            yield builds
            if all(build.done == build.total for build in builds.values()):
                return
