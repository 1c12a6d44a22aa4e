"""The bodies that are in memory at one time, counted in bytes: many large ones together could be more than there is."""

from __future__ import annotations

from collections import Counter

from starlette.types import Scope

from hookline_server.problem import Problem
from hookline_server.shares import GREED

HELD = "hookline.held"
"""Where a request's scope has how many bytes of its body are counted, and for whom."""


class Bodies:
    """Counts what came in more than one piece: a body that came with its head is small, and gone at once.

    One caller may hold :data:`GREED` times what is left, so that others find room; but a single body always.
    """

    def __init__(self) -> None:
        self.held = 0
        self._held_by: Counter[str] = Counter()

    def hold(self, scope: Scope, size: int, most: int, caller: str) -> None:
        """Count so many bytes in all for a request, until its answer; all together may be ``most``.

        Raises:
            Problem: they would be more, or more than the caller's share.
        """
        before: int = scope[HELD][0] if HELD in scope else 0
        more, mine = size - before, self._held_by[caller]
        left = most - self.held - more
        if more > 0 and left < 0:
            raise Problem("overloaded", "the bodies of other requests take all the memory that there is for them now")
        if more > 0 and mine > before and mine + more > GREED * left:
            raise Problem("overloaded", "the bodies of your other requests take your share of the memory for them now")
        self.held += more
        self._held_by[caller] += more
        scope[HELD] = size, caller

    def release(self, scope: Scope) -> None:
        """Count nothing more for a request."""
        size, caller = scope.pop(HELD)
        self.held -= size
        self._held_by[caller] -= size
        if not self._held_by[caller]:
            del self._held_by[caller]
