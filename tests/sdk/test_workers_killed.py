"""Worker processes that are killed at random, and stopped: nothing is lost, and no more is run again than died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Item
from hookline.work import STUCK
from jobs import WAITING, statuses
from process import hookline

SECONDS = float(os.environ.get("HOOKLINE_TEST_KILL_SECONDS", "8"))
WORKERS = 3


def environ(source: str, ledger: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "HOOKLINE_TEST_SOURCE": source,
        "HOOKLINE_TEST_LEDGER": str(ledger),
    }


async def start(source: str, ledger: Path, *args: str, worker: str = "worker") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "worker", f"crewed:{worker}", *args),
        env=environ(source, ledger),
        stderr=asyncio.subprocess.DEVNULL,
    )


@contextlib.asynccontextmanager
async def started(
    source: str, ledger: Path, *args: str, worker: str = "worker"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker that is killed in the end, if it still runs."""
    process = await start(source, ledger, *args, worker=worker)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def runs(ledger: Path) -> Counter[str]:
    """How often each job was run."""
    return Counter(line.split()[0] for line in ledger.read_text().splitlines()) if ledger.exists() else Counter()


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("over", ["store", "http"])
async def test_workers_killed_at_random(
    over: str, datastore: Datastore, store: EmbeddedStore, url: str, tmp_path: Path
) -> None:
    """Each job is completed by one token. Each worker holds one job, so a death is at most one run more."""
    ledger, source, deaths, made = tmp_path / "ledger", url if over == "http" else store.url, 0, 0
    chance, loop = random.Random(7), asyncio.get_running_loop()
    workers = [await start(source, ledger) for _ in range(WORKERS)]
    try:
        await datastore.create("jobs", "first", metadata=WAITING)
        await wait_until(lambda: runs(ledger), seconds=60)
        deadline = loop.time() + SECONDS
        while loop.time() < deadline:
            for _ in range(10):
                await datastore.create("jobs", f"{made:06}", metadata=WAITING)
                made += 1
            await asyncio.sleep(0.2)
            if chance.random() < 0.2:
                victim = chance.randrange(WORKERS)
                workers[victim].kill()
                await workers[victim].wait()
                deaths += 1
                workers[victim] = await start(source, ledger)
        await wait_until(lambda: _completed(datastore, made + 1), seconds=60)
    finally:
        for process in workers:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        codes = [await process.wait() for process in workers]
    items = [item async for item in _all(datastore)]
    assert [item.metadata["result"] for item in items] == [item.sort_field for item in items]
    count = runs(ledger)
    assert len(count) == len(items) == made + 1
    assert deaths > 0
    assert count.total() - len(items) <= deaths
    assert sum(item.metadata.get("crashed_attempts", 0) for item in items) <= deaths
    assert set(codes) <= {0, -signal.SIGTERM}  # the latter before it listens


async def _completed(datastore: Datastore, made: int) -> bool:
    return (await statuses(datastore)).get("completed") == made


async def _all(datastore: Datastore) -> AsyncIterator[Item]:
    cursor: str | None = None
    while True:
        page = await datastore.query("jobs", limit=1000, cursor=cursor)
        for item in page.items:
            yield item
        cursor = page.cursor
        if cursor is None:
            return


async def test_a_crew_stops_within_its_grace(datastore: Datastore, store: EmbeddedStore, tmp_path: Path) -> None:
    """Two processes, each in a long job, which is given back."""
    ledger = tmp_path / "ledger"
    for name in ("a", "b", "c"):
        await datastore.create("jobs", name, metadata={**WAITING, "seconds": 600})
    async with started(store.url, ledger, "--processes", "2") as crew:
        await wait_until(lambda: runs(ledger).total() == 2, seconds=60)
        crew.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(crew.wait(), 30) == 0
    found = [await datastore.get("jobs", name) for name in ("a", "b", "c")]
    assert [(item.status, item.metadata["attempts"]) for item in found] == [("not_started", 0)] * 3


async def test_a_member_that_dies_is_replaced(datastore: Datastore, store: EmbeddedStore, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with started(store.url, ledger, "--processes", "2") as crew:
        await datastore.create("jobs", "a", metadata=WAITING)
        await wait_until(lambda: runs(ledger).total() == 1, seconds=60)
        (first, *_) = members = await _members(crew.pid)
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: _has_replaced(crew.pid, members), seconds=60)
        crew.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(crew.wait(), 30) == 0


async def test_a_crew_that_is_killed_takes_its_members_along(
    datastore: Datastore, store: EmbeddedStore, tmp_path: Path
) -> None:
    """They stop as by SIGTERM: what they hold is given back."""
    ledger = tmp_path / "ledger"
    for name in ("a", "b"):
        await datastore.create("jobs", name, metadata={**WAITING, "seconds": 600})
    async with started(store.url, ledger, "--processes", "2") as crew:
        await wait_until(lambda: runs(ledger).total() == 2, seconds=60)
        members = await _members(crew.pid)
        crew.kill()
        await wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in members), seconds=60)
    assert (await statuses(datastore))["not_started"] == 2


async def test_a_handler_that_stays_does_not_keep_a_worker_that_was_told_to_stop(
    datastore: Datastore, store: EmbeddedStore, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    await datastore.create("jobs", "a", metadata=WAITING)
    async with started(store.url, ledger, worker="stubborn") as process:
        await wait_until(lambda: runs(ledger), seconds=60)
        (presence,) = await wait_until(datastore.workers)
        await datastore.signal_worker(presence, "stop")
        assert await asyncio.wait_for(process.wait(), 30) == STUCK
    assert (await datastore.get("jobs", "a")).status == "not_started"


async def test_a_worker_that_is_killed_takes_the_processes_of_its_handlers_along(
    datastore: Datastore, store: EmbeddedStore, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    await datastore.create("jobs", "a", metadata=WAITING)
    async with started(store.url, ledger, worker="apart") as process:
        await wait_until(lambda: runs(ledger), seconds=60)
        (child,) = runs(ledger)
        process.kill()
        await wait_until(lambda: not Path(f"/proc/{child}").exists(), seconds=20)


async def _members(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def _has_replaced(pid: int, before: list[int]) -> bool:
    now = await _members(pid)
    return len(now) == 2 and before[0] not in now


async def test_a_store_that_is_away_ends_a_worker_as_it_starts_and_a_server_that_is_away_does_not(
    tmp_path: Path,
) -> None:
    code, said = await hookline("worker", "crewed:worker", **environ("redis://127.0.0.1:1", tmp_path / "ledger"))
    assert (code, "hookline: the store gave no answer" in said) == (3, True), said
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "worker", "crewed:worker"),
        env=environ("http://127.0.0.1:1", tmp_path / "ledger"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"trying again until there is" not in (line := await process.stderr.readline()):
                assert line
            process.terminate()
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("target", ["no_such_module:worker", "crewed:nothing", "crewed:run", "json"])
async def test_what_is_no_worker(target: str, tmp_path: Path, store: EmbeddedStore) -> None:
    for more in ([], ["--processes", "2"]):
        code, said = await hookline("worker", target, *more, **environ(store.url, tmp_path / "ledger"))
        assert code == 2
        assert f"hookline: {target}: " in said
