"""Slots: what is free is given, a batch is waited for only for a moment, and what is late gives its slot back."""

from __future__ import annotations

import asyncio

import pytest

from conftest import end, wait_until
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
    await end(waiting)


async def test_a_slot_wakes_who_has_waited_longest_and_nobody_else() -> None:
    two = Slots(2)
    taken = await held(2, two)
    waiting = [asyncio.create_task(two.reserve(1, 20.0)) for _ in range(100)]
    await asyncio.sleep(0)
    for place, slot in enumerate(taken):
        slot.release()
        await asyncio.wait(waiting[: place + 1])
        assert [task.done() for task in waiting] == [each <= place for each in range(100)]
        assert waiting[place].result() == 1
    two.give_back(2)
    assert await asyncio.gather(*waiting[2:4]) == [1, 1]
    assert not any(task.done() for task in waiting[4:])
    two.give_back(96)
    await asyncio.wait(waiting)
    assert two.free == 0


@pytest.mark.parametrize("woken", [False, True])
async def test_the_slot_of_who_is_cancelled_goes_to_the_next(woken: bool) -> None:
    one = Slots(1)
    (slot,) = await held(1, one)
    waiting = [asyncio.create_task(one.reserve(1, 20.0)) for _ in range(3)]
    await asyncio.sleep(0)
    if woken:
        slot.release()
    waiting[0].cancel()
    if not woken:
        slot.release()
    assert await waiting[1] == 1
    assert waiting[0].cancelled()
    assert not waiting[2].done()
    one.give_back()
    assert await waiting[2] == 1
    one.give_back()
    assert one.free == 1


async def test_who_comes_late_does_not_overtake() -> None:
    one = Slots(1)
    (slot,) = await held(1, one)
    first = asyncio.create_task(one.reserve(1, 20.0))
    await asyncio.sleep(0)
    slot.release()
    assert await one.reserve(1, 0.0) == 0
    assert await first == 1


async def test_who_has_waited_in_vain_is_in_nobodys_way() -> None:
    one = Slots(1)
    (slot,) = await held(1, one)
    assert await asyncio.gather(*(one.reserve(1, 0.01) for _ in range(3))) == [0, 0, 0]
    slot.release()
    assert (one.free, len(one._line)) == (1, 0)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_waits_for_many_leaves_others_what_it_does_not_get(
    cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes first until its moment is over; then it lets nobody wait for what is free."""
    monkeypatch.setattr(slots, "GATHER", 20.0 if cancelled else 0.05)
    eight = Slots(8)
    taken = await held(8, eight)
    many = asyncio.create_task(eight.reserve(8, 20.0, many=True))
    other = asyncio.create_task(eight.reserve(1, 20.0))
    await asyncio.sleep(0)
    taken[0].release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taken[1].release()
    await asyncio.sleep(0)
    assert not many.done()
    assert not other.done()
    assert await eight.reserve(1, 0.0) == 0, "nor does who comes later get what is gathered"
    if cancelled:
        many.cancel()
    assert await other == 1
    await asyncio.wait([many])
    assert eight.free == (1 if cancelled else 0)
    assert cancelled or many.result() == 1


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
