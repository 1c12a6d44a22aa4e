"""Claims with a bound: how much of it is left, over all partitions of a namespace.

One partition counts and takes in the same step. Of several, none sees the others: so a claim counts in each of them
before it takes from any, and does so under a ballot, by which each partition bars the claims that counted before. Once
all have been counted nobody else can take, so what was free then is free still.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hookline.call import Call
from hookline.calls import Calls
from hookline.errors import Invalid
from hookline.outcome import Claimed

IN_FLIGHT_MAX = 1000
"""The highest bound: each item that is held is looked at by each such claim."""
_TRIES = 4
"""How often a claim counts anew when others bar it: the last of them takes what is free."""

Ask = Callable[[Call], Awaitable[Claimed]]


def check_max_in_flight(bound: object) -> int:
    """A bound, if it is one.

    Raises:
        Invalid: it is not.
    """
    if type(bound) is int and 1 <= bound <= IN_FLIGHT_MAX:
        return bound
    raise Invalid.at("/maxInFlight", f"expected a whole number from 1 to {IN_FLIGHT_MAX}")


@dataclass(slots=True)
class Bound:
    """What one claim may take of each partition, so that its worker holds no more than ``most`` items of the key.

    ``number`` is of the highest ballot that is known; too low a one costs another round of counting.
    """

    calls: Calls
    key: str
    worker_id: str
    most: int
    number: int = 0
    ballot: str | None = None
    _barred: bool = False
    _held: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _next_ms: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_max_in_flight(self.most)

    async def count(self, ask: Ask) -> None:
        """Ask every partition how many are held. Where others count again and again, nothing may be taken.

        Raises:
            HooklineError
        """
        partitions = self.calls.partitions
        for _ in range(_TRIES if partitions > 1 else 0):
            # No two claims have the same; the later one has the higher.
            self.number += 1
            self.ballot = f"{self.number:016d}.{secrets.token_hex(8)}"
            told = await asyncio.gather(*(ask(self._call(partition)) for partition in range(partitions)))
            for partition, claimed in enumerate(told):
                self.note(partition, claimed)
            barred = [claimed.barred for claimed in told if claimed.barred]
            self._barred = bool(barred)
            if not barred:
                return
            self.number = max(int(ballot.partition(".")[0]) for ballot in barred)

    def _call(self, partition: int) -> Call:
        """A claim that takes nothing."""
        return self.calls.claim(
            self.key, worker_id=self.worker_id, partition=partition, in_flight=0, ballot=self.ballot, reserved=True
        )

    def limits(self, partition: int) -> dict[str, Any]:
        """The arguments of a claim in a partition: it may hold what the others leave."""
        others = sum(len(held) for place, held in self._held.items() if place != partition)
        return {"in_flight": max(0, self.most - others), "ballot": self.ballot}

    def note(self, partition: int, claimed: Claimed) -> None:
        """Note what a partition has told, unless that is what it told before."""
        if claimed.replayed:
            return
        self._held[partition] = claimed.held
        self.note_due(partition, claimed.next_ms)

    def note_due(self, partition: int, next_ms: int | None) -> None:
        """Note when there may be something to take of a partition; None is never."""
        self._next_ms.pop(partition, None)
        if next_ms is not None:
            self._next_ms[partition] = next_ms

    @property
    def full(self) -> bool:
        """Whether nothing more may be taken, as far as was told."""
        return self._barred or sum(map(len, self._held.values())) >= self.most

    @property
    def held(self) -> tuple[str, ...]:
        """What the worker holds, as far as was told."""
        return tuple(sort_field for held in self._held.values() for sort_field in held)

    @property
    def next_ms(self) -> int | None:
        """When there may be more to take: a slot is free again, or something is due."""
        return min(self._next_ms.values(), default=None)
