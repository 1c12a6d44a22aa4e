"""The connections of a :class:`Client` to its server, by aiohttp."""

from __future__ import annotations

import asyncio
import io
import os

import aiohttp
from yarl import URL

from hookline.errors import HooklineError, check_loop
from hookline.flow import Answer, Request
from hookline.transport import KEEP_ALIVE, Http, admit, explain, none_free, read, room, trusted, write

_WHOLE_MAX = 2**20
"""Bytes that are written in one go; of more aiohttp would say that it holds the loop."""
_STALE = 0.1
"""Seconds without a request after which the server may have closed a connection while the loop was held up."""
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Errors after which the server cannot have the request."""


_INHERITED: list[aiohttp.ClientSession] = []
"""What a process was forked with."""


class _LostError(Exception):
    """The server may have taken the request; the connection ended without its answer."""


class Session:
    """At most so many connections, made by the first request that is sent, and by the next after it was closed."""

    def __init__(self, server: Http, most: int) -> None:
        self._server = server
        self._most = most
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._free = asyncio.Semaphore(most)
        """The connections that are free: aiohttp's own limit has no time of its own to wait for one."""
        self._used = 0.0
        self.closings = 0
        """How often it was closed: what was sent before must not be sent again after."""

    async def close(self) -> None:
        """Close every connection."""
        self.closings += 1
        session, self._session = self._own(), None
        if session:
            await session.close()

    async def send(self, request: Request) -> Answer:
        """Send a request once -> its answer.

        Raises:
            Unavailable: it was not sent, or a repeat of it does no harm.
            OutcomeUnknown: it was sent, and no answer came.
            HooklineError: what the server answered.
            RuntimeError: it is open in another event loop.
        """
        return read(request, self._server.url, *await self.ask(request))

    async def ask(self, request: Request) -> tuple[int, bytes]:
        """Send a request once -> the status and body of its answer, whatever they are.

        Raises:
            Unavailable, OutcomeUnknown, RuntimeError: as :meth:`send` does.
        """
        loop = asyncio.get_running_loop()
        session, free, closings, began = self._opened(loop), self._free, self.closings, loop.time()
        try:
            async with asyncio.timeout(room(request, self._server.timeout)):
                await free.acquire()
        except TimeoutError:
            raise none_free(request, self._most) from None
        try:
            return await self._ask(session, admit(request, loop.time() - began), closings)
        finally:
            free.release()

    async def _ask(self, session: aiohttp.ClientSession, request: Request, closings: int) -> tuple[int, bytes]:
        loop, closed = asyncio.get_running_loop(), "the client was closed"
        if not request.harmless and loop.time() - self._used > _STALE:
            # Two turns of the loop: then a connection that the server has closed meanwhile is known to be.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if self.closings > closings:
            raise explain(closed, request, self._server.url, sent=False)
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        failure: HooklineError
        try:
            return await self._exchange(session, request)
        except asyncio.CancelledError:
            if self.closings == closings or (task and task.cancelling() > cancelling):
                raise
            failure = explain(closed, request, self._server.url, sent=False)
        except (aiohttp.ClientError, _LostError, TimeoutError, OSError) as error:
            told = str(error) or type(error).__name__
            failure = explain(told, request, self._server.url, sent=not isinstance(error, NOT_SENT))
        finally:
            self._used = loop.time()
        raise failure  # not out of aiohttp's, which may hold the request's headers, and so the API key

    async def _exchange(self, session: aiohttp.ClientSession, request: Request) -> tuple[int, bytes]:
        body, headers = write(request)
        patience = self._server.timeout + request.patience
        async with session.request(
            request.method,
            URL(self._server.url + request.target, encoded=True),
            data=io.BytesIO(body) if body and len(body) > _WHOLE_MAX else body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                connect=self._server.timeout, sock_connect=self._server.timeout, sock_read=patience
            ),
            allow_redirects=False,
        ) as response:
            return response.status, await response.read()

    def _own(self) -> aiohttp.ClientSession | None:
        """The session, if this process has opened it: a fork leaves that of its parent as it is."""
        if self._session and self._process != os.getpid():
            # To close it, or to let it be collected, would take the sockets out of the parent's loop.
            _INHERITED.append(self._session)
            self._session = None
        return self._session

    def _opened(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        session = self._own()
        if session and loop is not self._loop:
            check_loop("the client", self._loop, loop)
            session.detach()  # its connections ended with the loop
            self._session = None
        if self._session is None:
            self._loop, self._process = loop, os.getpid()
            self._free = asyncio.Semaphore(self._most)
            # No proxies and passwords out of the environment, and no cookies: the API key goes to this server alone.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=trusted(self._server.url)),
                headers=self._server.headers,
                skip_auto_headers=("Content-Type",),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                middlewares=(_once,),
            )
        return self._session


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Aiohttp sends PUT and DELETE again by itself if the connection ends; but not after an error that it knows not."""
    try:
        return await handler(request)
    except NOT_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostError(str(error) or type(error).__name__) from error
