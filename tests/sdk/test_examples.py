"""The examples of docs/workers.md do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import end
from hookline import Client, Datastore, EmbeddedStore, Job, Release, Worker
from hookline.item import FIELDS_MAX
from hookline.testing import Clock, open_datastore, run_jobs
from jobs import WAITING

PAGE = Path(__file__).parents[2] / "docs/workers.md"


@pytest.fixture
def named(url: str) -> dict[str, Any]:
    """What the examples define, one after the other."""
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(code.replace("http://127.0.0.1:8080", url), names)
    return names


async def test_the_worker_and_the_client(
    named: dict[str, Any], client: Client, datastore: Datastore, capsys: pytest.CaptureFixture[str]
) -> None:
    worker: Worker = named["worker"]
    running = asyncio.create_task(worker.run())
    await datastore.create("jobs", "bad", metadata={**WAITING, "type": "report_generation"}, content={})
    assert await named["monthly"](client) == {"rows": 1000}
    cancelled = await datastore.wait_for("jobs", "bad")
    assert cancelled
    assert cancelled.metadata["last_error"] == "there is no such department"
    worker.stop()
    await running
    await named["client"].close()
    assert capsys.readouterr().out == ""


async def test_the_rules(named: dict[str, Any], client: Client, datastore: Datastore) -> None:
    ticks = await named["keep_rules"](client)
    assert [tick[10:16] for tick in ticks] == ["T02:30"] * 3
    assert [stored.rule.max_in_flight for stored in await datastore.orchestrations.all()] == [20]


async def test_the_test(named: dict[str, Any]) -> None:
    await named["test_an_invoice_is_tried_again"]()


async def test_the_worker_on_a_store(
    named: dict[str, Any], store: EmbeddedStore, datastore: Datastore, tmp_path: Path
) -> None:
    worker: Worker = named["direct"](store.url, tmp_path)
    await datastore.create("jobs", "a", metadata=WAITING, content={"department": "sales"})
    source: Any = worker.source
    async with source:
        running = asyncio.create_task(worker.run())
        done = await datastore.wait_for("jobs", "a")
        worker.stop()
        await running
    assert done
    assert done.metadata["result"] == {"rows": 1000}


async def test_jobs_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.testing.RUNS_MAX", 5)
    async with open_datastore(Clock(1_800_000_000_000)) as datastore:
        worker = Worker(datastore, "jobs")

        @worker.handles()
        async def give_back(_: Job) -> None:
            raise Release

        await datastore.create("jobs", "a", metadata=WAITING)
        with pytest.raises(AssertionError, match="give itself back"):
            await run_jobs(worker)
        assert (await datastore.get("jobs", "a")).updated_at == "2027-01-15T08:00:00Z"


async def test_a_job_whose_result_is_one_field_too_many_fails_as_with_a_worker() -> None:
    async with open_datastore() as datastore:
        worker = Worker(datastore, "jobs")
        worker.handles()(lambda _: "result")
        await datastore.create("jobs", "a", metadata={"max_attempts": 1})
        for first in range(0, FIELDS_MAX, 128):
            await datastore.update("jobs", "a", metadata={f"f{first + n}": n for n in range(128)})
        await datastore.update("jobs", "a", metadata=WAITING)
        (item,) = await run_jobs(worker)
        assert item.status == "failed"
        assert item.metadata["last_error"].startswith("cannot be kept: the item would have more than 1,024")


async def test_jobs_that_are_given_up() -> None:
    """Their handlers do not go on once ``run_jobs`` is cancelled."""
    began, ended = asyncio.Event(), list[float]()
    async with open_datastore(Clock()) as datastore:
        worker = Worker(datastore, "jobs", lock_for="2m")

        @worker.handles()
        async def handler(job: Job) -> None:
            began.set()
            try:
                await asyncio.sleep(60)
            finally:
                assert job.deadline
                claimed = datetime.fromisoformat(job.metadata["started_at"])
                ended.append((job.deadline - claimed).total_seconds())

        await datastore.create("jobs", "a", metadata=WAITING)
        running = asyncio.create_task(run_jobs(worker))
        await began.wait()
        await end(running)
        assert ended == [120]


IN_A_PROCESS = """
import asyncio
from handlers import pid
from hookline import Client, Worker
from hookline.testing import open_datastore, run_jobs

worker = Worker(Client("http://127.0.0.1:1"), "jobs")
worker.handles(process=True)(pid)

async def test() -> None:
    async with open_datastore() as datastore:
        await datastore.create("jobs", "a", metadata={"status": "not_started"})
        (item,) = await run_jobs(worker, datastore)
        print(item.status)

if __name__ == "__main__":
    asyncio.run(test())
"""


async def test_a_test_of_a_handler_in_a_process_comes_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "test.py").write_text(IN_A_PROCESS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(tmp_path / "test.py")),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert (said, process.returncode) == (b"completed\n", 0)
