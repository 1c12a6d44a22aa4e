"""arq."""

from __future__ import annotations

from typing import Any

from arq import Worker, create_pool, func
from arq.connections import RedisSettings

from base import WORKER_CONCURRENCY, Rival, handled, main


async def job(_: Any, text: str) -> None:
    handled(text)


class Arq(Rival):
    async def open(self, url: str) -> None:
        self.pool = await create_pool(RedisSettings.from_dsn(url))

    async def enqueue(self, text: str) -> None:
        await self.pool.enqueue_job("job", text)

    async def work(self, url: str) -> None:
        worker = Worker(
            [func(job, keep_result=0)],
            redis_settings=RedisSettings.from_dsn(url),
            max_jobs=WORKER_CONCURRENCY,
            poll_delay=0.05,
            handle_signals=False,
        )
        await worker.async_run()


if __name__ == "__main__":
    main(Arq())
