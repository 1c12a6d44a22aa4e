"""What a load process does, by name: each counts what it did, and notes how long single calls took."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hookline import Client, Datastore, Job, Worker
from hookline_bench.job import METADATA, Held, Way

BATCH = 100
FAIL_EVERY = 20
"""Every so many of the mixed load's jobs fail once: 5 %."""
MIXED_STEP = 3
"""Jobs of one turn of the mixed load."""
PAUSE = 0.01
OPEN = {"status": {"in": ["not_started", "scheduled", "started"]}}
"""What is still to be done."""


@dataclass
class Stage:
    """What a work has to work with.

    Args:
        way: how jobs are reached.
        source: the same for the SDK's worker; none where only bare commands are.
        key: the key that all processes share.
        index: which process it is.
        seconds: how long, where a work goes by time.
        count: how many jobs, where it goes by number.
        clients: how many do it at once.
        rate: arrivals a second.
        more: what else a work is told.
    """

    way: Way
    source: Datastore | Client | None
    key: str
    index: int = 0
    seconds: float = 1.0
    count: int = 0
    clients: int = 1
    rate: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)

    def names(self) -> Iterator[str]:
        """Names that no other process gives."""
        prefix = f"{self.more.get('prefix', '')}{self.index:02d}"
        return (f"{prefix}-{number:08d}" for number in itertools.count())

    @property
    def running(self) -> bool:
        """Whether there is time left: it runs from when this is first asked, so that something is done in any case."""
        return time.perf_counter() <= self._until

    @cached_property
    def _until(self) -> float:
        return time.perf_counter() + self.seconds


@dataclass
class Tally:
    """What a work did: units of its figure, jobs created and finished, seconds of single calls, and of all of it.

    Clients share it, so nothing is awaited while a number is added: the sum would be that of before.
    """

    done: int = 0
    created: int = 0
    finished: int = 0
    latencies: list[float] = field(default_factory=list)
    elapsed: float = 0.0

    async def timed(self, work: Awaitable[Any]) -> Any:
        """One call, noted."""
        began = time.perf_counter()
        answer = await work
        self.latencies.append(time.perf_counter() - began)
        return answer


Work = Callable[[Stage], Coroutine[Any, Any, Tally]]


async def enqueue(stage: Stage) -> Tally:
    """So many clients create, each one job after the other, or ``count`` of them in each call."""
    tally, names, size = Tally(), stage.names(), stage.count

    async def client() -> None:
        while stage.running:
            made = await tally.timed(stage.way.create(stage.key, list(itertools.islice(names, size))))
            tally.created += made

    await asyncio.gather(*(client() for _ in range(stage.clients)))
    tally.done = tally.created
    return tally


async def exchange(stage: Stage) -> Tally:
    """Settle a batch and claim the next in one call, until ``count`` are done or none are left."""
    tally, left = Tally(), stage.count

    async def client() -> None:
        nonlocal left
        held: list[Held] = []
        while left > 0 or held:
            settled = len(held)
            held = await tally.timed(stage.way.exchange(stage.key, held, (), BATCH if left > 0 else 0))
            tally.finished += settled
            left -= len(held)
            if not held and not settled:
                return

    await asyncio.gather(*(client() for _ in range(stage.clients)))
    tally.done = tally.finished
    return tally


async def worker(stage: Stage) -> Tally:
    """The SDK's worker with a handler that does nothing, until nothing is left."""
    assert stage.source
    source, tally, last = stage.source, Tally(), 0.0
    run = Worker(source, stage.key, concurrency=stage.clients)

    @run.handles()
    async def nothing(_: Job) -> None:
        nonlocal last
        tally.finished += 1
        last = time.perf_counter()
        if tally.finished == stage.count:
            run.stop()

    async def watch() -> None:
        """Other processes take of the same jobs, so where nothing more comes it is asked whether there are any."""
        seen = 0
        while tally.finished < stage.count:
            if seen == tally.finished and not run.in_flight and not (await source.count(stage.key, where=OPEN)).count:
                run.stop()
                return
            seen = tally.finished
            await asyncio.sleep(PAUSE)

    began = time.perf_counter()
    watching = asyncio.create_task(watch())
    await run.run()
    await watching
    tally.elapsed = last - began
    tally.done = tally.finished
    return tally


async def lifecycle(stage: Stage) -> Tally:
    """Create a batch, claim it, complete it."""
    tally, names, key = Tally(), stage.names(), f"{stage.key}-{stage.index}"

    async def client() -> None:
        while stage.running:
            made = await tally.timed(stage.way.create(key, list(itertools.islice(names, BATCH))))
            tally.created += made
            held = await tally.timed(stage.way.claim(key, made))
            await tally.timed(stage.way.exchange(key, held, (), 0))
            tally.finished += len(held)

    await asyncio.gather(*(client() for _ in range(stage.clients)))
    tally.done = tally.finished
    return tally


async def mixed(stage: Stage) -> Tally:
    """Of ten operations three creates, a read, an update, a query, a claim and three settles, of which 5 % fail."""
    tally, names, way = Tally(), stage.names(), stage.way
    settles = itertools.count(1)

    async def client() -> None:
        while stage.running:
            made = [next(names) for _ in range(MIXED_STEP)]
            for name in made:
                await tally.timed(way.create(stage.key, [name]))
                tally.created += 1
            await tally.timed(way.get(stage.key, made[0]))
            await tally.timed(way.update(stage.key, made[1]))
            await tally.timed(way.query(stage.key, METADATA["type"]))
            held = await tally.timed(way.claim(stage.key, MIXED_STEP))
            for one in held:
                fails = next(settles) % FAIL_EVERY == 0
                done, failed = ((), [one]) if fails else ([one], ())
                await tally.timed(way.exchange(stage.key, done, failed, 0))
                tally.finished += not fails

    await asyncio.gather(*(client() for _ in range(stage.clients)))
    tally.done = len(tally.latencies)
    return tally


async def query(stage: Stage) -> Tally:
    """Pages by an index."""
    tally = Tally()

    async def client() -> None:
        while stage.running:
            found = await tally.timed(stage.way.query(stage.key, METADATA["type"]))
            tally.finished += found

    await asyncio.gather(*(client() for _ in range(stage.clients)))
    tally.done = len(tally.latencies)
    return tally


async def arrivals(stage: Stage) -> Tally:
    """Creates at fixed times, whatever became of those before; a call's time counts from when it was to begin."""
    tally, names = Tally(), stage.names()

    async def arrive(due: float) -> None:
        made = await stage.way.create(stage.key, [next(names)])
        tally.created += made
        tally.latencies.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        async for due in _times(time.perf_counter(), stage.rate, stage.seconds):
            group.create_task(arrive(due))
    tally.done = tally.created
    return tally


async def _times(began: float, rate: float, seconds: float) -> AsyncIterator[float]:
    """When each of the arrivals is due, at that time or as soon after it as the loop comes to it."""
    for number in range(max(1, int(rate * seconds))):
        due = began + number / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        yield due


async def pickup(stage: Stage) -> Tally:
    """From the create of a job to the start of its handler in a worker that was idle before it."""
    assert stage.source
    tally, names = Tally(), stage.names()
    run = Worker(stage.source, stage.key, concurrency=10)
    started = asyncio.Event()

    @run.handles()
    async def note(_: Job) -> None:
        tally.finished += 1
        started.set()

    running = asyncio.create_task(run.run())
    await asyncio.sleep(0.3)
    for _ in range(stage.count):
        began = time.perf_counter()
        made = await stage.way.create(stage.key, [next(names)])
        tally.created += made
        await started.wait()
        tally.latencies.append(time.perf_counter() - began)
        started.clear()
        await asyncio.sleep(PAUSE)
    run.stop()
    await running
    tally.done = tally.finished
    return tally


async def create_and_claim(stage: Stage) -> Tally:
    """One call after the other: what stands under :func:`pickup`."""
    tally, names = Tally(), stage.names()
    for _ in range(stage.count):
        began = time.perf_counter()
        made = await stage.way.create(stage.key, [next(names)])
        tally.created += made
        tally.finished += len(await stage.way.claim(stage.key, 1))
        tally.latencies.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)
    tally.done = tally.finished
    return tally


WORKS: dict[str, Work] = {
    work.__name__: work
    for work in (enqueue, exchange, worker, lifecycle, mixed, query, arrivals, pickup, create_and_claim)
}
