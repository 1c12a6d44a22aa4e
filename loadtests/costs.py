"""Write docs/performance.md: what each verb costs the store, beside the bare commands that it cannot do without.

    python loadtests/costs.py [--sizes 1000,1000000] [--out docs/performance.md]

Each row is measured on the embedded store with fsync ``always``, with that many other items there. Ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

import holds
import rewrites
from hookline import Call, Datastore, EmbeddedStore, SecretBox, Settings
from hookline.keys import partition_tag
from hookline.keysettings import Known
from hookline_bench.bare import Bare
from hookline_bench.job import BODY
from hookline_bench.usage import store_memory, store_usage

BATCHES = (1, 10, 100)
CALLS = {1: 2000, 10: 500, 100: 100}
"""Calls of one measurement, by batch."""
TURNS = {1: 3, 10: 3, 100: 9}
"""Measurements of which the median counts, each beside its bare script."""
FILL_STEP = 100
JOBS = 100_000
"""Jobs that come and go while the append-only file is rewritten."""

TOKENS = """
local tokens = {}
for i, name in ipairs(ARGV) do
  tokens[i] = redis.call('HGET', KEYS[1] .. name, 'tk')
end
return tokens
"""
VERBS = ("create", "get", "update", "claim", "complete")
BARE = ("create", "claim", "complete")
"""Those that are held against a script of the bare commands."""
SCRIPTS = {"create": "create", "claim": "claim", "complete": "settle"}
NO_SETTINGS = Known(0)
AT_ONCE = 10
"""Calls under way at one time where the store is to be busy."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Microseconds of an operation, and of the bare script."""

    micros: float
    bare: float

    @property
    def value(self) -> float:
        return self.micros / self.bare


@dataclass(frozen=True, slots=True)
class Cost:
    """What one operation took: microseconds of store CPU, store commands.

    ``idle`` is beside the bare script as both are here, with the store idle between calls; ``busy`` is with calls back
    to back, as a store has them that is short of time.
    """

    micros: float
    commands: float
    idle: Ratio | None = None
    busy: Ratio | None = None


async def processor_clock(datastore: Datastore) -> int:
    """The clock of the store's processor time, as Linux names that of a process (clock_getcpuclockid)."""
    info = (await datastore.connection.command("INFO", "server")).decode()
    pid = int(info.split("process_id:")[1].split()[0])
    return ~pid << 3 | 2


class Bench:
    """Runs the verbs at one batch size on a filled store."""

    def __init__(self, datastore: Datastore, clock: int, batch: int, turn: int) -> None:
        self._datastore = datastore
        self._clock = clock
        self._batch = batch
        self._key = f"bench-{batch}-{turn}"
        count = CALLS[batch]
        names = [f"{number:08d}" for number in range(count * batch)]
        self._steps = [names[start : start + batch] for start in range(0, len(names), batch)]
        self._tokens: dict[str, str] = {}
        self._tag = partition_tag("default", 0, 1)
        self._scripts = Bare(datastore)

    async def run(self) -> dict[str, Cost]:
        """Each verb in turn over the same items."""
        await self._scripts.load()
        costs = {verb: await self._measure(verb) for verb in VERBS}
        if self._batch == BATCHES[-1]:
            self._key += "-busy"
            for verb in BARE:
                costs[verb] = replace(costs[verb], busy=await self._back_to_back(verb))
        return costs

    async def _back_to_back(self, verb: str) -> Ratio:
        """The verb and its bare script with everything packed beforehand, and :data:`AT_ONCE` calls under way."""
        send = self._datastore.connection.send
        packed = [[call.pack(NO_SETTINGS) for call in await self._calls(verb, step)] for step in self._steps]
        script = SCRIPTS[verb]
        ours = bare = 0.0
        for start in range(0, len(packed), AT_ONCE):
            group = packed[start : start + AT_ONCE]
            ours += await self._spent(asyncio.gather(*(send(script, 0, operations) for operations in group)))
            steps = self._steps[start : start + AT_ONCE]
            bare += await self._spent(asyncio.gather(*(self._bare(verb, step) for step in steps)))
        count = len(self._steps) * self._batch
        return Ratio(ours / count * 1e6, bare / count * 1e6)

    async def _calls(self, verb: str, step: list[str]) -> list[Call]:
        make = self._datastore.calls
        if verb == "create":
            return self._creates(step)
        if verb == "claim":
            return [make.claim(self._key, worker_id="bench", limit=len(step))]
        tokens = await self._datastore.connection.command(*self._ask_tokens(step))
        return [make.complete(self._key, name, token.decode()) for name, token in zip(step, tokens, strict=True)]

    def _ask_tokens(self, step: list[str]) -> tuple[object, ...]:
        prefix = f"{self._tag}:i:{self._key}:"
        return "EVAL", TOKENS, 1, prefix, *step

    async def _measure(self, verb: str) -> Cost:
        """A verb step by step; then, at the largest batch, its bare script."""
        count = len(self._steps) * self._batch
        before = await store_usage(self._datastore)
        spent = sum([await self._spent(getattr(self, verb)(step)) for step in self._steps])
        after = await store_usage(self._datastore)
        micros, idle = spent / count * 1e6, None
        if verb in BARE and self._batch == BATCHES[-1]:
            # The client works between the calls here as well: else the bare ones alone would find warm caches.
            bares = [await self._spent(self._bare(verb, step)) for step in self._steps if self._creates(step)]
            idle = Ratio(micros, sum(bares) / count * 1e6)
        return Cost(micros, (after.commands - before.commands) / count, idle)

    async def _spent(self, work: Awaitable[object]) -> float:
        """Seconds of store CPU that the work takes."""
        began = time.clock_gettime(self._clock)
        await work
        return time.clock_gettime(self._clock) - began

    def _creates(self, step: list[str]) -> list[Call]:
        make = self._datastore.calls.create
        return [make(self._key, name, content=BODY["content"], metadata=BODY["metadata"]) for name in step]

    async def create(self, step: list[str]) -> None:
        await self._datastore.run(self._creates(step))

    async def get(self, step: list[str]) -> None:
        await self._datastore.get_many([(self._key, name) for name in step])

    async def update(self, step: list[str]) -> None:
        make = self._datastore.calls.update
        await self._datastore.run([make(self._key, name, metadata={"progress": 50}) for name in step])

    async def claim(self, step: list[str]) -> None:
        claimed = await self._datastore.claim(self._key, worker_id="bench", limit=len(step))
        self._tokens |= {item.sort_field: item.token or "" for item in claimed.items}

    async def complete(self, step: list[str]) -> None:
        make = self._datastore.calls.complete
        await self._datastore.settle([make(self._key, name, self._tokens[name]) for name in step])

    async def _bare(self, verb: str, step: list[str]) -> None:
        given = {"create": (b"x" * 60, *step), "claim": (len(step),), "complete": step}
        await self._scripts.run(verb, self._key, *given[verb])


async def fill(datastore: Datastore, count: int) -> None:
    """Other items of another key, to be in the way; says how far it is."""
    for start in range(0, count, FILL_STEP):
        names = [f"{number:08d}" for number in range(start, min(count, start + FILL_STEP))]
        make = datastore.calls.create
        calls = [make("fill", name, content=BODY["content"], metadata=BODY["metadata"]) for name in names]
        await datastore.run(calls)
        if start % 100_000 == 0:
            print(f"\r  filled {start:,} of {count:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Measured:
    """Costs by batch and verb with so many other items there, bytes of one of them, and what held the store."""

    costs: dict[int, dict[str, Cost]]
    bytes_each: float
    holds: list[holds.Hold]


async def at_size(size: int) -> Measured:
    """Measure with so many other items there."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedStore(Path(directory, "data")) as store:
            settings = replace(Settings(), data=Path(directory), call_timeout=60.0)
            async with Datastore(store.url, settings, SecretBox(os.urandom(32))) as datastore:
                before = await store_memory(datastore)
                await fill(datastore, size)
                await asyncio.sleep(12)  # outcomes of calls run out
                size_of_one = (await store_memory(datastore) - before) / size
                costs: dict[int, dict[str, Cost]] = {}
                clock = await processor_clock(datastore)
                for batch in BATCHES:
                    turns = [await Bench(datastore, clock, batch, turn).run() for turn in range(TURNS[batch])]
                    costs[batch] = {verb: median([turn[verb] for turn in turns]) for verb in VERBS}
                return Measured(costs, size_of_one, await holds.measure(datastore))


def median(turns: list[Cost]) -> Cost:
    """The turn in the middle by its cost, with the ratios that are in the middle of theirs."""

    def middle(ratios: list[Ratio]) -> Ratio | None:
        return sorted(ratios, key=lambda ratio: ratio.value)[len(ratios) // 2] if ratios else None

    cost = sorted(turns, key=lambda cost: cost.micros)[len(turns) // 2]
    idle, busy = [turn.idle for turn in turns if turn.idle], [turn.busy for turn in turns if turn.busy]
    return replace(cost, idle=middle(idle), busy=middle(busy))


def page(results: dict[int, Measured], rewriting: list[rewrites.Rewriting]) -> str:
    """The results as Markdown."""
    cores = os.cpu_count()
    lines = [
        "# What it costs",
        "",
        f"Made by `make costs` on {time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {cores} cores.",
        "Embedded Valkey, fsync `always`; medians of 3 turns, of 9 with 100 a call. Machines differ: read the ratios.",
        "",
        "Store CPU in microseconds for each operation / store commands for each, those inside scripts included.",
        "*Beside bare*: with 100 a call, what the verb takes / what a script with the same reads and writes and no",
        f"logic takes; with the store idle between calls, and with {AT_ONCE} calls at once that were packed before.",
        "",
    ]
    for size, measured in results.items():
        costs = measured.costs
        lines += [f"## With {size:,} other items, {measured.bytes_each:,.0f} bytes each", ""]
        lines += [
            "| verb | one a call | 10 a call | 100 a call | beside bare, idle | beside bare, busy |",
            "|---|---|---|---|---|---|",
        ]
        for verb in VERBS:
            cells = [f"{costs[batch][verb].micros:.1f} / {costs[batch][verb].commands:.2f}" for batch in BATCHES]
            most = costs[BATCHES[-1]][verb]
            ratios = [
                f"{ratio.micros:.1f} / {ratio.bare:.1f} = {ratio.value:.2f}" if ratio else ""
                for ratio in (most.idle, most.busy)
            ]
            lines.append(f"| {' | '.join([verb, *cells, *ratios])} |")
        lines.append("")
    if len(results) > 1:
        smallest, largest = min(results), max(results)
        lines += [
            f"## {largest:,} items beside {smallest:,}",
            "",
            "| verb | one a call | 10 a call | 100 a call |",
            "|---|---|---|---|",
        ]
        for verb in VERBS:
            ratios = [
                f"{results[largest].costs[batch][verb].micros / results[smallest].costs[batch][verb].micros:.2f}"
                for batch in BATCHES
            ]
            lines.append(f"| {' | '.join([verb, *ratios])} |")
        lines.append("")
    lines += [
        f"## How long one call holds the store, with {max(results):,} items",
        "",
        "By the store's own latency monitor. What must look at many items does so in steps of about 1.5 ms, and",
        "a claim gives items for about 3 ms. The first line is what the machine adds to a script that takes 1 ms.",
        "",
        *holds.table(results[max(results)].holds),
        "",
        f"## Rewriting the append-only file, while {JOBS:,} jobs come and go",
        "",
        *rewrites.table(rewriting),
        "",
    ]
    return "\n".join(lines)


async def run(sizes: list[int], out: Path) -> None:
    """Measure at each size and write the page."""
    results: dict[int, Measured] = {}
    for size in sizes:
        print(f"With {size:,} other items", file=sys.stderr)
        results[size] = await at_size(size)
    print(f"{JOBS:,} jobs come and go, twice", file=sys.stderr)
    out.write_text(page(results, await rewrites.measure(JOBS)))
    print(f"Wrote {out}")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,1000000", help="how many other items are there, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("docs/performance.md"))
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run([int(size) for size in given.sizes.split(",")], given.out))


if __name__ == "__main__":
    main()
