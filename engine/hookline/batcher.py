"""The batcher: operations that wait for the same script and partition leave together in the next call.

No timer, nothing added when idle: while one call is in flight the next gathers. One that has as many operations as the
call ahead follows at once, over the same link; and of many that find none in flight, each half is a call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

import msgspec

from hookline.codec import unpack_answer
from hookline.connection import Connection
from hookline.errors import OutcomeUnknown, check_loop
from hookline.group import BYTES_MAX, HALF_MIN, OPERATIONS_MAX, Alone, Group, Result, share
from hookline.row import Row
from hookline.trace import LINKS

CALLS_MAX = 2
"""Calls of one script on one partition that are under way: the store works on one while the other comes or goes."""
T = TypeVar("T")


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    """Operations that wait for their turn."""

    group: Group | Alone
    future: asyncio.Future[list[Result]]


class _Lane:
    """What waits for one script on one partition, and what is under way: so many calls, of so many operations."""

    __slots__ = ("calls", "operations", "partition", "script", "sent", "starts", "waiting")

    def __init__(self, script: str, partition: int) -> None:
        self.script = script
        self.partition = partition
        self.waiting: deque[_Waiting] = deque()
        self.operations = 0
        self.calls = self.sent = 0
        self.starts: _Call | None = None

    def add(self, waiting: _Waiting) -> None:
        """More wait."""
        self.waiting.append(waiting)
        self.operations += waiting.group.weight

    @property
    def ready(self) -> bool:
        """Whether a call may begin: one that is no smaller than the one before does not wait for it."""
        if self.starts or not self.waiting:
            return False
        # Of an odd number one half is smaller.
        enough = min(max(self.sent - 1, HALF_MIN), OPERATIONS_MAX)
        return self.calls == 0 or (self.calls < CALLS_MAX and self.operations >= enough)

    def next_batch(self) -> list[_Waiting]:
        """As many from the front as one call takes, at least one."""
        batch: list[_Waiting] = []
        weight = size = 0
        most = OPERATIONS_MAX if self.sent else share(self.operations)
        while self.waiting:
            group = self.waiting[0].group
            try:
                group.pack()
            except Exception as error:  # it is not the others' affair
                _fail(self._next(), error)
                continue
            weight += group.weight
            size += group.size
            if batch and (weight > most or size > BYTES_MAX):
                break
            batch.append(self._next())
        return batch

    def _next(self) -> _Waiting:
        waiting = self.waiting.popleft()
        self.operations -= waiting.group.weight
        return waiting


class _Call:
    """One call of a lane. It has nothing before :meth:`load`, so that what is submitted until then goes with it."""

    __slots__ = ("batch", "ended", "lane", "operations", "weight")

    def __init__(self, lane: _Lane) -> None:
        self.lane = lane
        self.batch: list[_Waiting] = []
        self.operations: list[bytes | Row] = []
        self.weight = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def load(self) -> None:
        """Take what waits."""
        lane = self.lane
        lane.starts = None
        self.batch = lane.next_batch()
        self.operations = [operation for waiting in self.batch for operation in waiting.group.operations]
        self.weight = sum(waiting.group.weight for waiting in self.batch)
        lane.calls += 1
        lane.sent += self.weight

    def unload(self) -> None:
        """It is under way no more."""
        self.lane.calls -= 1
        self.lane.sent -= self.weight


class Batcher:
    """Gathers operations into script calls. A caller that is cancelled does not cancel what was submitted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._under_way: set[asyncio.Future[Any]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where all is sent and answered."""

    def submit(self, group: Group | Alone) -> asyncio.Future[list[Result]]:
        """Queue operations that go in one call -> the future of what became of each, as the group reads it.

        The future fails as :meth:`hookline.connection.Connection.send` does.

        Raises:
            RuntimeError: it works in another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self.loop:
            check_loop("the datastore", self.loop, loop)
        script, partition = group.script, group.partition
        lane = self._lanes.get((script, partition))
        if lane is None:
            lane = self._lanes[script, partition] = _Lane(script, partition)
        future: asyncio.Future[list[Result]] = loop.create_future()
        lane.add(_Waiting(group, future))
        self._begin_if_ready(lane)
        return future

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work of several steps, which goes on to its end if the caller is cancelled -> what it gives."""
        return await asyncio.shield(self.begin(work))

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that goes on to its end, whoever waits for it."""
        task = self._spawn(work)
        task.add_done_callback(_look_at)
        return task

    def enter(self) -> Callable[[], None]:
        """Be waited for by :meth:`close` -> what says that it need not any more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(future)

        def leave() -> None:
            self._under_way.discard(future)
            future.set_result(None)

        return leave

    async def close(self) -> None:
        """Wait until everything submitted has its outcome."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        task = asyncio.create_task(work, context=context)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def _begin_if_ready(self, lane: _Lane) -> None:
        """Begin a call soon, which takes what waits by then."""
        if lane.ready:
            call = lane.starts = _Call(lane)
            self._under_way.add(call.ended)
            # It works for all callers: what is noted of one's request is not the others'.
            asyncio.get_running_loop().call_soon(self._begin, call, context=Context())

    def _begin(self, call: _Call) -> None:
        """Send what waits: at once if a link is free, else in a task."""
        call.load()
        self._begin_if_ready(call.lane)
        try:
            if not call.batch:
                raise ValueError("nothing of it could be packed")
            sent = self._connection.begin(
                call.lane.script, call.lane.partition, call.operations, partial(self._told, call)
            )
        except Exception as error:
            # Not now: whose end this call began in is still to be told.
            asyncio.get_running_loop().call_soon(self._end, call, error)
            return
        if not sent:
            self._finish(call, self._connection.send(call.lane.script, call.lane.partition, call.operations))

    def _told(self, call: _Call, answer: bytes | Coroutine[Any, Any, bytes]) -> None:
        """The answer of a call; or what gives it in the end."""
        if isinstance(answer, Coroutine):
            self._finish(call, answer)
        else:
            self._end(call, answer)

    def _finish(self, call: _Call, work: Coroutine[Any, Any, bytes]) -> None:
        self._spawn(self._finished(call, work), Context())

    async def _finished(self, call: _Call, work: Coroutine[Any, Any, bytes]) -> None:
        LINKS.set([waiting.group.parent for waiting in call.batch if waiting.group.parent])
        answer: bytes | Exception = OutcomeUnknown("the call was broken off; read the item to see its state")
        try:
            answer = await work
        except Exception as error:
            answer = error
        finally:
            self._end(call, answer)

    def _end(self, call: _Call, answer: bytes | Exception) -> None:
        """Give operations their outcomes, or the failure of their call."""
        call.unload()
        self._under_way.discard(call.ended)
        self._begin_if_ready(call.lane)
        if call.lane.starts:
            # The next goes out before outcomes are given, else the store would wait for that.
            asyncio.get_running_loop().call_soon(_give, call.batch, answer, context=Context())
        else:
            _give(call.batch, answer)
        call.ended.set_result(None)


def _look_at(task: asyncio.Task[Any]) -> None:
    """How it ended is not reported, where nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _give(batch: list[_Waiting], answer: bytes | Exception) -> None:
    """Give the operations of a call their outcomes, or the failure that is all of theirs."""
    failure = answer if isinstance(answer, Exception) else _deliver(batch, answer)
    if failure:
        for waiting in batch:
            _fail(waiting, failure)
    # A failure holds the frames that it came through, and they the batch: not in a circle with the futures.
    batch.clear()


def _deliver(batch: list[_Waiting], answer: bytes) -> Exception | None:
    """Give operations their outcomes -> what is wrong with the answer, if something is."""
    try:
        outcomes, end = unpack_answer(answer), 0
        for waiting in batch:
            begin, end = end, end + len(waiting.group.operations)
            if end > len(outcomes):
                raise ValueError("the store gave fewer outcomes than there were operations")
            if not waiting.future.done():
                _read(waiting, outcomes[begin:end])
    except Exception as error:
        return error
    return None


def _read(waiting: _Waiting, answers: list[Any]) -> None:
    """All that came together is read in one go: it takes less than where each caller reads its own between others."""
    try:
        waiting.future.set_result(waiting.group.read(answers))
    except Exception as error:  # it is not the others' affair
        _fail(waiting, error)
        del waiting  # the error holds this frame


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


def drop(answer: asyncio.Future[list[Result]]) -> None:
    """Nobody waits for an answer any more, also where it is an error."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()
