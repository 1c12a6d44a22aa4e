"""The relay: reads the outbox, posts webhooks, and keeps what fails as items that are claimed again later.

Every event is delivered at least once: it leaves the outbox only after each of its webhooks was answered with 2xx,
or was written as an item of its endpoint's lane. A lane is a key; retries, dead letters and redriving are the
engine's own claims. A slow endpoint fills its own lane and delays nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from itertools import islice
from typing import Any

from hookline import Datastore, Item, trace
from hookline.errors import HooklineError
from hookline.upkeep import OUTLOOK_S
from hookline.wake import pause
from hookline_server import delivery as kept
from hookline_server.delivery import Deliveries, attempt_of, explain
from hookline_server.egress import ABORT, DISABLE, Answer, Egress
from hookline_server.endpoint import CHANGED, DELIVERIES, Endpoints
from hookline_server.event import Delivery, from_outbox
from hookline_server.health import GONE, Health
from hookline_server.lane import Lane, Lanes
from hookline_server.logs import EVENT
from hookline_server.loopguard import LoopGuard
from hookline_server.retry import delay_after
from hookline_server.role import Surviving
from hookline_server.sender import Sender
from hookline_server.slots import Origins, Slot, Slots
from hookline_server.turns import Turns

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between looks for events whose wake message was lost, and for those that other relays leave."""
DEAD_AFTER = 5.0
"""Seconds after which a relay that was not heard of is taken over from."""
SCAN = 30.0
"""Seconds between looks at all lanes, for what was due while nobody was told, and at an outbox in which nothing is."""
TOGETHER = 0.02
"""Seconds that an event which is done waits for others, to leave the outbox together with them."""
DONE_MAX = 500
"""Events that leave it in one call."""

OUT_OF_TURN = "waits for the event before it: its trigger is ordered"

_Events = list[tuple[Slot, bytes, list[Delivery]]]


class Relay:
    """One relay. ``consumer`` is its stable name: restarted under it, it goes on with what it had taken.

    ``grace`` is how long it waits, in seconds, for the webhooks in flight when it is stopped.
    """

    def __init__(self, datastore: Datastore, egress: Egress, consumer: str, *, grace: float = 5.0) -> None:
        self._datastore = datastore
        self._consumer = consumer
        self._grace = grace
        self._settings = datastore.settings
        self._sender = Sender(datastore, egress)
        self._deliveries = Deliveries(datastore)
        self._turns = Turns(datastore)
        self._health = Health(Endpoints(datastore))
        self.lanes = Lanes(Endpoints(datastore), self._settings.lane_concurrency)
        self._loops = LoopGuard(self._settings.loop_limit)
        # A delivery ends within its timeout; what is held for longer was given up by whoever holds it.
        self._idle_ms = round(self._settings.delivery_timeout * 2000) + 5000
        self.fresh = Slots(self._settings.relay_concurrency)
        self.again = Slots(self._settings.relay_concurrency)
        self._origins = Origins()
        self._done: list[dict[bytes, None]] = [{} for _ in range(datastore.calls.partitions)]
        """By partition the events that are to leave the outbox, in their order."""
        self._woken: dict[int, asyncio.Event] = {}
        """By partition what wakes who takes from its outbox."""
        self._stops = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Relay until cancelled; cancelled once more, wait for no webhook."""
        try:
            async with asyncio.TaskGroup() as group:
                for partition in range(self._datastore.calls.partitions):
                    group.create_task(self._relay(partition))
                group.create_task(self._watch())
                group.create_task(self._retry())
        finally:
            self._stops = True
            # What is cut off between POST and acknowledgement is delivered twice.
            until = time.monotonic() + self._grace
            try:
                while self._tasks and (left := until - time.monotonic()) > 0:
                    await asyncio.wait(self._tasks, timeout=left)  # what ends may leave something to acknowledge
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    # From the outbox

    async def _watch(self) -> None:
        """Have those outboxes looked at in which there is something, whoever else was told of it."""
        while True:
            await asyncio.sleep(POLL)
            await asyncio.gather(*map(self._wake_filled, self._datastore.upkeep.parts()))

    async def _wake_filled(self, part: Sequence[int]) -> None:
        """Wake who takes from the outboxes of one node; of all of them, where it does not say what is in which."""
        filled = part
        with Surviving(log, "a look at the outboxes"), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OUTLOOK_S):
                outlooks = await self._datastore.upkeep.outlook(part)
            filled = [partition for partition in part if outlooks[partition].events]
        for partition in filled:
            if partition in self._woken:
                self._woken[partition].set()

    async def _relay(self, partition: int) -> None:
        own: bytes | None = b"0"
        full = False
        looked_at = time.monotonic()
        async with self._datastore.wakes.listening("outbox", partition=partition) as woken:
            self._woken[partition] = woken
            while True:
                taken = None
                now = time.monotonic()
                look = now - looked_at > POLL / 2  # it is woken every so often
                looked_at = now if look else looked_at
                with Surviving(log, "a look at the outbox"):
                    taken, full = await self._take(partition, own, look=look, many=full)
                if taken is None:
                    await asyncio.sleep(POLL)
                    continue
                with Surviving(log, "the endpoints of new events"):
                    await self._begin(partition, taken)
                if own and (taken or not full):  # else there was no slot for what it has still
                    own = taken[-1][1] if taken else None
                elif not taken and not full:
                    await pause(woken, SCAN)

    async def _take(
        self, partition: int, own: bytes | None, *, look: bool, many: bool
    ) -> tuple[list[tuple[Slot, bytes, list[bytes]]], bool]:
        """Take as many events as there are free slots: each holds a slot until it is done.

        With ``many`` they are taken in batches, as it costs the store more to be asked than to give -> the events, and
        whether there may be more.
        """
        room = await self.fresh.reserve(self._settings.relay_concurrency, POLL, many=many)
        request = {
            "consumer": self._consumer,
            "limit": room,
            "own": own,
            "look": look,
            "idle_ms": self._idle_ms,
            "dead_ms": round(DEAD_AFTER * 1000),
        }
        taken: list[tuple[Slot, bytes, list[bytes]]] = []
        try:
            answer = await self._datastore.connection.read("relay_take", partition, request)
            taken = [(self.fresh.take(), *entry) for entry in answer[b"events"]]
        finally:
            self.fresh.give_back(room - len(taken))
        if answer[b"created"]:
            log.info("the outbox of partition %d had no consumer group: made one that begins at 0", partition)
        if answer[b"corrupt"]:
            log.error("the outbox of partition %d is not a stream", partition)
        for name in answer[b"gone"]:
            log.warning("relay %s is gone: its events are taken over", name.decode(errors="replace"))
        return taken, len(taken) == room

    async def _begin(self, partition: int, taken: list[tuple[Slot, bytes, list[bytes]]]) -> None:
        """Deliver what was taken, once what is stored of its endpoints is known."""
        events: _Events = []
        for slot, stream_id, flat in taken:
            if stream_id in self._done[partition]:
                slot.release()  # it is idle since it cannot be acknowledged yet
                continue
            # What fails stays pending, and is taken again once it has been idle long enough.
            with Surviving(log, f"the reading of event {stream_id.decode()}"):
                entry = dict(zip(flat[::2], flat[1::2], strict=True))
                deliveries = from_outbox(self._settings.namespace, partition, stream_id.decode(), entry)
                events.append((slot, stream_id, deliveries))
                continue
            slot.release()
        known = False
        try:
            # One endpoint that cannot be read holds up no event but its own: then each reads those that it has.
            with contextlib.suppress(HooklineError):
                await self.lanes.refresh({each.target.endpoint_id for *_, deliveries in events for each in deliveries})
                known = True
        except BaseException:
            for slot, *_ in events:
                slot.release()
            raise
        for slot, stream_id, deliveries in events:
            self._spawn(self._deliver(partition, slot, stream_id, deliveries, known=known))

    async def _deliver(
        self, partition: int, slot: Slot, stream_id: bytes, deliveries: list[Delivery], *, known: bool
    ) -> None:
        try:
            with Surviving(log, f"the delivery of event {stream_id.decode()}"):
                if not known:
                    await self.lanes.refresh({each.target.endpoint_id for each in deliveries})
                first, *others = deliveries
                EVENT.set(first.webhook_id)
                with trace.span("event", "consumer", first.trace, {"hookline.event": first.webhook_id}):
                    if others:
                        # Where one fails, the others still hold the slot until they end.
                        for failure in await asyncio.gather(*map(self._first, deliveries), return_exceptions=True):
                            if failure is not None:
                                raise failure
                    else:
                        await self._first(first)
                self._end(partition, stream_id)
        finally:
            slot.release()

    def _end(self, partition: int, stream_id: bytes) -> None:
        """An event is done: it leaves the outbox a moment later, together with others."""
        self._done[partition][stream_id] = None
        if len(self._done[partition]) == 1:
            self._spawn(self._acknowledge(partition))

    async def _acknowledge(self, partition: int) -> None:
        """Take what is done from the outbox. Else it would be delivered again, so this is tried until it succeeds."""
        done = self._done[partition]
        await asyncio.sleep(TOGETHER)
        while done:
            ids = list(islice(done, DONE_MAX))
            with Surviving(log, "the acknowledging of events"):
                await self._datastore.connection.change("relay_done", partition, {"ids": ids})
                for stream_id in ids:
                    del done[stream_id]
                continue
            if self._stops:
                done.clear()
            else:
                await asyncio.sleep(POLL)

    async def _first(self, delivery: Delivery) -> None:
        """The first attempt, straight from the outbox; a lane without room gets the delivery without one."""
        lane = self.lanes.get(delivery.target.endpoint_id)
        now = time.time()
        slowed, first = self._loops.wait(delivery, now)
        if slowed:
            if first:
                name, origin = f"{delivery.source_key}/{delivery.source_sort_field}", delivery.target.origin
                log.warning("item %s calls %s again and again, as in a loop: its webhooks are slowed", name, origin)
            await self._deliveries.keep(lane, delivery, delay=slowed, error="slowed: its item calls this URL in a loop")
            self._look(lane, now + slowed)
            return
        if delivery.target.options.ordered and (wait := await self._turns.wait(delivery)):
            await self._deliveries.keep(lane, delivery, delay=wait, error=OUT_OF_TURN)
            await self._held(lane, delivery, wait)
            return
        lane.origin = lane.origin or delivery.target.origin
        slow = self._is_slow(lane)
        if slow or not await self.lanes.enter(lane):
            await self._deliveries.keep(lane, delivery)
            self._look(lane, time.time() + POLL if slow else lane.opens_at(time.time()))
            return
        answer, begun_ms = await self._attempt(lane, delivery)
        if answer.ok:
            if delivery.record:
                await self._deliveries.keep(lane, delivery, [attempt_of(answer, begun_ms)], status="completed")
            if delivery.target.options.ordered:
                await self._pass_on(delivery)
            return
        attempt = attempt_of(answer, begun_ms)
        delay = self._delay(delivery, answer, 1)
        status = "failed" if delay is None else None
        await self._deliveries.keep(lane, delivery, [attempt], delay=delay or 0.0, error=explain(answer), status=status)
        if delay is None:
            await self._pass_on(delivery)
        else:
            self._look(lane, time.time() + delay)

    # From the lanes

    async def _retry(self) -> None:
        scanned_at = -SCAN
        self._datastore.wakes.watch(f"ready:{DELIVERIES}", self.lanes.hear)
        self._datastore.wakes.watch(CHANGED, self.lanes.hear_of_change)
        try:
            while True:
                with Surviving(log, "a look for deliveries to retry"):
                    if self.lanes.missed or time.monotonic() - scanned_at >= SCAN:
                        self.lanes.missed, scanned_at = False, time.monotonic()
                        await self._scan()
                    due = [lane for lane in self.lanes.due() if not self._is_held_up(lane)]
                    await self.lanes.refresh({lane.endpoint.id for lane in due})
                    for lane in due:
                        self._look_into(lane)
                await pause(self.lanes.woken, self._settings.tick)
        finally:
            self._datastore.wakes.unwatch(self.lanes.hear)
            self._datastore.wakes.unwatch(self.lanes.hear_of_change)

    def _is_held_up(self, lane: Lane) -> bool:
        """Whether nothing is to begin in a lane now, as its host is slow: then it is looked at later."""
        if not self._is_slow(lane):
            return False
        lane.look_at = time.time() + POLL
        return True

    def _look(self, lane: Lane, at: float) -> None:
        """Look at a lane then, also if it was forgotten while something was written into it."""
        self.lanes.get(lane.endpoint.id).look(at)

    def _is_slow(self, lane: Lane) -> bool:
        return self._origins.is_slow(lane.counted_as)

    def _look_into(self, lane: Lane) -> None:
        now = time.time()
        if lane.room(now) or lane.busy:
            lane.draining, lane.look_at = True, None
            self._spawn(self._drain(lane))
        else:
            lane.look_at = lane.opens_at(now)

    async def _scan(self) -> None:
        """Note the lanes in which something is due, or will be before the next scan."""
        stats = await self._datastore.stats(DELIVERIES)
        now = time.time()
        for row in stats.rows:
            if row.status == "not_started" and row.count:
                wait = 0.0
            elif row.status in ("scheduled", "started") and row.first is not None:
                wait = max(0.0, (row.first - stats.now_ms) / 1000)
            else:
                continue
            if wait < SCAN:
                self.lanes.get(row.key.removeprefix(DELIVERIES)).look(now + wait)

    async def _drain(self, lane: Lane) -> None:
        """Attempt what is due in one lane."""
        try:
            with Surviving(log, f"lane {lane.key}"):
                await self._empty(lane)
                return
            lane.look(time.time() + POLL)
        finally:
            lane.draining = False

    async def _empty(self, lane: Lane) -> None:
        """Attempt what is due, as many at once as the lane may have, until nothing is due or it has no room."""
        while True:
            lane.freed.clear()
            room = lane.room(time.time())
            if not room and not lane.busy:
                lane.look(lane.opens_at(time.time()))
                return
            if not room:
                await pause(lane.freed, POLL)
                await self.lanes.refresh([lane.endpoint.id])
            elif not await self._claim(lane, room):
                return

    async def _claim(self, lane: Lane, room: int) -> bool:
        """Begin attempts at up to so many deliveries of a lane. False if none is due now."""
        free = await self.again.reserve(room, POLL)
        if self._is_held_up(lane):
            self.again.give_back(free)
            return False
        # New events have begun since in the same room, and would go on to while the store is asked.
        now = time.time()
        begun = min(free, lane.room(now))
        self.again.give_back(free - begun)
        if not begun:
            return True
        for _ in range(begun):
            lane.begin(now)
        items: list[Item] = []
        try:
            claimed = await self._deliveries.claim(lane.key, self._consumer, begun)
            items = claimed.items
        finally:
            for _ in range(begun - len(items)):
                lane.withdraw()
            self.again.give_back(begun - len(items))
        for item in items:
            self._spawn(self._again(lane, self.again.take(), item))
        if not items and claimed.next_ms is not None:
            lane.look(claimed.next_ms / 1000)
        return bool(items)

    async def _again(self, lane: Lane, slot: Slot, item: Item) -> None:
        try:
            EVENT.set(item.sort_field)
            lane.look((item.locked_until_ms or 0) / 1000)  # should it fail, it can be claimed again then
            with Surviving(log, f"delivery {item.sort_field}"):
                try:
                    delivery = kept.read(item)
                except Exception:
                    lane.withdraw()
                    raise
                if delivery.target.options.ordered and await self._is_early(lane, item, delivery):
                    return
                answer, begun_ms = await self._attempt(lane, delivery)
                attempt, known = attempt_of(answer, begun_ms), item.metadata
                delay = self._delay(delivery, answer, known["attempts"], known["max_attempts"])
                outcome = await self._deliveries.settle(item, attempt, answer, delay=delay)
                if not outcome.ok:
                    log.warning("delivery %s was settled by somebody else: %s", item.sort_field, outcome.word)
                elif delay is None:
                    await self._pass_on(delivery)
                else:
                    lane.look(time.time() + delay)
        finally:
            slot.release()

    def _delay(self, delivery: Delivery, answer: Answer, attempts: int, most: int | None = None) -> float | None:
        """Seconds until the next attempt, after so many; None where none follows.

        One that is kept has as many as it had when it was written, whatever the server's schedule is by now.
        """
        schedule = self._deliveries.schedule(delivery)
        refused = answer.status == GONE or answer.wish in (DISABLE, ABORT)
        if answer.ok or refused or not schedule or attempts >= (most or len(schedule) + 1):
            return None
        return delay_after(attempts, schedule)

    async def _is_early(self, lane: Lane, item: Item, delivery: Delivery) -> bool:
        """Give back an ordered delivery that was claimed before its turn -> whether it was."""
        wait: float | None = None
        try:
            wait = await self._turns.wait(delivery)
        finally:
            if wait != 0.0:
                lane.withdraw()
        if wait:
            await self._deliveries.hold(item, wait)
            await self._held(lane, delivery, wait)
        return wait > 0

    # Both

    async def _held(self, lane: Lane, delivery: Delivery, wait: float) -> None:
        """An ordered delivery waits in its lane; the one before may have ended while there was nothing to wake."""
        self._look(lane, time.time() + wait)
        if not await self._turns.wait(delivery):
            await self._turns.wake(delivery, delivery.webhook_id)

    async def _pass_on(self, delivery: Delivery) -> None:
        """A delivery has ended: where its trigger is ordered, it is the turn of the next."""
        if delivery.target.options.ordered:
            with Surviving(log, f"the turn behind {delivery.webhook_id}"):
                await self._turns.end(delivery)

    async def _attempt(self, lane: Lane, delivery: Delivery) -> tuple[Answer, int]:
        """One attempt, which has begun in its lane, and what it says of the endpoint.

        Returns the answer, and when it began, in ms since 1970.
        """
        lane.origin = lane.origin or delivery.target.origin
        now, post = time.time(), self._origins.begin(lane.counted_as)
        try:
            answer = await self._sender.post(delivery)
        except BaseException:
            lane.withdraw()
            raise
        finally:
            self._origins.end(post)
        lane.end(answer.duration_ms / 1000)
        if not (answer.ok and self._health.is_well(lane)):
            with Surviving(log, f"what is stored of endpoint {lane.endpoint.id}"):
                await self._health.note(lane, delivery.target, answer)
        return answer, round(now * 1000)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
