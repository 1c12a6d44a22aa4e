"""Wrong API keys by the address that they come from: some are forgiven, many are made to wait."""

from __future__ import annotations

import ipaddress
import math
import time

FREE = 10
"""Wrong keys in a row that an address may show."""
PER_SECOND = 0.5
"""And as many a second, on and on."""
PEERS_MAX = 4096


class Attempts:
    """A bucket of tries for each address; the least recent go where there are more than :data:`PEERS_MAX`.

    Somebody who has an IPv6 address has a whole /64 of them, which counts as one.
    """

    def __init__(self) -> None:
        self._peers: dict[str, tuple[float, float]] = {}

    def begin(self, peer: str) -> int:
        """Take a try -> 0, or after how many whole seconds there is another."""
        name, now = _network(peer), time.monotonic()
        left, since = self._peers.pop(name, (float(FREE), now))
        left = min(FREE, left + (now - since) * PER_SECOND)
        wait = 0 if left >= 1 else math.ceil((1 - left) / PER_SECOND)
        while len(self._peers) >= PEERS_MAX:
            del self._peers[next(iter(self._peers))]
        self._peers[name] = (left if wait else left - 1, now)
        return wait

    def succeed(self, peer: str) -> None:
        """Give a try back, for the key was good."""
        name = _network(peer)
        left, since = self._peers.pop(name, (float(FREE), 0.0))
        if left + 1 < FREE:
            self._peers[name] = (left + 1, since)


def _network(peer: str) -> str:
    if ":" not in peer:
        return peer
    address = ipaddress.IPv6Address(peer.partition("%")[0])
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((address, 64), strict=False).network_address)
