"""The orchestrator: the role that runs stored rules when they are due, and sweeps all keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from hookline import Datastore
from hookline.rule import Orchestration
from hookline.wake import pause
from hookline_server.dispatcher import Dispatcher
from hookline_server.orchestrations import Orchestrations
from hookline_server.role import Surviving
from hookline_server.schedules import Schedules

log = logging.getLogger(__name__)

_TICKS = 5
"""Ticks between looks for rules that nobody told of: a sweep tells of those that become due, as it promotes them."""


class Orchestrator:
    """Runs due rules of every kind, and dispatches; and promotes due items and buries exhausted locks of every key."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._orchestrations = Orchestrations(datastore, self._ran)
        self._kinds = (self._orchestrations, Schedules(datastore))
        self._dispatching: dict[str, tuple[Dispatcher, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Run rules when they are due or stored, and sweep all keys every tick; until the waits are released.

        Each by itself: however much is due of one, the others go on.
        """
        tick = self._datastore.settings.tick
        try:
            async with asyncio.TaskGroup() as group:
                for rules in self._kinds:
                    looking = self._keep(
                        f"a look for due {rules.noun}s", rules.run_due, f"ready:{rules.key}", _TICKS * tick
                    )
                    group.create_task(looking)
                # Nobody says this topic: between the ticks a sweep is woken by the release alone.
                group.create_task(self._keep("a sweep", self._sweep, "sweep", tick))
        finally:
            tasks = [task for _, task in self._dispatching.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, step: str, look: Callable[[], Awaitable[None]], topic: str, seconds: float) -> None:
        """Look every so many seconds, and at each message of the topic."""
        wakes = self._datastore.wakes
        async with wakes.listening(topic) as woken:
            while not wakes.released:
                with Surviving(log, step):
                    await look()
                await pause(woken, seconds)

    async def _sweep(self) -> None:
        for key in await self._datastore.sweep():
            log.error("key %s cannot be swept: something of it has the wrong type in the store", key)

    def _ran(self, name: str, rule: Orchestration) -> None:
        """A tick of an orchestration was run here: until another server runs one, its slots are filled from here."""
        dispatcher, task = self._dispatching.get(name, (None, None))
        if dispatcher and task and not task.done():
            dispatcher.renew()
        elif rule.max_in_flight:
            dispatcher = Dispatcher(self._datastore, self._orchestrations, name)
            task = asyncio.create_task(dispatcher.run())
            self._dispatching[name] = dispatcher, task
            task.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, ended: asyncio.Task[None]) -> None:
        _, task = self._dispatching.get(name, (None, None))
        if task is ended:  # else another one has begun since
            del self._dispatching[name]
