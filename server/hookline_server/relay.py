"""The relay: reads the outbox, posts webhooks, and keeps what fails as items that are claimed again later.

Every event is delivered at least once: it leaves the outbox only after each of its webhooks was answered with 2xx,
or was written as an item of its endpoint's lane. A lane is a key; retries, dead letters and redriving are the
engine's own claims. A slow endpoint fills its own lane and delays nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from hookline import Call, Datastore, Item, codec, trace
from hookline.figures import Family
from hookline.wake import pause
from hookline_server.egress import Answer, Egress
from hookline_server.event import DELIVERIES, Delivery, Target, from_lane, from_outbox
from hookline_server.logs import EVENT
from hookline_server.role import Surviving
from hookline_server.signature import sign

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between looks at an outbox whose wake message was lost."""
GONE = 410
"""The receiver wants no more of this: no attempt follows."""

_IN_FLIGHT = Family("gauge", "hookline_deliveries_in_flight", "Webhooks being posted now", ("namespace",))
_ATTEMPTS = Family(
    "counter",
    "hookline_delivery_attempts",
    "Attempts by outcome: the class of the status such as 2xx, or why there is none, such as timeout",
    ("namespace", "outcome"),
)
_DURATION = Family("histogram", "hookline_delivery_duration_seconds", "Attempts, from lookup to answer", ("namespace",))


class Relay:
    """One relay. ``consumer`` is its stable name: restarted under it, it goes on with what it had taken.

    ``grace`` is how long it waits, in seconds, for the webhooks in flight when it is stopped.
    """

    def __init__(self, datastore: Datastore, egress: Egress, consumer: str, *, grace: float = 5.0) -> None:
        self._datastore = datastore
        self._egress = egress
        self._consumer = consumer
        self._grace = grace
        self._settings = datastore.settings
        self._secret = datastore.secrets.derive(f"webhook-signing:{self._settings.namespace}")
        # A delivery ends within its timeout; what is idle for longer was left by a relay that is gone.
        self._idle_ms = round(self._settings.delivery_timeout * 2000) + 5000
        self._slots = asyncio.Semaphore(self._settings.relay_concurrency)
        self._busy: defaultdict[str, int] = defaultdict(int)
        self._draining: set[str] = set()
        self._failing: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Relay until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for partition in range(self._datastore.calls.partitions):
                    group.create_task(self._relay(partition))
                group.create_task(self._retry())
        finally:
            # What is cut off between POST and acknowledgement is delivered twice.
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._grace)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # From the outbox

    async def _relay(self, partition: int) -> None:
        own: bytes | None = b"0"
        async with self._datastore.wakes.listening("outbox") as woken:
            while True:
                taken = None
                with Surviving(log, "a look at the outbox"):
                    taken = await self._take(partition, own)
                if taken is None:
                    await asyncio.sleep(POLL)
                elif own:
                    await asyncio.gather(*(self._deliver_entry(partition, *entry) for entry in taken))
                    own = taken[-1][0] if taken else None
                elif taken:
                    for entry in taken:
                        self._spawn(self._deliver_entry(partition, *entry))
                else:
                    await pause(woken, POLL)

    async def _take(self, partition: int, own: bytes | None) -> list[tuple[bytes, list[bytes]]]:
        """Take as many events as there are free slots, at least one: each holds a slot until it is done."""
        await self._slots.acquire()
        room = 1
        while room < self._settings.relay_concurrency and not self._slots.locked():
            await self._slots.acquire()
            room += 1
        taken: list[tuple[bytes, list[bytes]]] = []
        try:
            request = {"consumer": self._consumer, "limit": room, "idle_ms": self._idle_ms, "own": own}
            answer = await self._datastore.connection.read("relay_take", partition, request)
            if answer[b"created"]:
                log.debug("the outbox of partition %d had no consumer group: made one that begins at 0", partition)
            if answer[b"corrupt"]:
                log.error("the outbox of partition %d is not a stream", partition)
            taken = [(entry[0], entry[1]) for entry in answer[b"events"]]
            return taken
        finally:
            for _ in range(room - len(taken)):
                self._slots.release()

    async def _deliver_entry(self, partition: int, stream_id: bytes, flat: list[bytes]) -> None:
        try:
            # What fails stays pending, and is taken again once it has been idle long enough.
            with Surviving(log, f"the delivery of event {stream_id.decode()}"):
                entry = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
                deliveries = from_outbox(self._settings.namespace, partition, stream_id.decode(), entry)
                EVENT.set(deliveries[0].webhook_id)
                with trace.span("event", "consumer", deliveries[0].trace, {"hookline.event": deliveries[0].webhook_id}):
                    await asyncio.gather(*(self._first(delivery) for delivery in deliveries))
                    await self._datastore.connection.change("relay_done", partition, {"ids": [stream_id]})
        finally:
            self._slots.release()

    async def _first(self, delivery: Delivery) -> None:
        """The first attempt, straight from the outbox; a full lane gets the delivery without one."""
        lane = delivery.target.lane
        if self._busy[lane] >= self._settings.lane_concurrency:
            await self._keep(delivery, attempts=0, delay=0.0, error=None)
            return
        answer = await self._post(delivery)
        self._note(delivery.target, answer)
        if not answer.ok:
            await self._keep(
                delivery, attempts=1, delay=self._delay(1), error=_explain(answer), final=_is_final(answer)
            )

    async def _keep(
        self, delivery: Delivery, *, attempts: int, delay: float, error: str | None, final: bool = False
    ) -> None:
        """Write a delivery into its lane; its webhook-id names it, so that a second time changes nothing."""
        lane, sort_field = delivery.target.lane, delivery.webhook_id
        final = final or attempts > len(self._settings.delivery_schedule)
        values: dict[str, Any] = {
            "s": "failed" if final else "scheduled" if delay else "not_started",
            "c": codec.pack(delivery.content()),
            "t": delivery.sealed(),
            "a": str(attempts),
            "ma": str(len(self._settings.delivery_schedule) + 1),
        }
        if delay and not final:
            values["sd"] = f"+{round(delay * 1000)}"
        if error:
            values["le"] = error
        request = {"key": lane, "sort": sort_field, "set": values, "triggers": "off"}
        partition = self._datastore.calls.partition(lane, sort_field)
        (outcome,) = await self._datastore.run([Call("create_drain", partition, lane, sort_field, request)])
        if not outcome.ok and outcome.word != "exists":
            raise outcome.error()

    # From the lanes

    async def _retry(self) -> None:
        while True:
            with Surviving(log, "a look for deliveries to retry"):
                for lane in await self._due_lanes():
                    if lane not in self._draining:
                        self._draining.add(lane)
                        self._spawn(self._drain(lane))
            await asyncio.sleep(self._settings.tick)

    async def _due_lanes(self) -> set[str]:
        stats = await self._datastore.stats(DELIVERIES)
        return {
            row.key
            for row in stats.rows
            if row.first is not None
            and (row.status == "not_started" or (row.status in ("scheduled", "started") and row.first <= stats.now_ms))
        }

    async def _drain(self, lane: str) -> None:
        """Attempt what is due in one lane, as many at once as the lane may have."""
        with Surviving(log, f"lane {lane}"):
            while room := self._settings.lane_concurrency - self._busy[lane]:
                claimed = await self._datastore.claim(
                    lane,
                    worker_id=self._consumer,
                    limit=max(1, room),
                    lock_for=self._idle_ms / 1000,
                    triggers="off",
                    reserved=True,
                )
                if not claimed.items:
                    break
                await asyncio.gather(*(self._again(item) for item in claimed.items))
        self._draining.discard(lane)

    async def _again(self, item: Item) -> None:
        EVENT.set(item.sort_field)
        delivery = from_lane(item.content, item.sealed_triggers)
        answer = await self._post(delivery)
        calls, token = self._datastore.calls, item.token or ""
        self._note(delivery.target, answer)
        if answer.ok:
            call = calls.delete(item.key, item.sort_field, token=token, triggers=False, reserved=True)
        elif _is_final(answer):
            metadata = {"status": "failed", "last_error": _explain(answer)}
            call = calls.update(
                item.key, item.sort_field, metadata=metadata, token=token, triggers=False, reserved=True
            )
        else:
            call = calls.fail(
                item.key,
                item.sort_field,
                token,
                error=_explain(answer),
                retry_after=self._delay(item.metadata["attempts"]),
                triggers="off",
                reserved=True,
            )
        (outcome,) = await self._datastore.run([call])
        if not outcome.ok:
            log.warning("delivery %s was settled by somebody else: %s", item.sort_field, outcome.word)

    # Both

    async def _post(self, delivery: Delivery) -> Answer:
        lane, namespace = delivery.target.lane, self._settings.namespace
        self._busy[lane] += 1
        _IN_FLIGHT.add(namespace)
        try:
            attributes = {"http.request.method": "POST", "hookline.event": delivery.webhook_id}
            with trace.span("POST", "client", trace.PARENT.get() or delivery.trace, attributes) as note:
                headers = self._headers(delivery, body := delivery.body())
                answer = await self._egress.post(delivery.target.url, body, headers, secrets=[delivery.token])
                note(_described(answer))
        except ValueError as error:
            _ATTEMPTS.add(namespace, "unopenable")
            return Answer(None, str(error), None, 0, "")
        finally:
            _IN_FLIGHT.add(namespace, amount=-1)
            self._busy[lane] -= 1
            if not self._busy[lane]:
                del self._busy[lane]
        _ATTEMPTS.add(namespace, answer.outcome)
        _DURATION.observe(answer.duration_ms / 1000, namespace)
        return answer

    def _note(self, target: Target, answer: Answer) -> None:
        """Say once that an endpoint fails, for somebody waits for what is kept; and once that it answers again."""
        if not answer.ok and target.lane not in self._failing:
            self._failing.add(target.lane)
            reason = answer.error or f"HTTP {answer.status}"
            log.warning("webhooks to %s fail (%s): kept in %s, to be retried", target.origin, reason, target.lane)
        elif answer.ok and target.lane in self._failing:
            self._failing.discard(target.lane)
            log.info("webhooks to %s are taken again", target.origin)

    def _headers(self, delivery: Delivery, body: bytes) -> dict[str, str]:
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, delivery.webhook_id, timestamp, body),
        }
        api_key = self._api_key(delivery.target, delivery.source_key, delivery.source_sort_field)
        if api_key:
            headers["X-API-KEY"] = api_key
        if parent := trace.PARENT.get():
            headers["traceparent"] = parent
        return headers

    def _api_key(self, target: Target, key: str, sort_field: str) -> str:
        if not target.sealed_key:
            return ""
        owner = codec.identity(self._settings.namespace, key, "" if target.of_key else sort_field)
        return self._datastore.secrets.open(target.sealed_key, owner)

    def _delay(self, attempts: int) -> float:
        """Seconds until the next attempt, after so many; jittered, so that what failed together does not return so."""
        schedule = self._settings.delivery_schedule
        wait = schedule[min(attempts, len(schedule)) - 1] if schedule else 0.0
        return wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _described(answer: Answer) -> trace.Attributes:
    """What a span says of an attempt."""
    told: dict[str, str | int] = {} if answer.status is None else {"http.response.status_code": answer.status}
    return told if answer.ok else {**told, "error.type": answer.error or str(answer.status)}


def _is_final(answer: Answer) -> bool:
    return answer.status == GONE


def _explain(answer: Answer) -> str:
    told = answer.error or f"HTTP {answer.status}"
    return f"{told}: {answer.excerpt}" if answer.excerpt else told
