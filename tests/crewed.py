"""A worker for processes of their own: each run of its handler is a line of a file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from hookline import Client, Datastore, Job, SecretBox, Settings, Worker

URL = os.environ["HOOKLINE_TEST_SOURCE"]
LEDGER = Path(os.environ["HOOKLINE_TEST_LEDGER"])

source = Client(URL) if URL.startswith("http") else Datastore(URL, Settings(), SecretBox(bytes(range(32))))
worker = Worker(source, "jobs", concurrency=1, lock_for="1s", grace=3)


@worker.handles()
async def run(job: Job) -> str:
    """Note the run, as one write that no other gets into."""
    line = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(line, f"{job.sort_field} {job.version}\n".encode())
    os.close(line)
    await asyncio.sleep(job.metadata.get("seconds", 0.02))
    return job.sort_field
