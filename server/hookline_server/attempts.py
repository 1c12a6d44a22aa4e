"""Wrong API keys by the address that they come from: some are forgiven, many are made to wait."""

from __future__ import annotations

import math
import time

from hookline_server.limits import network_of

FREE = 10
"""Wrong keys in a row that an address may show."""
PER_SECOND = 0.5
"""And as many a second, on and on."""
PEERS_MAX = 4096


class Attempts:
    """What each address has left of wrong keys; the least recent go where there are more than :data:`PEERS_MAX`.

    Good keys are not counted: behind a proxy many callers have one address. Somebody who has an IPv6 address has a
    whole /64 of them, which counts as one.
    """

    def __init__(self) -> None:
        self._peers: dict[str, tuple[float, float]] = {}

    def wait(self, peer: str) -> int:
        """0, or after how many whole seconds the address may show another unknown key."""
        found = self._peers.get(network_of(peer))
        left = FREE if found is None else _left(*found, time.monotonic())
        return 0 if left >= 1 else math.ceil((1 - left) / PER_SECOND)

    def note_wrong(self, peer: str) -> None:
        """The address has shown a wrong key."""
        name, now = network_of(peer), time.monotonic()
        left = _left(*self._peers.pop(name, (FREE, now)), now)
        while len(self._peers) >= PEERS_MAX:
            del self._peers[next(iter(self._peers))]
        # Many at one time are all looked at, and then waited for, but not for ever.
        self._peers[name] = (max(left - 1, -FREE), now)


def _left(left: float, since: float, now: float) -> float:
    return min(FREE, left + (now - since) * PER_SECOND)
