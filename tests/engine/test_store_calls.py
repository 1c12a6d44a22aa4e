"""What the engine asks of the store, counted."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio as aioredis

from conftest import wait_until
from hookline import Datastore
from jobs import WAITING, names


async def test_a_thousand_who_wait_ask_the_store_as_one(datastore: Datastore, raw: aioredis.Redis) -> None:
    waiting = [asyncio.create_task(datastore.claim("jobs", worker_id=f"w{n}", wait=60)) for n in range(1000)]
    await wait_until(lambda: datastore.claims.lines.waiting("jobs") == 1000)
    await asyncio.sleep(0.5)
    await raw.config_resetstat()
    began = time.monotonic()
    await asyncio.sleep(3)
    commands = (await raw.info("stats"))["total_commands_processed"] + sum(
        row["calls"] for name, row in (await raw.info("commandstats")).items() if name != "cmdstat_evalsha"
    )
    assert commands / (time.monotonic() - began) < 50
    await datastore.run([datastore.calls.create("jobs", f"{n:04}", metadata=WAITING) for n in range(1000)])
    found = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert len({name for claimed in found for name in names(claimed.items)}) == 1000


async def test_get_many_large_ones(datastore: Datastore, raw: aioredis.Redis) -> None:
    """A call gives about 4 MiB, and the rest is asked for again."""
    text = "x" * 1_000_000
    await datastore.run([datastore.calls.create("jobs", f"{n}", content=text) for n in range(9)])
    await raw.config_resetstat()
    found = await datastore.get_many([("jobs", f"{n}") for n in range(10)])
    assert [item and len(item.content) for item in found] == [1_000_000] * 9 + [None]
    assert (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] == 2
