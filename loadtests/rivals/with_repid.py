"""repid, on Redis streams, claiming again what a dead worker held."""

from __future__ import annotations

import asyncio

from repid import RedisServer, Repid, Router

from base import WORKER_CONCURRENCY, Rival, handled, main


class WithRepid(Rival):
    async def open(self, url: str) -> None:
        self.app = Repid(title="jobs", version="1")
        server = RedisServer(f"{url}/0", batch_size=WORKER_CONCURRENCY, claim_interval=30.0)
        self.app.servers.register_server("default", server, is_default=True)
        self.connection = self.app.servers.default.connection()
        await self.connection.__aenter__()

    async def enqueue(self, text: str) -> None:
        await self.app.send_message_json(channel="default", payload={"text": text}, headers={"topic": "job"})

    async def work(self, url: str) -> None:
        await self.open(url)
        router = Router()

        @router.actor
        async def job(text: str) -> None:
            handled(text)

        self.app.include_router(router)
        await self.app.run_worker(tasks_limit=WORKER_CONCURRENCY, register_signals=[])
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(WithRepid())
