"""A webhook receiver on loopback, to see what arrives: for ``hookline receive`` and the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from hookline.errors import Unavailable


@dataclass
class Receiver:
    """The webhook's other end: takes a POST on any path, notes it, and answers 204."""

    url: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    on_call: Callable[[web.Request, dict[str, Any]], None] = lambda _request, _body: None
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        """Note one call."""
        try:
            body = await request.json()
        except ValueError:
            return web.Response(status=400, text="expected JSON")
        async with self._arrived:
            self.calls.append((request.headers.get("X-API-KEY", ""), body))
            self._arrived.notify_all()
        self.on_call(request, body)
        return web.Response(status=204)

    async def wait_for(self, count: int) -> None:
        """Wait until so many calls have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)


@contextlib.asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """A receiver on a port of loopback, 0 for a free one.

    Raises:
        Unavailable: the port is taken.
    """
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise Unavailable(f"cannot listen on 127.0.0.1:{port} ({error.strerror}): choose another --port") from error
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/run"
        yield receiver
    finally:
        await runner.cleanup()


async def receive(port: int, say: Callable[[str], None]) -> None:
    """Say what arrives, until cancelled.

    Raises:
        Unavailable: the port is taken.
    """

    def show(request: web.Request, body: dict[str, Any]) -> None:
        say(f"{time.strftime('%H:%M:%S')} {request.path}  webhook-id {request.headers.get('webhook-id', '-')}")
        say(json.dumps(body, indent=2, ensure_ascii=False))

    async with receiving(port) as receiver:
        receiver.on_call = show
        say(f"Waiting for webhooks on {receiver.url} (any path); Ctrl-C ends it")
        await asyncio.Event().wait()
