"""sortFields for items that come without one."""

from __future__ import annotations

import os
import time

from hookline.keys import partition_of

_last_moment = 0
_of_process = os.urandom(4).hex()


def _renew() -> None:
    """Tell a process that was forked apart from the one that it came from."""
    global _of_process
    _of_process = os.urandom(4).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def new_sort_field(key: str = "", partition: int | None = None, partitions: int = 1) -> str:
    """A unique sortField that orders by time: 16 hex digits of nanoseconds, which rise, and 8 of the process.

    With a ``partition``, one with which an item of the key is in that one of so many: found by about as many tries.
    """
    global _last_moment
    while True:
        _last_moment = max(_last_moment + 1, time.time_ns())
        name = f"{_last_moment:016x}-{_of_process}"
        if partition is None or partition_of(key, name, partitions) == partition:
            return name
