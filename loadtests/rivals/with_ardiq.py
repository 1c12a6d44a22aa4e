"""ardiq."""

from __future__ import annotations

from collections.abc import Sequence

from ardiq import Ardiq

from base import WORKER_CONCURRENCY, Rival, handled, main


class WithArdiq(Rival):
    async def open(self, url: str) -> None:
        self.app = Ardiq(redis_url=url, queue_name="jobs", concurrency=WORKER_CONCURRENCY)

        async def job(text: str) -> None:
            handled(text)

        self.job = self.app.task(name="job")(job)

    async def enqueue(self, text: str) -> None:
        await self.job.enqueue(text)

    async def enqueue_many(self, texts: Sequence[str]) -> None:  # type: ignore[override]
        await self.app.enqueue_many([self.job.prepare(text) for text in texts])

    async def work(self, url: str) -> None:
        await self.open(url)
        await self.app.run()


if __name__ == "__main__":
    main(WithArdiq())
