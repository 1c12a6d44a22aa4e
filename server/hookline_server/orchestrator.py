"""Orchestrations: stored rules that claim matching items with triggers on, so that their workers are called.

A rule is an item of its own key, claimed by whichever server is free: no leader, and a crash only means that
another server runs it once the lock has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import msgspec

from hookline import Claimed, Datastore, Item
from hookline.clock import format_time, parse_duration
from hookline.errors import HooklineError, Invalid, NotFound, ReservedKey
from hookline.item import RESERVED_PREFIX, check_key
from hookline.wake import pause
from hookline.where import compile_where
from hookline_server.role import Surviving

log = logging.getLogger(__name__)

ORCHESTRATIONS = "hookline.orchestrations"
EVERY_MIN_MS = 1000
_RUN_LOCK = 60.0
"""Seconds that one run of a rule may take before another server runs it."""


class Orchestration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule: claim up to ``limit`` items of ``key`` that match ``where``, ``every`` so often or only by hand."""

    key: str
    where: dict[str, Any] = {}
    limit: int = 10
    every: str | float | None = None
    lock_for: str | float = "10m"

    def check(self) -> None:
        """Refuse what could not be run.

        Raises:
            Invalid: a field is out of bounds.
            ReservedKey: no rule may claim items of the engine's own keys.
        """
        if check_key(self.key).startswith(RESERVED_PREFIX):
            raise ReservedKey
        compile_where(self.where)
        if not 1 <= self.limit <= 500:
            raise Invalid.at("/limit", "expected a whole number from 1 to 500")
        for name, value in (("every", self.every), ("lockFor", self.lock_for)):
            if value is None:
                continue
            try:
                if parse_duration(value) < EVERY_MIN_MS:
                    raise Invalid.at(f"/{name}", "expected at least 1 second")
            except ValueError as error:
                raise Invalid.at(f"/{name}", str(error)) from None


class Orchestrator:
    """Keeps and runs orchestrations; and promotes due items and buries exhausted locks of every key."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    async def put(self, name: str, rule: Orchestration) -> Item:
        """Store a rule under a name; with ``every`` it first runs at once.

        Raises:
            Invalid: the rule could not be run.
            Unavailable, OutcomeUnknown
        """
        rule.check()
        metadata: dict[str, Any] = {"max_attempts": 0}
        if rule.every is not None:
            metadata["status"] = "not_started"
        outcome = await self._datastore.create(
            ORCHESTRATIONS,
            name,
            content=msgspec.to_builtins(rule),
            metadata=metadata,
            upsert=True,
            reserved=True,
        )
        return _item(outcome.item)

    async def delete(self, name: str) -> None:
        """Remove a rule.

        Raises:
            NotFound: there is none of this name.
        """
        with _named():
            await self._datastore.delete(ORCHESTRATIONS, name, reserved=True)

    async def get(self, name: str) -> Item:
        """A rule as it is stored.

        Raises:
            NotFound: there is none of this name.
        """
        with _named():
            return await self._datastore.get(ORCHESTRATIONS, name)

    async def run_once(self, name: str) -> Claimed:
        """Run a rule by hand.

        Raises:
            NotFound: there is none of this name.
        """
        return await self._claim(await self.get(name))

    async def _claim(self, item: Item) -> Claimed:
        rule = msgspec.convert(item.content, Orchestration)
        return await self._datastore.claim(
            rule.key,
            worker_id=f"orchestration:{item.sort_field}",
            limit=rule.limit,
            lock_for=rule.lock_for,
            where=rule.where,
            triggers="on",
        )

    async def run(self) -> None:
        """Run due rules and sweep all keys, every tick, and when a rule is stored; until the waits are released."""
        wakes = self._datastore.wakes
        async with wakes.listening(f"ready:{ORCHESTRATIONS}") as woken:
            while not wakes.released:
                with Surviving(log, "a look for due orchestrations"):
                    await self._run_due()
                with Surviving(log, "a sweep"):
                    for key in await self._datastore.sweep():
                        log.error("key %s cannot be swept: something of it has the wrong type in the store", key)
                await pause(woken, self._datastore.settings.tick)

    async def _run_due(self) -> None:
        claimed = await self._datastore.claim(
            ORCHESTRATIONS,
            worker_id="orchestrator",
            limit=10,
            lock_for=_RUN_LOCK,
            triggers="off",
            reserved=True,
        )
        await asyncio.gather(*(self._run_claimed(item) for item in claimed.items))

    async def _run_claimed(self, item: Item) -> None:
        last_run: dict[str, Any] = {"at": item.metadata["started_at"]}
        try:
            last_run["claimed"] = len((await self._claim(item)).items)
        except HooklineError as error:
            log.warning("orchestration %s: %s", item.sort_field, error)
            last_run["error"] = str(error)
        every_ms = parse_duration(item.content["every"])
        metadata = {
            "status": "scheduled",
            "scheduled_at": f"+{every_ms}ms",
            "attempts": 0,
            "last_run": last_run,
        }
        call = self._datastore.calls.update(
            ORCHESTRATIONS, item.sort_field, metadata=metadata, token=item.token, triggers=False, reserved=True
        )
        (outcome,) = await self._datastore.run([call])
        if not outcome.ok:
            log.info("orchestration %s was changed while it ran: %s", item.sort_field, outcome.word)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise NotFound("no orchestration has this name") from None


def describe(item: Item) -> dict[str, Any]:
    """An orchestration as it reads over HTTP."""
    return {
        "name": item.sort_field,
        **item.content,
        "nextRun": item.metadata.get("scheduled_at"),
        "lastRun": item.metadata.get("last_run"),
        "version": item.version,
        "updatedAt": item.updated_at,
    }


def next_at(claimed: Claimed) -> str | None:
    """When there may be more to claim, as RFC 3339."""
    return None if claimed.next_ms is None else format_time(claimed.next_ms)


def _item(item: Item | None) -> Item:
    if item is None:
        raise TypeError("an accepted create shows its item")
    return item
