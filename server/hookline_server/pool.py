"""A pool of HTTP/1.1 connections, each with one post at a time. It goes where it is dialled for, and follows nothing.

It writes requests itself and leaves answers to llhttp's parser: a general client takes several times the processor
time of all else that a webhook costs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, cast

import httptools
from yarl import URL

from hookline import url as urls
from hookline_server.alarm import Alarm
from hookline_server.reply import Reply, Timing, Trouble

HEAD_MAX = 65536
"""Bytes of an answer's head, with those of all interim answers before it."""
KEEP_ALIVE = 4.0
"""Seconds that an idle connection is kept. Many servers drop theirs after 5, and a post must not meet a closed one."""
# Chunks of one byte take six on the wire.
_CHUNKED = 8
_SENT_ALWAYS = "Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: Hookline\r\n"
_BREAK = re.compile(r"[\r\n\0]")
_SWITCHING = 101
_COPIED_MAX = 65536

_Request = tuple[bytes] | tuple[bytes, bytes]


class Origin(NamedTuple):
    """Where a connection leads."""

    tls: bool
    host: str
    port: int


Dial = Callable[[Origin, Timing], Awaitable["Connection"]]
"""Opens a connection.

Raises:
    Trouble, OSError
"""


@lru_cache(maxsize=1024)
def _aim(url: str) -> tuple[Origin, str]:
    """A URL -> where it leads, and how each request to it begins.

    Raises:
        ValueError: it cannot be posted to.
    """
    urls.check_url(url)
    parts = URL(url)
    head = f"POST {parts.raw_path_qs} HTTP/1.1\r\nHost: {parts.host_port_subcomponent}\r\n{_SENT_ALWAYS}"
    return Origin(parts.scheme == "https", parts.raw_host or "", parts.port or 0), head


@dataclass(eq=False, slots=True)
class _Place:
    """The connections to one origin."""

    slots: asyncio.Semaphore
    users: int = 0
    idle: list[Connection] = field(default_factory=list)


class Pool:
    """Posts over connections that are kept for a while.

    Args:
        deadline: seconds for all of one post, waiting for a connection included.
        connections: kept open without a post under way, in all.
        connections_per_host: with a post under way to one origin.
    """

    def __init__(self, dial: Dial, *, deadline: float, connections: int, connections_per_host: int) -> None:
        self._dial = dial
        self._deadline = deadline
        self._idle_max = connections
        self._slots_each = connections_per_host
        self._places: dict[Origin, _Place] = {}
        self._under_way = Alarm[Connection](deadline, Connection.expire)
        self._resting = Alarm[Connection](KEEP_ALIVE, self._retire)
        self._open: set[Connection] = set()
        self._closed = False

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], reply: Reply) -> None:
        """Send one POST and note in ``reply`` what comes back.

        Raises:
            Trouble, OSError, ValueError
            TimeoutError: the deadline.
            RuntimeError: the pool is closed.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        origin, head = _aim(url)
        request = _request(head, headers, body)
        place = self._places.get(origin)
        if place is None:
            place = self._places[origin] = _Place(asyncio.Semaphore(self._slots_each))
        place.users += 1
        try:
            send_by, kept = asyncio.get_running_loop().time() + self._deadline, True
            if place.idle and not place.slots.locked():
                async with place.slots:
                    if kept := await self._reuse(place, request, reply):
                        return
            async with asyncio.timeout_at(send_by), place.slots:
                if not (kept and place.idle and await self._reuse(place, request, reply)):
                    await self._exchange(place, await self._connect(origin, reply.timing), request, reply)
        finally:
            place.users -= 1
            self._tidy(origin)

    async def _reuse(self, place: _Place, request: _Request, reply: Reply) -> bool:
        """Post over a connection that was kept -> False where it ended before anything came.

        Then the receiver has most likely closed it just as the post was sent, and the post is sent once more.
        """
        connection = place.idle.pop()
        try:
            await self._exchange(place, connection, request, reply)
        except Trouble as trouble:
            if trouble.word != "disconnected" or connection.received or self._closed:
                raise
            return False
        return True

    async def _connect(self, origin: Origin, timing: Timing) -> Connection:
        connection = await self._dial(origin, timing)
        if self._closed:
            connection.abort()
            raise Trouble("disconnected")
        timing.connect = timing.now()
        connection.origin, connection.lost = origin, self._forget
        self._open.add(connection)
        return connection

    async def _exchange(self, place: _Place, connection: Connection, request: _Request, reply: Reply) -> None:
        self._resting.drop(connection)
        self._under_way.watch(connection)
        try:
            await connection.send(request, reply)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._under_way.drop(connection)
        if connection.reusable and not self._closed and len(self._resting) < self._idle_max:
            place.idle.append(connection)
            self._resting.watch(connection)
        else:
            connection.abort()

    def _retire(self, connection: Connection) -> None:
        """An idle connection has rested for long enough."""
        self._forget(connection)
        connection.abort()

    def _forget(self, connection: Connection) -> None:
        """A connection is no more."""
        self._open.discard(connection)
        self._resting.drop(connection)
        place = self._places.get(connection.origin)
        if place and connection in place.idle:
            place.idle.remove(connection)
            self._tidy(connection.origin)

    def _tidy(self, origin: Origin) -> None:
        place = self._places.get(origin)
        if place and not place.users and not place.idle:
            del self._places[origin]

    async def close(self) -> None:
        """Close all connections; posts under way end as ``disconnected``."""
        self._closed = True
        for connection in list(self._open):
            connection.abort()
        self._resting.stop()


def _request(head: str, headers: Mapping[str, str], body: bytes) -> _Request:
    """Head and body as they go over the wire: together, unless it is better to copy none of it.

    Raises:
        ValueError: a header would be more than one line, or cannot be encoded.
    """
    if _BREAK.search("".join(headers.values())):
        raise ValueError("expected headers of one line each")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    whole_head = f"{head}{lines}Content-Length: {len(body)}\r\n\r\n".encode()
    return (whole_head + body,) if len(body) < _COPIED_MAX else (whole_head, body)


class Connection(asyncio.Protocol):
    """One connection, and the parser of its answers. ``lost`` is told when it ends."""

    origin: Origin
    lost: Callable[[Connection], None]

    def __init__(self) -> None:
        self.reusable = True
        self.received = 0
        self.lost = _nobody
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, request: _Request, reply: Reply) -> None:
        """One request, once; returns when its answer is whole, or longer than is read.

        Raises:
            Trouble: ``disconnected`` or ``protocol``.
            TimeoutError: it has expired.
        """
        self.received = self._head_bytes = 0
        if self._transport.is_closing():
            raise Trouble("disconnected")
        self._reply = reply
        self._in_head, self._delimited = True, False
        self._waiter = asyncio.get_running_loop().create_future()
        if len(request) == 1:
            self._transport.write(request[0])
        else:
            self._transport.writelines(request)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def abort(self) -> None:
        """Close it at once, whatever is still to be sent."""
        self.reusable = False
        self._transport.abort()

    def expire(self) -> None:
        """The deadline of what is under way has passed."""
        self._end(TimeoutError())

    def _end(self, trouble: BaseException | None = None) -> None:
        """What is under way has ended; with an exception, or behind a cut, the connection is not used again."""
        if self._waiter and not self._waiter.done():
            if trouble is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(trouble)

    @property
    def _waits(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    # What the transport and the parser call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if not self._waits:
            self.abort()  # nobody has asked: an answer to this must not be taken for one to what is sent next
            return
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.reusable = False
        except httptools.HttpParserError:
            self.reusable = False
            self._end(Trouble("protocol"))
        most = HEAD_MAX if self._in_head else HEAD_MAX + _CHUNKED * self._reply.most
        if self.received > most:
            self._end(Trouble("protocol"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended; what is under way may have ended well by that."""
        self.reusable = False
        whole = self._waits and exc is None and not (self._in_head or self._delimited)
        self._end(None if whole else Trouble("disconnected"))
        self.lost(self)

    def on_message_begin(self) -> None:
        """An answer begins, an interim one too."""
        if not self._waits:
            self.reusable = False  # a second answer right behind the first
            return
        # What interim answers said is no part of the last one.
        self._reply.retry_after = self._reply.wish = None
        self._delimited = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of a head, or of a trailer."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_MAX:
            raise ValueError("the head is too long")
        if not self._in_head:
            return  # a trailer
        known = name.lower()
        if known in (b"content-length", b"transfer-encoding"):
            self._delimited = True
        elif known == b"retry-after" and self._reply.retry_after is None:
            self._reply.retry_after = value.decode(errors="replace")
        elif known == b"webhook-delivery" and self._reply.wish is None:
            self._reply.wish = value.decode(errors="replace")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._parser.get_status_code()
        if not self._waits or (status < 200 and status != _SWITCHING):
            return
        self._in_head = False
        self._reply.status = status
        self._reply.timing.first_byte = self._reply.timing.now()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        reply = self._reply
        if not self._waits:
            return
        reply.body += body
        if len(reply.body) > reply.most:
            reply.cut, self.reusable = True, False
            self._end()

    def on_message_complete(self) -> None:
        """An answer is whole."""
        if self._in_head:
            return  # an interim answer
        # What is left of the request is not read any more: the next one would wait behind it.
        if not self._parser.should_keep_alive() or self._transport.get_write_buffer_size():
            self.reusable = False
        self._end()


def _nobody(_: Connection) -> None:
    pass
