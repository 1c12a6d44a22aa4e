"""Posts through a forward proxy, by aiohttp: it knows how to ask proxies for a tunnel, also by TLS."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from hookline_server.pool import KEEP_ALIVE
from hookline_server.reply import Reply, Trouble


class Proxied:
    """A client all of whose posts go through one proxy. What it takes and raises is what a :class:`Pool` does."""

    def __init__(
        self,
        proxy: str,
        resolver: AbstractResolver,
        *,
        deadline: float,
        connections: int,
        connections_per_host: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._proxy = proxy
        self._deadline = deadline
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=resolver,
                use_dns_cache=False,
                limit=connections,
                limit_per_host=connections_per_host,
                keepalive_timeout=KEEP_ALIVE,
                ssl=tls or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            trace_configs=[_timed()],
            timeout=aiohttp.ClientTimeout(total=None),  # asyncio.timeout below: aiohttp's is rounded up to seconds
            headers={"Accept-Encoding": "identity", "User-Agent": "Hookline"},
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], reply: Reply) -> None:
        """Send one POST and note in ``reply`` what comes back.

        Raises:
            Trouble, OSError, ValueError
            TimeoutError: the deadline.
            RuntimeError: the client is closed.
        """
        try:
            async with (
                asyncio.timeout(self._deadline),
                # BytesIO, as aiohttp warns of plain bytes above 1 MiB, which it would write in one piece
                self._session.post(
                    url,
                    data=io.BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._proxy,
                    trace_request_ctx=reply.timing,
                ) as response,
            ):
                reply.status, reply.timing.first_byte = response.status, reply.timing.now()
                reply.wish = response.headers.get("webhook-delivery")
                reply.retry_after = response.headers.get("Retry-After")
                async for chunk in response.content.iter_any():
                    reply.body += chunk
                    if len(reply.body) > reply.most:
                        reply.cut = True
                        response.close()
                        break
        except aiohttp.ClientError as trouble:
            raise Trouble(_kind(trouble)) from None  # its text may hold the URL
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise Trouble("disconnected") from None  # so ends, in aiohttp, the wait for a closing pool

    async def close(self) -> None:
        """Close all connections; posts under way end as ``disconnected``."""
        await self._session.close()


def _timed() -> aiohttp.TraceConfig:
    """Notes in the :class:`Timing` of each post when the name was resolved and the connection stood."""
    trace = aiohttp.TraceConfig()

    async def resolved(_session: aiohttp.ClientSession, context: Any, _: Any) -> None:
        context.trace_request_ctx.resolve = context.trace_request_ctx.now()

    async def connected(_session: aiohttp.ClientSession, context: Any, _: Any) -> None:
        context.trace_request_ctx.connect = context.trace_request_ctx.now()

    trace.on_dns_resolvehost_end.append(resolved)
    trace.on_connection_create_end.append(connected)
    return trace


def _kind(trouble: aiohttp.ClientError) -> str:
    """The word for what went wrong; the order matters, as aiohttp's errors inherit from one another."""
    words: tuple[tuple[type[Exception], str], ...] = (
        (TimeoutError, "timeout"),
        (aiohttp.ClientHttpProxyError, "proxy"),
        (aiohttp.ClientProxyConnectionError, "proxy"),
        (aiohttp.ClientConnectorDNSError, "dns"),
        (aiohttp.ClientSSLError, "tls"),
        (aiohttp.ClientConnectorError, "connect"),
        (aiohttp.ClientConnectionError, "disconnected"),
        (aiohttp.ClientPayloadError, "disconnected"),
        (aiohttp.ClientResponseError, "protocol"),
    )
    return next((word for kind, word in words if isinstance(trouble, kind)), "invalid_request")
