"""Deliveries that did not succeed at once: items of their endpoint's lane, retried and redriven as any other item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookline import Call, Claimed, Datastore, Item, codec
from hookline.clock import format_time
from hookline.outcome import Outcome
from hookline_server.egress import Answer
from hookline_server.endpoint import Endpoints
from hookline_server.event import Delivery, from_lane
from hookline_server.lane import Lane

ATTEMPTS_KEPT = 20
"""Attempts that a delivery tells of, the latest."""
WAITING = ("not_started", "scheduled", "started")


class Deliveries:
    """The lanes of a datastore, as the relay writes them."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._endpoints = Endpoints(datastore)

    async def keep(
        self,
        lane: Lane,
        delivery: Delivery,
        attempts: Sequence[Mapping[str, Any]] = (),
        *,
        delay: float = 0.0,
        error: str | None = None,
        status: str | None = None,
    ) -> None:
        """Write a delivery into its lane, where it waits for ``delay`` seconds; or with another ``status``.

        Of one that is ``completed`` no more is written than is told of it.

        Its webhook-id names it, so that a second time changes nothing.

        Raises:
            Refused, Unavailable, OutcomeUnknown
        """
        key, sort_field = lane.key, delivery.webhook_id
        await self._prepare(lane, delivery)
        values: dict[str, Any] = {
            "s": status or ("scheduled" if delay else "not_started"),
            "c": codec.pack(delivery.receipt() if status == "completed" else delivery.content()),
            "a": str(len(attempts)),
            "ma": str(len(self.schedule(delivery)) + 1),
        }
        if status != "completed":
            values["t"] = delivery.sealed()
        told = {**delivery.facts(), "attempt_log": list(attempts)}
        values |= {f"m:{name}": codec.pack(value) for name, value in told.items()}
        if delay and not status:
            values["sd"] = f"+{round(delay * 1000)}"
        if error:
            values["le"] = error
        request = {"key": key, "sort": sort_field, "set": values, "triggers": "off"}
        partition = self._datastore.calls.partition(key, sort_field)
        (outcome,) = await self._datastore.run([Call("create_drain", partition, key, sort_field, request)])
        if not outcome.ok and outcome.word != "exists":
            raise outcome.error()

    async def _prepare(self, lane: Lane, delivery: Delivery) -> None:
        """Before the first delivery: list the endpoint, and let its lane know how long to keep what has ended."""
        if lane.prepared:
            return
        settings = self._datastore.settings
        kept = {"completed": settings.deliveries_keep_completed, "failed": settings.deliveries_keep_failed}
        kept["cancelled"] = kept["failed"]
        values = {f"keep:{status}": f"{round(seconds * 1000)} " for status, seconds in kept.items()}
        await self._datastore.change_settings(delivery.target.lane, values)
        await self._endpoints.note(lane.endpoint.id, delivery.target.url, {})
        lane.prepared = True

    def schedule(self, delivery: Delivery) -> Sequence[float]:
        """Seconds between the attempts of a delivery: its trigger's, or the server's."""
        retry = delivery.target.options.retry
        return self._datastore.settings.delivery_schedule if retry is None else [wait / 1000 for wait in retry]

    async def claim(self, lane: str, worker: str, limit: int) -> Claimed:
        """Up to so many deliveries of a lane that are due, each for as long as an attempt can take.

        Raises:
            Refused, Unavailable, OutcomeUnknown
        """
        lock_for = self._datastore.settings.delivery_timeout + 5
        return await self._datastore.claim(
            lane, worker_id=worker, limit=limit, lock_for=lock_for, triggers="off", reserved=True
        )

    async def hold(self, item: Item, delay: float) -> None:
        """Give back a delivery that was claimed before its turn.

        Raises:
            Unavailable, OutcomeUnknown
        """
        calls = self._datastore.calls
        await self._datastore.run(
            [calls.release(item.key, item.sort_field, item.token or "", delay=delay, triggers="off", reserved=True)]
        )

    async def settle(self, item: Item, attempt: Mapping[str, Any], answer: Answer, *, delay: float | None) -> Outcome:
        """Note what came of an attempt at a kept delivery; the next one follows after ``delay`` seconds, or none.

        One that succeeded at its first attempt is gone, unless its key wants it recorded; else it leaves a record
        without its payload.

        Raises:
            Unavailable, OutcomeUnknown
        """
        calls, token = self._datastore.calls, item.token or ""
        log = [*item.metadata.get("attempt_log", ()), attempt][-ATTEMPTS_KEPT:]
        told: dict[str, Any] = {"attempt_log": log}
        if answer.ok and len(log) == 1 and not item.content.get("record"):
            call = calls.delete(item.key, item.sort_field, token=token, triggers=False, reserved=True)
        elif delay is None:
            told |= {"status": "completed"} if answer.ok else {"status": "failed", "last_error": explain(answer)}
            record = {name: value for name, value in item.content.items() if name not in ("payload", "record")}
            rest: dict[str, Any] = {"content": record, "trigger_urls": None} if answer.ok else {}
            call = calls.update(
                item.key, item.sort_field, metadata=told, token=token, triggers=False, reserved=True, **rest
            )
        else:
            call = calls.fail(
                item.key,
                item.sort_field,
                token,
                error=explain(answer),
                retry_after=delay,
                metadata=told,
                triggers="off",
                reserved=True,
            )
        (outcome,) = await self._datastore.run([call])
        return outcome


def read(item: Item) -> Delivery:
    """The delivery that a claimed item of a lane holds."""
    return from_lane(item.content, item.sealed_triggers)


HINTS = {
    "refused_address": "only public addresses are reached, and networks that HOOKLINE_EGRESS_ALLOW names, such as"
    " 127.0.0.0/8; never the port of the API, the store or the metadata services of clouds"
}
"""The error of an answer -> what is to be set where it should be none."""


def attempt_of(answer: Answer, begun_ms: int) -> dict[str, Any]:
    """What is kept of an attempt: when, how it ended, how long each part took in ms, and what the receiver said."""
    told: dict[str, Any] = {"at": format_time(begun_ms), "status": answer.status, "error": answer.error}
    timing = answer.timing
    told["ms"] = {
        "resolve": timing.resolve,
        "connect": timing.connect,
        "firstByte": timing.first_byte,
        "total": answer.duration_ms,
    }
    return told | ({"answer": answer.excerpt} if answer.excerpt else {})


def explain(answer: Answer) -> str:
    """An answer that is no success, in a line."""
    more = HINTS.get(answer.word, answer.excerpt)
    return f"{answer.word}: {more}" if more else answer.word
