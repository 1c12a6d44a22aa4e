"""sortFields for items that come without one."""

from __future__ import annotations

import secrets
import time

_last_moment = 0


def new_sort_field() -> str:
    """A unique sortField that orders by time: 16 hex digits of rising nanoseconds and 8 random ones."""
    global _last_moment
    _last_moment = max(_last_moment + 1, time.time_ns())
    return f"{_last_moment:016x}-{secrets.token_hex(4)}"
