"""The orchestrator: the role that runs stored rules when they are due, and sweeps all keys."""

from __future__ import annotations

import asyncio
import logging

from hookline import Datastore
from hookline.rule import Orchestration
from hookline.wake import pause
from hookline_server.dispatcher import Dispatcher
from hookline_server.orchestrations import Orchestrations
from hookline_server.role import Surviving
from hookline_server.schedules import Schedules

log = logging.getLogger(__name__)


class Orchestrator:
    """Runs due rules of every kind, and dispatches; and promotes due items and buries exhausted locks of every key."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._orchestrations = Orchestrations(datastore, self._ran)
        self._kinds = (self._orchestrations, Schedules(datastore))
        self._dispatching: dict[str, tuple[Dispatcher, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Run due rules and sweep all keys, every tick, and when a rule is stored; until the waits are released."""
        wakes = self._datastore.wakes
        messages = [f"ready:{rules.key}" for rules in self._kinds]
        try:
            async with wakes.listening(*messages) as woken:
                while not wakes.released:
                    for rules in self._kinds:
                        with Surviving(log, f"a look for due {rules.noun}s"):
                            await rules.run_due()
                    with Surviving(log, "a sweep"):
                        for key in await self._datastore.sweep():
                            log.error("key %s cannot be swept: something of it has the wrong type in the store", key)
                    await pause(woken, self._datastore.settings.tick)
        finally:
            tasks = [task for _, task in self._dispatching.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ran(self, name: str, rule: Orchestration) -> None:
        """A tick of an orchestration was run here: until another server runs one, its slots are filled from here."""
        dispatcher, task = self._dispatching.get(name, (None, None))
        if dispatcher and task and not task.done():
            dispatcher.renew()
        elif rule.max_in_flight:
            dispatcher = Dispatcher(self._datastore, self._orchestrations, name)
            self._dispatching[name] = dispatcher, asyncio.create_task(dispatcher.run())
