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
import contextlib
import json
import socket
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache, partial
from ipaddress import IPv6Address, ip_address
from typing import Any
from urllib.parse import quote

import msgspec
from aiohappyeyeballs import AddrInfoType, start_connection
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from hookline.url import check_url
from hookline_server.address import Network, address_refused, faces
from hookline_server.pool import Connection, Origin, Pool
from hookline_server.proxied import Proxied
from hookline_server.reply import Reply, Timing, Trouble
from hookline_server.shares import Shares

EXCERPT_MAX = 200
"""Bytes of an answer that are kept for people to read."""

DISABLE, ABORT = "disable", "abort-message"
"""What a receiver may ask for by the header ``webhook-delivery``: nothing more at all, or not this one again."""
# A lookup blocks a thread for as long as a name server keeps silent, also when nobody waits for it any more: the event
# loop's own few (four with uvloop) would be used up by as many bad names, and these by those of one namespace.
_LOOKUP_THREADS = 32
_payer: ContextVar[str] = ContextVar("payer", default="")
"""Of whose share what a post needs is."""
# Seconds until another address of a name is tried beside the one before (RFC 8305).
_NEXT_ADDRESS_S = 0.25
# All other headers that we send are taken for secrets when an answer repeats them.
_PUBLIC_HEADERS = frozenset({"content-type", "user-agent", "webhook-id", "webhook-timestamp"})
# Words of a URL that are shorter are no secrets, and blanking them would make an excerpt unreadable.
_URL_SECRET_MIN = 8


class RefusedAddress(OSError):
    """The guard says no. An OSError, so that it is treated like any failed lookup or connect."""


class Answer(msgspec.Struct, frozen=True):
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
    timing: Timing = msgspec.field(default_factory=Timing)

    @property
    def word(self) -> str:
        """The error; or the status, such as ``HTTP 500``."""
        return self.error or f"HTTP {self.status}"

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
            ``connections_per_host`` counts too.
        answer_max: bytes of a body, as they come over the wire, after which the connection is closed.
        forbidden: (address, port) pairs that are refused whatever is allowed: our own store and API.
            ``0.0.0.0`` and ``::`` stand for every address of this machine.
        connections: open at once with a post under way, in all: each of those for whom posts are made has its share.
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
        connections: int = 1000,
        connections_per_host: int = 100,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allow = tuple(allow)
        self._allow_loopback = allow_loopback and proxy is None
        self._proxy = proxy
        self._answer_max = answer_max
        self._shares = Shares(connections)
        self._forbidden = {(ip_address(host), port) for host, port in forbidden}
        self._forbidden_ports = {port for host, port in self._forbidden if host.is_unspecified}
        # Through a proxy nothing else is dialled, and whoever runs the server has named it.
        self._refuses_to_dial = self._refuses if proxy is None else _nothing
        self._tls = tls
        self._resolver = _CheckedResolver(resolver or _SystemResolver(), self._refuses_to_dial)
        limits = {"connections": connections, "connections_per_host": connections_per_host}
        self._client: Pool | Proxied = (
            Pool(self._dial, deadline=deadline, **limits)
            if proxy is None
            else Proxied(proxy, self._resolver, deadline=deadline, tls=tls, **limits)
        )

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], secrets: Sequence[str] = (), *, payer: str = ""
    ) -> Answer:
        """Send one POST. Whatever the URL, the network and the receiver do, it ends in an answer.

        It is sent once more where a connection that was kept ends before anything has come back.
        ``secrets`` are words of the body that the answer must not repeat, besides the headers and the URL's own.
        ``payer`` is of whose share it is; waiting for that is no part of the deadline.

        Raises:
            RuntimeError: the client has been closed.
        """
        await self._shares.take(payer)
        _payer.set(payer)
        try:
            return await self._post(url, body, headers, secrets)
        finally:
            self._shares.give_back(payer)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> Answer:
        reply = Reply(self._answer_max)
        error: str | None = None
        try:
            if self._proxy:
                check_url(url)
                if self._refuses_to_ask(URL(url)):
                    raise RefusedAddress
            await self._client.post(url, body, headers, reply)
            if reply.cut:
                error = "too_large"
            elif reply.status is not None and 300 <= reply.status < 400:
                error = "redirect"
        except (Trouble, OSError, ValueError) as trouble:
            error = _kind(trouble)  # only its kind is told: its text may hold the URL
        excerpt = bytes(reply.body) if error in (None, "too_large", "redirect") else b""
        retry_after = reply.retry_after
        if excerpt or retry_after:
            redact = partial(_redacted, secrets=_secrets(url, headers, [*secrets, *_login(self._proxy)]))
            retry_after = retry_after and redact(retry_after)
        return Answer(
            reply.status,
            error,
            retry_after,
            reply.timing.now(),
            redact(excerpt.decode(errors="replace")) if excerpt else "",
            reply.wish if reply.wish in (DISABLE, ABORT) else None,
            reply.timing,
        )

    async def close(self) -> None:
        """Close all connections; posts still under way end as ``disconnected``."""
        await self._client.close()
        await self._resolver.close()

    async def _dial(self, origin: Origin, timing: Timing) -> Connection:
        """Connect to an address of an origin that was checked."""
        found = await self._look_up(origin, timing)
        loop = asyncio.get_running_loop()
        tls, name = (self._tls or _system_tls(), origin.host.rstrip(".")) if origin.tls else (None, None)
        try:
            sock = await start_connection(
                found, happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=loop, socket_factory=self._socket
            )
            try:
                if self._leads_back(sock):
                    raise RefusedAddress
                _, connection = await loop.create_connection(Connection, sock=sock, ssl=tls, server_hostname=name)
            except BaseException:
                sock.close()
                raise
        except ssl.SSLError:
            raise Trouble("tls") from None
        except RefusedAddress:
            raise
        except OSError:
            raise Trouble("connect") from None
        return connection

    async def _look_up(self, origin: Origin, timing: Timing) -> list[AddrInfoType]:
        """The addresses of an origin; those of a name were all checked."""
        try:
            family = socket.AF_INET6 if isinstance(ip_address(origin.host), IPv6Address) else socket.AF_INET
        except ValueError:
            pass
        else:
            return [_info(family, origin.host, origin.port)]
        try:
            found = await self._resolver.resolve(origin.host, origin.port)
        except RefusedAddress:
            raise
        except OSError:
            raise Trouble("dns") from None
        timing.resolve = timing.now()
        return [_info(entry["family"], entry["host"], entry["port"]) for entry in found]

    def _socket(self, info: AddrInfoType) -> socket.socket:
        """The socket for one connection attempt, which goes to just this address."""
        family, kind, protocol, _, (host, port, *_) = info
        if self._refuses_to_dial(host, port):
            raise RefusedAddress
        return socket.socket(family, kind, protocol)

    def _leads_back(self, sock: socket.socket) -> bool:
        """Whether a connection leads to this machine, by whatever address, and to what is forbidden at all of them."""
        own, there = sock.getsockname()[:2], sock.getpeername()[:2]
        return own[0] == there[0] and there[1] in self._forbidden_ports

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


def _info(family: int, host: str, port: int) -> AddrInfoType:
    """An address as sockets take it."""
    place = (host, port, 0, 0) if family == socket.AF_INET6 else (host, port)
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)


@cache
def _system_tls() -> ssl.SSLContext:
    """Trusts the authorities that the system trusts."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


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
    """``getaddrinfo`` in threads of its own, of which each payer has a share."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, "egress-lookup")
        self._shares = Shares(_LOOKUP_THREADS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        await self._shares.take(_payer.get())
        found_later = self._threads.submit(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found_later.add_done_callback(partial(self._free, asyncio.get_running_loop(), _payer.get()))
        try:
            found = await asyncio.wrap_future(found_later)
        except UnicodeError:  # a label that is empty or longer than 63 characters
            raise OSError("no name that the DNS can hold") from None
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in found
        ]

    def _free(self, loop: asyncio.AbstractEventLoop, payer: str, _: Future[Any]) -> None:
        """A thread has come back, maybe long after its post has ended."""
        with contextlib.suppress(RuntimeError):  # and after the loop as well
            loop.call_soon_threadsafe(self._shares.give_back, payer)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _kind(trouble: Exception) -> str:
    """The word for what went wrong."""
    if isinstance(trouble, Trouble):
        return trouble.word
    words: tuple[tuple[type[Exception], str], ...] = (
        (RefusedAddress, "refused_address"),
        (TimeoutError, "timeout"),
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
