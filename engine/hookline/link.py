"""Links: connections to one node of the store, each for one command at a time.

redis-py makes them, by all that a URL may say; from then on commands and answers go over the bare transport, with
hiredis to write and read them: its own streams, locks and timeouts cost four times as much (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import redis.asyncio as aioredis
from redis import exceptions as redis_errors

_MORE = object()
"""What the reader gives as long as an answer is not whole."""


class LostError(Exception):
    """The call may have reached the store; its answer did not come."""

    code = "lost"


class Link(asyncio.Protocol):
    """One connection, from when it is made."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._reader = hiredis.Reader(
            protocolError=redis_errors.InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=_MORE
        )
        # Kept, for a writer that is forgotten closes its transport; and taken away, for so does its connection.
        self._writer: asyncio.StreamWriter = connection._writer
        connection._reader = connection._writer = None
        self._transport = self._writer.transport
        self._transport.set_protocol(self)
        self.closed = self._transport.is_closing()
        self._answer: asyncio.Future[Any] | None = None

    async def call(self, *args: Any) -> Any:
        """Send a command, and wait for its answer -> that, or the error that it is, as redis-py knows it.

        Broken off, the link is closed: what comes next over it would be the answer to this.

        Raises:
            LostError: none came in time, or the connection ended.
        """
        packed = hiredis.pack_command(args)
        answer = self._answer = self._loop.create_future()
        timer = self._loop.call_later(self._timeout, self._lose, f"no answer within {self._timeout:g} s")
        self._transport.write(packed)
        try:
            return await answer
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._answer = None

    def close(self) -> None:
        """End the connection; what was not sent yet never is."""
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass an answer on that is whole."""
        try:
            self._reader.feed(data)
            answer = self._reader.gets()
        except redis_errors.InvalidResponse as error:
            self._lose(str(error))
            return
        if answer is _MORE:
            return
        if self._answer is None:
            self.close()  # nobody has asked: whatever it is, the link is out of step
        elif not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """The peer has closed it, or it broke."""
        self._lose(str(error or "the store closed the connection"))

    def _lose(self, reason: str) -> None:
        self.close()
        if self._answer and not self._answer.done():
            self._answer.set_exception(LostError(reason))


class Links:
    """The links to one node: made when they are needed, at most ``most``, and kept. ``options`` are redis-py's."""

    def __init__(self, options: dict[str, Any], most: int, timeout: float) -> None:
        self._maker = aioredis.ConnectionPool(**options)
        self._timeout = timeout
        self._free = asyncio.Semaphore(most)
        self._idle: list[Link] = []
        self._taken: set[Link] = set()
        self._closed = False

    async def take(self) -> Link:
        """A link for one command, to be given back.

        Raises:
            TimeoutError: none came free in time.
            redis.exceptions.RedisError, OSError: none could be made.
        """
        if self._free.locked():
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        else:
            await self._free.acquire()
        try:
            link = self._kept() or await self._make()
        except BaseException:
            self._free.release()
            raise
        self._taken.add(link)
        return link

    def give(self, link: Link) -> None:
        """Take a link back, to be used again unless it is closed."""
        self._taken.discard(link)
        if self._closed:
            link.close()
        elif not link.closed:
            self._idle.append(link)
        self._free.release()

    def close(self) -> None:
        """Close all of them; one that is being made just now serves its command."""
        self._closed = True
        for link in (*self._idle, *self._taken):
            link.close()
        self._idle.clear()

    def _kept(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if not link.closed:
                return link
        return None

    async def _make(self) -> Link:
        connection = self._maker.make_connection()  # type: ignore[no-untyped-call]
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        await connection.connect()
        link = Link(connection, self._timeout)
        if task and task.cancelling() > cancelling:
            # redis-py sends by wait_for; up to Python 3.11 that forgets it was cancelled if it ends just then.
            link.close()
            raise asyncio.CancelledError
        return link
