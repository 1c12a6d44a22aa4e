"""Measure the rivals that are installed, and Hookline beside them, each on a store of its own.

    python loadtests/rivals/run.py [--only bullmq,saq] [--jobs 2000] [--turns 1] [--processes 1] [--fsync always]

Same store, durability, payload and number of processes; what each one guarantees is a column. With several turns all
are measured one after the other in each, and the figures are medians: a machine that others use as well changes from
one minute to the next by more than two queues differ. Ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hookline import EmbeddedStore
from others import BEANSTALKD, HERE, INSTALLED, NODE, RIVALS, Rival

LONGEST = 60.0
"""Seconds after which a measurement is given up."""
PACED = 100
SETTLE_S = 11.0
"""Seconds after which Hookline has forgotten the outcomes that it keeps to answer a lost reply."""
HEADS = (
    *("queue", "single", "bulk", "100 at once", "drain", "CPU worker", "CPU store", "bytes pending", "kept when done"),
    *("p50 ms", "p99 ms", "what it guarantees, as run here"),
)


@dataclass
class Figures:
    """What one rival gave in one turn, or its medians of all; what it can't do is missing."""

    rival: Rival
    version: str = ""
    rates: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, turns: list[Figures]) -> Figures:
        """The medians of several turns, each of those in which it was measured."""
        first = turns[0]
        whole = cls(first.rival, first.version)
        for kind in ("rates", "cpu", "bytes", "latency"):
            told: list[dict[str, float]] = [getattr(turn, kind) for turn in turns]
            names = {name: None for each in told for name in each}
            getattr(whole, kind).update(
                {name: statistics.median(each[name] for each in told if name in each) for name in names}
            )
        for turn in turns:
            whole.failures |= turn.failures
        return whole


class Store:
    """Where a rival keeps its jobs, and what that spends: a process, and for a Redis its INFO as well."""

    def __init__(self, url: str, pid: int, flush: list[str]) -> None:
        self.url = url
        self._pid = pid
        self._flush = flush

    def cpu(self) -> float:
        """CPU seconds so far; from /proc (Linux)."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def memory(self) -> int:
        """Bytes that are in use, but for connections and the file: as a Redis says, else of the process."""
        if not self._flush:
            pages = Path(f"/proc/{self._pid}/statm").read_text().split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        lines = (await self._ask("INFO", "memory")).splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(told["used_memory"]) - int(told["mem_clients_normal"]) - int(told["mem_aof_buffer"])

    async def clear(self) -> None:
        """Forget all jobs."""
        if self._flush:
            await self._ask(*self._flush)

    async def _ask(self, *words: str) -> str:
        port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
            writer.write("".join(parts).encode())
            head = await reader.readline()
            return (await reader.readexactly(int(head[1:]))).decode() if head.startswith(b"$") else head.decode()
        finally:
            writer.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def stored(rival: Rival, fsync: str) -> AsyncIterator[Store]:
    """A store for a rival, on loopback."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="hookline-rivals-") as directory:
        if rival.name == "beanstalkd":
            syncs = {"always": ["-f", "0"], "everysec": ["-f", "1000"], "no": ["-F"]}[fsync]
            process = await asyncio.create_subprocess_exec(
                BEANSTALKD, "-l", "127.0.0.1", "-p", str(port), "-b", directory, *syncs
            )
            await asyncio.sleep(0.3)
            try:
                yield Store(f"beanstalk://127.0.0.1:{port}", process.pid, [])
            finally:
                process.terminate()
                await process.wait()
            return
        lines = [f"port {port}", "bind 127.0.0.1"]
        async with EmbeddedStore(Path(directory, "data"), fsync=fsync, extra_config=lines) as store:
            yield Store(f"redis://127.0.0.1:{port}", store.pid, ["FLUSHALL", "SYNC"])


def _command(rival: Rival, store: Store, mode: str, jobs: int) -> list[str]:
    if rival.name in NODE:
        return ["node", str(HERE / "node.mjs"), rival.name, store.url, mode, str(jobs)]
    python = sys.executable if rival.name == "hookline" else str(INSTALLED / rival.name / "bin" / "python")
    return [python, str(HERE / f"with_{rival.name}.py"), store.url, mode, str(jobs)]


async def _started(rival: Rival, store: Store, mode: str, jobs: int, log: Any) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = _command(rival, store, mode, jobs)
    # One thread of the store does the work: where a machine has two cores, the other is the rival's.
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=log, limit=2**24)


async def _told(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The last thing that a process says.

    Raises:
        RuntimeError: it has ended without saying it.
    """
    output, _ = await process.communicate(b"")
    for line in reversed(output.decode().splitlines()):
        with suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                return value
    raise RuntimeError(f"ended with {process.returncode}")


class Measuring:
    """One rival on its store."""

    def __init__(self, rival: Rival, store: Store, options: argparse.Namespace, log: Any) -> None:
        self.figures = Figures(rival)
        self._rival = rival
        self._store = store
        self._jobs = min(options.jobs, rival.jobs_max)
        self._paced = min(self._jobs, PACED)
        self._processes = options.processes
        self._settle = options.settle
        self._log = log

    async def all(self) -> Figures:
        """Every measurement; one that fails leaves the rest."""
        steps = [("single", self._enqueue), ("bulk", self._enqueue), ("hundred", self._enqueue)]
        for name, step in [*steps, ("drain", self._drain), ("pace", self._pace)]:
            if name == "bulk" and not self._rival.bulk:
                continue
            try:
                async with asyncio.timeout(LONGEST):
                    await step(name)
            except (RuntimeError, TimeoutError) as error:
                self.figures.failures[name] = str(error) or f"not done in {LONGEST:.0f} s"
        return self.figures

    async def _enqueue(self, mode: str) -> None:
        await self._clear()
        jobs = self._jobs if mode != "single" else min(self._jobs, 1000)
        told = await self._run(mode, jobs)
        self.figures.rates[mode] = jobs / told["elapsed"]
        self.figures.cpu[f"{mode} client"] = told["cpu"] / jobs * 1e6
        self.figures.cpu[f"{mode} store"] = told["store"] / jobs * 1e6

    async def _clear(self) -> None:
        """Forget all jobs; where the store can't at once, the adapter does."""
        await self._store.clear()
        if self._rival.name == "beanstalkd":
            await self._run("empty", 0)

    async def _run(self, mode: str, jobs: int) -> dict[str, Any]:
        before = self._store.cpu()
        process = await _started(self._rival, self._store, mode, jobs, self._log)
        try:
            return await _told(process) | {"store": self._store.cpu() - before}
        finally:
            if process.returncode is None:
                process.kill()

    async def _drain(self, _: str) -> None:
        await self._clear()
        empty = await self._store.memory()
        await self._run("fill", self._jobs)
        await self._settled()
        self.figures.bytes["pending"] = (await self._store.memory() - empty) / self._jobs
        before = self._store.cpu()
        shares = await self._work(self._jobs)
        spent = self._store.cpu() - before
        elapsed = max(share["last"] for share in shares) - min(share["first"] for share in shares)
        handled = sum(share["handled"] for share in shares)
        if handled != self._jobs:
            raise RuntimeError(f"{handled} jobs were run of {self._jobs}")
        self.figures.rates["drain"] = self._jobs / elapsed
        self.figures.cpu["drain worker"] = sum(share["cpu"] for share in shares) / self._jobs * 1e6
        self.figures.cpu["drain store"] = spent / self._jobs * 1e6
        await self._settled()
        self.figures.bytes["kept"] = (await self._store.memory() - empty) / self._jobs

    async def _settled(self) -> None:
        await asyncio.sleep(self._settle if self._rival.name == "hookline" else 0.5)

    async def _work(self, jobs: int, pace: int = 0) -> list[dict[str, Any]]:
        """Workers, until so many jobs have been run -> what each of them says in the end."""
        workers = [
            await _started(self._rival, self._store, "work", jobs, self._log)
            for _ in range(self._processes if jobs else 1)
        ]
        counts = [0] * len(workers)

        async def follow(place: int, worker: asyncio.subprocess.Process) -> None:
            while worker.stdout and sum(counts) < (pace or jobs):
                line = await worker.stdout.readline()
                if not line:
                    raise RuntimeError("a worker has ended")
                counts[place] = int(line)

        followers = [asyncio.create_task(follow(place, worker)) for place, worker in enumerate(workers)]
        try:
            if pace:
                await asyncio.sleep(self._rival.start_s)
                await self._run("pace", pace)
            await asyncio.wait(followers, return_when=asyncio.FIRST_COMPLETED)
            for task in followers:
                if task.done():
                    task.result()
                task.cancel()
            await asyncio.sleep(0.2)  # what was handled is acknowledged
            return [await _told(worker) for worker in workers]
        finally:
            for task in followers:
                task.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
            for worker in workers:
                if worker.returncode is None:
                    worker.kill()

    async def _pace(self, _: str) -> None:
        await self._clear()
        (share,) = await self._work(0, self._paced)
        latencies = share["latencies"]
        self.figures.latency = {
            "p50": statistics.median(latencies) * 1000,
            "p99": latencies[int(len(latencies) * 0.99)] * 1000,
        }


def page(found: list[Figures], options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    lines = [
        f"# Beside others, {time.strftime('%Y-%m-%d')}",
        "",
        f"{options.jobs:,} jobs of 200 characters, worker processes: {options.processes}, {os.cpu_count()} cores.",
        f"A Valkey of its own for each, fsync `{options.fsync}`; medians of {options.turns} turns.",
        "Jobs a second; machines differ and are shared: rough.",
        "CPU is in microseconds for each job drained. Latency: from enqueue to handler at 50 jobs a second, the worker",
        "idle. A column that is empty: there is no such call, or it failed.",
        "",
        f"| {' | '.join(HEADS)} |",
        "|---" + "|---:" * (len(HEADS) - 2) + "|---|",
    ]
    for figures in found:
        rates = [_cell(figures.rates.get(name)) for name in ("single", "bulk", "hundred", "drain")]
        cpu = [_cell(figures.cpu.get(name)) for name in ("drain worker", "drain store")]
        memory = [_cell(figures.bytes.get(name)) for name in ("pending", "kept")]
        latency = [_cell(figures.latency.get(name)) for name in ("p50", "p99")]
        name = f"{figures.rival.name} {figures.version}"
        lines.append(f"| {' | '.join([name, *rates, *cpu, *memory, *latency, figures.rival.guarantees])} |")
    failed = [f"- {figures.rival.name}, {step}: {why}" for figures in found for step, why in figures.failures.items()]
    return "\n".join([*lines, *(["", "Not measured:", "", *failed] if failed else []), ""])


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 20 else f"{value:.1f}"


async def run(options: argparse.Namespace) -> None:
    """Measure, say how far it is on stderr, print the page; write figures and what the rivals said."""
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = options.only.split(",") if options.only else [rival.name for rival in RIVALS]
    installed = {rival.name: version for rival in RIVALS if rival.name in wanted and (version := rival.version())}
    turns: dict[str, list[Figures]] = {}
    with (options.out / "rivals.log").open("ab") as log:
        for turn in range(options.turns):
            for rival in RIVALS:
                if rival.name not in installed:
                    continue
                print(f"turn {turn + 1} of {options.turns}: {rival.name} {installed[rival.name]}", file=sys.stderr)
                log.write(f"== {rival.name}\n".encode())
                log.flush()
                async with stored(rival, options.fsync) as store:
                    figures = await Measuring(rival, store, options, log).all()
                figures.version = installed[rival.name]
                turns.setdefault(rival.name, []).append(figures)
                found = [Figures.of(each) for each in turns.values()]
                plain = [_plain(whole, each) for whole, each in zip(found, turns.values(), strict=True)]
                (options.out / "rivals.json").write_text(json.dumps(plain, indent=1))
                (options.out / "rivals.md").write_text(page(found, options))
    print(page([Figures.of(each) for each in turns.values()], options))


def _plain(whole: Figures, turns: list[Figures]) -> dict[str, Any]:
    each = [{"rates": turn.rates, "cpu": turn.cpu, "bytes": turn.bytes, "latency": turn.latency} for turn in turns]
    return {**whole.__dict__, "rival": whole.rival.name, "guarantees": whole.rival.guarantees, "turns": each}


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="which, between commas; left out: all that are installed")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--turns", type=int, default=1, help="medians of so many, by turns")
    parser.add_argument("--processes", type=int, default=1, help="of workers that drain")
    parser.add_argument("--fsync", choices=("always", "everysec", "no"), default="always")
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds until Hookline's memory is looked at")
    parser.add_argument("--out", type=Path, default=Path("hookline-bench"))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
