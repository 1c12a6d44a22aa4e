"""Hookline, straight to the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from base import WORKER_CONCURRENCY, Rival, handled, main
from hookline import Datastore, Job, SecretBox, Settings, Worker

KEY = "jobs"
METADATA = {"status": "not_started"}


class Hookline(Rival):
    async def open(self, url: str) -> None:
        self.datastore = Datastore(url, Settings(data=Path("/nonexistent")), SecretBox(bytes(32)))
        await self.datastore.open()

    async def enqueue(self, text: str) -> None:
        await self.datastore.create(KEY, content=text, metadata=METADATA)

    async def enqueue_many(self, texts: Sequence[str]) -> None:  # type: ignore[override]
        make = self.datastore.calls.create
        for outcome in await self.datastore.run([make(KEY, content=text, metadata=METADATA) for text in texts]):
            if not outcome.ok:
                raise outcome.error()

    async def work(self, url: str) -> None:
        await self.open(url)
        worker = Worker(self.datastore, KEY, concurrency=WORKER_CONCURRENCY)

        @worker.handles()
        async def handle(job: Job) -> None:
            handled(job.content)

        await worker.run()


if __name__ == "__main__":
    main(Hookline())
