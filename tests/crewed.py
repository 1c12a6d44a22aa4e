"""A worker for processes of their own: each run of its handler is a line of a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

from hookline import Client, Datastore, Job, SecretBox, Settings, Worker

URL = os.environ["HOOKLINE_TEST_SOURCE"]
LEDGER = Path(os.environ["HOOKLINE_TEST_LEDGER"])

source = Client(URL) if URL.startswith("http") else Datastore(URL, Settings(), SecretBox(bytes(range(32))))
worker = Worker(source, "jobs", concurrency=1, lock_for="1s", grace=3)


@worker.handles()
async def run(job: Job) -> str:
    note(f"{job.sort_field} {job.version}")
    await asyncio.sleep(job.metadata.get("seconds", 0.02))
    return job.sort_field


stubborn = Worker(source, "jobs", lock_for="1s", grace=1)


@stubborn.handles()
async def stay(job: Job) -> None:
    """Do not let itself be cancelled."""
    note(job.sort_field)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


apart = Worker(source, "jobs", lock_for="1s", grace=1)


@apart.handles(process=True)
def hang(_: Job) -> None:
    """Tell in which process it runs."""
    note(str(os.getpid()))
    threading.Event().wait(600)


def note(text: str) -> None:
    """Note a run, as one write that no other gets into."""
    line = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(line, f"{text}\n".encode())
    os.close(line)
