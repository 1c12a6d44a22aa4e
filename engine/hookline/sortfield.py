"""sortFields for items that come without one."""

from __future__ import annotations

import secrets
import time

from hookline.keys import partition_of

_last_moment = 0


def new_sort_field(key: str = "", partition: int | None = None, partitions: int = 1) -> str:
    """A unique sortField that orders by time: 16 hex digits of rising nanoseconds and 8 random ones.

    With a ``partition``, one with which an item of the key is in that one of so many: found by about as many tries.
    """
    global _last_moment
    while True:
        _last_moment = max(_last_moment + 1, time.time_ns())
        name = f"{_last_moment:016x}-{secrets.token_hex(4)}"
        if partition is None or partition_of(key, name, partitions) == partition:
            return name
