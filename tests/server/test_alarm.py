"""One timer for many things: each rings once, in its time, and not if it was dropped."""

from __future__ import annotations

import asyncio

from conftest import wait_until
from hookline_server.alarm import Alarm


async def test_each_rings_once_in_its_time() -> None:
    loop, rung = asyncio.get_running_loop(), dict[str, float]()
    alarm = Alarm[str](0.05, lambda thing: rung.update({thing: loop.time()}))
    begun = {}
    for thing in "abc":
        alarm.watch(thing)
        begun[thing] = loop.time()
        await asyncio.sleep(0.02)
    alarm.drop("b")
    await wait_until(lambda: not len(alarm))
    assert list(rung) == ["a", "c"]
    assert all(rung[thing] >= begun[thing] + 0.049 for thing in rung)
    alarm.watch("b")
    await wait_until(lambda: "b" in rung)


async def test_what_rings_may_drop_what_is_due_after_it() -> None:
    rung: list[int] = []

    def ring(thing: int) -> None:
        rung.append(thing)
        alarm.drop(thing + 1)

    alarm = Alarm[int](0.01, ring)
    for thing in range(4):
        alarm.watch(thing)
    await wait_until(lambda: not len(alarm))
    assert rung == [0, 2]


async def test_stopped_it_rings_for_nothing() -> None:
    rung: list[str] = []
    alarm = Alarm[str](0.01, rung.append)
    alarm.watch("a")
    alarm.stop()
    alarm.watch("b")
    await wait_until(lambda: rung)
    assert rung == ["b"]
