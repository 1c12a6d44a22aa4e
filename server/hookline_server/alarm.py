"""An alarm: one timer for many things that each may take the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Alarm(Generic[T]):
    """Calls ``ring`` with each thing that has been watched for ``seconds``, once.

    A timer of the event loop for each thing would cost more than the things that it is for.
    """

    def __init__(self, seconds: float, ring: Callable[[T], None]) -> None:
        self._seconds = seconds
        self._ring = ring
        self._due: dict[T, float] = {}  # in the order in which they are due, as all may take as long
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """How many things are watched."""
        return len(self._due)

    def watch(self, thing: T) -> None:
        """From now on. A thing is watched once at a time."""
        loop = self._loop or asyncio.get_running_loop()
        self._due[thing] = loop.time() + self._seconds
        if self._timer is None:
            self._loop = loop
            self._timer = loop.call_later(self._seconds, self._look)

    def drop(self, thing: T) -> None:
        """No longer, if it was."""
        self._due.pop(thing, None)

    def stop(self) -> None:
        """Watch nothing."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for thing, due in list(self._due.items()):
            if due > loop.time():
                self._timer = loop.call_at(due, self._look)
                return
            # What rang before it may have dropped it.
            if self._due.pop(thing, None) is not None:
                self._ring(thing)
