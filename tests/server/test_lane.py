"""Lanes: an event waits for room where it comes in a moment, and nowhere else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hookline import Datastore
from hookline_server import lane as module
from hookline_server.endpoint import PAUSED, Endpoint, Endpoints
from hookline_server.lane import Lane, Lanes


@pytest.fixture
def lanes(datastore: Datastore) -> Lanes:
    return Lanes(Endpoints(datastore), 2)


async def full(lanes: Lanes) -> Lane:
    lane = lanes.get("e")
    for _ in range(2):
        assert await lanes.enter(lane)
    return lane


async def test_who_waits_begins_in_turn(lanes: Lanes) -> None:
    lane = await full(lanes)
    waiting = [asyncio.create_task(lanes.enter(lane)) for _ in range(3)]
    await asyncio.sleep(0)
    for begun in range(1, 4):
        lane.end(0.001)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [place < begun for place in range(3)]
        assert lane.busy == 2
    assert all([await task for task in waiting])


async def test_who_comes_later_does_not_overtake(lanes: Lanes) -> None:
    lane = await full(lanes)
    first = asyncio.create_task(lanes.enter(lane))
    await asyncio.sleep(0)
    lane.end(0.001)
    assert lane.busy == 2, "the place is that of the first"
    second = asyncio.create_task(lanes.enter(lane))
    assert await first
    await asyncio.sleep(0)
    assert not second.done()
    lane.end(0.001)
    assert await second


@pytest.mark.parametrize(
    "hold",
    [
        lambda lane: lane.know(replace(lane.endpoint, status=PAUSED)),
        lambda lane: lane.know(replace(lane.endpoint, rate=1.0)),
        lambda lane: lane.know(replace(lane.endpoint, retry_at=time.time() + 60)),
        lambda lane: [lane.breaker.note(time.time(), ok=False) for _ in range(8)],
        lambda lane: setattr(lane, "pace", 60.0),
    ],
)
async def test_nobody_waits_where_room_is_far_off(hold: Callable[[Lane], object], lanes: Lanes) -> None:
    lane = await full(lanes)
    hold(lane)
    assert not await lanes.enter(lane)
    assert (lane.busy, len(lane.queue)) == (2, 0)


async def test_new_events_leave_every_other_attempt_of_a_rate_to_what_is_kept(lanes: Lanes) -> None:
    """Else each new one would take what the rate allows, and what is kept would wait until no more come."""
    lane = lanes.get("e")
    lane.know(replace(lane.endpoint, rate=1000.0))
    begun = {"new": 0, "kept": 0}
    lane.look(time.time())
    while sum(begun.values()) < 20:
        if await lanes.enter(lane):
            begun["new"] += 1
        elif lane.room(time.time()):
            lane.begin(time.time())
            begun["kept"] += 1
        else:
            await asyncio.sleep(0.001)
        while lane.busy:
            lane.end(0.001)
    assert begun == {"new": 10, "kept": 10}
    lane.look_at = None
    assert all([await lanes.enter(lane) for _ in range(2)]), "nothing is kept any more"


async def test_who_has_waited_in_vain_saves_others_the_wait(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes._patience, "_seconds", 0.02)
    lane = lanes.get("e")
    lane.know(replace(lane.endpoint, concurrency=50))
    for _ in range(50):
        assert await lanes.enter(lane)
    assert not await lanes.enter(lane)
    assert not lane.is_quick(time.time())
    for _ in range(50):
        lane.end(0.001)
    assert await lanes.enter(lane)
    assert lane.busy == 1
    assert lane.is_quick(time.time())


async def test_endpoints_are_read_again_where_the_clock_was_put_back(
    lanes: Lanes, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline_server.lane.FRESH", 0.0)
    ahead = time.time() + 3600
    with monkeypatch.context() as patched:
        patched.setattr("time.time", lambda: ahead)
        await lanes.refresh(["e"])
    await Endpoints(datastore).note("e", "http://h/", {"status": PAUSED})
    await lanes.refresh(["e"])
    assert lanes.get("e").endpoint.status == PAUSED


async def test_what_was_read_before_a_change_is_read_again(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes while the answer is under way."""
    find, changes = lanes._endpoints.find, [Endpoints.note]

    async def find_late(ids: list[str]) -> Mapping[str, Endpoint]:
        found = await find(ids)
        if changes:
            await changes.pop()(lanes._endpoints, "e", "http://h/", {"status": PAUSED})
            lanes.hear_of_change("endpoint:e")
        return found

    monkeypatch.setattr(lanes._endpoints, "find", find_late)
    await lanes.refresh(["e"])
    assert lanes.get("e").endpoint.status == PAUSED


async def test_lanes_are_looked_through_for_old_ones_now_and_then(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at each wake message, of which there are many where there are many lanes."""
    begun = time.monotonic()
    looks = 0

    def count(lanes: Lanes) -> None:
        nonlocal looks
        looks += 1
        tidy(lanes)

    tidy = Lanes._tidy
    monkeypatch.setattr(Lanes, "_tidy", count)
    for minute in range(61):
        # Of that module alone: the loop of other servers goes by the real one.
        later = SimpleNamespace(monotonic=lambda now=begun + 60 * minute: now, time=time.time)
        monkeypatch.setattr(module, "time", later)
        if minute < 50:
            lanes.get("used")
        if not minute:
            lanes.get("old")
        lanes.due()
        if minute == 11:
            assert [lane.endpoint.id for lane in lanes] == ["used"]
    assert list(lanes) == []
    assert looks <= 12


def test_an_endpoint_with_a_bound_of_its_own_is_counted_by_itself() -> None:
    lane = Lane(Endpoint("e"), 2)
    lane.know(Endpoint("e", url="http://h/a"))
    assert lane.counted_as == "http://h:80"
    lane.know(Endpoint("e", url="http://h/a", concurrency=100))
    assert lane.counted_as == "e"


async def test_who_is_cancelled_leaves_no_place_taken(lanes: Lanes) -> None:
    lane = await full(lanes)
    waiting = [asyncio.create_task(lanes.enter(lane)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(*waiting[:1], return_exceptions=True)
    lane.end(0.001)
    waiting[1].cancel()  # its turn has come, and it does not know yet
    await asyncio.gather(*waiting, return_exceptions=True)
    assert lane.busy == 1
    assert not len(lanes._patience)
