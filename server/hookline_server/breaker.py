"""The circuit breaker of an endpoint: what keeps failing is left alone for a while, then tried once."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hookline_server.retry import JITTER

FAILURES = 8
"""Attempts that fail in a row until it opens."""
FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0
"""Seconds that it stays open: doubled each time that the probe fails."""


@dataclass(slots=True)
class Breaker:
    """``closed`` it lets everything pass, ``open`` nothing, ``half-open`` a single attempt, the probe.

    Times are seconds of the clock that the caller passes.
    """

    failures: int = 0
    opened: int = 0
    until: float = 0.0
    probing: bool = False

    def state(self, now: float) -> str:
        """``closed``, ``open`` or ``half-open``."""
        if not self.opened:
            return "closed"
        # Open for longer than it can be, it is by a clock that was put back.
        return "open" if 0 < self.until - now <= LONGEST_WAIT * (1 + JITTER) else "half-open"

    def room(self, now: float, room: int) -> int:
        """How many of ``room`` attempts may begin."""
        state = self.state(now)
        if state == "closed":
            return room
        return 0 if state == "open" or self.probing else min(1, room)

    def begin(self, now: float) -> None:
        """An attempt begins: half-open, it is the probe."""
        self.probing = self.probing or self.state(now) == "half-open"

    def note(self, now: float, *, ok: bool) -> bool:
        """What came of an attempt -> whether the breaker has opened or closed by it."""
        if ok:
            changed = self.opened > 0
            self.failures, self.opened, self.probing = 0, 0, False
            return changed
        self.failures += 1
        # Open, what fails are attempts begun before, unless it is the probe.
        if self.failures < FAILURES or (self.opened and not self.probing):
            return False
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.opened, 10))
        self.opened, self.probing = self.opened + 1, False
        self.until = now + wait * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads probes, guards nothing
        return True
