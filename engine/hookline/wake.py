"""Waiting for the store's word: one subscription per process, however many wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator

from hookline.connection import Connection
from hookline.errors import Unavailable

_RECONNECT = 0.5


class Wakes:
    """Turns wake messages into events. A lost message is covered by the poll interval of whoever waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiters: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()
        self.released = False

    @contextlib.asynccontextmanager
    async def listening(self, topic: str) -> AsyncGenerator[asyncio.Event, None]:
        """An event that is set at each message of the topic: ``ready:<key>`` or ``outbox``. Listen, look, then wait."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._subscribed.wait(), _RECONNECT)
        event = asyncio.Event()
        self._waiters[topic].add(event)
        try:
            yield event
        finally:
            self._waiters[topic].discard(event)
            if not self._waiters[topic]:
                del self._waiters[topic]

    def release(self) -> None:
        """Let everybody who waits go, for the process is about to stop; from now on nobody waits."""
        self.released = True
        for events in self._waiters.values():
            for event in events:
                event.set()

    async def close(self) -> None:
        """End the subscription."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with self._connection.wakes() as messages:
                    self._subscribed.set()
                    async for topic in messages:
                        for event in self._waiters.get(topic, ()):
                            event.set()
            except Unavailable:
                self._subscribed.clear()
                await asyncio.sleep(_RECONNECT)


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long; then clear it."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    event.clear()
