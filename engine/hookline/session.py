"""The connections of a :class:`Client` to its server, by aiohttp."""

from __future__ import annotations

import io

import aiohttp
from yarl import URL

from hookline.flow import Answer, Request
from hookline.transport import KEEP_ALIVE, Http, explain, read, write

_WHOLE_MAX = 2**20
"""Bytes that are written in one go; of more aiohttp would say that it holds the loop."""
_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


class _LostError(Exception):
    """The server may have taken the request; the connection ended without its answer."""


class Session:
    """Made by the first request that is sent, and by the next after it was closed."""

    def __init__(self, server: Http) -> None:
        self._server = server
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session:
            await session.close()

    async def send(self, request: Request) -> Answer:
        """Send a request once -> its answer.

        Raises:
            Unavailable: it was not sent, or a repeat of it does no harm.
            OutcomeUnknown: it was sent, and no answer came.
            HooklineError: what the server answered.
        """
        server = self._server
        body, headers = write(request)
        patience = server.timeout + request.patience
        timeout = aiohttp.ClientTimeout(
            total=2 * patience + server.timeout, connect=patience, sock_connect=server.timeout, sock_read=patience
        )
        try:
            async with self._opened().request(
                request.method,
                URL(server.url + request.path, encoded=True),
                data=io.BytesIO(body) if body and len(body) > _WHOLE_MAX else body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                status, content = response.status, await response.read()
        except (aiohttp.ClientError, _LostError, TimeoutError, OSError) as error:
            raise explain(error, request, server.url, sent=not isinstance(error, _NOT_SENT)) from error
        return read(status, content)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No proxies and passwords out of the environment, and no cookies: the API key goes to this server alone.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._server.connections, keepalive_timeout=KEEP_ALIVE),
                headers=self._server.headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                middlewares=(_once,),
            )
        return self._session


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Aiohttp sends PUT and DELETE again by itself if the connection ends; but not after an error that it knows not."""
    try:
        return await handler(request)
    except _NOT_SENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostError(str(error)) from error
