"""The yardstick: a Starlette route that parses the body of a create and answers 201, served as the real one is."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def parse(request: Request) -> Response:
    """Parse and answer."""
    msgspec.json.decode(await request.body())
    return Response(b"{}", 201, media_type="application/json")


async def main() -> None:
    """Serve on a free port until stopped."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    app = Starlette(routes=[Route("/", parse, methods=["POST"])])
    await uvicorn.Server(uvicorn.Config(app, log_level="warning", http="httptools", lifespan="off")).serve([listener])


if __name__ == "__main__":
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main())
