"""One work done by turns by us and by its floors, and what comes of it as a figure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from hookline_bench.crew import Crew, Done
from hookline_bench.figure import Figure, Floor
from hookline_bench.ground import Ground
from hookline_bench.histogram import merged, percentiles
from hookline_bench.servers import Served
from hookline_bench.usage import Usage, store_usage

OURS = ""
"""The name of the contestant that is not a floor."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who does a work: us by one way, or a floor."""

    name: str
    way: str
    url: str
    served: Served | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """A work and who does it.

    Args:
        prepare: makes ready what the work needs under a key; for whom.
        check: holds what is in the store against what was done; for us alone.
        value: the figure of one turn.
        floor_work: what the floors do instead of ``work``.
    """

    scenario: str
    name: str
    unit: str
    work: str
    told: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[str, Contestant], Awaitable[None]] | None = None
    check: Callable[[str, Done], Awaitable[Done | None]] | None = None
    value: Callable[[Done], float] = lambda done: done.rate
    floor_work: str = ""
    rate: float | None = None


@dataclass(slots=True)
class Turns:
    """What one contestant did."""

    values: list[float] = field(default_factory=list)
    costs: list[dict[str, float]] = field(default_factory=list)
    histograms: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def figure(self, contest: Contest, way: str, processes: int, floors: list[Floor]) -> Figure:
        """What they come to."""
        histogram = merged(self.histograms)
        return Figure(
            *(contest.scenario, contest.name, way, processes, contest.unit, self.value),
            floors=floors,
            cost={name: statistics.median(cost[name] for cost in self.costs) for name in self.costs[0]},
            latency=percentiles(histogram),
            histogram=histogram,
            rate=contest.rate,
        )


class Arena:
    """Where contests take place: the store, and the load processes."""

    def __init__(self, ground: Ground, crew: Crew, turns: int, say: Callable[[str], None]) -> None:
        self._ground = ground
        self._crew = crew
        self._turns = turns
        self._say = say

    async def hold(self, contest: Contest, contestants: list[Contestant], processes: int) -> Figure:
        """Turn by turn, so that what else the machine does meets all of them.

        Raises:
            HooklineError: a work failed, or something was lost.
        """
        kept = {contestant.name: Turns() for contestant in contestants}
        ours = next(contestant for contestant in contestants if contestant.name == OURS)
        for turn in range(self._turns):
            for contestant in contestants:
                label = f"{contest.scenario} {contest.name}, {ours.way}, processes: {processes}"
                self._say(f"{label}, floor: {contestant.name}" if contestant.name else label)
                await self.turn(contest, contestant, processes, str(turn), kept[contestant.name])
        mine = kept.pop(OURS)
        return mine.figure(contest, ours.way, processes, [Floor(name, turns.value) for name, turns in kept.items()])

    async def turn(self, contest: Contest, contestant: Contestant, processes: int, word: str, turns: Turns) -> None:
        """One turn, whose word tells it from the others.

        Raises:
            HooklineError: a work failed, or something was lost.
        """
        named = f"{contest.scenario}.{contest.name}.{contestant.way}.{processes}.{contestant.name}.{word}"
        key = re.sub("[^A-Za-z0-9.]+", "-", named)
        if contest.prepare:
            await contest.prepare(key, contestant)
        work = contest.floor_work if contestant.name and contest.floor_work else contest.work
        before, served = await store_usage(self._ground.datastore), contestant.served
        spent = served.cpu_seconds() if served else 0.0
        told = {
            "way": contestant.way,
            "url": contestant.url,
            "data": str(self._ground.data),
            "key": key,
            **contest.told,
        }
        done = await self._crew.perform(work, processes, **told)
        spent = served.cpu_seconds() - spent if served else 0.0
        after = await store_usage(self._ground.datastore)
        if contest.check and contestant.name == OURS:
            done = await contest.check(key, done) or done
        turns.values.append(contest.value(done))
        turns.costs.append(_costs(before, after, spent, done))
        turns.histograms.append(done.latencies)


def _costs(before: Usage, after: Usage, served: float, done: Done) -> dict[str, float]:
    """Microseconds of processor time for each unit, by who spent them, and the store's commands."""
    units = max(1, done.done)
    costs = {
        "store_us": (after.seconds - before.seconds) / units * 1e6,
        "store_commands": (after.commands - before.commands) / units,
        "load_us": done.cpu / units * 1e6,
    }
    return costs | ({"server_us": served / units * 1e6} if served else {})
