"""taskiq, on its stream broker: the one that acknowledges."""

from __future__ import annotations

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from base import WORKER_CONCURRENCY, Rival, handled, main


class Taskiq(Rival):
    async def open(self, url: str) -> None:
        self.broker = RedisStreamBroker(url=url, consumer_id="0")

        async def job(text: str) -> None:
            handled(text)

        self.job = self.broker.task(task_name="job")(job)
        await self.broker.startup()

    async def enqueue(self, text: str) -> None:
        await self.job.kiq(text)

    async def work(self, url: str) -> None:
        await self.open(url)
        await run_receiver_task(self.broker, max_async_tasks=WORKER_CONCURRENCY, max_prefetch=WORKER_CONCURRENCY)


if __name__ == "__main__":
    main(Taskiq())
