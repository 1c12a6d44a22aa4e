"""``hookline worker --reload``: the code that runs is the code that is there."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conftest import wait_until
from hookline import Datastore, EmbeddedStore
from hookline_server.crew import snapshot
from jobs import WAITING

CODE = """
import asyncio
from pathlib import Path
from hookline import Datastore, Job, SecretBox, Settings, Worker

worker = Worker(Datastore({url!r}, Settings(), SecretBox(bytes(32))), "jobs", grace=20)

@worker.handles()
async def run(job: Job) -> str:
    while job.content and not Path(job.content).exists():
        await asyncio.sleep(0.02)
    return {says!r}
"""


@asynccontextmanager
async def reloading(directory: Path, said: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """``hookline worker reports --reload`` in a directory; ``said`` gets what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "worker", "reports", "--reload"),
        cwd=directory,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    reading = asyncio.create_task(_read(process.stderr, said))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()  # not killed: its worker would live on
        await process.wait()
        await reading


async def _read(stream: asyncio.StreamReader, said: list[str]) -> None:
    async for line in stream:
        said.append(line.decode())  # noqa: PERF401 - each line counts when it comes


async def test_a_worker_starts_anew_when_its_code_changes(
    datastore: Datastore, store: EmbeddedStore, tmp_path: Path
) -> None:
    go, module, said = tmp_path / "go", tmp_path / "reports.py", list[str]()

    async def result(name: str, content: str = "") -> object:
        await datastore.create("jobs", name, content=content, metadata=WAITING)
        return await ended(name)

    async def ended(name: str) -> object:
        item = await datastore.wait_for("jobs", name, timeout=60)
        assert item, said
        return item.metadata["result"]

    module.write_text(CODE.format(url=store.url, says="first"))
    async with reloading(tmp_path, said) as process:
        assert await result("a") == "first"
        # A job that runs meanwhile is finished by the code that began it.
        await datastore.create("jobs", "long", content=str(go), metadata=WAITING)
        await wait_until(lambda: _started(datastore))
        module.write_text(CODE.format(url=store.url, says="second"))
        await wait_until(lambda: any("reports.py has changed" in line for line in said), seconds=60)
        go.touch()
        assert await ended("long") == "first"
        assert (await datastore.get("jobs", "long")).metadata["attempts"] == 1
        assert await result("b") == "second"
        # What cannot be loaded is said, and waited out.
        module.write_text("def")
        await wait_until(lambda: any("invalid syntax" in line for line in said), seconds=60)
        module.write_text(CODE.format(url=store.url, says="third"))
        assert await result("c") == "third"
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def _started(datastore: Datastore) -> bool:
    return (await datastore.get("jobs", "long")).status == "started"


def test_a_folder_that_is_gone_or_closed_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As folders go while another commit is checked out, and data that belongs to somebody else."""
    (tmp_path / "a.py").touch()
    (tmp_path / "closed").mkdir()
    (tmp_path / "z.py").touch()
    list_folder = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "closed":
            raise PermissionError
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert sorted(snapshot(tmp_path)) == [str(tmp_path / name) for name in ("a.py", "z.py")]
    assert snapshot(tmp_path / "gone") == {}
