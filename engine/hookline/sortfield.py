"""sortFields for items that come without one."""

from __future__ import annotations

import binascii
import os
import random
import time
from functools import lru_cache

from hookline.keys import PARTITIONS_MAX

TOGETHER_MAX = 32
"""Items that go into one partition in a row: what a call of these costs by itself is a fifth of the whole."""
TOGETHER = 0.01
"""Seconds after which the next partition is chosen in any case."""
TRIED_MAX = 16
"""Partitions that an item is offered to, one after the other, where they are full: what a refusal may cost."""

_LOW_BITS = 12
_LOW = (1 << _LOW_BITS) - 1
_LOW_LENGTH = len("fff-01234567")
_last_moment = 0
_of_process = os.urandom(4).hex()


def _renew() -> None:
    """Tell a process that was forked apart from the one that it came from."""
    global _of_process
    _of_process = os.urandom(4).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def new_sort_field(key: str = "", partition: int = 0, partitions: int = 1) -> str:
    """A unique sortField that orders by time: 16 hex digits of nanoseconds, which rise, and 8 of the process.

    With it an item of the key is in this partition of so many.
    """
    global _last_moment
    moment = max(_last_moment + 1, time.time_ns())
    if partitions > 1:
        moment = _next_in(moment, key, partition, partitions)
    _last_moment = moment
    return f"{moment:016x}-{_of_process}"


def _next_in(moment: int, key: str, partition: int, partitions: int) -> int:
    """The first moment from one on whose name is in a partition, as :func:`hookline.keys.partition_of` has it."""
    while True:
        before = binascii.crc_hqx(f"{key}\0{moment >> _LOW_BITS:013x}".encode(), 0)
        # A CRC is linear: that of a text behind another is its own, and that of as many zeros behind the other.
        behind, low = binascii.crc_hqx(bytes(_LOW_LENGTH), before), moment & _LOW
        if PARTITIONS_MAX % partitions == 0:  # a power of two: which partition it is, the last bits say
            low = _last_bits(_of_process, partitions).find((behind ^ partition) % partitions, low)
        else:
            own = _low_ends(_of_process)
            low = next((each for each in range(low, _LOW + 1) if (behind ^ own[each]) % partitions == partition), -1)
        if low >= 0:
            return moment & ~_LOW | low
        moment = (moment | _LOW) + 1


@lru_cache(maxsize=1)
def _low_ends(process: str) -> list[int]:
    """The CRC16 of each end that a name of a process can have: the last digits of its moment, and the process."""
    return [binascii.crc_hqx(f"{low:03x}-{process}".encode(), 0) for low in range(_LOW + 1)]


@lru_cache(maxsize=8)
def _last_bits(process: str, partitions: int) -> bytes:
    """The same modulo so many partitions."""
    return bytes(end % partitions for end in _low_ends(process))


class Spread:
    """Where items without a sortField go: a few, one after the other, into one partition, and then into the next.

    With each into another, those that come at the same time would be a call of the store for each, or a few.
    """

    def __init__(self) -> None:
        self._partition = random.getrandbits(16)
        self._left = 0
        self._until = 0.0

    def next(self, partitions: int) -> int:
        """The partition of one more, of so many."""
        if partitions == 1:
            return 0
        now = time.monotonic()
        if not self._left or now >= self._until:
            self._partition += 1
            self._left, self._until = TOGETHER_MAX, now + TOGETHER
        self._left -= 1
        return self._partition % partitions
