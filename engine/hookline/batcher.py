"""The batcher: operations that wait for the same script and partition leave together in the next call.

No timer, nothing added when idle: while one call is in flight the next gathers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, NamedTuple, TypeVar

from hookline.calls import GIVEN_MAX
from hookline.codec import unpack_answer
from hookline.connection import Connection
from hookline.row import Row
from hookline.trace import LINKS, PARENT

OPERATIONS_MAX = GIVEN_MAX
"""Operations of one script call, a claim counted as the items that it may give: about 4 ms of the store."""
BYTES_MAX = 262_144
"""Bytes of one script call's operations; a larger operation goes alone."""
T = TypeVar("T")


class _Waiting(NamedTuple):
    """One operation that waits for its turn."""

    packed: bytes | Row
    gives: int
    future: asyncio.Future[list[Any]]
    parent: str


class _Lane:
    """What waits for one script on one partition."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.running: asyncio.Task[None] | None = None


class Batcher:
    """Gathers operations into script calls. A caller that is cancelled does not cancel what was submitted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._whole: set[asyncio.Task[Any]] = set()

    def submit(self, script: str, partition: int, operation: bytes | Row, gives: int = 0) -> asyncio.Future[list[Any]]:
        """Queue one packed operation -> the future of its outcome ``[word, fields | false, extra | false]``.

        ``gives`` is how many items a claim may give. The future fails as
        :meth:`hookline.connection.Connection.write` does.
        """
        lane = self._lanes.setdefault((script, partition), _Lane())
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        lane.waiting.append(_Waiting(operation, gives, future, PARENT.get()))
        if lane.running is None:
            # It works for all callers: what is noted of this one's request is not the others'.
            lane.running = asyncio.create_task(self._run(lane, script, partition), context=Context())
        return future

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work of several steps, which goes on to its end if the caller is cancelled -> what it gives."""
        task = asyncio.create_task(work)
        self._whole.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._whole.discard(task)
        if not task.cancelled():
            task.exception()  # else it is reported, where nobody waits for it any more

    async def close(self) -> None:
        """Wait until everything submitted has its outcome."""
        while running := [*self._whole, *(lane.running for lane in self._lanes.values() if lane.running)]:
            await asyncio.wait(running)

    async def _run(self, lane: _Lane, script: str, partition: int) -> None:
        soon = asyncio.get_running_loop().call_soon
        try:
            while lane.waiting:
                batch = _next_batch(lane.waiting)
                LINKS.set([waiting.parent for waiting in batch if waiting.parent])
                try:
                    answer = await self._connection.send(script, partition, [waiting.packed for waiting in batch])
                except Exception as error:
                    for waiting in batch:
                        if not waiting.future.done():
                            waiting.future.set_exception(error)
                else:
                    soon(_deliver, batch, answer)  # the next call goes out before: the store would wait meanwhile
        finally:
            lane.running = None


def _deliver(batch: list[_Waiting], answer: bytes) -> None:
    """Give each operation of a call its outcome."""
    try:
        outcomes = unpack_answer(answer)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(outcome)
    except Exception as error:
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_exception(error)


def _next_batch(waiting: deque[_Waiting]) -> list[_Waiting]:
    """As many from the front as one call takes, at least one."""
    batch: list[_Waiting] = []
    operations = size = 0
    while waiting:
        operations += max(1, waiting[0].gives)
        size += len(waiting[0].packed)
        if batch and (operations > OPERATIONS_MAX or size > BYTES_MAX):
            break
        batch.append(waiting.popleft())
    return batch


def drop(answer: asyncio.Future[list[Any]]) -> None:
    """Nobody waits for an answer any more, also where it is an error."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()
