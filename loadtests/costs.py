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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from bench import BODY, store_usage
from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.keys import partition_tag

BATCHES = (1, 10, 100)
CALLS = {1: 2000, 10: 500, 100: 100}
"""Calls of one measurement, by batch."""
TURNS = 3
"""Measurements of which the median counts, each beside its bare script."""
FILL_STEP = 100

_NAMES = (
    "local p = KEYS[1] .. ':bare' local sets = { [1] = p .. ':k', [2] = p .. ':w', [3] = p .. ':s', [4] = p .. ':d' } "
)
BARE = {
    "create": _NAMES
    + """
local k, w = {}, {}
for i = 2, #ARGV do
  redis.call('HSET', p .. ':i:' .. ARGV[i], 'v', '1', 's', 'not_started', 'c', ARGV[1], 'ca', '1800000000000', 'ua',
    '1800000000000', 'a', '0', 'at', '1800000000000', 'm:type', ARGV[1], 'm:created_at', ARGV[1])
  k[#k + 1] = 0 k[#k + 1] = ARGV[i] w[#w + 1] = i w[#w + 1] = ARGV[i]
end
redis.call('ZADD', sets[1], unpack(k))
redis.call('ZADD', sets[2], unpack(w))
""",
    "claim": _NAMES
    + """
local names = redis.call('ZRANGE', sets[2], 0, #ARGV - 2)
local s, items = {}, {}
for i, name in ipairs(names) do
  items[i] = redis.call('HGETALL', p .. ':i:' .. name)
  redis.call('HSET', p .. ':i:' .. name, 'v', '2', 's', 'started', 'ua', '1800000000001', 'a', '1', 'w', 'bench', 'sa',
    '1800000000001', 'lu', '1800000600001', 'tk', '2.0123456789abcdef')
  s[#s + 1] = 1800000600001 s[#s + 1] = name
end
redis.call('ZREM', sets[2], unpack(names))
redis.call('ZADD', sets[3], unpack(s))
return items
""",
    "complete": _NAMES
    + """
local d = {}
for i = 2, #ARGV do
  redis.call('HGETALL', p .. ':i:' .. ARGV[i])
  redis.call('HSET', p .. ':i:' .. ARGV[i], 'v', '3', 's', 'completed', 'ua', '1800000000002', 'da', '1800000000002')
  redis.call('HDEL', p .. ':i:' .. ARGV[i], 'lu', 'tk')
  d[#d + 1] = 1800000000002 d[#d + 1] = ARGV[i]
end
redis.call('ZREM', sets[3], unpack(ARGV, 2))
redis.call('ZADD', sets[4], unpack(d))
""",
}
"""The same reads and writes as the verbs do, without any logic; all names fit, nothing is checked."""

VERBS = ("create", "get", "update", "claim", "complete")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one operation took: microseconds of store CPU, store commands; and the bare script's microseconds."""

    micros: float
    commands: float
    bare: float | None = None


async def spent(datastore: Datastore, count: int, work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Microseconds of store CPU and store commands of each of so many operations."""
    cpu_before, calls_before = await store_usage(datastore)
    await work()
    cpu_after, calls_after = await store_usage(datastore)
    return (cpu_after - cpu_before) / count * 1e6, (calls_after - calls_before) / count


class Bench:
    """Runs the verbs at one batch size on a filled store."""

    def __init__(self, datastore: Datastore, batch: int, turn: int) -> None:
        self._datastore = datastore
        self._batch = batch
        self._key = f"bench-{batch}-{turn}"
        count = CALLS[batch]
        names = [f"{number:08d}" for number in range(count * batch)]
        self._steps = [names[start : start + batch] for start in range(0, len(names), batch)]
        self._tokens: dict[str, str] = {}
        self._tag = partition_tag("default", 0, 1)

    async def run(self) -> dict[str, Cost]:
        """Each verb in turn over the same items; at the largest batch beside its bare script."""
        costs: dict[str, Cost] = {}
        count = len(self._steps) * self._batch
        for verb in VERBS:
            micros, commands = await spent(self._datastore, count, getattr(self, verb))
            bare = None
            if verb in BARE and self._batch == BATCHES[-1]:
                bare, _ = await spent(self._datastore, count, lambda verb=verb: self._bare(verb))  # type: ignore[misc]
            costs[verb] = Cost(micros, commands, bare)
        return costs

    async def create(self) -> None:
        make = self._datastore.calls.create
        for step in self._steps:
            calls = [make(self._key, name, content=BODY["content"], metadata=BODY["metadata"]) for name in step]
            await self._datastore.run(calls)

    async def get(self) -> None:
        for step in self._steps:
            await self._datastore.get_many([(self._key, name) for name in step])

    async def update(self) -> None:
        make = self._datastore.calls.update
        for step in self._steps:
            await self._datastore.run([make(self._key, name, metadata={"progress": 50}) for name in step])

    async def claim(self) -> None:
        for _ in self._steps:
            claimed = await self._datastore.claim(self._key, worker_id="bench", limit=self._batch)
            self._tokens |= {item.sort_field: item.token or "" for item in claimed.items}

    async def complete(self) -> None:
        make = self._datastore.calls.complete
        for step in self._steps:
            await self._datastore.settle([make(self._key, name, self._tokens[name]) for name in step])

    async def _bare(self, verb: str) -> None:
        for step in self._steps:
            await self._datastore.connection.command("EVAL", BARE[verb], 1, self._tag, b"x" * 60, *step)


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


async def at_size(size: int) -> tuple[dict[int, dict[str, Cost]], float]:
    """Costs by batch and verb with so many other items there; and the bytes of one of them."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedStore(Path(directory, "data")) as store:
            settings = replace(Settings(), data=Path(directory), call_timeout=60.0)
            async with Datastore(store.url, settings, SecretBox(os.urandom(32))) as datastore:
                before = await memory(datastore)
                await fill(datastore, size)
                await asyncio.sleep(12)  # outcomes of calls run out
                size_of_one = (await memory(datastore) - before) / size
                costs: dict[int, dict[str, Cost]] = {}
                for batch in BATCHES:
                    turns = [await Bench(datastore, batch, turn).run() for turn in range(TURNS)]
                    costs[batch] = {verb: median([turn[verb] for turn in turns]) for verb in VERBS}
                return costs, size_of_one


async def memory(datastore: Datastore) -> int:
    """Bytes that the store holds."""
    info = (await datastore.connection.command("INFO", "memory")).decode()
    return int(info.split("used_memory:")[1].split()[0])


def median(turns: list[Cost]) -> Cost:
    """The turn in the middle, by its ratio to the bare script where there is one, else by its cost."""
    ranked = sorted(turns, key=lambda cost: cost.micros / (cost.bare or 1.0))
    return ranked[len(ranked) // 2]


def page(results: dict[int, tuple[dict[int, dict[str, Cost]], float]]) -> str:
    """The results as Markdown."""
    cores = os.cpu_count()
    lines = [
        "# What it costs",
        "",
        f"Made by `make costs` on {time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, {cores} cores.",
        "Embedded Valkey, fsync `always`; the median of three turns. Machines differ and are shared: read the ratios.",
        "",
        "Store CPU in microseconds for each operation / store commands for each, those inside scripts included.",
        "*Bare* is a script with the same reads and writes in the same batch and no logic.",
        "",
    ]
    for size, (costs, size_of_one) in results.items():
        lines += [f"## With {size:,} other items, {size_of_one:,.0f} bytes each", ""]
        lines += [
            "| verb | one a call | 10 a call | 100 a call | bare, 100 a call | ratio |",
            "|---|---|---|---|---|---|",
        ]
        for verb in VERBS:
            cells = [f"{costs[batch][verb].micros:.1f} / {costs[batch][verb].commands:.2f}" for batch in BATCHES]
            most = costs[BATCHES[-1]][verb]
            bare = [f"{most.bare:.1f}", f"{most.micros / most.bare:.2f}"] if most.bare else ["", ""]
            lines.append(f"| {' | '.join([verb, *cells, *bare])} |")
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
                f"{results[largest][0][batch][verb].micros / results[smallest][0][batch][verb].micros:.2f}"
                for batch in BATCHES
            ]
            lines.append(f"| {' | '.join([verb, *ratios])} |")
        lines.append("")
    return "\n".join(lines)


async def run(sizes: list[int], out: Path) -> None:
    """Measure at each size and write the page."""
    results: dict[int, Any] = {}
    for size in sizes:
        print(f"With {size:,} other items", file=sys.stderr)
        results[size] = await at_size(size)
    out.write_text(page(results))
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
