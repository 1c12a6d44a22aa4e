"""The real server, in this process, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from yarl import URL

from hookline import Datastore
from hookline_server.app import create_app


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Api:
    """Asks the server. ``app`` is its application, for what cannot be brought about from outside."""

    session: aiohttp.ClientSession
    base: str
    app: Starlette

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request, its path sent as written; ``body`` is sent as JSON, ``data=`` as it is."""
        if body is not None:
            options["json"] = body
        async with self.session.request(method, URL(self.base + path, encoded=True), **options) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, await response.read())

    async def command(self, text: str) -> Answer:
        """Run a text of commands."""
        return await self("POST", "/v1/command", data=text.encode(), headers={"Content-Type": "text/plain"})


@pytest_asyncio.fixture(loop_scope="session")
async def api(datastore: Datastore) -> AsyncIterator[Api]:
    """A server on the datastore under test."""
    app = create_app(datastore)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", http="httptools", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        yield Api(session, f"http://127.0.0.1:{port}", app)
    server.should_exit = True
    await serving
