"""Measure what a verb costs: store calls, store CPU, and HTTP throughput beside a route that only parses.

    python loadtests/bench.py [--items 20000] [--seconds 5]

Everything runs on this machine, on loopback, and ends by itself. Machines differ and are shared: read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvloop

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from load import Load, drive

BODY = {
    "key": "jobs",
    "content": {"report_type": "monthly", "department": "sales", "rows": [1, 2, 3]},
    "metadata": {"status": "not_started", "type": "report_generation", "created_at": "2024-03-15T09:00:00Z"},
}


async def store_usage(datastore: Datastore) -> tuple[float, int]:
    """The store's CPU seconds so far, and how many commands it ran, those inside scripts included."""
    cpu = (await datastore.connection.command("INFO", "cpu")).decode()
    stats = (await datastore.connection.command("INFO", "commandstats")).decode()
    seconds = sum(
        float(line.split(":")[1]) for line in cpu.splitlines() if line.startswith(("used_cpu_user:", "used_cpu_sys:"))
    )
    calls = sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in stats.splitlines()
        if line.startswith("cmdstat_") and not line.startswith(("cmdstat_info", "cmdstat_script"))
    )
    return seconds, calls


async def measure(datastore: Datastore, name: str, count: int, work: Callable[[], Awaitable[object]]) -> None:
    """Run the work and print what it cost per item."""
    cpu_before, calls_before = await store_usage(datastore)
    began = time.perf_counter()
    await work()
    elapsed = time.perf_counter() - began
    cpu_after, calls_after = await store_usage(datastore)
    print(
        f"  {name:<34} {(cpu_after - cpu_before) / count * 1e6:8.1f} us store CPU"
        f" {(calls_after - calls_before) / count:8.2f} store commands {count / elapsed:10,.0f} items/s"
    )


async def engine(items: int) -> None:
    """Create, claim and complete, one by one and many at once."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedStore(Path(directory, "data")) as store:
            settings = replace(Settings(), data=Path(directory), call_timeout=30.0)
            async with Datastore(store.url, settings, SecretBox(os.urandom(32))) as datastore:
                print(f"Engine, {items:,} items, embedded store with fsync always")
                await one_by_one(datastore, min(items, 20_000))
                await many(datastore, items, 100)


async def one_by_one(datastore: Datastore, items: int) -> None:
    """Each operation a call of its own."""
    key = "single"
    names = [f"{number:08d}" for number in range(items)]
    tokens: dict[str, str] = {}

    async def create() -> None:
        for name in names:
            await datastore.create(key, name, content=BODY["content"], metadata=BODY["metadata"])

    async def claim() -> None:
        for _ in names:
            (item,) = (await datastore.claim(key, worker_id="bench")).items
            tokens[item.sort_field] = item.token or ""

    async def complete() -> None:
        for name in names:
            await datastore.settle([datastore.calls.complete(key, name, tokens[name])])

    async def get() -> None:
        for name in names:
            await datastore.get(key, name)

    async def update() -> None:
        for name in names:
            await datastore.update(key, name, metadata={"progress": 50})

    for verb in (create, get, update, claim, complete):
        await measure(datastore, f"{verb.__name__}, one a call", items, verb)


async def many(datastore: Datastore, items: int, batch: int) -> None:
    """Batches, as the batcher and the batch verbs make them."""
    key = "many"
    names = [f"{number:08d}" for number in range(items)]
    tokens: list[tuple[str, str]] = []

    async def create() -> None:
        for start in range(0, items, batch):
            calls = [
                datastore.calls.create(key, name, content=BODY["content"], metadata=BODY["metadata"])
                for name in names[start : start + batch]
            ]
            await datastore.run(calls)

    async def claim() -> None:
        for _ in range(0, items, batch):
            claimed = await datastore.claim(key, worker_id="bench", limit=batch)
            tokens.extend((item.sort_field, item.token or "") for item in claimed.items)

    async def complete() -> None:
        for start in range(0, items, batch):
            calls = [datastore.calls.complete(key, name, token) for name, token in tokens[start : start + batch]]
            await datastore.settle(calls)

    for verb in (create, claim, complete):
        await measure(datastore, f"{verb.__name__}, {batch} a call", items, verb)


@dataclass
class Served:
    """A server process of ours, and what it was put through."""

    url: str
    pid: int
    loads: list[Load] = field(default_factory=list)
    cpu: float = 0.0

    def cpu_seconds(self) -> float:
        """CPU time of the process so far: user and system, from /proc (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def put(self, path: str, seconds: float, connections: int) -> None:
        """One turn of load."""
        before = self.cpu_seconds()
        self.loads.append(await drive(self.url, path, BODY, seconds, connections))
        self.cpu += self.cpu_seconds() - before

    def report(self, name: str) -> float:
        """Print the figures -> requests a second, the median of the turns."""
        rate = statistics.median(load.rate for load in self.loads)
        p50, p99 = (statistics.median(load.percentile(percent) for load in self.loads) for percent in (50, 99))
        answered = sum(len(load.latencies) for load in self.loads)
        errors = sum(load.errors for load in self.loads)
        print(
            f"  {name:<12} {rate:8,.0f} requests/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   errors {errors}"
            f"   CPU of the server {self.cpu / answered * 1e6:4.0f} us a request"
        )
        return rate


@asynccontextmanager
async def process(*args: str) -> AsyncIterator[Served]:
    """A server process, known by the line that says where it listens."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert child.stdout is not None
        async for line in child.stdout:
            if b"listens on" in line:
                yield Served(line.decode().split("listens on ")[1].strip(), child.pid)
                break
    finally:
        child.terminate()
        await child.wait()


async def http(seconds: float, connections: int) -> None:
    """POST /v1/items against a Starlette route that only parses the same body, in turns."""
    print(f"HTTP, POST of {len(json.dumps(BODY))} bytes, {connections} connections, {seconds:g} s a turn, three turns")
    with tempfile.TemporaryDirectory() as directory:
        data = str(Path(directory, "data"))
        async with (
            process("-m", "hookline_server", "serve", "--port", "0", "--data", data) as ours,
            process(str(Path(__file__).parent / "bare.py")) as bare,
        ):
            for _ in range(3):
                await bare.put("/", seconds, connections)
                await ours.put("/v1/items", seconds, connections)
            yardstick, create = bare.report("bare route"), ours.report("create")
    print(f"  create / bare route = {create / yardstick:.2f}")


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000, help="items of each engine measurement")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one HTTP turn")
    parser.add_argument("--connections", type=int, default=64, help="connections of the HTTP load")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")
    uvloop.run(engine(options.items))
    uvloop.run(http(options.seconds, options.connections))


if __name__ == "__main__":
    main()
