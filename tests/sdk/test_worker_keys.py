"""Workers at a server that asks for API keys: what they are told, and where it helps nothing to start again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from conftest import wait_until
from hookline import Client, Job, Worker
from jobs import WAITING
from process import hookline, serving


async def make_key(data: Path, scope: str) -> str:
    code, key = await hookline("keys", "create", "--scope", scope, "--data", str(data))
    assert code == 0, key
    return key.split()[-1]


async def test_a_worker_without_an_api_key_ends_and_is_told_where_to_give_one(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", "--require-keys") as server:
        environ = {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "HOOKLINE_TEST_SOURCE": server.url,
            "HOOKLINE_TEST_LEDGER": os.devnull,
        }
        for more in ((), ("--processes", "2")):
            code, said = await hookline("worker", "crewed:worker", *more, **environ)
            assert code == 5, said
            assert "next: give its Client a good one: Client(url, api_key=...)" in said
            assert "starting it again" not in said


async def test_progress_that_the_api_key_does_not_allow_is_told_with_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    async with serving(data, "--require-keys") as server:
        worker_key, admin_key = await make_key(data, "work"), await make_key(data, "admin")
        async with Client(server.url, api_key=worker_key) as source, Client(server.url, api_key=admin_key) as client:
            worker = Worker(source, "jobs")

            @worker.handles()
            async def tell(job: Job) -> None:
                for state in (1, 2):
                    job.progress(state)
                    seen = len(caplog.records)
                    await wait_until(lambda seen=seen: len(caplog.records) > seen)  # type: ignore[misc]
                worker.stop()

            await client.create("jobs", "a", metadata=WAITING)
            with caplog.at_level(logging.INFO, "hookline.progress"):
                await worker.run()
            item = await client.get("jobs", "a")
    assert (item.status, item.metadata["progress"]) == ("completed", 2)
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warning == "progress is told only at the end of a job: it needs an API key with the scope write"
