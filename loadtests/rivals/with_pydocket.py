"""docket (pydocket)."""

from __future__ import annotations

from collections.abc import Sequence

from docket import Docket, Worker

from base import WORKER_CONCURRENCY, Rival, handled, main


async def job(text: str) -> None:
    handled(text)


class Pydocket(Rival):
    async def open(self, url: str) -> None:
        self.docket = Docket(name="jobs", url=f"{url}/0?max_connections=500")
        await self.docket.__aenter__()
        self.docket.register(job)

    async def enqueue(self, text: str) -> None:
        await self.docket.add(job)(text)

    async def enqueue_many(self, texts: Sequence[str]) -> None:  # type: ignore[override]
        await self.docket.add_many([self.docket.call(job)(text) for text in texts])

    async def work(self, url: str) -> None:
        await self.open(url)
        async with Worker(self.docket, concurrency=WORKER_CONCURRENCY) as worker:
            await worker.run_forever()


if __name__ == "__main__":
    main(Pydocket())
