"""The namespaces that a process serves: opened on first use, over the same connections to the store.

The roles that work beside the API (relay, orchestrator) run for a namespace while it is used, or has something to do.
Whoever opens or uses one notes that in a sorted set, from which every process reads what was used of late: an idle
namespace is asked nothing but once in :data:`INSPECTED_EVERY` whether it has become due.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Self

from hookline import Datastore, keys
from hookline.errors import HooklineError
from hookline_server.role import Surviving

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks at which namespaces are used."""
AWAKE_FOR = 60_000
"""Milliseconds after its last use for which a namespace keeps its roles."""
NOTED_EVERY = 10.0
"""Seconds after which the use of a namespace is noted again."""
INSPECTED_EVERY = 30.0
"""Seconds after which idle namespaces are looked at, in case the use of one was not noted; later if there are many."""
INSPECTED_MOST = 100
"""So many of them at each look, about four commands each."""

_PATIENCE = 2.0
"""Seconds that whoever only wants to tell of them waits for the store."""

Roles = Callable[[Datastore], Iterable[Coroutine[Any, Any, None]]]


class Namespaces:
    """The namespaces of a store, ``home`` among them, which is open already and stays the caller's.

    ``roles`` makes what is to run for each of the others; those of home are the caller's as well.
    """

    def __init__(self, home: Datastore, roles: Roles = lambda _: ()) -> None:
        self._home = home
        self._roles = roles
        self._open: dict[str, asyncio.Task[Datastore]] = {}
        self._noted: dict[str, float] = {}
        self._awake: dict[str, asyncio.Task[None]] = {}
        self._due: dict[str, float] = {}
        """When a namespace has something to do, in ms since 1970: as it was seen last, until it is woken for it."""
        self._idle: set[str] = set()
        """Those still to be looked at in this round."""
        self._inspect_at = 0.0

    async def open(self, name: str) -> Datastore:
        """The datastore of a namespace in use.

        Raises:
            Incompatible, Unavailable: it cannot be opened.
        """
        if name == self._home.settings.namespace:
            return self._home
        found = await self._opened(name)
        if time.monotonic() - self._noted.get(name, -NOTED_EVERY) >= NOTED_EVERY:
            self._noted[name] = time.monotonic()
            await found.connection.meta.note_use()
        return found

    async def _opened(self, name: str) -> Datastore:
        task = self._open.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            settings = replace(self._home.settings, namespace=name)
            opening = Datastore(self._home.connection.nodes, settings, self._home.secrets)
            task = self._open[name] = asyncio.create_task(opening.__aenter__())
        return await asyncio.shield(task)

    async def run(self) -> None:
        """Keep the roles running where there is something to do, until cancelled."""
        try:
            while True:
                with Surviving(log, "a look at the namespaces"):
                    await self._look()
                await asyncio.sleep(LOOK)
        finally:
            await asyncio.gather(*(self._rest(name) for name in list(self._awake)))

    async def _look(self) -> None:
        now_ms = await self._home.connection.now_ms()
        soon_ms = now_ms + AWAKE_FOR
        wanted = await self._names(now_ms - AWAKE_FOR) | {name for name, due in self._due.items() if due <= soon_ms}
        for name in wanted:
            await self._wake(name)
        for name in self._awake.keys() - wanted:
            due_ms = await self._inspect(name)
            if due_ms is not None and due_ms > soon_ms:
                await self._rest(name)
        if not self._idle and time.monotonic() >= self._inspect_at:
            self._idle = await self._names() - self._awake.keys()
            self._inspect_at = time.monotonic() + INSPECTED_EVERY
        for name in list(self._idle)[:INSPECTED_MOST]:
            due_ms = None if name in self._awake else await self._inspect(name)
            if due_ms is not None and due_ms <= soon_ms:
                await self._wake(name)
            self._idle.discard(name)

    async def _names(self, since_ms: int = 0) -> set[str]:
        """The other namespaces that were used since then."""
        found = await self._home.connection.command_on(
            keys.namespaces(), "ZRANGEBYSCORE", keys.namespaces(), since_ms, "+inf"
        )
        return {name.decode() for name in found} - {self._home.settings.namespace}

    async def _inspect(self, name: str) -> float | None:
        """When a namespace has something to do next, in ms since 1970: 0 is now, infinity never. None: no answer."""
        with Surviving(log, f"a look at namespace {name}"):
            due_ms = self._due[name] = await (await self._opened(name)).upkeep.next_ms()
            return due_ms
        return None

    async def _wake(self, name: str) -> None:
        running = self._awake.get(name)
        with Surviving(log, f"namespace {name}"):
            datastore = await self._opened(name)
            self._due.pop(name, None)  # also of one that runs: what is noted of it would keep it awake for ever
            if running is None or running.done():
                self._awake[name] = asyncio.create_task(_play(name, self._roles(datastore)))

    async def _rest(self, name: str) -> None:
        running = self._awake.pop(name)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        (await self._opened(name)).wakes.rest()

    async def everyone(self) -> list[Datastore]:
        """Home, and the others in order of their names, also those that nothing is done for now.

        While the store does not answer, those that are open.
        """
        with contextlib.suppress(HooklineError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*map(self._opened, await self._names()), return_exceptions=True)
        return [self._home, *sorted(self._opened_now(), key=lambda datastore: datastore.settings.namespace)]

    def release(self) -> None:
        """Let everybody who waits go, for the process is about to stop."""
        for datastore in (self._home, *self._opened_now()):
            datastore.wakes.release()
            datastore.changes.release()

    def _opened_now(self) -> list[Datastore]:
        done = [task for task in self._open.values() if task.done() and not task.cancelled()]
        return [task.result() for task in done if task.exception() is None]

    async def close(self) -> None:
        """Close all but home."""
        for task in self._open.values():
            with contextlib.suppress(HooklineError):
                await (await task).close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


async def _play(name: str, roles: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run the roles of a namespace. One that breaks ends them, and they begin anew: other namespaces are not hurt."""
    with Surviving(log, f"the work for namespace {name}"):
        async with asyncio.TaskGroup() as group:
            for role in roles:
                group.create_task(role)
