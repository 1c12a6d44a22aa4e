"""A whole run: each way, each number of processes, each scenario -> results."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from hookline_bench import memory, servers
from hookline_bench.contest import OURS, Arena, Contest, Contestant
from hookline_bench.crew import Crew, crew
from hookline_bench.direct import Direct
from hookline_bench.figure import Figure, Results
from hookline_bench.ground import Ground, grounds
from hookline_bench.machine import describe
from hookline_bench.overhttp import Answers
from hookline_bench.scenarios import Scenarios, Sizes, fill_with
from hookline_bench.servers import Served
from hookline_bench.webhooks import POSTS
from hookline_bench.works import BATCH

SCENARIOS = ("memory", "enqueue", "drain", "lifecycle", "mixed", "query", "webhook", "latency")
WAYS = ("store", "http")
RECORDED = (("enqueue", 1), ("enqueue", BATCH), ("exchange", 3 * BATCH), ("lifecycle", 0), ("mixed", 0))
RECORDED_SECONDS = 0.1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What is run, and how much of it.

    Args:
        scenarios, ways: of :data:`SCENARIOS` and :data:`WAYS`.
        processes: each number of load processes, and over HTTP of server processes.
        sizes: how much.
        turns: of which the median counts.
        store: URL of a store; none: an embedded one.
        fsync: of the embedded one.
    """

    scenarios: tuple[str, ...] = SCENARIOS
    ways: tuple[str, ...] = WAYS
    processes: tuple[int, ...] = (1, 2)
    sizes: Sizes = Sizes(1.0, 5000, (500.0, 1000.0))
    turns: int = 1
    store: str | None = None
    fsync: str = "always"

    def steps(self) -> int:
        """About how many turns there are, for a progress bar."""
        each = {"memory": 0, "enqueue": 3, "drain": 2, "latency": len(self.sizes.rates) + 1}
        contests = sum(each.get(scenario, 1) for scenario in self.scenarios)
        contestants = ("store" in self.ways) * 2 + ("http" in self.ways) * 3
        return contests * contestants * len(self.processes) * self.turns + 2 * ("memory" in self.scenarios)


async def run(options: Options, say: Say) -> Results:
    """All of it; ``say`` is told each turn as it begins.

    Raises:
        HooklineError: a server or a work failed, or something was lost.
    """
    began = time.perf_counter()
    figures: list[Figure] = []
    async with grounds(options.store, options.fsync) as ground, crew(max(options.processes)) as parts:
        made = await describe(ground.datastore)
        if "memory" in options.scenarios and "store" in options.ways:
            figures += await memory.measure(ground, options.sizes.jobs, say)
        async with contextlib.aclosing(_contests(options, ground, parts)) as contests:
            async for contest, contestants, processes in contests:
                figures.append(await Arena(ground, parts, options.turns, say).hold(contest, contestants, processes))
    made["options"] = {
        "seconds": options.sizes.seconds,
        "jobs": options.sizes.jobs,
        "rates": options.sizes.rates,
        "turns": options.turns,
        "store": "embedded" if options.store is None else "named",
    }
    made["took"] = round(time.perf_counter() - began, 1)
    return Results(made, figures)


Held = tuple[Contest, list[Contestant], int]


async def _contests(options: Options, ground: Ground, parts: Crew) -> AsyncGenerator[Held, None]:
    """Each contest with who takes part, while the servers for it run."""
    scenarios = [scenario for scenario in options.scenarios if scenario not in ("memory", "webhook")]
    for processes in options.processes:
        if "store" in options.ways:
            contestants = [Contestant(OURS, "store", ground.url), Contestant("bare", "bare", ground.url)]
            make = Scenarios(ground, options.sizes, processes)
            for contest in _all(make, scenarios):
                yield contest, contestants, processes
        if "http" in options.ways and scenarios:
            async with _over_http(ground, parts, processes) as contestants:
                for contest in _all(Scenarios(ground, options.sizes, processes), scenarios):
                    yield contest, contestants, processes
        if "webhook" in options.scenarios:
            async with contextlib.aclosing(_webhooks(options, ground, processes)) as webhooks:
                async for held in webhooks:
                    yield held


def _all(make: Scenarios, scenarios: Iterable[str]) -> Iterable[Contest]:
    return (contest for scenario in scenarios for contest in make.contests(scenario))


@contextlib.asynccontextmanager
async def _over_http(ground: Ground, parts: Crew, processes: int) -> AsyncIterator[list[Contestant]]:
    """Our server, and the floors, which give the answers that it gave before."""
    async with servers.hookline(ground.url, ground.data, processes) as ours:
        answers = ground.data / "answers.json"
        answers.write_text(json.dumps(await _record(ground, parts, ours)))
        async with (
            servers.floor("noop", ground.url, ground.data, processes, answers) as noop,
            servers.floor("bare", ground.url, ground.data, processes, answers) as bare,
        ):
            served = {OURS: ours, "no-op behind middleware": noop, "bare Starlette": bare}
            yield [Contestant(name, "http", server.url, server) for name, server in served.items()]


async def _webhooks(options: Options, ground: Ground, processes: int) -> AsyncGenerator[Held, None]:
    """The relay by itself, and one that is in the server which takes the creates."""
    async with servers.receiver() as receiver:
        make, floor = Scenarios(ground, options.sizes, processes, receiver), "bare aiohttp loop"
        if "store" in options.ways:
            relay = [Contestant(OURS, "store", ground.url), Contestant(floor, "bare", ground.url)]
            yield make.webhooks(None), relay, processes
        if "http" in options.ways:
            lanes = ("--lane-concurrency", str(POSTS), "--relay-concurrency", str(POSTS))
            async with servers.hookline(ground.url, ground.data, processes, "api,relay", lanes) as served:
                both = [Contestant(OURS, "http", served.url, served), Contestant(floor, "bare", ground.url)]
                yield make.webhooks(served), both, processes


async def _record(ground: Ground, parts: Crew, ours: Served) -> Answers:
    """An answer of the real server to each kind of request, for the floors to give."""
    found: Answers = {}
    for number, (work, count) in enumerate(RECORDED):
        key = f"recorded.{ours.pid}.{number}"
        if work == "exchange":
            await fill_with(Direct(ground.datastore), key, count)
        told = {"way": "http", "url": ours.url, "key": key, "count": count, "seconds": RECORDED_SECONDS}
        found = {**(await parts.perform(work, 1, **told, more={"record": True})).answers, **found}
    return found
