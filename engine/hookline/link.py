"""Links: connections to one node of the store, each for one command at a time, or for those of one lane.

redis-py makes them, by all that a URL may say; from then on commands and answers go over the bare transport, with
hiredis to write and read them: its own streams, locks and timeouts cost four times as much (docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any, Protocol, TypeVar

import hiredis
import redis.asyncio as aioredis
from redis import exceptions as redis_errors

log = logging.getLogger(__name__)

# Python 3.12 to 3.14.0 raise the last two on a socket that the peer closed (redis-py #4287).
LOST = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError, TypeError, AttributeError)
MORE = object()
"""What the reader gives as long as an answer is not whole."""
RENEW = 1.0
"""Seconds in which the links to a node are made anew once at most."""
LATE = 0.5
"""Seconds by which a store may end a blocking command late: when idle it looks at its clock every 1/hz s, often 0.1."""

Find = Callable[[], Awaitable[tuple[str, int]]]
Told = Callable[[Any], None]
"""Is given an answer, which may be an error: one of the store's, or a :class:`LostError`."""


class LostError(Exception):
    """The call may have reached the store; its answer did not come."""

    code = "lost"


class SilentError(LostError):
    """No answer came in time, and nothing ended the connection: others to that node may be as silent."""


class Waits(Protocol):
    """Who waits for an answer, as a future does."""

    def done(self) -> bool:
        """Whether the answer makes no difference."""

    def set_result(self, answer: Any) -> None:
        """It has come."""

    def set_exception(self, error: Exception) -> None:
        """It will not."""


Made = TypeVar("Made", bound="Link")


class Hold:
    """Holds a command back: a blocking one goes right before it, so that the store itself lets it through.

    It has a link of its own until :meth:`call` or :meth:`drop`. ``call_id`` names the command, for who asks what became
    of it; ``sent``: it has left; ``refused``: it was not held back as it should have been.
    """

    def __init__(self, holders: Holders, link: Link, seconds: float, call_id: str, *args: Any) -> None:
        """Keep the blocking command ``args``, which ends by itself after ``seconds``."""
        self.args = args
        self.seconds = seconds
        self.call_id = call_id
        self.sent = self.refused = self.ended = False
        self._holders: Holders | None = holders
        self._link = link

    async def call(self, *args: Any) -> Any:
        """Send the command that is held back -> as :meth:`Link.call` does.

        Raises:
            LostError: no answer came; if it was sent, it may have run.
        """
        try:
            return await self._link.call(*args, hold=self)
        finally:
            self.drop()

    def end(self) -> None:
        """Wait no longer: the link is closed, and the answer lost."""
        self.ended = True
        if self._holders:
            self._link.close()

    def drop(self) -> None:
        """Give the link back."""
        holders, self._holders = self._holders, None
        if holders:
            holders.give(self._link)

    # Its place among those who wait for answers

    def done(self) -> bool:
        """Whether the answer makes no difference."""
        return False

    def set_result(self, answer: Any) -> None:
        """The blocking command is over."""
        self.refused = isinstance(answer, Exception)

    def set_exception(self, error: Exception) -> None:
        """The link is lost, as the one that waits for what was held back is told."""


class Link(asyncio.Protocol):
    """One connection, from when it is made."""

    def __init__(self, connection: Any, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._reader = hiredis.Reader(
            protocolError=redis_errors.InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=MORE
        )
        # Kept, and taken from the connection: either of them, when it is collected as garbage, closes the transport.
        self._writer: asyncio.StreamWriter = connection._writer
        # Closed by the peer already: connection_lost() was called before, and will not be called here.
        ended = connection._reader.at_eof()
        connection._reader = connection._writer = None
        self._transport = self._writer.transport
        self._transport.set_protocol(self)
        self.closed = ended or self._transport.is_closing()
        self.outdated = False
        """It is used no more once its calls are answered."""
        self.users = 0
        self._answers: deque[Waits] = deque()

    def begin(self, waits: Waits, *args: Any) -> asyncio.TimerHandle:
        """Send a command -> the timer that ends the link, to be cancelled by who waits, for no answer in time."""
        self._transport.write(hiredis.pack_command(args))
        self._answers.append(waits)
        return self._loop.call_later(self._timeout, self._lose, SilentError(f"no answer within {self._timeout:g} s"))

    async def call(self, *args: Any, hold: Hold | None = None) -> Any:
        """Send a command, and wait for its answer -> that, or the error that it is, as redis-py knows it.

        Broken off, the link is closed, and other calls over it are lost: what comes next would be the answer to this.

        Raises:
            LostError: none came in time, or the connection ended.
        """
        packed, timeout = hiredis.pack_command(args), self._timeout
        answer = self._loop.create_future()
        if hold:
            if self.closed:
                raise LostError("the connection was closed")
            packed, timeout = hiredis.pack_command(hold.args) + packed, timeout + hold.seconds + LATE
            self._answers.append(hold)
            hold.sent = True
        timer = self._loop.call_later(timeout, self._lose, SilentError(f"no answer within {timeout:g} s"))
        self._transport.write(packed)
        self._answers.append(answer)
        try:
            return await answer
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the connection; what was not sent yet never is."""
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on the answers that are whole, each to the call that was sent first of those without one."""
        asked = len(self._answers)  # whoever is told one may send the next call
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not MORE:
                if not asked:
                    self.close()  # nobody has asked: whatever it is, the link is out of step
                    return
                asked -= 1
                waits = self._answers.popleft()
                if not waits.done():
                    waits.set_result(answer)
        except redis_errors.InvalidResponse as error:
            self._lose(LostError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        """The peer has closed it, or it broke."""
        self._lose(LostError(str(error or "the store closed the connection")))

    def _lose(self, reason: LostError) -> None:
        self.close()
        while self._answers:
            answer = self._answers.popleft()
            if not answer.done():
                answer.set_exception(type(reason)(*reason.args))


class Sent:
    """Who waits for the answer of a command over a lane, and passes it on at once: no task has to be woken for it."""

    __slots__ = ("_give", "_lane", "_link", "_timer", "_told")

    def __init__(self, link: Link, lane: object, give: Callable[[Link, object], None], told: Told, *args: Any) -> None:
        """Send it."""
        self._link = link
        self._lane = lane
        self._give = give
        self._told = told
        self._timer = link.begin(self, *args)

    def done(self) -> bool:
        """Nobody breaks it off."""
        return False

    def set_result(self, answer: Any) -> None:
        """The answer, or the error that it is; or the loss of the link."""
        self._timer.cancel()
        self._give(self._link, self._lane)
        self._told(answer)

    set_exception = set_result


class _Turn:
    """Those of a lane who ask for a link, one after the other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.asking = 0


class Links:
    """The links to one node: made when they are needed, at most ``most``, and kept. ``options`` are redis-py's."""

    def __init__(self, options: dict[str, Any], most: int, timeout: float, find: Find | None = None) -> None:
        """``find`` says for each link where the node is by then; without it, the options do."""
        self._maker = aioredis.ConnectionPool(**options)
        self._find = find
        self._timeout = timeout
        self.holders = Holders(self._make, most)
        self._free = asyncio.Semaphore(most)
        self._idle: list[Link] = []
        self._taken: set[Link] = set()
        self._shared: dict[object, Link] = {}
        self._turns: dict[object, _Turn] = {}
        self._renewed = -math.inf
        self._closed = False

    async def take(self, lane: object = None) -> Link:
        """A link for one command, to be given back.

        Commands of one lane go one behind the other over the same link, while nobody is short of links.

        Raises:
            TimeoutError: none came free in time.
            redis.exceptions.RedisError, OSError: none could be made.
        """
        if lane is None:
            return await self._take()
        # Who asked first sends first, also where that one has to wait for a link.
        turn = self._turns.setdefault(lane, _Turn())
        turn.asking += 1
        try:
            async with turn.lock:
                link = self._shared.get(lane)
                if link is None or link.closed or self._free.locked():
                    link = self._shared[lane] = await self._take()
                link.users += 1
                return link
        finally:
            turn.asking -= 1
            if not turn.asking:
                del self._turns[lane]

    def begin(self, lane: object, told: Told, command: Callable[[], tuple[Any, ...]]) -> bool:
        """Send a command over the lane's link, if it is there or another is idle -> whether; ``told`` gets the answer.

        So it needs no task. Where a link has to be made or waited for, it does; then ``command`` is not called.
        """
        if lane in self._turns:  # who asked before waits
            return False
        link = self._shared.get(lane)
        if link is None or link.closed or self._free.locked():
            if self._free.locked() or (link := self._kept()) is None:
                return False
            with suppress(StopIteration):
                self._free.acquire().send(None)  # it does not wait, as there is one
            self._taken.add(link)
            self._shared[lane] = link
        link.users += 1
        try:
            Sent(link, lane, self.give, told, *command())
        except BaseException:
            self.give(link, lane)
            raise
        return True

    async def _take(self) -> Link:
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

    def give(self, link: Link, lane: object = None) -> None:
        """Take a link back, to be used again unless it is closed."""
        if lane is not None:
            link.users -= 1
            if link.users:
                return
            if self._shared.get(lane) is link:
                del self._shared[lane]
        self._taken.discard(link)
        if self._closed or link.outdated:
            link.close()
        elif not link.closed:
            self._idle.append(link)
        self._free.release()

    def forget(self) -> None:
        """Close those that are idle: the node may have gone without a word."""
        while self._idle:
            self._idle.pop().close()

    def renew(self, since: float) -> bool:
        """Make new links from now on -> whether what was begun ``since`` then may find another node by them.

        Not so soon after the last time, unless that was later (``time.monotonic``).
        """
        now = monotonic()
        if self._renewed <= since:
            if now - self._renewed < RENEW:
                return False
            self._renewed = now
            self.forget()
            self.holders.renew()
            self._shared.clear()
            for link in self._taken:
                link.outdated = True
        return True

    def retire(self) -> None:
        """Keep none any more. What is under way ends as it would, and what still comes has a link made for it alone."""
        self._closed = True
        self.forget()
        self.holders.retire()

    def close(self) -> None:
        """Close all of them; one that is being made just now serves its command."""
        self._closed = True
        for link in (*self._idle, *self._taken):
            link.close()
        self._idle.clear()
        self.holders.close()

    def _kept(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if not link.closed:
                return link
        return None

    async def _make(self) -> Link:
        return await self.make(Link)

    async def make(self, kind: type[Made]) -> Made:
        """A link of some kind, which is not one of ``most``, and which the caller closes.

        Raises:
            redis.exceptions.RedisError, OSError: none could be made.
        """
        connection = self._maker.make_connection()  # type: ignore[no-untyped-call]
        task = asyncio.current_task()
        cancelling = task.cancelling() if task else 0
        try:
            if self._find:
                connection.host, connection.port = await self._find()
            await connection.connect()
        except (RuntimeError, redis_errors.InvalidResponse) as error:
            # uvloop's, of a transport that the peer has closed; or what has the address now is no store.
            raise redis_errors.ConnectionError(str(error)) from error
        except redis_errors.ConnectionError as error:
            if isinstance(error.__cause__, redis_errors.AuthenticationError):  # so it comes over a unix socket
                raise error.__cause__ from None
            raise
        link = kind(connection, self._timeout)
        if link.closed:
            link.close()
            raise redis_errors.ConnectionError("the store has closed the connection that it took")
        if task and task.cancelling() > cancelling:
            # redis-py sends by wait_for; up to Python 3.11 that forgets it was cancelled if it ends just then.
            link.close()
            raise asyncio.CancelledError
        return link


class Holders:
    """As many links more for commands that are held back. Nobody waits for one: they are made beside."""

    def __init__(self, make: Callable[[], Awaitable[Link]], most: int) -> None:
        self._make = make
        self._most = most
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._making: asyncio.Task[None] | None = None
        self._asked: list[Callable[[], object]] = []
        self._closed = False

    def hold(self, ready: Callable[[], object], seconds: float, call_id: str, *args: Any) -> Hold | None:
        """Hold a command back by the blocking one ``args``; None while no link is free: ``ready`` tells of one."""
        while self._idle:
            link = self._idle.pop()
            if not link.closed:
                return Hold(self, link, seconds, call_id, *args)
            self._links.discard(link)
        if len(self._links) < self._most and not self._closed:
            self._asked.append(ready)
            # Done already where tasks begin at once (asyncio.eager_task_factory) and this one failed without a wait.
            if self._making is None or self._making.done():
                self._making = asyncio.create_task(self._make_one(), context=Context())
        return None

    def give(self, link: Link) -> None:
        """Take a link back, to be used again unless it is closed."""
        if self._closed or link.outdated:
            link.close()
        if link.closed:
            self._links.discard(link)
        else:
            self._idle.append(link)

    def renew(self) -> None:
        """Make new ones from now on."""
        for link in self._links:
            link.outdated = True
        while self._idle:
            self.give(self._idle.pop())

    def retire(self) -> None:
        """Keep none any more; those that hold a command back are closed when they are given back."""
        self._closed = True
        while self._idle:
            self.give(self._idle.pop())

    def close(self) -> None:
        """Close all of them."""
        self._closed = True
        if self._making:
            self._making.cancel()
        for link in self._links:
            link.close()

    async def _make_one(self) -> None:
        try:
            link = await self._make()
            self._links.add(link)
            self.give(link)
        except LOST as error:
            log.debug("no link for what is to be held back: %s", error)
            self._asked.clear()
        finally:
            self._making = None
        asked, self._asked = self._asked, []
        for ready in asked:
            ready()
