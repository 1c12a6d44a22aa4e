"""Lanes: what one relay knows of each endpoint right now, and so how many attempts may begin there."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from hookline_server.alarm import Alarm
from hookline_server.breaker import Breaker
from hookline_server.endpoint import ACTIVE, CHANGED, CLOSED, DELIVERIES, Endpoint, Endpoints, lane_of
from hookline_server.event import origin_of
from hookline_server.retry import ASKED_MAX

FRESH = 1.0
"""Seconds after which what is stored of an endpoint is read again, if it is used."""
SOON = 0.25
"""Seconds that an event waits for room in a lane that is likely to have some by then."""
FORGET = 300.0
"""Seconds after which a lane that nothing happens in may be forgotten: as often, all are looked at for that."""
_HELD_MAX = ASKED_MAX + 60.0
"""Seconds that an endpoint can be held off, by the clocks of servers that are a little apart."""


@dataclass(eq=False, slots=True)
class Lane:
    """One endpoint's lane. Times are seconds since 1970, as they are shared by way of the store.

    ``known_at``, ``told_at`` (of a change by others) and ``used_at``, which nobody else sees, are monotonic.
    ``origin`` is its host, once that is known. ``look_at`` is when something may be due among the deliveries that are
    kept, None if nothing is known of; ``draining`` is whether those are being attempted now: then new events leave them
    half of the lane. ``prepared`` is whether the store is ready for what is kept, ``failing`` whether the log has said
    that the endpoint fails.
    """

    endpoint: Endpoint
    concurrency: int
    breaker: Breaker = field(default_factory=Breaker)
    busy: int = 0
    look_at: float | None = None
    draining: bool = False
    origin: str = ""
    prepared: bool = False
    failing: bool = False
    known_at: float = -math.inf
    told_at: float = -math.inf
    used_at: float = 0.0
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    queue: deque[asyncio.Future[bool]] = field(default_factory=deque)
    """Events that wait for room, which they are told of in turn."""
    pace: float = 0.01
    """Seconds that attempts take, about; a guess at first."""
    _allowance: float = 1.0
    _counted_at: float = 0.0
    _direct: bool = False
    """Whether the latest attempt came straight from the outbox."""

    @property
    def key(self) -> str:
        """The key of its deliveries."""
        return lane_of(self.endpoint.id)

    @property
    def counted_as(self) -> str:
        """Whose late posts its own are counted with: those of its host, unless it has a bound of its own."""
        return self.origin if self.endpoint.concurrency is None else self.endpoint.id

    def know(self, endpoint: Endpoint) -> None:
        """Take over what is stored of the endpoint: where somebody has made it active again, it begins anew."""
        stopped = self.endpoint.status != ACTIVE or self.endpoint.breaker != CLOSED
        if stopped and endpoint.status == ACTIVE and endpoint.breaker == CLOSED:
            self.breaker = Breaker()
        self.endpoint, self.known_at = endpoint, time.monotonic()
        if endpoint.url:
            self.origin = origin_of(endpoint.url)

    def look(self, at: float) -> None:
        """Note that something may be due then."""
        self.look_at = at if self.look_at is None else min(self.look_at, at)

    def room(self, now: float, *, direct: bool = False) -> int:
        """How many attempts may begin now; ``direct`` ones come straight from the outbox."""
        endpoint = self.endpoint
        if not self._is_open(now):
            return 0
        room = self._share(direct=direct) - self.busy
        if room > 0 and endpoint.rate is not None:
            room = 0 if direct and self._yields(now, endpoint.rate) else min(room, self._allowed(now, endpoint.rate))
        return self.breaker.room(now, room) if room > 0 else 0

    def _is_open(self, now: float) -> bool:
        """Whether attempts are wanted. If it seems held off for longer than it can be, a clock was put back."""
        return self.endpoint.status == ACTIVE and not 0 < self.endpoint.retry_at - now <= _HELD_MAX

    def _share(self, *, direct: bool) -> int:
        """How many attempts may be under way at once where one more of this kind is to begin."""
        width = self.endpoint.concurrency or self.concurrency
        return width // 2 if direct and self.draining else width

    def is_quick(self, now: float) -> bool:
        """Whether one more that waits in the queue is likely to have room soon."""
        if not self.busy or self.endpoint.rate or self.breaker.opened:
            return False
        return self._is_open(now) and (len(self.queue) + 1) * self.pace < SOON * self._share(direct=True)

    def give_up(self, turn: asyncio.Future[bool]) -> None:
        """One has waited for too long: others need not wait as well, until attempts end that say otherwise."""
        self.pace = max(self.pace, SOON * self._share(direct=False))
        if not turn.done():
            turn.set_result(False)

    def begin(self, now: float, *, direct: bool = False) -> None:
        """An attempt begins."""
        self.busy += 1
        self._direct = direct
        self.breaker.begin(now)
        if self.endpoint.rate is not None:
            self._allowance -= 1

    def withdraw(self) -> None:
        """What had begun is no attempt, after all."""
        self._allowance += 1
        self.breaker.probing = False
        self.end()

    def end(self, took: float | None = None) -> None:
        """An attempt has ended, after so many seconds."""
        self.busy -= 1
        self.freed.set()
        if took is not None:
            self.pace += (took - self.pace) / 8
        if self.queue:
            self._admit()

    def _admit(self) -> None:
        """Begin an attempt for those that have waited, as far as there is room."""
        now = time.time()
        while self.queue and self.room(now, direct=True):
            turn = self.queue.popleft()
            if not turn.done():
                self.begin(now, direct=True)
                turn.set_result(True)

    def opens_at(self, now: float) -> float:
        """When the lane may have room again, if it is not for attempts under way that it has none."""
        if self.endpoint.status != ACTIVE:
            return now + FRESH
        until = now if self._is_open(now) else self.endpoint.retry_at
        if self.breaker.state(now) == "open":
            until = max(until, self.breaker.until)
        if self.endpoint.rate is not None:
            until = max(until, now + (1 - self._allowance) / self.endpoint.rate)
        return until

    def _yields(self, now: float, rate: float) -> bool:
        """Whether what is kept comes before a new event: by turns, else it would wait for as long as events come."""
        kept = self.draining or (self.look_at is not None and self.look_at < now + 1 / rate)
        return kept and self._direct

    def _allowed(self, now: float, rate: float) -> int:
        """A token bucket that holds what one second brings."""
        self._allowance = min(max(1.0, rate), self._allowance + max(0.0, now - self._counted_at) * rate)
        self._counted_at = now
        return int(self._allowance)


class Lanes:
    """The lanes that this relay has to do with. ``woken`` is set when one of them is worth a look."""

    def __init__(self, endpoints: Endpoints, concurrency: int) -> None:
        self._endpoints = endpoints
        self._concurrency = concurrency
        self._lanes: dict[str, Lane] = {}
        self._tidied_at = time.monotonic()
        self._patience = Alarm[tuple[Lane, asyncio.Future[bool]]](SOON, _give_up)
        self.woken = asyncio.Event()
        self.missed = False
        """Whether messages may have been lost: then all lanes are to be looked at."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def hear(self, topic: str | None) -> None:
        """A wake message, ``ready:<key>``; None where some may have been missed."""
        if topic is None:
            self.missed = True
        else:
            self.get(topic.removeprefix(f"ready:{DELIVERIES}")).look(time.time())
        self.woken.set()

    def hear_of_change(self, topic: str | None) -> None:
        """A wake message: somebody has configured an endpoint."""
        if topic is not None:
            lane = self.get(topic.removeprefix(CHANGED))
            lane.known_at, lane.told_at = -math.inf, time.monotonic()
            lane.look(time.time())
            self.woken.set()

    def get(self, endpoint_id: str) -> Lane:
        """The lane of an endpoint."""
        lane = self._lanes.get(endpoint_id)
        if lane is None:
            lane = self._lanes[endpoint_id] = Lane(Endpoint(endpoint_id), self._concurrency)
        # Whoever asks for it goes on to use it: until then it must not be forgotten.
        lane.used_at = time.monotonic()
        return lane

    async def enter(self, lane: Lane) -> bool:
        """Begin an attempt at an event, if need be in a moment -> False if the lane has no room, nor will have soon.

        To write the event into the lane costs as much as many such moments.
        """
        now = time.time()
        if not lane.queue and lane.room(now, direct=True):
            lane.begin(now, direct=True)
            return True
        if not lane.is_quick(now):
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lane.queue.append(turn)
        self._patience.watch((lane, turn))
        begun = False
        try:
            begun = await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():
                lane.withdraw()
            raise
        finally:
            self._patience.drop((lane, turn))
            if not begun and turn in lane.queue:
                lane.queue.remove(turn)
        return begun

    async def refresh(self, ids: Collection[str]) -> None:
        """Read again what is stored of these endpoints, unless that was done just now.

        Raises:
            Corrupt, Unavailable
        """
        asked = time.monotonic()
        stale = [lane for lane in map(self.get, ids) if asked - lane.known_at > FRESH]
        while stale:
            found = await self._endpoints.find([lane.endpoint.id for lane in stale])
            for lane in stale:
                if lane.known_at <= asked:  # else an answer has said something newer meanwhile
                    lane.know(found.get(lane.endpoint.id) or Endpoint(lane.endpoint.id))
            # Of what was changed meanwhile, that may have been the state before.
            stale, asked = [lane for lane in stale if lane.told_at > asked], time.monotonic()

    def due(self) -> list[Lane]:
        """Those to be looked at now; now and then, those that nothing happens in are forgotten."""
        now = time.time()
        if time.monotonic() - self._tidied_at > FORGET:
            self._tidy()
        return [lane for lane in self if lane.look_at is not None and lane.look_at <= now and not lane.draining]

    def _tidy(self) -> None:
        self._tidied_at = clock = time.monotonic()
        for lane in list(self):
            rests = not lane.busy and lane.look_at is None and not lane.draining
            if rests and clock - lane.used_at > FORGET:
                del self._lanes[lane.endpoint.id]


def _give_up(waiting: tuple[Lane, asyncio.Future[bool]]) -> None:
    lane, turn = waiting
    lane.give_up(turn)
