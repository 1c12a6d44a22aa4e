"""Lines seen to their end: a claim that waits need not ask for them again, until something is told of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from hookline import codec
from hookline.call import Call
from hookline.connection import Connection
from hookline.outcome import Claimed
from hookline.together import Part, Together
from hookline.wake import Wakes
from hookline.where import Where

LINES_MAX = 10_000
"""Lines that are known at one time."""

_NOT_SEEN = (-math.inf, Claimed([]))


class Seen:
    """Where a claim has seen that nothing is left: by key, partition and filters."""

    def __init__(self, connection: Connection, together: Together, wakes: Wakes) -> None:
        self._connection = connection
        self._together = together
        self._wakes = wakes
        self._lines: dict[tuple[str, int, bytes], tuple[float, Claimed]] = {}
        """When (monotonic seconds) each was asked for, and what it gives now."""

    def note(self, call: Call, claimed: Claimed, asked: float) -> None:
        """What a claim has found that was asked for at a moment (``time.monotonic``).

        What comes in line is told of only where nothing was: so nothing may be left in it that is not for this claim.
        """
        request, filters = call.request, filters_of(call.where)
        line = call.key, call.partition, filters
        broken_off = claimed.more or claimed.left or claimed.paused or claimed.replayed or "in_flight" in request
        full = len(claimed.items) + len(claimed.broken) == request["limit"]
        left = not claimed.empty if filters else claimed.lost
        if broken_off or full or left or not self._connection.tells(call.key):
            self._lines.pop(line, None)
            return
        self._keep(line, asked, Claimed([], claimed.next_ms))

    def _keep(self, line: tuple[str, int, bytes], asked: float, nothing: Claimed) -> None:
        if len(self._lines) >= LINES_MAX:
            self._lines.clear()
        self._lines[line] = asked, nothing

    async def look(self, key: str, partitions: Sequence[int], where: Where | None) -> dict[int, Claimed]:
        """Ask where nothing can be claimed at all -> what each of those gives.

        Raises:
            Unavailable
        """

        def request(part: Part) -> object:
            return {"tags": [self._connection.tag(partition) for partition in part], "key": key}

        asked, filters, found = time.monotonic(), filters_of(where), {}
        for part, answers in await self._together.read("outlook", partitions, request):
            for partition, next_ms in zip(part, answers, strict=True):
                if next_ms is True:
                    found[partition] = Claimed([], paused=True)
                elif next_ms is False or next_ms > 0:
                    found[partition] = Claimed([], next_ms or None)
                    if self._connection.tells(key):
                        self._keep((key, partition, filters), asked, found[partition])
        return found

    def nothing(
        self, key: str, partition: int, filters: bytes, holds: float, *, told: float = -math.inf
    ) -> Claimed | None:
        """What a line gives that was seen to its end in the last ``holds`` seconds; None where there may be more.

        ``told`` is when (monotonic seconds) something was told of it last.
        """
        asked, claimed = self._lines.get((key, partition, filters), _NOT_SEEN)
        is_due = claimed.next_ms is not None and claimed.next_ms <= time.time() * 1000
        return None if is_due or time.monotonic() - asked >= holds or asked <= told else claimed

    def untold(self, key: str, partitions: int, where: Where, holds: float) -> dict[int, Claimed]:
        """The same, by partition, of the lines of which no wake message has come since."""
        found, filters = {}, filters_of(where)
        for partition in range(partitions):
            told = self._wakes.heard(f"ready:{key}", partition)
            if nothing := self.nothing(key, partition, filters, holds, told=told):
                found[partition] = nothing
        return found

    def stale_in(self, key: str, partitions: int, filters: bytes, holds: float) -> float:
        """In how many seconds the first of the lines must be asked for again, as a message of it may have been lost."""
        lines = (self._lines.get((key, partition, filters), _NOT_SEEN) for partition in range(partitions))
        left = (asked + holds - time.monotonic() for asked, _ in lines)
        return min((each for each in left if each > 0), default=holds)


def filters_of(where: Where | None) -> bytes:
    """Filters as a value to compare; empty for none."""
    return codec.pack_request(list(where.conditions)) if where and where.conditions else b""
