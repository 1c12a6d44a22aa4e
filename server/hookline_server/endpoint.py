"""Endpoints: what is known and wanted of each URL that webhooks go to. One that never failed is not stored at all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hookline import Datastore, Item
from hookline.clock import format_time, parse_time
from hookline.errors import Invalid, NotFound
from hookline.outcome import item_of

ENDPOINTS = "hookline.endpoints"
DELIVERIES = "hookline.deliveries."
"""Keys of the lanes: one per endpoint, with the deliveries that did not succeed at once."""
CHANGED = "endpoint:"
"""What the wake message begins with by which relays learn at once that an endpoint was configured."""
ACTIVE, PAUSED, DISABLED = "active", "paused", "disabled"
CLOSED = "closed"
"""Of a breaker that lets everything pass."""
CONCURRENCY_MAX, RATE_MAX, REASON_MAX = 1000, 100_000, 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as it is stored.

    ``status`` is ``active``, ``paused`` (by hand) or ``disabled`` (by its receiver, or for failing too long); then
    ``reason`` says why, and ``since`` since when, as RFC 3339. ``concurrency`` and ``rate`` (attempts a second, of each
    server) are None for the server's own. ``failing_since`` is when it began to do nothing but fail; ``retry_at``
    until when it asked, or had, to be left alone: both in seconds since 1970.
    """

    id: str
    url: str = ""
    status: str = ACTIVE
    reason: str | None = None
    since: str | None = None
    concurrency: int | None = None
    rate: float | None = None
    failing_since: float | None = None
    retry_at: float = 0.0
    breaker: str = CLOSED

    @classmethod
    def read(cls, item: Item) -> Endpoint:
        """The endpoint that an item holds."""
        known = item.metadata
        failing, retry_at = known.get("failing_since"), known.get("retry_at")
        return cls(
            id=item.sort_field,
            url=item.content["url"],
            status=item.status or ACTIVE,
            reason=known.get("reason"),
            since=known.get("since"),
            concurrency=known.get("concurrency"),
            rate=known.get("rate"),
            failing_since=parse_time(failing) / 1000 if failing else None,
            retry_at=parse_time(retry_at) / 1000 if retry_at else 0.0,
            breaker=known.get("breaker", CLOSED),
        )

    def to_dict(self) -> dict[str, Any]:
        """As it reads over HTTP."""
        return {
            "id": self.id,
            "url": self.url,
            "status": self.status,
            "reason": self.reason,
            "since": self.since,
            "concurrency": self.concurrency,
            "rate": self.rate,
            "failingSince": moment(self.failing_since),
            "retryAt": moment(self.retry_at or None),
            "breaker": self.breaker,
        }


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339; None stays None."""
    return None if seconds is None else format_time(round(seconds * 1000))


def check_status(status: str) -> str:
    """The status, if it is one of an endpoint.

    Raises:
        Invalid: it is not.
    """
    if status in (ACTIVE, PAUSED, DISABLED):
        return status
    raise Invalid.at("/status", f"expected one of {ACTIVE}, {PAUSED}, {DISABLED}")


def lane_of(endpoint_id: str) -> str:
    """The key of an endpoint's deliveries."""
    return DELIVERIES + endpoint_id


class Endpoints:
    """The stored endpoints of a datastore."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    async def find(self, ids: Collection[str]) -> dict[str, Endpoint]:
        """Those of these that are stored, by id.

        Raises:
            Corrupt, Unavailable
        """
        items = await self._datastore.get_many([(ENDPOINTS, each) for each in ids])
        return {item.sort_field: Endpoint.read(item) for item in items if item}

    async def get(self, endpoint_id: str) -> Endpoint:
        """One endpoint.

        Raises:
            NotFound: there is none of this id.
            Invalid, Corrupt, Unavailable
        """
        try:
            return Endpoint.read(await self._datastore.get(ENDPOINTS, endpoint_id))
        except NotFound:
            raise NotFound(
                "no endpoint has this id; POST /v1/endpoints stores one, or a delivery to it that fails or waits"
            ) from None

    async def page(self, where: Mapping[str, Any], limit: int, cursor: str | None) -> tuple[list[Endpoint], str | None]:
        """Some of the stored ones, and the cursor to go on with.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        page = await self._datastore.query(ENDPOINTS, where=where, limit=limit, cursor=cursor)
        return [Endpoint.read(item) for item in page.items], page.cursor

    async def note(self, endpoint_id: str, url: str, changes: Mapping[str, Any]) -> None:
        """Store what the relay has learnt of an endpoint: metadata, None removes. It is created where it is missing.

        Raises:
            Corrupt, Unavailable, OutcomeUnknown
        """
        calls = self._datastore.calls
        update = calls.update(ENDPOINTS, endpoint_id, metadata=dict(changes), triggers=False, reserved=True)
        for _ in range(2):
            if changes:
                (outcome,) = await self._datastore.run([update])
                if outcome.ok:
                    return
            known = {name: value for name, value in changes.items() if value is not None}
            create = calls.create(
                ENDPOINTS, endpoint_id, content={"url": url}, metadata={"status": ACTIVE, **known}, reserved=True
            )
            (outcome,) = await self._datastore.run([create])
            if outcome.ok or (outcome.word == "exists" and not changes):
                return
        raise outcome.error()

    async def configure(self, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
        """Set what people decide: ``status``, ``reason``, ``concurrency`` and ``rate``; None brings a default back.

        Made active again, it begins anew: what is known of its failures is forgotten.

        Raises:
            Invalid: a value is out of bounds; each is named.
            NotFound: there is no endpoint of this id.
            Corrupt, Unavailable, OutcomeUnknown
        """
        known = await self.get(endpoint_id)
        metadata = _check(changes)
        status = metadata.get("status", known.status)
        if status == ACTIVE:
            metadata |= dict.fromkeys(("reason", "since", "failing_since", "retry_at", "breaker"))
        elif status != known.status:
            metadata["since"] = format_time(await self._datastore.connection.now_ms())
        outcome = await self._datastore.update(ENDPOINTS, endpoint_id, metadata=metadata, triggers=False, reserved=True)
        await self._datastore.wakes.say(CHANGED + endpoint_id)
        return Endpoint.read(item_of(outcome))


def _check(changes: Mapping[str, Any]) -> dict[str, Any]:
    status, reason = changes.get("status") or ACTIVE, changes.get("reason")
    concurrency, rate = changes.get("concurrency"), changes.get("rate")
    check_status(status)
    if reason is not None and (not isinstance(reason, str) or len(reason) > REASON_MAX):
        raise Invalid.at("/reason", f"expected text of at most {REASON_MAX} characters")
    if concurrency is not None and (type(concurrency) is not int or not 1 <= concurrency <= CONCURRENCY_MAX):
        raise Invalid.at("/concurrency", f"expected a whole number from 1 to {CONCURRENCY_MAX}")
    if rate is not None and (type(rate) not in (int, float) or not 0 < rate <= RATE_MAX):
        raise Invalid.at("/rate", f"expected a number above 0, up to {RATE_MAX}: attempts a second")
    return {"status": status, "reason": reason, "concurrency": concurrency, "rate": rate}
