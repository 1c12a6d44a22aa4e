"""Retention: what has ended and need not be kept any more is removed by the sweep, the oldest first, without events."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore
from hookline.errors import NotFound
from invariants import check_invariants
from jobs import by_partition, tags


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def standing(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS


async def end(datastore: Datastore, *names: str, status: str = "completed", **fields: Any) -> None:
    """Items that have ended, one after the other."""
    for name in names:
        await datastore.create("jobs", name, metadata={"status": status}, **fields)


async def left(datastore: Datastore) -> str:
    """The names of the items that are left."""
    return "".join(item.sort_field for item in (await datastore.query("jobs", order="sortField", limit=1000)).items)


async def having(datastore: Datastore, raw: aioredis.Redis, family: str) -> list[str]:
    """The partitions in which there is such a key."""
    return [tag for tag in tags(datastore) if await raw.exists(f"{tag}:{family}")]


async def test_off_by_default(datastore: Datastore, clock: Clock, raw: aioredis.Redis) -> None:
    await end(datastore, "a")
    clock.advance(10_000_000)
    await datastore.sweep()
    assert await left(datastore) == "a"
    assert not await having(datastore, raw, "due")


async def test_by_age(datastore: Datastore, clock: Clock, raw: aioredis.Redis) -> None:
    await datastore.configure("jobs", retention={"completed": {"age": "1m"}, "failed": {"age": "2m"}})
    await end(datastore, "a", "b")
    await end(datastore, "c", status="failed", trigger_urls=[{"url": "http://w.example/", "events": ["deleted"]}])
    await end(datastore, "d", status="cancelled")
    await end(datastore, "e", status="review")
    clock.advance(30)
    await datastore.update("jobs", "b", metadata={"x": 1})
    clock.advance(29.999)
    await datastore.sweep()
    assert await left(datastore) == "abcde"
    clock.advance(0.001)
    await datastore.sweep()
    assert await left(datastore) == "bcde"
    clock.advance(30)
    await datastore.sweep()
    assert await left(datastore) == "cde"
    clock.advance(30)
    await datastore.sweep()
    assert await left(datastore) == "de"
    await check_invariants(raw)
    assert not await having(datastore, raw, "due")
    assert not await having(datastore, raw, "outbox")
    with pytest.raises(NotFound):
        await datastore.get("jobs", "a")


async def test_by_count(datastore: Datastore, clock: Clock, raw: aioredis.Redis) -> None:
    """Each partition keeps its share."""
    partitions = datastore.calls.partitions
    await datastore.configure("jobs", retention={"completed": {"count": 2 * partitions}}, indexes={"x": "string"})
    made = [f"{n:03}" for n in range(8 * partitions)]
    for name in made:
        clock.advance(1)
        await end(datastore, name)
        await datastore.update("jobs", name, metadata={"x": name})
    await datastore.update("jobs", made[0], metadata={"y": 1})
    await datastore.sweep()
    latest = [name for names in by_partition(datastore, [*made[1:], made[0]]) for name in names[-2:]]
    assert await left(datastore) == "".join(sorted(latest))
    await check_invariants(raw)
    await datastore.configure("jobs", retention={"completed": {"count": 0}})
    await datastore.sweep()
    assert await left(datastore) == ""


async def test_what_was_there_before_the_setting(datastore: Datastore, clock: Clock) -> None:
    await end(datastore, "a", "b")
    clock.advance(100)
    await end(datastore, "c")
    await datastore.configure("jobs", retention={"completed": {"age": 90, "count": 5}})
    await datastore.sweep()
    assert await left(datastore) == "c"
    await datastore.configure("jobs", retention=None)
    clock.advance(100)
    await datastore.sweep()
    assert await left(datastore) == "c"


async def test_what_ends_by_a_claim_or_a_burial(datastore: Datastore, clock: Clock, raw: aioredis.Redis) -> None:
    await datastore.configure("jobs", retention={"completed": {"age": 10}, "failed": {"count": 0}}, max_attempts=1)
    for name in "ab":
        await datastore.create("jobs", name, metadata={"status": "not_started"})
    first, _ = (await datastore.claim("jobs", worker_id="w", limit=2, lock_for=5)).items
    await datastore.settle([datastore.calls.complete("jobs", first.sort_field, first.token or "")])
    clock.advance(6)
    await datastore.sweep()  # buries the other
    await datastore.sweep()  # of failed items none is kept
    assert await left(datastore) == first.sort_field
    clock.advance(4)
    await datastore.sweep()
    assert await left(datastore) == ""
    await check_invariants(raw)


async def test_many_in_bounded_steps(
    datastore: Datastore, clock: Clock, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await datastore.run([datastore.calls.create("jobs", f"{n}", metadata={"status": "completed"}) for n in range(3000)])
    await datastore.create("other", "a", metadata={"status": "completed"})
    await datastore.configure("jobs", retention={"completed": {"age": 10}})
    await datastore.configure("other", retention={"completed": {"age": 10}})
    clock.advance(11)
    monkeypatch.setattr("hookline.upkeep._SECONDS", 0)
    await datastore.sweep()
    assert 3000 - 100 * datastore.calls.partitions <= (await datastore.count("jobs")).count < 3000
    monkeypatch.undo()
    await datastore.sweep()
    assert [(await datastore.count(key)).count for key in ("jobs", "other")] == [0, 0]
    assert not await having(datastore, raw, "due")


async def test_a_step_used_up_by_one_status_takes_no_more_of_the_next(datastore: Datastore) -> None:
    partitions = datastore.calls.partitions
    completed = [f"c{n}" for n in range(150 * partitions)]
    failed = [f"f{n}" for n in range(5 * partitions)]
    calls = [datastore.calls.create("jobs", name, metadata={"status": "completed"}) for name in completed]
    calls += [datastore.calls.create("jobs", name, metadata={"status": "failed"}) for name in failed]
    assert all(outcome.ok for outcome in await datastore.run(calls))
    await datastore.configure("jobs", retention={"completed": {"count": 0}, "failed": {"count": 4 * partitions}})
    for _ in range(3):
        await datastore.sweep()
    assert (await datastore.count("jobs", where={"status": "completed"})).count == 0
    kept = sum(min(4, len(names)) for names in by_partition(datastore, failed))
    assert (await datastore.count("jobs", where={"status": "failed"})).count == kept


async def test_a_step_that_ran_for_long_goes_on_at_once(
    datastore: Datastore, raw: aioredis.Redis, clock: Clock
) -> None:
    """Removing what has large values in an index takes longer than a step may; the store's own clock says so."""
    clock.ms = None
    await datastore.configure("jobs", indexes={"a.x": "number"}, retention={"completed": {"count": 0}})
    large = {"x": 1, "list": [1000] * 10_000}
    for n in range(100):
        await end(datastore, f"{n}")
        await datastore.update("jobs", f"{n}", metadata={"a": large})
    await datastore.sweep()
    assert await left(datastore) == ""
    await check_invariants(raw)
