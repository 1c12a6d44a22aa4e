"""Many want the same jobs: each job goes to exactly one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace

from backends import Backend
from hookline import Datastore, SecretBox, Settings
from hookline.errors import Locked
from jobs import fill

CLAIMERS = 20
ITEMS = 200
GUIDE_JOBS = 50


async def check_each_taken_once(datastore: Datastore, taken: list[list[str]]) -> None:
    """The sets of the claimers are disjoint, nothing is left, and the items say the same."""
    counts = Counter(name for names in taken for name in names)
    assert counts == Counter({f"{n:04}": 1 for n in range(ITEMS)})
    assert sum(bool(names) for names in taken) > 1, "nobody raced"
    items = (await datastore.query("jobs", limit=1000)).items
    assert {(item.version, item.status, item.metadata["attempts"]) for item in items} == {(2, "started", 1)}
    holders = {item.sort_field: item.metadata["worker_id"] for item in items}
    assert holders == {name: f"w{place}" for place, names in enumerate(taken) for name in names}


async def test_tasks(datastore: Datastore, store: Backend, settings: Settings) -> None:
    await fill(datastore, ITEMS)

    async def claimer(own: Datastore, place: int) -> list[str]:
        names: list[str] = []
        while items := (await own.claim("jobs", worker_id=f"w{place}", limit=1 + place % 4)).items:
            names += [item.sort_field for item in items]
        return names

    async with AsyncExitStack() as stack:
        few = replace(settings, connections=2)
        owns = [
            await stack.enter_async_context(Datastore(store.url, few, SecretBox(bytes(32)))) for _ in range(CLAIMERS)
        ]
        taken = await asyncio.gather(*(claimer(own, place) for place, own in enumerate(owns)))
    await check_each_taken_once(datastore, taken)


CLAIMERS_CODE = """
import asyncio, json, os, sys
from pathlib import Path
from hookline import Datastore, SecretBox, Settings

def say(what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def claim(url, place):
    names = []
    async with Datastore(url, Settings(data=Path("none")), SecretBox(bytes(32))) as datastore:
        say("ready")
        os.read(0, 1)
        while items := (await datastore.claim("jobs", worker_id=f"w{place}", limit=1 + place % 4)).items:
            names += [item.sort_field for item in items]
    say([place, os.getpid(), names])

children = []
for place in range(int(sys.argv[2])):
    children.append(os.fork())
    if not children[-1]:
        asyncio.run(claim(sys.argv[1], place))
        os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""
"""Processes of their own, forked before anything is open: what takes long is to import."""


async def test_processes(datastore: Datastore, store: Backend) -> None:
    await fill(datastore, ITEMS)
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-W", "ignore", "-c", CLAIMERS_CODE, store.url, f"{CLAIMERS}")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, start_new_session=True)
    assert process.stdout is not None
    try:
        for _ in range(CLAIMERS):
            assert await process.stdout.readline() == b'"ready"\n'
        out, _ = await process.communicate(b"." * CLAIMERS)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    answers = sorted(json.loads(line) for line in out.splitlines())
    assert len({pid for _, pid, _ in answers}) == CLAIMERS
    await check_each_taken_once(datastore, [names for _, _, names in answers])


async def test_jobs_written_for_the_guide_alone(datastore: Datastore, store: Backend, settings: Settings) -> None:
    """Two orchestrations with one hard-coded worker id and no version race by query, then update."""
    await fill(datastore, GUIDE_JOBS)
    together = asyncio.Barrier(2)
    started: list[str] = []
    refused: list[str] = []

    async def start(own: Datastore, name: str) -> None:
        metadata = {
            "status": "started", "worker_id": "worker-123",
            "started_at": "CURRENT_TIMESTAMP", "locked_until": "+10m",
        }  # fmt: skip
        try:
            await own.update("jobs", name, metadata=metadata)
        except Locked:
            refused.append(name)
        else:
            started.append(name)

    async def orchestrate(own: Datastore) -> None:
        while True:
            page = await own.query("jobs", where={"status": "not_started"}, limit=10)
            await together.wait()
            if not page.items:
                return
            await asyncio.gather(*(start(own, item.sort_field) for item in page.items))
            await together.wait()

    async with Datastore(store.url, settings, SecretBox(bytes(32))) as other:
        await asyncio.gather(orchestrate(datastore), orchestrate(other))
    once = Counter({f"{n:04}": 1 for n in range(GUIDE_JOBS)})
    assert Counter(started) == once
    assert Counter(refused) == once, "nobody raced"
    items = (await datastore.query("jobs", limit=1000)).items
    assert {(item.version, item.metadata["attempts"], item.metadata["worker_id"]) for item in items} == {
        (2, 1, "worker-123")
    }
    assert (await datastore.stats()).counts["jobs"] == {"refused_claims": GUIDE_JOBS}
