"""When a delivery is attempted again: by its schedule, and by what the receiver asks for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

ASKED_MAX = 3600.0
"""Seconds that a receiver can hold its endpoint off by Retry-After, at most."""


JITTER = 0.2
"""By this part waits are shorter or longer, at random, so that what failed together does not return together."""


def delay_after(attempts: int, schedule: Sequence[float]) -> float:
    """Seconds until the next attempt, after so many: by the schedule, or by its last entry beyond that, jittered."""
    wait = schedule[min(attempts, len(schedule)) - 1]
    return wait * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads retries, guards nothing


def read_retry_after(written: str | None, now: float) -> float:
    """The header Retry-After, in seconds or as a date -> seconds from ``now`` (since 1970) on; 0 if it says nothing."""
    if written is None:
        return 0.0
    text = written.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            at = parsedate_to_datetime(text)
            # Of the forms of a date one has no zone: all of them are GMT (RFC 9110, 5.6.7).
            seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError, TypeError):
            return 0.0
    return min(max(0.0, seconds), ASKED_MAX)
