"""Turns: where a trigger is ordered, the deliveries of one item to its URL begin one after the other."""

from __future__ import annotations

from hookline import Datastore
from hookline.clock import parse_time
from hookline.errors import NotFound, PreconditionFailed
from hookline_server.delivery import WAITING, Deliveries
from hookline_server.event import Delivery
from hookline_server.retry import JITTER

SHORTEST, LONGEST = 2.0, 300.0
"""Seconds until a delivery asks again whether it is its turn. Whoever ends the one before tells it sooner."""
KEPT = 30 * 86_400.0
"""Seconds that a list is kept after one of it has asked, beside the longest wait between two of its attempts.

So it outlasts what waits there, but at an endpoint that is paused for longer; and one that nobody ends goes away.
"""


class Turns:
    """Whose turn it is, by the lists that the changes themselves have written.

    One that is first in its list may begin. It leaves the list when it has ended; where nobody said so, as when a
    relay was killed or a delivery was cancelled, the next one finds out: it is neither in the outbox nor in its lane.
    Whoever takes one off the list wakes the one behind it.
    """

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._deliveries = Deliveries(datastore)

    async def wait(self, delivery: Delivery) -> float:
        """Seconds that a delivery should wait before it asks again; 0 where it is its turn.

        One that is in no list was given up and redriven: those behind it have gone on, and it may too.

        Raises:
            Corrupt, Unavailable, OutcomeUnknown
        """
        ended: bytes | None = None
        while True:
            place, first, fresh, gone = await self._ask(delivery, ended)
            if not place:
                return 0.0
            if gone:
                await self.wake(delivery, _named(delivery, first))
            wait = await self._first(delivery, first, fresh=fresh)
            if wait is not None:
                return min(LONGEST, max(SHORTEST, wait) * place)
            ended = first

    async def end(self, delivery: Delivery) -> None:
        """A delivery was made, or given up: the next may begin.

        Raises:
            Corrupt, Unavailable, OutcomeUnknown
        """
        ended = delivery.stream_id.encode()
        while True:
            _, first, fresh, gone = await self._ask(delivery, ended)
            if not (gone and first) or await self.wake(delivery, _named(delivery, first)):
                return
            if await self._first(delivery, first, fresh=fresh) is not None:
                return
            ended = first

    async def wake(self, delivery: Delivery, webhook_id: str) -> bool:
        """Let a delivery of the same lane begin now, if it waits there -> whether it did.

        Raises:
            Corrupt, Unavailable, OutcomeUnknown
        """
        try:
            await self._datastore.update(
                delivery.target.lane,
                webhook_id,
                metadata={"status": "not_started"},
                only_if={"status": "scheduled"},
                triggers=False,
                reserved=True,
            )
        except (NotFound, PreconditionFailed):
            return False
        return True

    async def _ask(self, delivery: Delivery, ended: bytes | None) -> tuple[int | None, bytes, bool, bool]:
        longest = max(self._deliveries.schedule(delivery), default=0.0)
        request = {
            "keep": round((KEPT + longest * (1 + JITTER)) * 1000),
            "key": delivery.source_key,
            "sort": delivery.source_sort_field,
            "url": delivery.target.url,
            "id": delivery.stream_id,
            "ended": ended,
        }
        place, first, fresh, gone = await self._datastore.connection.change("relay_turn", delivery.partition, request)
        return place, first, fresh, gone

    async def _first(self, delivery: Delivery, first: bytes, *, fresh: bool) -> float | None:
        """Seconds until the next attempt at the first in line; None where none follows."""
        (item,) = await self._datastore.get_many([(delivery.target.lane, _named(delivery, first))])
        if item is None:
            return 0.0 if fresh else None
        if item.status not in WAITING:
            return None
        due = item.metadata.get("scheduled_at")
        if item.status != "scheduled" or due is None:
            return 0.0
        return (parse_time(due) - await self._datastore.connection.now_ms()) / 1000


def _named(delivery: Delivery, stream_id: bytes) -> str:
    """The webhook-id of another event of the same item."""
    return delivery.webhook_id.removesuffix(delivery.stream_id) + stream_id.decode()
