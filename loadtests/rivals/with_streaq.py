"""streaq."""

from __future__ import annotations

from collections.abc import Sequence

from streaq import Worker

from base import WORKER_CONCURRENCY, Rival, handled, main


class Streaq(Rival):
    def make(self, url: str) -> None:
        self.worker: Worker = Worker(redis_url=url, concurrency=WORKER_CONCURRENCY, handle_signals=False)

        @self.worker.task(name="job")
        async def job(text: str) -> None:
            handled(text)

        self.job = job

    async def open(self, url: str) -> None:
        self.make(url)
        await self.worker.__aenter__()

    async def enqueue(self, text: str) -> None:
        await self.job.enqueue(text)

    async def enqueue_many(self, texts: Sequence[str]) -> None:  # type: ignore[override]
        await self.worker.enqueue_many([self.job.enqueue(text) for text in texts])

    async def work(self, url: str) -> None:
        self.make(url)
        await self.worker.run_async()


if __name__ == "__main__":
    main(Streaq())
