"""A reading that costs much, shared by those who ask while it is made, and for a second at most by who comes then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

FRESH_S = 1.0
"""Seconds for which a reading is good: a second who asks costs the store nothing."""
T = TypeVar("T")


class Fresh(Generic[T]):
    """Reads by ``read`` where the last is too old. One that is not ``costly`` is for those alone who wait for it."""

    def __init__(self, read: Callable[[], Coroutine[Any, Any, T]], costly: Callable[[T], bool] = bool) -> None:
        self._read = read
        self._costly = costly
        self._making: asyncio.Task[T] | None = None
        self._kept: tuple[float, T] | None = None

    async def get(self) -> T:
        """The reading: made now, or just before.

        Raises:
            Exception: what reading raises, to all who wait for it.
        """
        if self._making is None:
            if self._kept and time.monotonic() < self._kept[0]:
                return self._kept[1]
            self._making = asyncio.create_task(self._read(), context=Context())
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    def _made(self, task: asyncio.Task[T]) -> None:
        self._making = None
        if not task.cancelled() and task.exception() is None and self._costly(task.result()):
            self._kept = time.monotonic() + FRESH_S, task.result()
