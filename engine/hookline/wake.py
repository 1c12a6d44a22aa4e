"""Waiting for the store's word: one subscription per process, however many wait."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from typing import Protocol

from hookline.connection import Connection
from hookline.errors import HooklineError

HEARD_MAX = 10_000
"""Messages that are remembered at one time."""
_PATIENCE = 0.5
"""Seconds that whoever listens waits at most until messages arrive: without them everybody still looks now and then."""


class Listener(Protocol):
    """What is told of a message, such as an event."""

    def set(self) -> None:
        """A message has come."""


class Wakes:
    """Turns messages of a channel into events. A lost one is covered by the poll interval of whoever waits.

    With ``idle_ends`` the subscription ends when nobody listens any more: there are many messages on that channel.
    """

    def __init__(self, connection: Connection, channel: Callable[[str], str], *, idle_ends: bool = False) -> None:
        self._connection = connection
        self._channel = channel
        self._idle_ends = idle_ends
        self._listeners: defaultdict[tuple[str, str], set[Listener]] = defaultdict(set)
        """By topic, and channel; of every channel where that is empty."""
        self._watchers: dict[Callable[[str | None], None], str] = {}
        self._heard: dict[tuple[str, str], float] = {}
        self._lost = math.inf
        """When (monotonic seconds) messages may have been lost last; infinite while none arrive."""
        self._task: asyncio.Task[None] | None = None
        self._ended: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()
        self.released = False

    @contextlib.asynccontextmanager
    async def listening(self, *topics: str, partition: int | None = None) -> AsyncGenerator[asyncio.Event, None]:
        """An event that is set at each message of the topics: ``ready:<key>``, ``outbox``. Listen, look, then wait.

        With ``partition`` at those that come from there alone.
        """
        event = asyncio.Event()
        # Listed before: so who leaves meanwhile ends no subscription, and this one does if it is cancelled.
        for topic in topics:
            self.add(topic, event, partition)
        try:
            await self.subscribe()
            event.clear()
            yield event
        finally:
            for topic in topics:
                self.discard(topic, event, partition)

    async def subscribe(self) -> None:
        """Wait until messages arrive, but not for long."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._connection.follow(self._channel, self._hear), context=Context())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._subscribed.wait()

    def add(self, topic: str, listener: Listener, partition: int | None = None) -> None:
        """Set the listener at each message of the topic from now on, or at those from one partition."""
        self._listeners[topic, self._channel_of(partition)].add(listener)

    def discard(self, topic: str, listener: Listener, partition: int | None = None) -> None:
        """End what :meth:`add` began."""
        place = topic, self._channel_of(partition)
        self._listeners[place].discard(listener)
        if not self._listeners[place]:
            del self._listeners[place]
        if self._idle_ends:
            self.rest()

    def rest(self) -> None:
        """End the subscription if nobody listens; whoever does begins it again."""
        if not self._listeners and not self._watchers and self._task:
            self._task.cancel()
            self._task, self._ended = None, self._task
            self._subscribed.clear()
            self._lost = math.inf

    async def say(self, topic: str) -> None:
        """Tell all processes of a topic that no script tells of. Best effort, as all messages are."""
        tag = self._connection.tag(0)
        with contextlib.suppress(HooklineError):
            await self._connection.command_on(tag, "SPUBLISH", self._channel(tag), topic)

    def watch(self, prefix: str, hear: Callable[[str | None], None]) -> None:
        """Call ``hear`` with each topic that begins with a prefix, and with None where messages may have been lost.

        It hears nothing before :meth:`subscribe`.
        """
        self._watchers[hear] = prefix

    def unwatch(self, hear: Callable[[str | None], None]) -> None:
        """End what :meth:`watch` began."""
        self._watchers.pop(hear, None)
        if self._idle_ends:
            self.rest()

    def heard(self, topic: str, partition: int) -> float:
        """When (``time.monotonic``) a message of a topic has come last from a partition, or may have been lost."""
        return max(self._lost, self._heard.get((topic, self._channel_of(partition)), 0.0))

    def listeners(self) -> int:
        """How many listen now."""
        return sum(map(len, self._listeners.values()))

    def release(self) -> None:
        """Let everybody who waits go, for the process is about to stop; from now on nobody waits."""
        self.released = True
        self._set_all()

    def _set_all(self) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.set()

    async def close(self) -> None:
        """End the subscription; whoever listens after that begins another."""
        ending, self._task, self._ended = (self._task, self._ended), None, None
        self._subscribed = asyncio.Event()  # of the loop in which that will be
        self._lost = math.inf
        for task in ending:
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _channel_of(self, partition: int | None) -> str:
        return "" if partition is None else self._channel(self._connection.tag(partition))

    def _hear(self, topic: str | None, channel: str) -> None:
        if topic is None or len(self._heard) >= HEARD_MAX:
            self._heard, self._lost = {}, time.monotonic()
        if topic is None:  # Something may have happened while nobody was told.
            self._subscribed.set()
            self._set_all()
        else:
            self._heard[topic, channel] = time.monotonic()
            for place in ((topic, ""), (topic, channel)):
                for listener in self._listeners.get(place, ()):
                    listener.set()
        for hear, prefix in self._watchers.items():
            if topic is None or topic.startswith(prefix):
                hear(topic)


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long; then clear it."""
    # Not wait_for, which up to Python 3.11 forgets that it was cancelled if the event is set at the same moment.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
