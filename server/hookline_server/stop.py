"""When a process is to stop, how long that may take, and the work that lasts until then."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any

from hookline.errors import Unavailable

Work = Coroutine[Any, Any, None]
LAST = 1.0
"""The last seconds of a grace, in which what was cut off ends."""


class Stopping(Unavailable):
    """The server stops while a text of commands waits: what follows must not run, as the wait is not at its end."""

    def __init__(self) -> None:
        super().__init__("the server stops, so this waits no longer; it and what follows may be sent again")


class Stop:
    """Asked for by a signal, by whoever started us, or by work that has broken.

    Args:
        grace: seconds that stopping may take in all.
        told: called once, when it is asked for.
    """

    def __init__(self, grace: float, told: Callable[[], None] = lambda: None) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self._grace = grace
        self._told = told
        self._deadline = math.inf

    def on_signals(self) -> None:
        """SIGTERM and Ctrl-C ask, a second Ctrl-C hurries; neither interrupts what is to be done in any case."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.ask)
        loop.add_signal_handler(signal.SIGINT, lambda: self.hurry() if self.asked.is_set() else self.ask())

    def ask(self) -> None:
        """Stop; what is under way may be finished."""
        if not self.asked.is_set():
            self._deadline = asyncio.get_running_loop().time() + max(0.0, self._grace - LAST)
            self.asked.set()
            self._told()

    def hurry(self) -> None:
        """Stop, and cut off what is under way."""
        self.ask()
        self._deadline = min(self._deadline, asyncio.get_running_loop().time())
        self.hurried.set()

    def left(self) -> float:
        """Seconds that what is under way may still take."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def last(self) -> float:
        """Seconds until the grace has passed, also those for what was cut off."""
        return max(0.0, self._deadline + LAST - asyncio.get_running_loop().time())

    async def close(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Close something; it is broken off when the grace has passed, as where the store hangs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.last() if self.asked.is_set() else None):
                await close()

    async def pause(self, seconds: float) -> None:
        """Wait so long, though not beyond the grace."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self.left())):
                await self.hurried.wait()

    async def wait(self, tasks: Collection[asyncio.Task[None]], more: float) -> None:
        """Wait until all have ended, until the grace and ``more`` seconds have passed, or until we are hurried."""
        ended, hurried = asyncio.create_task(asyncio.wait(tasks)), asyncio.create_task(self.hurried.wait())
        await asyncio.wait((ended, hurried), timeout=self.left() + more, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        hurried.cancel()


@contextlib.asynccontextmanager
async def beside(
    stop: Stop, *work: Work, then: Callable[[], None] | None = None
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Work that lasts as long as the block. Where it ends before, the stop is asked for; its error is raised after all.

    ``then`` is called in place of that, such as to hurry where nothing that is under way can be finished any more.
    Where the block ends, what is not done is cancelled.
    """
    tasks = [asyncio.create_task(part) for part in work]
    for task in tasks:
        task.add_done_callback(lambda _: (then or stop.ask)())
    try:
        yield tasks
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=min(LAST, stop.last()))
    for task in ended:
        if not task.cancelled():
            task.result()
