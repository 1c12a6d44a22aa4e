"""A worker whose store loses calls and answers, and is away for a while: no result of a handler is dropped."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Job, SecretBox, Settings, Worker
from hookline.errors import Incompatible
from jobs import WAITING, fill, let_timers_come_early, rotate, statuses
from proxy import LOSE_CALL, LOSE_REPLY, proxied

JOBS = 60


async def test_every_job_is_completed_with_its_result(
    datastore: Datastore, store: EmbeddedStore, settings: Settings
) -> None:
    """And no handler runs twice but where a claim was lost, which shows as a lock that expired."""
    runs = 0
    await fill(datastore, JOBS)
    async with proxied(store.url) as proxy:
        proxy.faults.extend(random.Random(1).choices([b"", LOSE_CALL, LOSE_REPLY], k=200))
        near = replace(settings, call_timeout=0.3)
        async with Datastore(proxy.url, near, SecretBox(bytes(range(32)))) as far:
            worker = Worker(far, "jobs", concurrency=5, lock_for="1s")

            @worker.handles()
            async def handler(job: Job) -> str:
                nonlocal runs
                runs += 1
                await asyncio.sleep(0.01)
                return job.sort_field

            running = asyncio.create_task(worker.run())
            await wait_until(lambda: worker.in_flight)
            for _ in range(2):
                proxy.store_lost = True
                await proxy.cut()
                await asyncio.sleep(0.8)
                proxy.store_lost = False
                await asyncio.sleep(0.5)
            await wait_until(lambda: _all_done(datastore), seconds=60)
            worker.stop()
            await running
    items = (await datastore.query("jobs", limit=JOBS)).items
    assert [item.metadata["result"] for item in items] == [item.sort_field for item in items]
    lost = sum(item.metadata.get("crashed_attempts", 0) for item in items)
    assert JOBS <= runs <= JOBS + lost


async def test_who_pauses_goes_on_when_a_timer_comes_early(
    datastore: Datastore, store: EmbeddedStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_timers_come_early(monkeypatch)
    await fill(datastore, JOBS)
    async with (
        proxied(store.url) as proxy,
        Datastore(proxy.url, replace(settings, call_timeout=0.3), SecretBox(bytes(range(32)))) as far,
    ):
        worker = Worker(far, "jobs")
        worker.handles()(_return)
        running = asyncio.create_task(worker.run())
        await wait_until(lambda: _all_done(datastore))
        proxy.store_lost = True
        await proxy.cut()
        await wait_until(lambda: worker._paused)
        proxy.store_lost = False
        await datastore.create("jobs", "more", metadata=WAITING)
        await wait_until(lambda: _all_done(datastore, JOBS + 1))
        worker.stop()
        await running


async def test_a_password_that_changes_under_a_worker(
    datastore: Datastore, store: EmbeddedStore, raw: aioredis.Redis, settings: Settings
) -> None:
    """Who was let in before waits to be let in again; who never was ends."""

    await rotate(raw, "one")
    await fill(datastore, JOBS)
    url = store.url.replace("unix://", "unix://guarded:one@")
    try:
        # Of what was sent just then it asks for so long what became of it.
        settings = replace(settings, call_timeout=0.5)
        async with Datastore(url, settings, SecretBox(bytes(range(32)))) as guarded:
            worker = Worker(guarded, "jobs")
            may_end = asyncio.Event()

            @worker.handles()
            async def handler(job: Job) -> str:
                if job.sort_field == "late":
                    await may_end.wait()
                return job.sort_field

            running = asyncio.create_task(worker.run())
            await wait_until(lambda: _all_done(datastore))
            await datastore.create("jobs", "late", metadata=WAITING)
            await wait_until(lambda: worker.in_flight)
            await rotate(raw, "two")
            may_end.set()
            await wait_until(lambda: worker._paused)
            await rotate(raw, "one")
            await wait_until(lambda: _all_done(datastore, JOBS + 1))
            assert (await datastore.get("jobs", "late")).metadata["result"] == "late"
            worker.stop()
            await running
            await rotate(raw, "two")
            with pytest.raises(Incompatible, match="password"):
                await asyncio.wait_for(worker.run(), 10)
    finally:
        await raw.acl_deluser("guarded")


async def _return(job: Job) -> str:
    return job.sort_field


async def _all_done(datastore: Datastore, jobs: int = JOBS) -> bool:
    return (await statuses(datastore)).get("completed") == jobs
