"""What the engine asks of the store, counted."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio as aioredis

from conftest import wait_until
from hookline import Datastore
from jobs import WAITING, names


async def test_a_thousand_who_wait_ask_the_store_as_one(datastore: Datastore, raw: aioredis.Redis) -> None:
    waiting = [asyncio.create_task(datastore.claim("jobs", worker_id=f"w{n}", wait=90)) for n in range(1000)]
    try:
        await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1000)
        # A busy machine takes a while to have them all in line.
        assert min([await commands_a_second(raw) for _ in range(5)]) < 50
        await datastore.run([datastore.calls.create("jobs", f"{n:04}", metadata=WAITING) for n in range(1000)])
        found = await asyncio.wait_for(asyncio.gather(*waiting), 30)
        assert len({name for claimed in found for name in names(claimed.items)}) == 1000
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def commands_a_second(raw: aioredis.Redis) -> float:
    """What the store is asked meanwhile, commands within scripts included."""
    await raw.config_resetstat()
    began = time.monotonic()
    await asyncio.sleep(2)
    commands = (await raw.info("stats"))["total_commands_processed"] + sum(
        row["calls"] for name, row in (await raw.info("commandstats")).items() if name != "cmdstat_fcall"
    )
    return float(commands) / (time.monotonic() - began)


async def test_get_many_large_ones(datastore: Datastore, raw: aioredis.Redis) -> None:
    """A call gives about 4 MiB, and the rest is asked for again."""
    text = "x" * 1_000_000
    await datastore.run([datastore.calls.create("jobs", f"{n}", content=text) for n in range(9)])
    await raw.config_resetstat()
    found = await datastore.get_many([("jobs", f"{n}") for n in range(10)])
    assert [item and len(item.content) for item in found] == [1_000_000] * 9 + [None]
    assert (await raw.info("commandstats"))["cmdstat_fcall"]["calls"] == 2


async def test_many_of_a_key_with_new_settings_are_asked_again_together(
    datastore: Datastore, raw: aioredis.Redis
) -> None:
    async with Datastore(datastore.connection.nodes, datastore.settings, datastore.secrets) as other:
        await other.configure("jobs", max_attempts=3)
    await raw.config_resetstat()
    outcomes = await datastore.run([datastore.calls.create("jobs", f"{n}") for n in range(50)])
    assert all(outcome.ok for outcome in outcomes)
    assert (await raw.info("commandstats"))["cmdstat_fcall"]["calls"] == 2
