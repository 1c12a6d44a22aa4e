"""For tests of code that uses Hookline: a real store of its own, a clock that stands still, handlers run one by one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hookline.client import Client
from hookline.datastore import Datastore
from hookline.embedded import EmbeddedStore
from hookline.errors import TooManyFields
from hookline.holding import LOST, Held
from hookline.item import Item
from hookline.secret import SecretBox
from hookline.settings import Settings
from hookline.worker import Worker

RUNS_MAX = 10_000
"""Jobs after which :func:`run_jobs` takes it that there is no end to them."""


class Clock:
    """The time that a datastore goes by: it stands still, unless it is moved. Begins now, or at ``ms`` since 1970."""

    def __init__(self, ms: int | None = None) -> None:
        self.ms = time.time_ns() // 1_000_000 if ms is None else ms

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        return self.ms

    def advance(self, seconds: float) -> None:
        """Move on: what is due by then can be claimed."""
        self.ms += round(seconds * 1000)


@asynccontextmanager
async def open_datastore(clock: Callable[[], int | None] = lambda: None) -> AsyncIterator[Datastore]:
    """A datastore on a store of its own, which is gone afterwards. Without a clock it goes by the store's."""
    with tempfile.TemporaryDirectory(prefix="hookline-") as directory:
        async with EmbeddedStore(Path(directory, "data"), fsync="no") as store:
            settings = replace(Settings(), data=Path(directory))
            async with Datastore(store.url, settings, SecretBox(bytes(32)), now_ms=clock) as datastore:
                yield datastore


async def run_jobs(worker: Worker, source: Datastore | Client | None = None) -> list[Item]:
    """Run the jobs that can be claimed now, one by one, until there are none -> each as its run has left it.

    ``source`` takes the place of the worker's own. Nothing is waited for: what is to be tried again later is left.

    Raises:
        AssertionError: there is no end to them.
        Refused: what a handler came to was not taken, since it ended the claim itself.
    """
    try:
        return await _run_all(worker, source or worker.source)
    finally:
        worker.processes.close()


async def _run_all(worker: Worker, source: Any) -> list[Item]:
    ended: list[Item] = []
    while len(ended) < RUNS_MAX:
        for lane in worker.lanes:
            options = {"worker_id": worker.worker_id, "lock_for": worker.lock_for, "where": lane.where}
            claimed = await source.claim(worker.key, **options)
            if claimed.items:
                break
        else:
            return ended
        (item,) = claimed.items
        held = Held(item, lambda _: None, 0.0)
        held.task = asyncio.ensure_future(lane.run(held.job))
        try:
            await asyncio.wait((held.task,))
        except asyncio.CancelledError:
            held.give_up(LOST)  # else it would go on without its datastore
            await asyncio.wait((held.task,))
            raise
        held.judge(source.calls, held.task)
        (outcome,) = await source.run([held.call])
        while outcome.word == TooManyFields.code:  # a failure like others, as to a worker that runs
            held.refuse(source.calls, outcome.error())
            (outcome,) = await source.run([held.call])
        if not outcome.ok:
            raise outcome.error()
        ended.append(await source.get(item.key, item.sort_field))
    raise AssertionError(f"{RUNS_MAX} jobs were run, and there are still more: does one give itself back at once?")
