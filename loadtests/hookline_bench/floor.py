"""What HTTP costs without Hookline: routes that parse a body and answer as many bytes, and touch no store.

``bare`` is Starlette on uvicorn; ``noop`` the same routes behind our protocol, middleware and guard, whose bodies our
decoder reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Datastore, SecretBox, Settings
from hookline.keyring import Keyring
from hookline_bench.overhttp import ANSWER, Answers
from hookline_bench.part import NAMESPACE
from hookline_server import body
from hookline_server.app import create_app
from hookline_server.gate import Gate
from hookline_server.guard import guarded
from hookline_server.limits import Limits
from hookline_server.namespaces import Namespaces
from hookline_server.process import tune
from hookline_server.serve import BACKLOG
from hookline_server.web import WebServer
from hookline_server.wire import configure

LOOK = 0.2
PATHS = [
    ("POST", "/v1/items"),
    ("POST", "/v1/items/{key}/query"),
    ("GET", "/v1/items/{key}/{sort_field:path}"),
    ("PATCH", "/v1/items/{key}/{sort_field:path}"),
    ("POST", "/v1/jobs/{key}/claim"),
    ("POST", "/v1/jobs/{key}/settle"),
]


class Recorded:
    """The answers of the real server, by the kind of a request; of a size that was not recorded, one of its kind."""

    def __init__(self, answers: Answers) -> None:
        self._answers = {kind: (status, text.encode()) for kind, (status, text) in answers.items()}

    def find(self, request: Request) -> Response:
        """The answer to a request."""
        kind = request.headers[ANSWER]
        status, said = self._answers.get(kind) or self._like(kind)
        return Response(said, status, media_type="application/json")

    def _like(self, kind: str) -> tuple[int, bytes]:
        verb = kind.split("-")[0]
        self._answers[kind] = next(answer for name, answer in self._answers.items() if name.split("-")[0] == verb)
        return self._answers[kind]


def bare(recorded: Recorded) -> list[Route]:
    """Routes that a Starlette application would have."""

    async def parse(request: Request) -> Response:
        raw = await request.body()
        if raw:
            msgspec.json.decode(raw)
        return recorded.find(request)

    return [Route(path, parse, methods=[method]) for method, path in PATHS]


def noop(recorded: Recorded) -> list[Route]:
    """The same behind our guard."""

    async def parse(request: Request) -> Response:
        if request.method != "GET":
            await body.read_value(request)
        return recorded.find(request)

    return [guarded(Route(path, parse, methods=[method])) for method, path in PATHS]


async def serve(options: argparse.Namespace, listener: socket.socket) -> None:
    """Serve until stopped."""
    recorded = Recorded({kind: tuple(answer) for kind, answer in json.loads(options.answers.read_text()).items()})
    settings = Settings(data=options.data, namespace=NAMESPACE, clients_per_address=5000)
    tune(settings)
    if options.kind == "bare":
        app = Starlette(routes=bare(recorded))
        config = uvicorn.Config(app, log_level="warning", http="httptools", lifespan="off", access_log=False)
        await uvicorn.Server(config).serve([listener])
        return
    secrets = SecretBox(bytes(32))
    async with (
        Datastore(options.store, settings, secrets) as datastore,
        Namespaces(datastore, lambda _: iter(())) as namespaces,
    ):
        keyring = Keyring(datastore.connection, secrets)
        gate = Gate(keyring, namespaces.open, home=NAMESPACE, unguarded=True)
        app = create_app(datastore, gate, routes=noop(recorded))
        config = configure(app, Limits(settings), log_config=None, log_level="warning")
        await WebServer(config, lambda: None).serve([listener])


def main() -> None:
    """Listen, and serve in so many processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bare", "noop"))
    parser.add_argument("--store", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    parent = None
    for _ in range(options.processes - 1):
        me = os.getpid()
        if os.fork() == 0:
            parent = me
            break
    uvloop.run(lasting(serve(options, listener), parent))


async def lasting(serving: Coroutine[Any, Any, None], parent: int | None) -> None:
    """Serve; one of several for as long as the first of them lives."""
    task = asyncio.create_task(serving)
    while not task.done():
        await asyncio.wait([task], timeout=LOOK)
        if parent is not None and os.getppid() != parent:
            task.cancel()
    await task


if __name__ == "__main__":
    main()
