"""The orchestrator: the role that runs stored rules when they are due, and sweeps all keys."""

from __future__ import annotations

import logging

from hookline import Datastore
from hookline.wake import pause
from hookline_server.orchestrations import Orchestrations
from hookline_server.role import Surviving
from hookline_server.schedules import Schedules

log = logging.getLogger(__name__)


class Orchestrator:
    """Runs due rules of every kind; and promotes due items and buries exhausted locks of every key."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._kinds = (Orchestrations(datastore), Schedules(datastore))

    async def run(self) -> None:
        """Run due rules and sweep all keys, every tick, and when a rule is stored; until the waits are released."""
        wakes = self._datastore.wakes
        messages = [f"ready:{rules.key}" for rules in self._kinds]
        async with wakes.listening(*messages) as woken:
            while not wakes.released:
                for rules in self._kinds:
                    with Surviving(log, f"a look for due {rules.noun}s"):
                        await rules.run_due()
                with Surviving(log, "a sweep"):
                    for key in await self._datastore.sweep():
                        log.error("key %s cannot be swept: something of it has the wrong type in the store", key)
                await pause(woken, self._datastore.settings.tick)
