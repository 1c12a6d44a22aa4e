"""The look at all connections: each is seen, and whatever else there is to do is done meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

import pytest

from hookline import Settings
from hookline_server.limits import Limits

MANY = 200


@dataclass(eq=False)
class Connection:
    """One that takes long to be looked at, and notes that it was."""

    limits: Limits
    seen: list[object]
    unread: int = 0
    address: str | None = None
    aborted: bool = field(default=False, init=False)

    def look(self, now: float) -> int:
        time.sleep(0.0005)
        self.seen.append(self)
        return self.unread

    def abort(self) -> None:
        self.aborted = True
        self.limits.leave(self)


def entered(limits: Limits, seen: list[object], unread: list[int]) -> list[Connection]:
    """New connections with so many bytes unread."""
    connections = [Connection(limits, seen, size) for size in unread]
    for connection in connections:
        assert limits.enter(connection) is None
    return connections


async def seen_by_all(seen: list[object], connections: list[Connection]) -> None:
    """Until each was looked at; between looks, a note of what else was done."""
    while not set(seen).issuperset(connections):
        seen.append("else")
        await asyncio.sleep(0)


async def test_a_look_at_many_leaves_room_for_all_else() -> None:
    seen: list[object] = []
    connections = entered(Limits(Settings()), seen, [0] * MANY)
    await seen_by_all(seen, connections)
    looks = [place for place, each in enumerate(seen) if isinstance(each, Connection)]
    assert len(looks) == MANY
    pauses = sum(each == "else" for each in seen[looks[0] : looks[-1]])
    assert pauses >= MANY // 8


async def test_who_has_gone_meanwhile_is_not_looked_at() -> None:
    seen: list[object] = []
    limits = Limits(Settings())
    connections = entered(limits, seen, [0] * MANY)
    while not any(isinstance(each, Connection) for each in seen):
        await asyncio.sleep(0)
    gone = [connection for connection in connections if connection not in seen]
    for connection in gone[1:]:
        limits.leave(connection)
    await seen_by_all(seen, gone[:1])
    assert set(seen).isdisjoint(gone[1:])


async def test_who_has_gone_since_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    limits, seen = Limits(replace(Settings(), unread_max=1000)), list[object]()
    monkeypatch.setattr("hookline_server.limits._STEP", 0.0001)
    connections = entered(limits, seen, [600, 600, *[0] * 20])
    while not set(seen) & set(connections[:2]):
        await asyncio.sleep(0)
    gone, stays = connections[:2] if connections[0] in seen else connections[1::-1]
    limits.leave(gone)
    stays.unread = 700  # the larger of both
    await seen_by_all(seen, [stays, *connections[2:]])
    assert not stays.aborted


async def test_the_largest_end_where_too_much_is_unread_by_all() -> None:
    limits = Limits(replace(Settings(), unread_max=1000))
    connections = entered(limits, [], [10, 600, 300, 500, *[0] * MANY])
    while not connections[1].aborted:
        await asyncio.sleep(0)
    assert [connection.aborted for connection in connections[:4]] == [False, True, False, False]
