"""How figures change with the number of connections or partitions, and with the durability.

The sizes of a sweep take turns, so that what else the machine does meets all of them. Each figure is shown as a share
of that of the first size.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from hookline_bench import servers
from hookline_bench.contest import OURS, Arena, Contest, Contestant, Turns
from hookline_bench.crew import Crew, crew
from hookline_bench.figure import Figure, Floor, Results
from hookline_bench.ground import Ground, grounds
from hookline_bench.machine import describe
from hookline_bench.run import Say
from hookline_bench.scenarios import Scenarios, Sizes
from hookline_bench.usage import resident

FSYNCS = ("always", "everysec", "no")
WRITERS = 64
"""Clients that write at once, where durability is compared."""
SHOWN = {"enqueue bulk", "drain worker", "query by index"}
"""What is done at each number of partitions."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is swept, and how much of it.

    Args:
        connections: numbers of clients over HTTP, each of which creates one job after the other.
        partitions: numbers of partitions of a namespace, straight to the store.
        sizes: how much of each.
        turns: of which the median counts.
    """

    connections: tuple[int, ...] = (1, 10, 100, 1000, 10_000)
    partitions: tuple[int, ...] = (1, 4, 16, 64)
    sizes: Sizes = Sizes(3.0, 10_000, ())
    turns: int = 3

    def steps(self) -> int:
        """About how many turns there are, for a progress bar."""
        return self.turns * (len(self.connections) + len(SHOWN) * len(self.partitions) + len(FSYNCS))


@dataclass(frozen=True, slots=True)
class Trial:
    """One size of a sweep: the work there, who does it, and on what."""

    size: str
    contest: Contest
    contestant: Contestant
    ground: Ground


async def scale(options: Options, say: Say) -> Results:
    """All sweeps.

    Raises:
        HooklineError: a server or a work failed, or something was lost.
    """
    began = time.perf_counter()
    async with crew(1) as parts:
        figures, memory, made = await _connections(options, parts, say)
        figures += await _partitions(options, parts, say)
        figures += await _durability(options, parts, say)
    made["options"] = {"seconds": options.sizes.seconds, "jobs": options.sizes.jobs, "turns": options.turns}
    made["server_mib"] = memory
    made["took"] = round(time.perf_counter() - began, 1)
    return Results(made, figures)


async def _sweep(
    trials: list[Trial], options: Options, parts: Crew, say: Say, note: Callable[[Trial], None] = lambda _: None
) -> list[Figure]:
    """Each size once in every turn; ``note`` is called after each of the first."""
    kept = [Turns() for _ in trials]
    for turn in range(options.turns):
        for trial, turns in zip(trials, kept, strict=True):
            say(f"{trial.contest.scenario}, {trial.contest.name}")
            arena = Arena(trial.ground, parts, 1, say)
            await arena.turn(trial.contest, trial.contestant, 1, str(turn), turns)
            if turn == 0:
                note(trial)
    first = Floor(trials[0].size, kept[0].value)
    return [
        turns.figure(trial.contest, trial.contestant.way, 1, [first]) for trial, turns in zip(trials, kept, strict=True)
    ]


async def _connections(
    options: Options, parts: Crew, say: Say
) -> tuple[list[Figure], dict[str, float], dict[str, object]]:
    """Single creates by so many clients at once, each over a connection of its own; the server's memory with them."""
    memory: dict[str, float] = {}

    def note(trial: Trial) -> None:
        assert trial.contestant.served
        memory[trial.size] = round(resident(trial.contestant.served.pid), 1)

    limits = ("--clients-max", "--clients-per-address", "--requests-max")
    async with _serving("always", tuple(word for limit in limits for word in (limit, "20000"))) as (ground, ours):
        trials = []
        for number in options.connections:
            size, contest = f"{number:,}", _single(ground, options.sizes, number)
            trials.append(Trial(size, replace(contest, scenario="connections", name=size), ours, ground))
        figures = await _sweep(trials, options, parts, say, note)
        return figures, memory, await describe(ground.datastore)


async def _partitions(options: Options, parts: Crew, say: Say) -> list[Figure]:
    """Batches, a worker and queries on a store whose namespace has so many partitions."""
    figures: list[Figure] = []
    async with contextlib.AsyncExitStack() as stack:
        found = [
            (
                f"{number} partition{'s' * (number > 1)}",
                await stack.enter_async_context(grounds(None, "always", number)),
            )
            for number in options.partitions
        ]
        by_work: dict[str, list[Trial]] = {}
        for size, ground in found:
            make = Scenarios(ground, options.sizes, 1)
            for contest in (each for scenario in ("enqueue", "drain", "query") for each in make.contests(scenario)):
                work = f"{contest.scenario} {contest.name}"
                if work in SHOWN:
                    named = replace(contest, scenario="partitions", name=f"{work}, {size}")
                    by_work.setdefault(work, []).append(
                        Trial(size, named, Contestant(OURS, "store", ground.url), ground)
                    )
        for trials in by_work.values():
            figures += await _sweep(trials, options, parts, say)
    return figures


async def _durability(options: Options, parts: Crew, say: Say) -> list[Figure]:
    """Single creates over HTTP by each mode of fsync."""
    async with contextlib.AsyncExitStack() as stack:
        trials = []
        for fsync in FSYNCS:
            ground, ours = await stack.enter_async_context(_serving(fsync))
            contest = _single(ground, options.sizes, WRITERS)
            named = replace(contest, scenario="durability", name=f"fsync {fsync}, {WRITERS} writers")
            trials.append(Trial(f"fsync {fsync}", named, ours, ground))
        return await _sweep(trials, options, parts, say)


def _single(ground: Ground, sizes: Sizes, clients: int) -> Contest:
    single = next(contest for contest in Scenarios(ground, sizes, 1).contests("enqueue") if contest.name == "single")
    return replace(single, told={**single.told, "clients": clients})


@contextlib.asynccontextmanager
async def _serving(fsync: str, more: tuple[str, ...] = ()) -> AsyncIterator[tuple[Ground, Contestant]]:
    """A store and our server before it."""
    async with grounds(None, fsync) as ground, servers.hookline(ground.url, ground.data, 1, more=more) as served:
        yield ground, Contestant(OURS, "http", served.url, served)
