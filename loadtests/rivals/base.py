"""What every adapter in Python is: ``<adapter>.py <store URL> <mode> <jobs>``, run by the Python of that rival alone.

Modes: ``single``, ``bulk`` (100 a call), ``hundred`` (100 at once) and ``fill`` enqueue; ``pace`` enqueues one every
20 ms; ``empty`` forgets all; ``work`` runs the rival's own worker until stdin ends, and says on stdout how many jobs it
has run, in the end how long that took. A job is 200 characters, of which the first say when it was enqueued. Standard
library only.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import select
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STAMP = 20
BULK = 100
AT_ONCE = 100
PACE_S = 0.02
TELL_S = 0.05
WORKER_CONCURRENCY = 100


def payload() -> str:
    """A job's 200 characters."""
    return f"{time.perf_counter_ns():0{STAMP}d}" + "x" * (200 - STAMP)


class Rival(ABC):
    """An adapter. Its methods may be coroutines or not; where :meth:`enqueue_many` is not, there is no such call."""

    enqueue_many: Callable[[Sequence[str]], Any] | None = None

    def empty(self) -> Any:
        """Forget all jobs, where no command of the store does."""
        raise NotImplementedError

    @abstractmethod
    def open(self, url: str) -> Any:
        """Connect for enqueueing."""

    @abstractmethod
    def enqueue(self, text: str) -> Any:
        """One job."""

    @abstractmethod
    def work(self, url: str) -> Any:
        """Run the worker, :data:`WORKER_CONCURRENCY` jobs at once if it can; its handler calls :func:`handled`."""


_out = 1
_latencies: list[float] = []
_first = 0.0
_last = 0.0
_cpu = 0.0


def _cpu_s(pid: int | str = "self") -> float:
    """CPU seconds of this process and of its children, from /proc where there is one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return time.process_time() if pid == "self" else 0.0
    own = time.process_time() if pid == "self" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_s(child) for children in lists for child in children)


def handled(text: str) -> None:
    """A job has come to its handler."""
    global _first, _last, _cpu
    now = time.perf_counter()
    if not _latencies:
        _first, _cpu = now, _cpu_s()
    _last = now
    _latencies.append(now - int(text[:STAMP]) / 1e9)


def _say(value: object) -> None:
    with open(_out, "w", closefd=False) as out:
        out.write(json.dumps(value) + "\n")


def _tell() -> None:
    """Say how far it is, until stdin ends; then the rest, and end."""
    said = -1
    while not select.select([sys.stdin], [], [], TELL_S)[0]:
        if len(_latencies) != said:
            said = len(_latencies)
            _say(said)
    cpu = _cpu_s() - _cpu
    told = {"handled": len(_latencies), "first": _first, "last": _last, "cpu": cpu, "latencies": sorted(_latencies)}
    _say(told)
    os._exit(0)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _enqueue(rival: Rival, mode: str, jobs: int) -> None:
    many = rival.enqueue_many
    if mode == "bulk" or (mode == "fill" and many is not None):
        if many is None:
            raise SystemExit("no bulk")
        for start in range(0, jobs, BULK):
            await _awaited(many([payload() for _ in range(min(BULK, jobs - start))]))
    elif mode in ("single", "pace"):
        for _ in range(jobs):
            await _awaited(rival.enqueue(payload()))
            if mode == "pace":
                await asyncio.sleep(PACE_S)
    elif inspect.iscoroutinefunction(rival.enqueue):
        waiting = iter(range(jobs))

        async def take(enqueue: Callable[[str], Awaitable[Any]]) -> None:
            for _ in waiting:
                await enqueue(payload())

        await asyncio.gather(*(take(rival.enqueue) for _ in range(AT_ONCE)))
    else:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: rival.enqueue(payload()), range(jobs), chunksize=1))


async def _run(rival: Rival, url: str, mode: str, jobs: int) -> None:
    if mode == "work":
        threading.Thread(target=_tell, daemon=True).start()
        await _awaited(rival.work(url))
        return
    await _awaited(rival.open(url))
    began, cpu = time.perf_counter(), time.process_time()
    await (_awaited(rival.empty()) if mode == "empty" else _enqueue(rival, mode, jobs))
    elapsed = time.perf_counter() - began
    _say({"elapsed": elapsed, "cpu": time.process_time() - cpu})
    os._exit(0)


def main(rival: Rival) -> None:
    """Do what the arguments say; what the rival prints itself goes to stderr."""
    global _out
    _out = os.dup(1)
    os.dup2(2, 1)
    url, mode, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode == "work" and not inspect.iscoroutinefunction(rival.work):
        threading.Thread(target=_tell, daemon=True).start()
        rival.work(url)
        return
    try:
        import uvloop
    except ImportError:
        asyncio.run(_run(rival, url, mode, jobs))
    else:
        uvloop.run(_run(rival, url, mode, jobs))
