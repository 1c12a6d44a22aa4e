"""Bytes that a job takes in the store: while it waits, and once it is done and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hookline import Datastore, SecretBox, Settings
from hookline_bench.bare import Bare
from hookline_bench.direct import Direct
from hookline_bench.figure import Figure, Floor
from hookline_bench.ground import Ground
from hookline_bench.job import Way
from hookline_bench.part import NAMESPACE
from hookline_bench.scenarios import fill_with
from hookline_bench.usage import store_memory
from hookline_bench.works import BATCH

KEPT = 0.5
"""Seconds of the call timeout: what calls answered is kept for twice that, and is not to be counted."""
KEY = "memory"


async def measure(ground: Ground, jobs: int, say: Callable[[str], None]) -> list[Figure]:
    """Ours, beside hashes and sorted sets alone. Before anything else: what others leave runs out meanwhile."""
    settings = Settings(data=ground.data, namespace=NAMESPACE, call_timeout=KEPT)
    async with Datastore(ground.url, settings, SecretBox(bytes(32))) as datastore:
        bare = Bare(datastore)
        await bare.load()
        say(f"memory of {jobs:,} jobs")
        pending, kept = await _grown(datastore, Direct(datastore), jobs)
        await ground.count(KEY, items=jobs, completed=jobs)
        say(f"memory of {jobs:,} jobs, floor: bare")
        bare_pending, bare_kept = await _grown(datastore, bare, jobs)
    return [
        Figure("memory", "pending", "store", 1, "bytes a job", pending, [Floor("bare", bare_pending)]),
        Figure("memory", "completed", "store", 1, "bytes a job", kept, [Floor("bare", bare_kept)]),
    ]


async def _grown(datastore: Datastore, way: Way, jobs: int) -> tuple[float, float]:
    """Bytes of each job that waits, and of each that is done."""

    async def complete() -> None:
        while held := await way.claim(KEY, BATCH):
            await way.exchange(KEY, held, (), 0)

    before = await store_memory(datastore)
    sizes = []
    steps: list[Callable[[], Awaitable[None]]] = [lambda: fill_with(way, KEY, jobs), complete]
    for step in steps:
        await step()
        await asyncio.sleep(2 * KEPT + 0.2)
        sizes.append((await store_memory(datastore) - before) / jobs)
    return sizes[0], sizes[1]
