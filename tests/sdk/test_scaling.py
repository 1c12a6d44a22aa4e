"""Workers that come and go while jobs come in: what is done at a time follows how many there are; nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from conftest import wait_until
from hookline import Datastore, Job, Worker
from hookline.depth import read_depths
from hookline.source import Source
from jobs import WAITING, statuses

SLOTS = 4
"""Of each worker."""


@dataclass
class Pool:
    """Workers whose jobs end all together, at a tick: so throughput is a count, of jobs per tick."""

    source: Source
    running: list[tuple[Worker, asyncio.Task[None]]] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    held: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, job: Job) -> str:
        self.runs[job.sort_field] += 1
        self.held.add(job.sort_field)
        try:
            await self.gate.wait()
        finally:
            self.held.discard(job.sort_field)
        return job.sort_field

    def add(self, count: int) -> None:
        for _ in range(count):
            worker = Worker(self.source, "jobs", concurrency=SLOTS)
            worker.handles()(self.run)
            self.running.append((worker, asyncio.create_task(worker.run())))

    async def full(self) -> None:
        """All slots are taken, and no more than those."""
        await wait_until(lambda: len(self.held) >= SLOTS * len(self.running))
        assert len(self.held) == SLOTS * len(self.running)

    def tick(self) -> None:
        gate, self.gate = self.gate, asyncio.Event()
        gate.set()

    async def remove(self) -> None:
        """Stop one as SIGTERM does: it finishes what it holds."""
        worker, running = self.running.pop()
        worker.stop()
        self.tick()
        await asyncio.wait_for(running, 20)

    async def drop(self) -> None:
        """End one as a second SIGTERM does: it gives back what it holds."""
        _, running = self.running.pop()
        running.cancel()
        await asyncio.wait((running,), timeout=20)


async def completed(datastore: Datastore) -> int:
    return (await statuses(datastore)).get("completed", 0)


async def ahead(datastore: Datastore) -> int:
    """What a scaler goes by, as docs/operations.md has it: what can be claimed, and what is held."""
    (jobs,) = (await read_depths(datastore.connection, datastore.calls.partitions, ["jobs"])).keys
    return jobs.claimable + jobs.statuses["started"]


async def test_throughput_follows_the_workers_and_nothing_is_lost(datastore: Datastore, source: Source) -> None:
    pool, made = Pool(source), 0

    async def create(count: int) -> None:
        nonlocal made
        calls = [
            datastore.calls.create("jobs", f"{number:04}", metadata=WAITING) for number in range(made, made + count)
        ]
        assert all(outcome.ok for outcome in await datastore.run(calls))
        made += count

    async def done_by_a_tick() -> int:
        await create(5)
        await pool.full()
        before = await completed(datastore)
        pool.tick()
        await wait_until(lambda: _is(datastore, before + SLOTS * len(pool.running)))
        await pool.full()
        return await completed(datastore) - before

    await create(60)
    assert await ahead(datastore) == 60
    pool.add(1)
    assert await done_by_a_tick() == SLOTS
    pool.add(3)
    assert [await done_by_a_tick() for _ in range(2)] == [SLOTS * 4] * 2
    await pool.remove()
    assert await done_by_a_tick() == SLOTS * 3
    await pool.drop()
    await pool.full()
    assert len(await datastore.workers()) == 2
    assert await ahead(datastore) == made - await completed(datastore)
    while await completed(datastore) < made:
        pool.tick()
        await asyncio.sleep(0.02)
    assert await ahead(datastore) == 0
    while pool.running:
        await pool.remove()
    assert await datastore.workers() == []
    assert set(pool.runs) == {f"{number:04}" for number in range(made)}
    assert pool.runs.total() == made + SLOTS, "those that were given back ran once more"
    page = await datastore.query("jobs", limit=1000)
    assert [item.metadata["result"] for item in page.items] == [item.sort_field for item in page.items]
    assert {item.metadata["attempts"] for item in page.items} == {1}


async def _is(datastore: Datastore, count: int) -> bool:
    return await completed(datastore) >= count
