"""The HTTP server in this process, asked over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from yarl import URL

from contract import CONTRACT
from hookline import Settings
from hookline_server.limits import Limits
from hookline_server.wire import configure


@dataclass(frozen=True)
class Answer:
    """What the server answered; the names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Api:
    """Asks the server. ``app`` and ``limits`` are its own, for what cannot be brought about from outside."""

    session: aiohttp.ClientSession
    port: int
    app: Starlette
    limits: Limits

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request, its path sent as written; ``body`` is sent as JSON, ``data=`` as it is.

        Every answer is held against the API's document.
        """
        if body is not None:
            options["json"] = body
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        async with self.session.request(method, url, **options) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(response.status, headers, await response.read())
        CONTRACT.check(method, url.path, answer.status, headers, answer.body)
        return answer

    async def command(self, text: str) -> Answer:
        """Run a text of commands."""
        return await self("POST", "/v1/command", data=text.encode(), headers={"Content-Type": "text/plain"})

    async def results(self, text: str) -> list[dict[str, Any]]:
        """The results of a text of commands, none of which is refused."""
        answer = await self.command(text)
        assert answer.status == 200, answer.data
        found: list[dict[str, Any]] = answer.data["results"]
        return found

    async def create(self, sort_field: str = "a", **fields: Any) -> Answer:
        """Create an item of the key ``jobs``."""
        answer = await self("POST", "/v1/items", {"key": "jobs", "sortField": sort_field, **fields})
        assert answer.status == 201, answer.data
        return answer


@contextlib.asynccontextmanager
async def asking(app: Starlette, settings: Settings | None = None) -> AsyncIterator[Api]:
    """Serve an application on a free port of loopback, within the limits of these settings."""
    # Else a client may send just when the server closes what it thinks is idle, because the machine is slow.
    limits = Limits(settings or Settings(keep_alive=600))
    server = uvicorn.Server(configure(app, limits, host="127.0.0.1", port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.005)
    try:
        async with aiohttp.ClientSession() as session:
            yield Api(session, server.servers[0].sockets[0].getsockname()[1], app, limits)
    finally:
        server.should_exit = True
        await serving
