"""What answers say of an endpoint: that it is slow, broken, gone, or well again. Stored as it changes."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from hookline.clock import format_time
from hookline_server.egress import DISABLE, Answer
from hookline_server.endpoint import ACTIVE, CLOSED, DISABLED, Endpoint, Endpoints, moment
from hookline_server.event import Target
from hookline_server.lane import Lane
from hookline_server.retry import read_retry_after

log = logging.getLogger(__name__)

GONE = 410
ASKS_FOR_TIME = (413, 429, 503)
"""Answers whose Retry-After is meant for whoever asks again (RFC 9110, RFC 6585)."""
FAILING_MAX = 5 * 86_400.0
"""Seconds of nothing but failures after which an endpoint is disabled."""


class Health:
    """Draws the conclusions, in the lane at once and then in the store."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def is_well(self, lane: Lane) -> bool:
        """Whether nothing is known against an endpoint: then a success says nothing new."""
        return not lane.breaker.failures and lane.endpoint.failing_since is None and not lane.failing

    async def note(self, lane: Lane, target: Target, answer: Answer) -> None:
        """Note what came of one attempt.

        Raises:
            Corrupt, Unavailable, OutcomeUnknown: the endpoint may be stored as it was.
        """
        now = time.time()
        changed = lane.breaker.note(now, ok=answer.ok)
        self._say(target, answer, lane)
        if answer.ok:
            if changed or lane.endpoint.failing_since is not None:
                await self._store(lane, target, failing_since=None, retry_at=0.0, breaker=CLOSED)
            return
        if answer.status == GONE or answer.wish == DISABLE:
            await self._disable(lane, target, "the receiver asked for it: " + answer.word)
            return
        changes: dict[str, Any] = {}
        failing = lane.endpoint.failing_since
        if changed:
            failing = failing or now
            changes = {"breaker": "open", "retry_at": lane.breaker.until, "failing_since": failing}
        wait = read_retry_after(answer.retry_after, now) if answer.status in ASKS_FOR_TIME else 0.0
        # Many answers of one burst say the same.
        if wait and now + wait > max(lane.endpoint.retry_at, changes.get("retry_at", 0.0)) + 1:
            changes["retry_at"] = now + wait
        if failing is not None and now - failing > FAILING_MAX:
            await self._disable(lane, target, f"nothing but failures for 5 days, the last {answer.word}")
        elif changes:
            await self._store(lane, target, **changes)

    async def _disable(self, lane: Lane, target: Target, reason: str) -> None:
        if lane.endpoint.status != ACTIVE:
            return
        log.warning(
            "endpoint %s (%s) is disabled: %s; its deliveries are kept", lane.endpoint.id, target.origin, reason
        )
        await self._store(
            lane, target, status=DISABLED, reason=reason[:200], since=format_time(round(time.time() * 1000))
        )

    async def _store(self, lane: Lane, target: Target, **changes: Any) -> None:
        """In the lane first: what is under way in it must see it before the store has answered."""
        known: Endpoint = replace(lane.endpoint, url=target.url, **changes)
        lane.know(known)
        stored = {**changes}
        for name in ("retry_at", "failing_since"):
            if name in stored:
                stored[name] = moment(stored[name] or None)
        if stored.get("breaker") == CLOSED:
            stored["breaker"] = None
        await self._endpoints.note(known.id, target.url, stored)

    def _say(self, target: Target, answer: Answer, lane: Lane) -> None:
        """Say once that an endpoint fails, for somebody waits for what is kept; and once that it answers again."""
        if not answer.ok and not lane.failing:
            log.warning("webhooks to %s fail (%s): kept in %s, to be retried", target.origin, answer.word, lane.key)
        elif answer.ok and lane.failing:
            log.info("webhooks to %s are taken again", target.origin)
        lane.failing = not answer.ok
