"""uvicorn, as we start and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

LINGER = 0.5
"""Seconds in which a client that keeps its connection open can still ask, and is told that this answer is the last."""
_POLL = 0.01


class WebServer(uvicorn.Server):
    """Serves until :meth:`finish`, which no client takes for an error.

    uvicorn closes connections that are idle, and one of them may be about to carry a request. So each of the last
    answers says that it is the last of its connection, and only what stays idle all that time is closed.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, and say so."""
        await super().startup(sockets)
        self._started()

    async def finish(self, left: Callable[[], float]) -> None:
        """Accept nobody any more, let the clients go, and end. Requests under way may take the seconds ``left``."""
        if self.started:
            for server in self.servers:
                server.close()
            last = (b"connection", b"close")
            # Of these two each answer takes the second, and the second is made from the first every second.
            self.config.encoded_headers.append(last)
            self.server_state.default_headers = [*self.server_state.default_headers, last]
            loop = asyncio.get_running_loop()
            until = loop.time() + min(LINGER, left())
            while self.server_state.connections and loop.time() < until:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(_POLL)
            self.config.timeout_graceful_shutdown = left()  # type: ignore[assignment]  # it is only waited for
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone: uvicorn raises them again once it has stopped, which would cut our stopping short."""
        yield
