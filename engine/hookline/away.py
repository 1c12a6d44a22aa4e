"""Partitions that cannot be reached: claims pass them over, so that work in the others does not wait for them."""

from __future__ import annotations

import time
from contextlib import suppress

from hookline.connection import Connection
from hookline.errors import Unavailable

AT_ONCE = 1.0
"""Seconds: a node that takes longer to say nothing is silent, so nothing else is asked of it either."""
LOOK = 1.0
"""Seconds after which a partition is asked again at the earliest; if that took long, after twice as long."""
PROBE = 10.0
"""Seconds for which one claim looks alone whether a partition is there again: others do not wait with it."""


class Away:
    """The partitions of a namespace that gave no answer a moment ago."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._until: dict[int, float] = {}

    def now(self) -> set[int]:
        """Those to be passed over: none if that would be all."""
        if not self._until:
            return set()
        now = time.monotonic()
        away = {partition for partition, until in self._until.items() if until > now}
        return away if len(away) < self._connection.partitions else set()

    def look(self, partition: int) -> None:
        """It is asked now; if it gave no answer before, others go on passing it over meanwhile."""
        if partition in self._until:
            self._until[partition] = time.monotonic() + PROBE

    def add(self, partition: int, began: float) -> set[int]:
        """It has not answered what was asked at that moment (``time.monotonic``) -> it, and those silent with it."""
        now = time.monotonic()
        gone, node_of = {partition}, self._connection.node_of
        with suppress(Unavailable):
            node = node_of(partition)
            # Of a cluster's node, one slot may be moving.
            if node is None or now - began > AT_ONCE:
                gone |= {each for each in range(self._connection.partitions) if node_of(each) == node}
        self._until |= dict.fromkeys(gone, now + max(LOOK, 2 * (now - began)))
        return gone

    def discard(self, partition: int) -> None:
        """It has answered."""
        self._until.pop(partition, None)
