"""The loop guard: an item whose webhooks change it again, and so on, is slowed down, never cut off."""

from __future__ import annotations

from array import array

from hookline_server.event import Delivery

WINDOW = 60.0
"""Seconds in which calls are counted."""
PAUSE = 10.0
"""Seconds that each call beyond the limit waits."""
_CELLS = 65_536


class LoopGuard:
    """Counts the calls of each item to each endpoint, at most ``limit`` in a :data:`WINDOW` go at once; 0 is no limit.

    It counts in two rows of cells by two hashes and believes the lower count: bounded memory, and it takes about a
    thousand calls a second for each call allowed until others are counted in by mistake, which slows and loses nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = 0.0
        self._rows = [array("L"), array("L")]

    def wait(self, delivery: Delivery, now: float) -> tuple[float, bool]:
        """Seconds that a call at ``now`` (in seconds) is to wait, and whether it is the first of its window to."""
        if not self._limit:
            return 0.0, False
        if not 0 <= now - self._begun < WINDOW:  # also where the clock was put back
            self._begun = now
            self._rows = [array("L", bytes(_CELLS * array("L").itemsize)) for _ in range(2)]
        hashed = hash((delivery.source_key, delivery.source_sort_field, delivery.target.url))
        one, other = hashed % _CELLS, (hashed >> 32) % _CELLS  # two hashes, of which the bits have nothing in common
        first, second = self._rows
        first[one] += 1
        second[other] += 1
        count = min(first[one], second[other])
        return (PAUSE if count > self._limit else 0.0), count == self._limit + 1
