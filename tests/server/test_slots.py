"""Slots: what is free is given, a batch is waited for only for a moment, and what is late gives its slot back."""

from __future__ import annotations

import asyncio

import pytest

from conftest import wait_until
from hookline_server import slots
from hookline_server.slots import Origins, Slots


async def held(count: int, of: Slots) -> list[slots.Slot]:
    assert await of.reserve(count, 1.0) == count
    return [of.take() for _ in range(count)]


async def test_many_are_waited_for_while_they_come_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "GATHER", 20.0)
    eight = Slots(8)
    taken = await held(8, eight)
    waiting = asyncio.create_task(eight.reserve(8, 20.0, many=True))
    for slot in taken[:3]:
        slot.release()
        await asyncio.sleep(0)
        assert not waiting.done()
    taken[3].release()
    assert await waiting == 4


async def test_one_is_not_kept_waiting_for_long() -> None:
    eight = Slots(8)
    taken = await held(8, eight)
    waiting = asyncio.create_task(eight.reserve(8, 20.0, many=True))
    await asyncio.sleep(0)
    taken[0].release()
    assert await waiting == 1
    assert await eight.reserve(8, 0.01, many=True) == 0


async def test_what_is_late_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "PATIENCE", 0.02)
    two = Slots(2)
    late, other = await held(2, two)
    await wait_until(lambda: two.free == 2)
    for slot in (late, other):
        slot.release()
    assert (two.free, two.late) == (2, 0)


async def test_who_is_cancelled_when_a_slot_comes_free_is_cancelled() -> None:
    """Else a relay that is stopped just then goes on."""
    one = Slots(1)
    (slot,) = await held(1, one)
    waiting = asyncio.create_task(one.reserve(1, 20.0))
    await asyncio.sleep(0.01)
    slot.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_host_is_slow_by_its_late_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline_server.slots.PATIENCE", 0.01)
    monkeypatch.setattr("hookline_server.slots.LATE_OF_ORIGIN", 2)
    origins = Origins()
    posts = [origins.begin("http://a:1") for _ in range(3)]
    await wait_until(lambda: origins.is_slow("http://a:1"))
    assert not origins.is_slow("http://a:2")
    origins.end(posts.pop())
    assert origins.is_slow("http://a:1")
    origins.end(posts.pop())
    assert not origins.is_slow("http://a:1")
