"""Claims by filters where many others stand in line: how far they look, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conftest import NOW_MS, Clock, wait_until
from hookline import Claimed, Datastore
from hookline.call import Call
from hookline.outcome import Outcome
from jobs import WAITING, fill, names

SOUGHT = {"text": {"prefix": "y"}}
OTHER = {**WAITING, "text": "x" * 12_800}
"""It costs as much to look at as a hundred items with short values: a step of a claim reaches ten or so."""
ANSWER = Outcome | Claimed


async def fill_line(datastore: Datastore) -> str:
    """Put others in line -> the first of those that no step from the front reaches."""
    made = await fill(datastore, 300, **OTHER)
    partition = datastore.calls.partition("jobs", made[-1])
    return [name for name in made if datastore.calls.partition("jobs", name) == partition][15]


def watch(
    datastore: Datastore,
    monkeypatch: pytest.MonkeyPatch,
    after_first: Callable[[Call], Awaitable[object]] | None = None,
) -> list[Call]:
    """The steps of claims from now on; ``after_first`` is done when the first has its answer."""
    perform, steps = datastore.claims._perform, list[Call]()

    async def noted(call: Call) -> ANSWER:
        answer = await perform(call)
        steps.append(call)
        if len(steps) == 1 and after_first:
            await after_first(call)
        return answer

    monkeypatch.setattr(datastore.claims, "_perform", noted)
    return steps


async def test_who_waits_in_vain_looks_at_the_front_meanwhile(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 0.01)
    monkeypatch.setattr("hookline.claims.REST", 1e6)
    deep = await fill_line(datastore)
    steps = watch(datastore, monkeypatch)
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", where=SOUGHT, wait=60))
    await wait_until(lambda: datastore.claims._rested)
    await datastore.update("jobs", deep, metadata={"text": "yes"})
    steps.clear()
    await wait_until(lambda: len(steps) > 100)
    assert not waiting.done()
    await datastore.create("jobs", "front", metadata={**WAITING, "text": "yes", "priority": 9})
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["front"]


async def test_a_look_at_the_front_is_short(datastore: Datastore) -> None:
    partition = datastore.calls.partition("jobs", await fill_line(datastore))
    asked: dict[str, Any] = {"worker_id": "w", "where": SOUGHT, "partition": partition}
    far = await datastore.claims._ask(datastore.calls.claim("jobs", **asked))
    short = await datastore.claims._ask(datastore.calls.claim("jobs", **asked, front=True))
    assert (short.examined, far.examined > 1) == (1, True)


async def test_who_waits_in_vain_looks_at_all_again(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 0.01)
    monkeypatch.setattr("hookline.claims.REST_MAX", 0.1)
    deep = await fill_line(datastore)
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", where=SOUGHT, wait=60))
    await wait_until(lambda: datastore.claims._rested)
    await datastore.update("jobs", deep, metadata={"text": "yes"})
    assert names((await asyncio.wait_for(waiting, 5)).items) == [deep]


async def test_who_does_not_wait_looks_at_all(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 0.01)
    monkeypatch.setattr("hookline.claims.REST", 1e6)
    deep = await fill_line(datastore)
    assert not (await datastore.claim("jobs", worker_id="w", where=SOUGHT, wait=0.01)).items
    assert datastore.claims._rested
    await datastore.update("jobs", deep, metadata={"text": "yes"})
    assert names((await datastore.claim("jobs", worker_id="w", where=SOUGHT)).items) == [deep]


@pytest.mark.parametrize("deep_too", [False, True])
async def test_a_long_look_comes_back_to_the_front(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch, deep_too: bool
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 0.0)
    deep = await fill_line(datastore)
    there = datastore.calls.partition("jobs", deep)
    datastore.claims._rotate("jobs", there)
    names_there = (f"f{n}" for n in range(1000))
    front = next(name for name in names_there if datastore.calls.partition("jobs", name) == there)
    if deep_too:
        await datastore.update("jobs", deep, metadata={"text": "yes"})

    async def create(call: Call) -> None:
        await datastore.create("jobs", front, metadata={**WAITING, "text": "yes", "priority": 9})

    watch(datastore, monkeypatch, create)
    claimed = await datastore.claim("jobs", worker_id="w", where=SOUGHT, limit=2)
    assert names(claimed.items) == [front, deep][: 1 + deep_too]


async def test_a_long_look_ends_as_the_process_stops(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill_line(datastore)

    async def release(call: Call) -> None:
        datastore.wakes.release()

    steps = watch(datastore, monkeypatch, release)
    claimed = await asyncio.wait_for(datastore.claim("jobs", worker_id="w", where=SOUGHT, wait=60), 10)
    assert claimed.items == []
    assert len(steps) == datastore.calls.partitions


async def test_many_who_look_at_once_all_come_far(
    datastore: Datastore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a tenth of the work of a call at least, however many there are."""
    clock.ms = NOW_MS
    await fill(datastore, 500)
    steps = watch(datastore, monkeypatch)
    claims = [datastore.claim("jobs", worker_id="w", where={"n": 1000 + n}) for n in range(100)]
    assert not any(claimed.items for claimed in await asyncio.gather(*claims))
    assert len(steps) < 100 * (500 / 50 + datastore.calls.partitions)
