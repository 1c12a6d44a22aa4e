"""A webhook receiver on loopback: notes what arrives, and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from contract import CONTRACT

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Post:
    """One call that arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """The body as JSON."""
        data: dict[str, Any] = json.loads(self.body)
        return data


@dataclass
class Receiver:
    """Where webhooks arrive. ``statuses`` are the answers to come, then 204; ``echo`` answers with the token."""

    url: str = ""
    posts: list[Post] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    hang: asyncio.Event | None = None
    echo: bool = False
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        """Note one call and answer it; while ``hang`` is set to an unset event, only once that is set."""
        post = Post({name.lower(): value for name, value in request.headers.items()}, await request.read())
        async with self._arrived:
            self.posts.append(post)
            self._arrived.notify_all()
        if self.hang is not None:
            await self.hang.wait()
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, text=f"cannot take {post.data['token']}" if self.echo else None)

    async def wait_for(self, count: int, *, seconds: float = 20.0) -> list[Post]:
        """The first so many calls, waited for; webhooks are held against the API's document."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.posts) >= count)
        for post in self.posts[:count]:
            if "webhook-id" in post.headers:
                CONTRACT.check_webhook(post.headers, post.body)
        return self.posts[:count]


@contextlib.asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on a free port, or on a named one, at ``/run``."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/run", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/run"
        yield receiver
    finally:
        if receiver.hang is not None:
            receiver.hang.set()
        await runner.cleanup()
