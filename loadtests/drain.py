"""Measure a worker: jobs a second with a handler that does nothing, and how soon an idle worker begins a job.

    python loadtests/drain.py [--jobs 20000] [--concurrency 100] [--over store|http|both] [--profile]

The jobs have 200 bytes and are there before the worker starts. The store is the embedded one, fsync always.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import os
import pstats
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from hookline import Datastore, EmbeddedStore, Job, SecretBox, Settings, Worker

KEY = "drain"
BATCH = 500


@dataclass(frozen=True, slots=True)
class Turn:
    """Jobs a second, and microseconds of the worker's CPU for each."""

    rate: float
    cpu: float


async def fill(datastore: Datastore, jobs: int) -> None:
    """Make the jobs."""
    content = "x" * 200
    for start in range(0, jobs, BATCH):
        await datastore.run(
            [
                datastore.calls.create(KEY, f"{n:08d}", content=content, metadata={"status": "not_started"})
                for n in range(start, min(start + BATCH, jobs))
            ]
        )


async def drain(source: Any, jobs: int, concurrency: int) -> Turn:
    """Run a worker until all is done."""
    worker = Worker(source, KEY, concurrency=concurrency)
    done = 0

    @worker.handles()
    async def nothing(_: Job) -> None:
        nonlocal done
        done += 1
        if done == jobs:
            worker.stop()

    gc.collect()
    gc.freeze()
    began, cpu = time.perf_counter(), time.process_time()
    await worker.run()
    return Turn(jobs / (time.perf_counter() - began), (time.process_time() - cpu) / jobs * 1e6)


async def wake(datastore: Datastore, source: Any, jobs: int) -> list[float]:
    """Milliseconds from the create of each of some jobs to the start of its handler, the worker idle before it."""
    worker = Worker(source, "wake", concurrency=10)
    started: dict[str, float] = {}
    seen = asyncio.Event()

    @worker.handles()
    async def note(job: Job) -> None:
        started[job.sort_field] = time.perf_counter()
        seen.set()

    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.5)
    taken = []
    for n in range(jobs):
        began = time.perf_counter()
        await datastore.create("wake", f"{n:08d}", metadata={"status": "not_started"})
        await seen.wait()
        seen.clear()
        taken.append((started[f"{n:08d}"] - began) * 1000)
        await asyncio.sleep(0.01)
    worker.stop()
    await running
    return sorted(taken)


async def measure(options: argparse.Namespace) -> None:
    """Fill, drain, report."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedStore(Path(directory, "data")) as store:
            settings = replace(Settings(), data=Path(directory), call_timeout=30.0)
            async with Datastore(store.url, settings, SecretBox(os.urandom(32))) as datastore:
                turns = []
                for number in range(options.turns):
                    await fill(datastore, options.jobs)
                    profile = cProfile.Profile() if options.profile and number == 0 else None
                    if profile:
                        profile.enable()
                    turns.append(await drain(datastore, options.jobs, options.concurrency))
                    if profile:
                        profile.disable()
                        pstats.Stats(profile).sort_stats("tottime").print_stats(28)
                    for n in range(0, options.jobs, BATCH):
                        await datastore.run(
                            [datastore.calls.delete(KEY, f"{k:08d}") for k in range(n, min(n + BATCH, options.jobs))]
                        )
                report("straight to the store", turns)
                taken = await wake(datastore, datastore, 300)
                print(f"  create to handler  p50 {taken[150]:.2f} ms  p99 {taken[296]:.2f} ms")


def report(name: str, turns: list[Turn]) -> None:
    """Print the median of the turns."""
    shown = " ".join(f"{turn.rate:,.0f}" for turn in turns)
    rate, cpu = statistics.median(turn.rate for turn in turns), statistics.median(turn.cpu for turn in turns)
    print(f"  {name:<24} {rate:10,.0f} jobs/s   CPU of the worker {cpu:4.0f} us a job   (turns: {shown})")


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print(f"{options.jobs:,} jobs of 200 bytes, concurrency {options.concurrency}, Python {sys.version.split()[0]}")
    uvloop.run(measure(options))


if __name__ == "__main__":
    main()
