"""The one way out: a guarded HTTP client that posts to addresses which users name.

Whoever may write a trigger may name any URL, also one inside our own network (server-side request forgery).
So a name is resolved once per connection, every address of the answer is checked, and the connection goes to
a checked address, with Host and SNI still the name. The check stands in two places: :class:`_CheckedResolver`
refuses a name if any of its addresses is refused, and :meth:`Egress._socket`, which sees each address just
before it is dialled, refuses what came past the resolver, as literal addresses do: aiohttp resolves none.
Through a forward proxy it is that which resolves and dials: here, addresses and names of this machine are refused.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from hookline.url import check_url
from hookline_server.address import Network, address_refused, faces

EXCERPT_MAX = 200
"""Bytes of an answer that are kept for people to read."""

DISABLE, ABORT = "disable", "abort-message"
"""What a receiver may ask for by the header ``webhook-delivery``: nothing more at all, or not this one again."""
# Servers often drop idle connections after 5 s (uvicorn, Node.js): leave first, or a post meets a closed one.
_KEEP_ALIVE_S = 4.0
# A lookup blocks a thread for as long as a name server keeps silent: the event loop's own few (four with
# uvloop) would be used up by as many bad names.
_LOOKUP_THREADS = 32
_USER_AGENT = "Hookline"
# All other headers that we send are taken for secrets when an answer repeats them.
_PUBLIC_HEADERS = frozenset({"content-type", "user-agent", "webhook-id", "webhook-timestamp"})
# Words of a URL that are shorter are no secrets, and blanking them would make an excerpt unreadable.
_URL_SECRET_MIN = 8


class RefusedAddress(OSError):
    """The guard says no. An OSError, so that aiohttp treats it like any failed lookup or connect."""


@dataclass(slots=True)
class Timing:
    """How many ms after the start of a post these were done; None where a connection was there, or it came not so far.

    ``connect`` includes TLS, ``first_byte`` is that of the answer's head.
    """

    resolve: int | None = None
    connect: int | None = None
    first_byte: int | None = None
    begun: float = field(default_factory=time.monotonic)

    def now(self) -> int:
        """Milliseconds since the start."""
        return round((time.monotonic() - self.begun) * 1000)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one post. Nothing in it repeats what we sent as a secret.

    ``error`` is None or one word: ``invalid_request`` (URL or header), ``dns``, ``refused_address``,
    ``connect``, ``tls``, ``proxy`` (it cannot be reached, or lets nothing pass), ``timeout`` (the deadline),
    ``disconnected``, ``protocol`` (no HTTP), ``redirect`` (any 3xx), ``too_large``.
    """

    status: int | None
    """As soon as the status line came, also if what followed went wrong."""
    error: str | None
    retry_after: str | None
    """The header as it came."""
    duration_ms: int
    excerpt: str
    """The first 200 bytes of the body, printable; empty if the body broke off."""
    wish: str | None = None
    """The header ``webhook-delivery``, if it is one that we know: ``disable`` or ``abort-message``."""
    timing: Timing = field(default_factory=Timing, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the receiver took it: a 2xx, also with a body that is too large to be read.

        A receiver that answers at length has done its work all the same: no reason to make it do that twice.
        """
        return self.status is not None and 200 <= self.status < 300 and self.error in (None, "too_large")

    @property
    def outcome(self) -> str:
        """The class of its status, such as ``2xx``, or the word of ``error`` where that says more."""
        if self.status is None or self.error not in (None, "redirect", "too_large"):
            return self.error or "protocol"
        return f"{self.status // 100}xx"


class Egress:
    """Posts to URLs of users, only to addresses that are public or allowed.

    To be made inside a running event loop. No redirects, no proxies or credentials from the environment, no
    cookies, no decompression.

    Args:
        allow: networks that may be reached although they are not public.
        allow_loopback: the same for 127.0.0.0/8 and ::1; not through a proxy, whose loopback is not ours.
        proxy: the URL of a forward proxy that all posts go through.
        deadline: seconds for all of one post, from the lookup to the last byte; waiting for one of the
            ``connections`` counts too.
        answer_max: bytes of a body, as they come over the wire, after which the connection is closed.
        forbidden: (address, port) pairs that are refused whatever is allowed: our own store and API.
            ``0.0.0.0`` and ``::`` stand for every loopback address.
        connections: open at once, in all.
        connections_per_host: open at once to one host and port.
        tls: what certificates are accepted; those of the system's authorities if left out.
        resolver: for tests.

    Raises:
        ValueError: ``forbidden`` holds a name instead of an address.
    """

    def __init__(
        self,
        *,
        allow: Sequence[Network] = (),
        allow_loopback: bool = False,
        proxy: str | None = None,
        deadline: float = 15.0,  # Standard Webhooks advises 15 to 30 s
        answer_max: int = 65536,
        forbidden: Collection[tuple[str, int]] = (),
        connections: int = 500,
        connections_per_host: int = 100,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allow = tuple(allow)
        self._allow_loopback = allow_loopback and proxy is None
        self._proxy = proxy
        self._deadline = deadline
        self._answer_max = answer_max
        self._forbidden = {(ip_address(host), port) for host, port in forbidden}
        self._forbidden_ports = {port for host, port in self._forbidden if host.is_unspecified}
        # Through a proxy nothing else is dialled, and whoever runs the server has named it.
        self._refuses_to_dial = self._refuses if proxy is None else _nothing
        self._resolver = _CheckedResolver(resolver or _SystemResolver(), self._refuses_to_dial)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._resolver,
                use_dns_cache=False,
                socket_factory=self._socket,
                limit=connections,
                limit_per_host=connections_per_host,
                keepalive_timeout=_KEEP_ALIVE_S,
                ssl=tls or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            trace_configs=[_timed()],
            timeout=aiohttp.ClientTimeout(total=None),  # asyncio.timeout below: aiohttp's is rounded up to seconds
            headers={"Accept-Encoding": "identity", "User-Agent": _USER_AGENT},
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], secrets: Sequence[str] = ()) -> Answer:
        """Send one POST, once. Whatever the URL, the network and the receiver do, it ends in an answer.

        ``secrets`` are words of the body that the answer must not repeat, besides the headers and the URL's own.

        Raises:
            RuntimeError: the client has been closed.
        """
        timing = Timing()
        status: int | None = None
        wish: str | None = None
        retry_after: str | None = None
        error: str | None = None
        excerpt = ""
        try:
            check_url(url)
            if self._proxy and self._refuses_to_ask(URL(url)):
                raise RefusedAddress
            async with (
                asyncio.timeout(self._deadline),
                # BytesIO, as aiohttp warns of plain bytes above 1 MiB, which it would write in one piece
                self._session.post(
                    url,
                    data=io.BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._proxy,
                    trace_request_ctx=timing,
                ) as response,
            ):
                status, timing.first_byte = response.status, timing.now()
                wish = response.headers.get("webhook-delivery")
                redact = partial(_redacted, secrets=_secrets(url, headers, [*secrets, *_login(self._proxy)]))
                if (value := response.headers.get("Retry-After")) is not None:
                    retry_after = redact(value)
                content, complete = await self._read(response)
                excerpt = redact(content.decode(errors="replace"))
                error = "too_large" if not complete else "redirect" if 300 <= status < 400 else None
        except (aiohttp.ClientError, OSError, ValueError) as trouble:
            error = _kind(trouble)  # only its kind is told: its text may hold the URL
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            error = "disconnected"  # nobody cancelled us: so ends, in aiohttp, the wait for a closing pool
        return Answer(
            status, error, retry_after, timing.now(), excerpt, wish if wish in (DISABLE, ABORT) else None, timing
        )

    async def close(self) -> None:
        """Close all connections; posts still under way end as ``disconnected``."""
        await self._session.close()
        await self._resolver.close()

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """The body, and whether that is all of it."""
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > self._answer_max:
                response.close()
                return bytes(content), False
        return bytes(content), True

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The socket for one connection attempt; aiohttp connects it to just this address."""
        family, kind, protocol, _, (host, port, *_) = info
        if self._refuses_to_dial(host, port):
            raise RefusedAddress
        return socket.socket(family, kind, protocol)

    def _refuses_to_ask(self, url: URL) -> bool:
        """Whether the proxy is not to be asked for a host: an address, in any of its forms, that is refused here."""
        host = (url.raw_host or "").rstrip(".").lower()
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            found = socket.getaddrinfo(host, url.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return False  # a name
        return any(self._refuses(str(address[0]), url.port or 0) for *_, address in found)

    def _refuses(self, host: str, port: int) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return True  # 2130706433, 127.1: what only the system's parser takes for an address
        return (
            address_refused(address, self._allow, allow_loopback=self._allow_loopback)
            or any((face, port) in self._forbidden for face in faces(address))
            or (port in self._forbidden_ports and any(face.is_loopback for face in faces(address)))
        )


def _nothing(_host: str, _port: int) -> bool:
    return False


def _login(proxy: str | None) -> list[str]:
    """What of a proxy's URL is secret."""
    url = URL(proxy or "")
    return [word for word in (url.user, url.password) if word]


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


class _CheckedResolver(AbstractResolver):
    """Passes an answer on only if each of its addresses may be dialled."""

    def __init__(self, inner: AbstractResolver, refuses: Callable[[str, int], bool]) -> None:
        self._inner = inner
        self._refuses = refuses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not found:
            raise OSError("the name has no address")
        if any(self._refuses(entry["host"], entry["port"]) for entry in found):
            raise RefusedAddress
        return found

    async def close(self) -> None:
        await self._inner.close()


class _SystemResolver(AbstractResolver):
    """``getaddrinfo`` in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, "egress-lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except UnicodeError:  # a label that is empty or longer than 63 characters
            raise OSError("no name that the DNS can hold") from None
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _kind(trouble: Exception) -> str:
    """The word for what went wrong; the order matters, as aiohttp's errors inherit from one another."""
    cause = trouble.os_error if isinstance(trouble, aiohttp.ClientConnectorError) else trouble
    if isinstance(cause, RefusedAddress):
        return "refused_address"
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
        (OSError, "disconnected"),
    )
    return next((word for kind, word in words if isinstance(trouble, kind)), "invalid_request")


def _secrets(url: str, headers: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """What we send that an answer may repeat but a log must not: these words, header values, long words of the URL."""
    parts = URL(url)
    found = {value for name, value in headers.items() if name.lower() not in _PUBLIC_HEADERS}
    found |= {word for value in found for word in value.split()[-1:]}  # "Bearer <key>" -> "<key>"
    found |= {word for word in (*parts.parts, *parts.query.values()) if len(word) >= _URL_SECRET_MIN}
    found |= {word for word in words if word}
    written = {form for word in found for form in (word, quote(word, safe=""), json.dumps(word)[1:-1])}
    return sorted(written - {""}, key=len, reverse=True)


def _redacted(text: str, secrets: Sequence[str]) -> str:
    """Blank the secrets first, as a cut could leave the head of one; then one printable line of 200 bytes."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = "".join(char if char.isprintable() else " " for char in text.lstrip()[:EXCERPT_MAX])
    return line.encode(errors="replace")[:EXCERPT_MAX].decode(errors="ignore").rstrip()
