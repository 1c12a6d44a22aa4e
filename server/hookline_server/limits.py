"""What the connections of one process share: how many there may be, and one look at all of them twice a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Protocol

from starlette.types import Scope

from hookline import Settings
from hookline_server.problem import Problem

log = logging.getLogger(__name__)

REFUSAL = "hookline.refusal"
"""Where a request's scope has the problem for which nothing is done for it."""
_LOOK = 0.5
"""Seconds between two looks at the connections, at most."""
_STEP = 0.002
"""Seconds for which a look holds up all else: many slow clients are at the end of their time together."""
ALWAYS = frozenset({b"/livez", b"/readyz"})
"""Paths that are served however much there is to do: who asks would take a refusal for a broken process."""


class Watched(Protocol):
    """A connection."""

    address: str | None

    def look(self, now: float) -> int:
        """Refuse or close what has taken too long; ``now`` is the loop's time -> bytes of answers that are unread."""

    def abort(self) -> None:
        """End at once."""


class Limits:
    """The limits of one process. ``refused`` counts what its connections refused, by the code of the problem."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.refused: Counter[str] = Counter()
        self._connections: set[Watched] = set()
        self._addresses: Counter[str] = Counter()
        self._timer: asyncio.Handle | None = None
        shortest = min(settings.head_timeout, settings.stall_timeout, settings.keep_alive)
        self._pause = min(_LOOK, shortest / 4)

    def enter(self, connection: Watched) -> Problem | None:
        """Count a new connection -> why it is one too many."""
        settings = self.settings
        self._connections.add(connection)
        if self._timer is None:
            self._look_again()
        if connection.address is not None:
            self._addresses[connection.address] += 1
            if self._addresses[connection.address] > settings.clients_per_address:
                log.warning(
                    "%s has %d connections, and gets no more: raise HOOKLINE_CLIENTS_PER_ADDRESS if it is a proxy",
                    connection.address,
                    settings.clients_per_address,
                )
                detail = "this address has as many connections as HOOKLINE_CLIENTS_PER_ADDRESS allows to one"
                return Problem("rate_limited", detail, {"Retry-After": "1"})
        if len(self._connections) > settings.clients_max:
            log.warning(
                "there are %d connections, and no more are taken: see HOOKLINE_CLIENTS_MAX", settings.clients_max
            )
            return Problem("overloaded", "the server has as many connections as it takes")
        return None

    def leave(self, connection: Watched) -> None:
        """Forget a connection that has ended."""
        self._connections.discard(connection)
        if connection.address is not None:
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def overload(self) -> Problem:
        """Why a request is one too many."""
        self.refused["overloaded"] += 1
        return Problem("overloaded", "as many requests are under way as the server takes; nothing was done for this")

    def _look_again(self) -> None:
        # One timer for all: a timer of its own for each costs every request more than this costs with thousands.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._pause, self._look_at_all) if self._connections else None

    def _look_at_all(self) -> None:
        self._look_on(list(self._connections), {})

    def _look_on(self, left: list[Watched], unread: dict[Watched, int]) -> None:
        """Look at as many of those left as there is time for, and at the rest after what else there is to do."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        while left and time.perf_counter() - began < _STEP:
            connection = left.pop()
            if connection in self._connections:
                unread[connection] = connection.look(loop.time())
        if left:
            self._timer = loop.call_soon(self._look_on, left, unread)
            return
        self._abort_largest(unread)
        self._look_again()

    def _abort_largest(self, unread: dict[Watched, int]) -> None:
        """End connections until what is unread of all others is no more than it may be."""
        # Some have gone since they were looked at.
        left = {connection: size for connection, size in unread.items() if size and connection in self._connections}
        total = sum(left.values())
        for largest in sorted(left, key=left.__getitem__, reverse=True):
            if total <= self.settings.unread_max:
                break
            total -= left[largest]
            largest.abort()


class Pace:
    """Whether something goes on fast enough: ahead by no more than ``patience``, so a burst buys no long rest."""

    __slots__ = ("_patience", "_rate", "_until", "seen")

    def __init__(self, now: float, seen: int, rate: float, patience: float) -> None:
        """Begin. ``seen`` are the bytes so far, ``rate`` bytes a second, ``patience`` and ``now`` seconds."""
        self.seen, self._rate, self._patience = seen, rate, patience
        self._until = now + patience

    def holds(self, now: float, seen: int) -> bool:
        """Whether with so many bytes by now it has not fallen behind for longer than the patience lasts."""
        self._until = min(self._until + max(0, seen - self.seen) / self._rate, now + self._patience)
        self.seen = seen
        return now <= self._until


@lru_cache(4096)
def network_of(host: str) -> str:
    """What an address counts as: itself; in IPv6, of which everybody has very many, its /64.

    Raises:
        ValueError: it is no address.
    """
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False).network_address)


def peer_of(scope: Scope) -> str:
    """What the address of a request's client counts as."""
    client = scope.get("client")
    return network_of(client[0]) if client else ""
