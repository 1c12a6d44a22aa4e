"""Shares: what is short is had by many, whatever one of them keeps."""

from __future__ import annotations

import asyncio

from hookline_server.shares import Shares


async def taken(shares: Shares, who: str, count: int) -> list[asyncio.Task[None]]:
    """Who asks for so many; those that have them are done."""
    tasks = [asyncio.create_task(shares.take(who)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def had(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() and not task.cancelled() for task in tasks)


async def test_who_keeps_all_leaves_some_to_others() -> None:
    shares = Shares(100)
    greedy = [await taken(shares, f"greedy {n}", 200) for n in range(3)]
    assert [had(tasks) for tasks in greedy] == [67, 22, 8]
    modest = await taken(shares, "modest", 2)
    assert had(modest) == 2
    for task in (each for tasks in greedy for each in tasks):
        task.cancel()


async def test_what_is_given_back_goes_to_who_has_the_fewest() -> None:
    shares = Shares(4)
    many, few = await taken(shares, "many", 6), await taken(shares, "few", 3)
    assert (had(many), had(few)) == (3, 1)
    shares.give_back("many")
    await asyncio.sleep(0)
    assert (had(many), had(few)) == (3, 2)
    for _ in range(2):
        shares.give_back("many")
        shares.give_back("few")
    await asyncio.sleep(0)
    assert (had(many), had(few)) == (5, 3)


async def test_who_gives_up_waiting_keeps_nothing() -> None:
    shares = Shares(1)
    first, waiting = await taken(shares, "a", 1), await taken(shares, "a", 3)
    waiting[0].cancel()
    await asyncio.sleep(0)
    shares.give_back("a")
    waiting[1].cancel()  # just as it is given one
    await asyncio.wait(waiting[1:])
    assert (had(first), had(waiting)) == (1, 1)
    shares.give_back("a")
    assert had(await taken(shares, "b", 1)) == 1
