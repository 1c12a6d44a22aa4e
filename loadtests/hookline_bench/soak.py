"""The mixed load over HTTP for long: memory and latency by slices, and the doctor at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from hookline import bulk
from hookline.doctor import examine
from hookline_bench import servers
from hookline_bench.crew import Crew, Done, crew
from hookline_bench.ground import Ground, grounds
from hookline_bench.histogram import percentiles
from hookline_bench.run import Say
from hookline_bench.scenarios import INDEXED, finish
from hookline_bench.servers import Served
from hookline_bench.usage import resident, store_memory

KEY = "soak"
KEPT = 1000
"""Completed jobs that are kept: so memory is to stay what it is."""
SLICE = 10.0
"""Seconds between two looks."""
CLIENTS = 16
GROWTH_MAX = 1.2
"""How much more memory the last quarter may need than the second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice: when it ended, operations a second, latency in ms, memory of store and server in MiB."""

    minute: float
    rate: float
    p50: float
    p99: float
    store_mib: float
    server_mib: float

    def __str__(self) -> str:
        return (
            f"minute {self.minute:5.1f}: {self.rate:7,.0f} operations/s, p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms,"
            f" store {self.store_mib:.1f} MiB, server {self.server_mib:.1f} MiB"
        )


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it: the slices, jobs created, and what of it does not hold."""

    samples: list[Sample]
    created: int
    flaws: list[str]


async def soak(minutes: float, store: str | None, fsync: str, say: Say) -> Soaked:
    """Load for so long, then finish what is left, and examine.

    Raises:
        HooklineError: a server or a load process failed.
    """
    async with (
        grounds(store, fsync) as ground,
        crew(1) as parts,
        servers.hookline(ground.url, ground.data, 1, "api,orchestrator") as served,
    ):
        await ground.datastore.configure(KEY, indexes=INDEXED, retention={"completed": {"count": KEPT}})
        samples: list[Sample] = []
        created = finished = 0
        began = time.monotonic()
        while time.monotonic() - began < minutes * 60:
            done = await _slice(parts, served, len(samples), min(SLICE, minutes * 60))
            samples.append(await _sample(ground, served, (time.monotonic() - began) / 60, done))
            # What failed leaves something over in each slice: kept, it would be memory that grows.
            created, finished = created + done.created, finished + done.finished + await finish(ground, KEY)
            say(str(samples[-1]))
        flaws = [*grown(samples), *[flaw async for flaw in _examined(ground)]]
        if finished != created:
            flaws.append(f"of {created:,} jobs {finished:,} were completed")
        async for _ in bulk.delete(ground.datastore, KEY, {}):
            pass
        return Soaked(samples, created, flaws)


async def _slice(parts: Crew, served: Served, number: int, seconds: float) -> Done:
    told = {"way": "http", "url": served.url, "key": KEY, "clients": CLIENTS, "seconds": seconds}
    return await parts.perform("mixed", 1, **told, more={"prefix": f"{number:06d}-"})


async def _sample(ground: Ground, served: Served, minute: float, done: Done) -> Sample:
    latency = percentiles(done.latencies)
    store = await store_memory(ground.datastore) / 2**20
    return Sample(minute, done.rate, latency["p50"], latency["p99"], store, resident(served.pid))


async def _examined(ground: Ground) -> AsyncIterator[str]:
    connection = ground.datastore.connection
    async for progress in examine(connection, connection.partitions):
        for finding in progress.findings:
            yield f"doctor: {finding}"


def grown(samples: Sequence[Sample]) -> list[str]:
    """What of the memory has grown from the second quarter to the last; too few slices say nothing."""
    if (quarter := len(samples) // 4) < 2:
        return []
    flaws = []
    for name in ("store", "server"):
        sizes = [float(getattr(sample, f"{name}_mib")) for sample in samples]
        before, after = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
        if after > before * GROWTH_MAX:
            flaws.append(f"memory of the {name} has grown from {before:.1f} to {after:.1f} MiB")
    return flaws
