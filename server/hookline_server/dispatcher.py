"""The dispatcher of an orchestration with ``maxInFlight``: fills a slot when it gets free, before the next tick."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter

from hookline import Claimed, Datastore
from hookline.rule import Orchestration
from hookline.wake import pause
from hookline_server.orchestrations import ORCHESTRATIONS, Orchestrations
from hookline_server.role import Surviving
from hookline_server.rules import RETRY

log = logging.getLogger(__name__)

LOOK = 10.0
"""Seconds after which it looks by itself, which covers lost messages."""
_LEAST_PAUSE = 0.02
"""Seconds after which it looks again at the earliest, unless it is woken."""


class Dispatcher:
    """Claims for one orchestration whenever there may be both a slot and an item for it.

    It hears of the end of what the orchestration holds as everybody does who waits for an item: that costs the store
    nothing that it would not do anyway. It knows when the first lock expires, and hears of what gets ready in the key.
    It ends when another server has run a tick, which has a dispatcher then; without ``every``, also when nothing is
    held any more: then the next tick begins anew.
    """

    def __init__(self, datastore: Datastore, orchestrations: Orchestrations, name: str) -> None:
        self._datastore = datastore
        self._orchestrations = orchestrations
        self._name = name
        self._own_item = datastore.calls.item_name(ORCHESTRATIONS, name)
        self._woken = asyncio.Event()
        self._stale = False
        self._held: set[str] = set()
        self._owed: Counter[str] = Counter()
        """Messages that are still to come of claims, not of ends."""
        self._early: Counter[str] | None = None
        """What is heard while a claim is under way."""

    def renew(self) -> None:
        """The orchestration was changed, or has run: see what it is now."""
        self._stale = True
        self._woken.set()

    async def run(self) -> None:
        """Dispatch, until another server does or the waits are released."""
        changes = self._datastore.changes
        changes.watch("", self._hear)
        try:
            await changes.subscribe()
            goes_on = True
            while goes_on and not self._datastore.wakes.released:
                self._stale = False
                with Surviving(log, f"the dispatch of orchestration {self._name}"):
                    rule = await self._orchestrations.mine(self._name)
                    goes_on = await self._fill(rule) if rule else self._stale
                    continue
                await pause(self._woken, RETRY)
        finally:
            changes.unwatch(self._hear)

    async def _fill(self, rule: Orchestration) -> bool:
        """Keep the slots full until the rule may be another one; False where nothing more is waited for."""
        ready, wakes = f"ready:{rule.key}", self._datastore.wakes
        wakes.add(ready, self._woken)
        least = _LEAST_PAUSE
        try:
            while not self._stale and not wakes.released:
                claimed = await self._claim(rule)
                if not claimed.held and not rule.every:
                    return self._stale
                wait = _patience(rule, claimed, least)
                # If our clock is ahead of the store's, what is due by it is not: so we ask less and less often.
                least = min(RETRY, 2 * least) if wait == least else _LEAST_PAUSE
                await pause(self._woken, wait)
            return True
        finally:
            wakes.discard(ready, self._woken)

    async def _claim(self, rule: Orchestration) -> Claimed:
        early = self._early = Counter[str]()
        try:
            claimed = await self._orchestrations.refill(self._name, rule)
        finally:
            self._early = None
        named = self._datastore.calls.item_name
        taken = {named(rule.key, item.sort_field) for item in claimed.items}
        self._held = {named(rule.key, sort_field) for sort_field in claimed.held}
        # Each claim is heard of too, before or after its answer.
        self._owed = Counter({name: left for name, left in self._owed.items() if name in self._held})
        self._owed.update(taken)
        for name in self._held & early.keys():
            self._owed[name] -= early[name]
            if self._owed[name] < 0:
                self._woken.set()
        return claimed

    def _hear(self, topic: str | None) -> None:
        """An item has changed; or nobody knows which."""
        if topic is None:
            self._owed.clear()
            self.renew()
        elif topic == self._own_item:
            self.renew()
        elif self._early is not None:
            self._early[topic] += 1
        elif self._owed[topic] > 0:
            self._owed[topic] -= 1
        elif topic in self._held:
            self._woken.set()


def _patience(rule: Orchestration, claimed: Claimed, least: float) -> float:
    """For how many seconds nothing is to be done, unless one is woken; ``least`` where it may be due already."""
    if claimed.failure:
        return RETRY
    if len(claimed.items) >= rule.limit:
        return 0
    if claimed.next_ms is None:
        return LOOK
    return max(least, min(LOOK, claimed.next_ms / 1000 - time.time()))
