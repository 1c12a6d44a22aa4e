"""Changes to all items that match: delete, redrive, cancel; their steps, and what changes meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from conftest import NOW_MS, Clock
from hookline import Datastore, bulk
from hookline.bulk import Progress
from hookline.errors import Invalid, NotFound, OutboxFull, ReservedKey
from jobs import WAITING, claim_one, statuses


@pytest.fixture(autouse=True)
def stopped(clock: Clock) -> None:
    clock.ms = NOW_MS


async def fill(datastore: Datastore, count: int, **metadata: Any) -> None:
    calls = [datastore.calls.create("jobs", f"{n:03}", metadata={"n": n % 3, **metadata}) for n in range(count)]
    await datastore.run(calls)


async def through(steps: AsyncIterator[Progress]) -> list[Progress]:
    return [step async for step in steps]


async def test_delete_what_matches(datastore: Datastore) -> None:
    await fill(datastore, 450)
    steps = await through(bulk.delete(datastore, "jobs", {"n": 1}))
    assert [step.done for step in steps] == [100, 150]
    assert steps[-1] == Progress(150, 0, None)
    assert await statuses(datastore) == {"": 300}
    assert (await through(bulk.delete(datastore, "jobs", {})))[-1].done == 300
    assert await statuses(datastore) == {}
    assert await through(bulk.delete(datastore, "jobs", {})) == [Progress(0, 0, None)]


async def test_it_can_be_gone_on_with(datastore: Datastore) -> None:
    await fill(datastore, 250)
    step = await anext(bulk.delete(datastore, "jobs", {}))
    assert step.cursor is not None
    last = (await through(bulk.delete(datastore, "jobs", {}, cursor=step.cursor)))[-1]
    assert (step.done, last.done, await statuses(datastore)) == (100, 150, {})


async def test_what_changes_meanwhile_is_passed_over(datastore: Datastore, clock: Clock) -> None:
    await fill(datastore, 150, **WAITING)
    seen: list[Progress] = []
    async for step in bulk.delete(datastore, "jobs", WAITING):
        if not seen:
            clock.advance(1)
            left = [item.sort_field for item in (await datastore.query("jobs", limit=150)).items]
            await datastore.update("jobs", left[-1], metadata={"kept": True})
        seen.append(step)
    assert seen[-1] == Progress(149, 1, None)
    assert await statuses(datastore) == {"": 1, "not_started": 1}


async def test_a_walk_that_is_gone_on_with_keeps_its_bound(datastore: Datastore, clock: Clock) -> None:
    await fill(datastore, 150, **WAITING)
    step = await anext(bulk.cancel(datastore, "jobs"))
    clock.advance(1)
    left = [item.sort_field for item in (await datastore.query("jobs", where=WAITING)).items]
    await datastore.update("jobs", left[0], metadata={"kept": True})
    rest = await through(bulk.cancel(datastore, "jobs", cursor=step.cursor))
    assert (step.done, rest[-1]) == (100, Progress(49, 1, None))
    for cursor in ("x", "1", "-x", "1-x", "²-x", f"{10**15}-x"):
        with pytest.raises(Invalid):
            await through(bulk.cancel(datastore, "jobs", cursor=cursor))


async def test_the_engines_own_keys_are_refused_even_if_empty(datastore: Datastore) -> None:
    for steps in (bulk.delete(datastore, "hookline.x", {}), bulk.cancel(datastore, "hookline.x")):
        with pytest.raises(ReservedKey):
            await anext(steps)


async def test_redrive(datastore: Datastore) -> None:
    await fill(datastore, 120, status="failed", attempts=0, last_error="no")
    await datastore.update("jobs", "000", metadata={"attempts": 7})
    await datastore.create("jobs", "done", metadata={"status": "completed"})
    assert (await through(bulk.redrive(datastore, "jobs", {"n": 0})))[-1] == Progress(40, 0, None)
    assert await statuses(datastore) == {"": 121, "failed": 80, "not_started": 40, "completed": 1}
    assert (await datastore.get("jobs", "000")).metadata["attempts"] == 0
    assert (await through(bulk.redrive(datastore, "jobs")))[-1].done == 80


async def test_what_fails_again_while_it_runs_is_not_redriven_again(datastore: Datastore, clock: Clock) -> None:
    await fill(datastore, 110, status="failed")
    steps: list[Progress] = []
    async for step in bulk.redrive(datastore, "jobs"):
        steps.append(step)
        clock.advance(1)
        for item in (await datastore.claim("jobs", worker_id="w", limit=500)).items:
            await datastore.update("jobs", item.sort_field, metadata={"status": "failed"})
    assert len(steps) < 6
    assert steps[-1].done == 110
    assert (await statuses(datastore))["failed"] == 110


async def test_cancel_what_waits_and_what_is_held(datastore: Datastore) -> None:
    await fill(datastore, 9, **WAITING)
    held = await claim_one(datastore, where={"n": 0})
    assert (await through(bulk.cancel(datastore, "jobs", {"n": {"in": [0, 1]}})))[-1].done == 5
    assert await statuses(datastore) == {"": 9, "not_started": 3, "cancelled": 5, "started": 1}
    assert (await through(bulk.cancel(datastore, "jobs", {"status": "started"})))[-1].done == 1
    (outcome,) = await datastore.settle([datastore.calls.extend("jobs", held.sort_field, held.token or "")])
    assert outcome.word == "cancelled"


async def test_all_are_deleted_only_if_that_is_said(datastore: Datastore) -> None:
    await fill(datastore, 3)
    with pytest.raises(Invalid, match="/where"):
        await through(bulk.delete(datastore, "jobs", None))
    assert (await through(bulk.delete(datastore, "jobs", {})))[-1].done == 3


async def test_bad_filters(datastore: Datastore) -> None:
    with pytest.raises(Invalid):
        await through(bulk.delete(datastore, "jobs", {"n": {"about": 3}}))
    with pytest.raises(NotFound):
        await datastore.get("jobs", "000")


@pytest.mark.parametrize("change", [bulk.cancel, bulk.redrive, bulk.delete])
async def test_what_a_full_outbox_refuses_is_not_passed_over(datastore: Datastore, store: Any, change: Any) -> None:
    """What was done is told, with a cursor by which the rest is found once there is room."""
    called = [{"url": "http://worker.example/", "events": ["updated", "deleted"]}]
    await datastore.configure("jobs", trigger_urls=called)
    await fill(datastore, 130, status="failed" if change is bulk.redrive else "not_started")
    narrow = replace(datastore.settings, outbox_max=2)
    async with Datastore(store.url, narrow, datastore.secrets, now_ms=lambda: NOW_MS) as full:
        walk = change(full, "jobs", {})
        step = await anext(walk)
        assert (0 < step.done <= 2 * datastore.calls.partitions, step.passed_over) == (True, 0)
        for refused in (walk, change(full, "jobs", {}, cursor=step.cursor)):
            with pytest.raises(OutboxFull):
                await anext(refused)
    rest = await through(change(datastore, "jobs", {}, cursor=step.cursor))
    assert rest[-1] == Progress(130 - step.done, 0, None)
