"""What is measured: each scenario as contests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from hookline.errors import HooklineError
from hookline_bench.bare import Bare
from hookline_bench.contest import OURS, Contest, Contestant
from hookline_bench.crew import Done
from hookline_bench.direct import Direct
from hookline_bench.ground import Ground
from hookline_bench.histogram import percentiles
from hookline_bench.job import PAGE, Way
from hookline_bench.servers import Served, received
from hookline_bench.webhooks import POSTS
from hookline_bench.works import BATCH

CLIENTS = 100
"""Of what is done by many at once, in each process."""
INDEXED = {"type": "string"}
FILL_STEP = 500
WEBHOOK_BYTES = 700
"""About what a webhook of a measured job has."""
PICKUPS = 100
QUERIED = 2000
DELIVERED_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much: seconds of what goes by time, jobs of what goes by number, arrivals a second."""

    seconds: float
    jobs: int
    rates: tuple[float, ...]


class Scenarios:
    """Makes the contests of a run for one way and one number of processes."""

    def __init__(self, ground: Ground, sizes: Sizes, processes: int, receiver: Served | None = None) -> None:
        self._ground = ground
        self._sizes = sizes
        self._processes = processes
        self._receiver = receiver
        self._told = {"seconds": sizes.seconds}

    def contests(self, scenario: str) -> Iterator[Contest]:
        """Those of a scenario."""
        makers: dict[str, Callable[[], Iterator[Contest]]] = {
            "enqueue": self._enqueue,
            "drain": self._drain,
            "lifecycle": self._lifecycle,
            "mixed": self._mixed,
            "query": self._query,
            "latency": self._latency,
        }
        return makers[scenario]()

    def _enqueue(self) -> Iterator[Contest]:
        for name, clients, size in (("single", 1, 1), ("bulk", 1, BATCH), ("concurrent", CLIENTS, 1)):
            told = {**self._told, "clients": clients, "count": size}
            yield Contest("enqueue", name, "jobs/s", "enqueue", told, check=self._all_waiting)

    def _drain(self) -> Iterator[Contest]:
        share = self._sizes.jobs // self._processes

        async def all_completed(key: str, done: Done) -> None:
            if done.finished != share * self._processes:
                raise HooklineError(f"expected {share * self._processes} jobs done, got {done.finished}")
            await self._ground.count(key, items=done.finished, completed=done.finished)

        for name, work, clients in (("worker", "worker", CLIENTS), ("exchanges", "exchange", 2)):
            told = {"count": share, "clients": clients}
            yield Contest(
                *("drain", name, "jobs/s", work, told),
                prepare=self._fill(share * self._processes),
                check=all_completed,
                floor_work="exchange",
            )

    def _lifecycle(self) -> Iterator[Contest]:
        async def all_completed(key: str, done: Done) -> None:
            await self._ground.count(key, items=done.created, completed=done.finished, not_started=0, started=0)

        told = {**self._told, "clients": 2}
        yield Contest("lifecycle", f"batch {BATCH}", "jobs/s", "lifecycle", told, check=all_completed)

    def _mixed(self) -> Iterator[Contest]:
        async def prepare(key: str, contestant: Contestant) -> None:
            if contestant.name == OURS:
                await self._ground.datastore.configure(key, indexes=INDEXED)

        async def all_completed(key: str, done: Done) -> None:
            """Finish what is left: every job is completed once, those that failed as well."""
            finished = done.finished + await finish(self._ground, key)
            if finished != done.created:
                raise HooklineError(f"expected {done.created} completions, got {finished}")
            await self._ground.count(key, items=done.created, completed=done.created)

        told = {**self._told, "clients": 16}
        yield Contest("mixed", "blend", "operations/s", "mixed", told, prepare, all_completed)

    def _query(self) -> Iterator[Contest]:
        async def prepare(key: str, contestant: Contestant) -> None:
            if contestant.name == OURS:
                await self._ground.datastore.configure(key, indexes=INDEXED)
            await self._fill(min(QUERIED, self._sizes.jobs))(key, contestant)

        async def full(_: str, done: Done) -> None:
            if done.finished != done.done * PAGE:
                raise HooklineError(f"expected pages of {PAGE} items, got {done.finished} in {done.done}")

        yield Contest("query", "by index", "queries/s", "query", {**self._told, "clients": 8}, prepare, full)

    def _latency(self) -> Iterator[Contest]:
        for rate in self._sizes.rates:
            told = {**self._told, "clients": CLIENTS, "rate": rate / self._processes}
            name = f"create, {rate:g} per s"
            yield Contest(
                *("latency", name, "ms p99", "arrivals", told),
                check=self._all_waiting,
                value=lambda done: percentiles(done.latencies)["p99"],
                rate=rate,
            )
        if self._processes == 1:
            yield Contest(
                *("latency", "create to handler", "ms p50", "pickup", {"count": min(PICKUPS, self._sizes.jobs // 10)}),
                check=self._none_left,
                value=lambda done: percentiles(done.latencies)["p50"],
                floor_work="create_and_claim",
            )

    async def _all_waiting(self, key: str, done: Done) -> None:
        await self._ground.count(key, items=done.created, not_started=done.created)

    async def _none_left(self, key: str, done: Done) -> None:
        await self._ground.count(key, items=done.created, completed=done.created)

    def _fill(self, jobs: int) -> Callable[[str, Contestant], Awaitable[None]]:
        async def fill(key: str, contestant: Contestant) -> None:
            """Jobs for us and for bare commands; a floor over HTTP answers by itself."""
            if contestant.served and contestant.name != OURS:
                return
            datastore = self._ground.datastore
            way = Bare(datastore) if contestant.way == "bare" else Direct(datastore)
            if isinstance(way, Bare):
                await way.load()
            await fill_with(way, key, jobs)

        return fill

    # Webhooks

    def webhooks(self, relaying: Served | None) -> Contest:
        """A relay of each process on a full outbox; or a server that takes the creates and relays as well."""
        assert self._receiver
        receiver, ground = self._receiver.url, self._ground
        fields = {
            "triggerUrls" if relaying else "trigger_urls": [
                {"url": f"{receiver}/run", "apiKey": "k", "events": ["created"]}
            ]
        }
        jobs, before = self._sizes.jobs, 0
        posts = {"receiver": f"{receiver}/run", "bytes": WEBHOOK_BYTES, "posts": jobs // self._processes}
        told = {**self._told, "clients": POSTS, "count": 1, "more": {"fields": fields, **posts}}

        async def prepare(key: str, contestant: Contestant) -> None:
            nonlocal before
            if contestant.name == OURS and not relaying:
                await fill_with(Direct(ground.datastore, fields), key, jobs)
            before, _ = await received(receiver)

        async def delivered(key: str, done: Done) -> Done:
            jobs_there, began = done.created if relaying else jobs, time.perf_counter()
            until = began + DELIVERED_WITHIN
            while (got := (await received(receiver))[0] - before) < jobs_there and time.perf_counter() < until:
                await asyncio.sleep(0.02)
            if got != jobs_there:
                raise HooklineError(f"expected {jobs_there} webhooks, got {got}")
            await ground.count(key, items=jobs_there)
            return replace(done, done=got, elapsed=done.elapsed + time.perf_counter() - began)

        work = "enqueue" if relaying else "relay"
        name = "created and relayed" if relaying else "relay"
        return Contest(
            *("webhook", name, "webhooks/s", work, told),
            prepare=prepare,
            check=delivered,
            floor_work="post",
        )


async def finish(ground: Ground, key: str) -> int:
    """Complete what is left of a key -> how many jobs."""
    direct, finished = Direct(ground.datastore), 0
    while held := await direct.claim(key, BATCH):
        await direct.exchange(key, held, (), 0)
        finished += len(held)
    return finished


async def fill_with(way: Way, key: str, jobs: int) -> None:
    """Jobs by a way, many at once."""
    names = [f"{number:08d}" for number in range(jobs)]
    for start in range(0, jobs, FILL_STEP):
        made = await way.create(key, names[start : start + FILL_STEP])
        assert made == len(names[start : start + FILL_STEP])
