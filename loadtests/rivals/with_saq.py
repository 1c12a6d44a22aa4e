"""SAQ."""

from __future__ import annotations

from typing import Any

from saq import Queue, Worker

from base import WORKER_CONCURRENCY, Rival, handled, main


async def job(_: Any, *, text: str) -> None:
    handled(text)


class Saq(Rival):
    async def open(self, url: str) -> None:
        self.queue = Queue.from_url(url)
        await self.queue.connect()

    async def enqueue(self, text: str) -> None:
        await self.queue.enqueue("job", text=text)

    async def work(self, url: str) -> None:
        await self.open(url)
        await Worker(self.queue, [job], concurrency=WORKER_CONCURRENCY).start()


if __name__ == "__main__":
    main(Saq())
