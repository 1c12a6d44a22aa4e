"""Who waits for items of a key, in queues: the first of each looks at the store, on behalf of all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from hookline.link import Hold
from hookline.wake import Wakes, pause

_PASSED_ON = 2
"""Waiters that look next when one has found something: twice as many each time, so that many items reach many soon."""


@dataclass(eq=False, slots=True)
class Place:
    """One waiter's place in a queue."""

    _queue: _Queue
    event: asyncio.Event = field(default_factory=asyncio.Event)
    found: bool = False
    hold: Hold | None = None

    @property
    def first(self) -> bool:
        """Whether it looks for the others."""
        return self._queue.is_first(self)

    def wake(self, *, released: bool) -> bool:
        """Let it look -> whether it was not about to. While the store holds its claim back, that comes first."""
        about_to = self.event.is_set() and not self.hold
        self.event.set()
        if self.hold and released:
            self.hold.end()
        return not about_to

    async def pause(self, left: float, look_after: float) -> None:
        """Wait until it is time to look: at most ``left`` seconds, the first ``look_after``."""
        await pause(self.event, min(left, look_after) if self.first else left)


class _Queue:
    """Those who wait for the same, in order. As a listener of the wake messages it wakes the first."""

    def __init__(self, wakes: Wakes) -> None:
        self._wakes = wakes
        self._places: dict[Place, None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def is_first(self, place: Place) -> bool:
        return next(iter(self._places)) is place

    def join(self) -> Place:
        place = Place(self)
        self._places[place] = None
        return place

    def leave(self, place: Place) -> None:
        """Somebody else looks in its stead: more than one where it has found something."""
        watched = self.is_first(place) or place.event.is_set()
        del self._places[place]
        if place.found or watched:
            self.set(_PASSED_ON if place.found else 1)

    def set(self, count: int = 1) -> None:
        """Let so many look that are not about to; or all go, before the process stops."""
        released = self._wakes.released
        for place in self._places:
            if count == 0 and not released:
                break
            count -= place.wake(released=released)


class Waiters:
    """All queues of one process, by key and by what may be taken. However many wait, one of each asks the store."""

    def __init__(self, wakes: Wakes) -> None:
        self._wakes = wakes
        self._queues: dict[tuple[str, bytes], _Queue] = {}

    def waiting(self, key: str) -> int:
        """How many wait for items of a key."""
        return sum(len(queue) for (name, _), queue in self._queues.items() if name == key)

    @contextlib.asynccontextmanager
    async def place(self, key: str, what: bytes) -> AsyncGenerator[Place, None]:
        """A place in the queue of those who want the same. Look first, then wait; say if something was found."""
        await self._wakes.subscribe()
        queue = self._queues.get((key, what))
        if queue is None:
            queue = self._queues[key, what] = _Queue(self._wakes)
            self._wakes.add(f"ready:{key}", queue)
        place = queue.join()
        try:
            yield place
        finally:
            queue.leave(place)
            if not queue:
                self._wakes.discard(f"ready:{key}", queue)
                del self._queues[key, what]
