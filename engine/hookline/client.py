"""A datastore behind a server: the verbs of :class:`Datastore` over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

from hookline import flow, ruleflow
from hookline.arguments import (
    ClaimArguments,
    CreateArguments,
    DeleteArguments,
    ExchangeArguments,
    SettingsArguments,
    UpdateArguments,
)
from hookline.clientrules import ClientRules
from hookline.errors import HooklineError
from hookline.flow import Answer, Flow, Request
from hookline.item import Item
from hookline.keysettings import KeySettings
from hookline.operations import Operation
from hookline.outcome import Changed, Claimed, Outcome
from hookline.query import Count, Page
from hookline.registry import Presence, Workers
from hookline.rule import Orchestration, Schedule
from hookline.session import Session
from hookline.transport import WAITS_MAX, Http, outcome, pause, repeat
from hookline.upkeep import Build

T = TypeVar("T")


class Client(Http):
    """The verbs of a datastore over HTTP. ``async with Client("http://127.0.0.1:8080") as client: ...``.

    Args:
        url: address of the server.
        api_key: sent as ``Authorization: Bearer``; never shown.
        timeout: seconds for which the server may say nothing, beyond those that a request waits by itself. An answer
            that goes on coming, however slowly, is read to its end; ``asyncio.timeout`` bounds the whole. Before the
            default ends a server has told that its store is silent, and so whether a write was made.
        connections: at most so many at a time; those that wait have :data:`WAITS_MAX` of their own: ``wait_for``, and
            claims.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 15.0, connections: int = 20) -> None:
        super().__init__(url, api_key=api_key, timeout=timeout, connections=connections)
        self._session = Session(self, connections)
        self._waits = Session(self, max(connections, WAITS_MAX))
        self._watches = Session(self, max(connections, WAITS_MAX))

    async def open(self) -> None:
        """Nothing has to be opened: the first request connects. It is here as a datastore has it."""

    async def close(self) -> None:
        """Close every connection; another request opens new ones."""
        await self._session.close()
        await self._waits.close()
        await self._watches.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _drive(self, steps: Flow[T]) -> T:
        """Send what a flow asks for, until it returns."""
        keys = self._keys()
        try:
            request = next(steps)
            while True:
                try:
                    answer = await self._send(self._mark(request, keys))
                except HooklineError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as returned:
            value: T = returned.value
            return value

    async def _send(self, request: Request) -> Answer:
        following, tries, closings = request, 0, self._session.closings
        failure: HooklineError | None = None
        deadline = time.monotonic() + request.patience
        while True:
            tries += 1
            session = self._watches if following.watches else self._waits if following.patience else self._session
            try:
                return await session.send(following)
            except HooklineError as error:
                again = repeat(following, error, tries, deadline - time.monotonic())
                failure = outcome(error, failure)
            if again:
                await asyncio.sleep(pause(tries))
            if not again or self._session.closings > closings:
                raise failure
            following = again

    # Writing

    async def create(self, key: str, sort_field: str | None = None, **fields: Unpack[CreateArguments]) -> Outcome:
        """Create an item (:meth:`Operations.create`); without a sortField it gets one, unique and time-ordered.

        Raises:
            Exists: it is there already, and ``upsert`` is not set.
            NotFound, VersionConflict, PreconditionFailed, Locked, NotClaimable, Paused: it may not be replaced so.
            Invalid, ReservedKey, KeyFull, Corrupt, OutboxFull, StoreFull, Unavailable, OutcomeUnknown
        """
        named = sort_field is not None or self._marks is None
        return await self._drive(flow.create(self.calls.create(key, sort_field, **fields), named=named))

    async def update(self, key: str, sort_field: str, **fields: Unpack[UpdateArguments]) -> Outcome:
        """Update an item (:meth:`Operations.update`).

        Raises:
            NotFound: there is no such item.
            VersionConflict, PreconditionFailed, Locked, StaleToken, Cancelled, NotClaimable, Paused: it, or its key,
                does not allow the update.
            Invalid, ReservedKey, TooManyFields, Corrupt, OutboxFull, StoreFull, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.update(self.calls.update(key, sort_field, **fields)))

    async def delete(self, key: str, sort_field: str, **fields: Unpack[DeleteArguments]) -> Outcome:
        """Delete an item (:meth:`Operations.delete`); the outcome names it, and does not have it.

        Raises:
            NotFound: there is no such item.
            VersionConflict, PreconditionFailed, StaleToken, Cancelled: it does not allow that.
            Invalid, ReservedKey, Corrupt, OutboxFull, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.delete(self.calls.delete(key, sort_field, **fields)))

    async def run(self, calls: Sequence[Operation]) -> list[Outcome]:
        """Run many operations, made by ``client.calls``, -> their outcomes in order, as a datastore does.

        Raises:
            Invalid, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.run(calls))

    async def settle(self, calls: Sequence[Operation]) -> list[Outcome]:
        """End or prolong claims: made by ``calls.complete / fail / release / extend`` -> outcomes in order.

        Raises:
            Invalid, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.run(calls))

    async def exchange(
        self,
        calls: Sequence[Operation],
        key: str,
        *,
        worker_id: str,
        limit: int = 1,
        **options: Unpack[ExchangeArguments],
    ) -> tuple[list[Outcome], Claimed]:
        """Settle, and claim up to ``limit`` items again, in one request.

        Raises:
            Invalid, ReservedKey, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.exchange(calls, key, {"worker_id": worker_id, "limit": limit, **options}))

    # Rules

    @property
    def orchestrations(self) -> ClientRules[Orchestration, Claimed]:
        """The stored orchestrations."""
        return ClientRules(self, ruleflow.ORCHESTRATIONS)

    @property
    def schedules(self) -> ClientRules[Schedule, Outcome]:
        """The stored schedules."""
        return ClientRules(self, ruleflow.SCHEDULES)

    # All that match

    async def cancel(self, key: str, *, where: object = None) -> Changed:
        """Cancel the items that match: those with status ``not_started``, unless ``where`` names another.

        Raises:
            Invalid, ReservedKey, OutboxFull, Unavailable, OutcomeUnknown: what was done before stays.
        """
        return await self._drive(flow.change("cancel", key, where))

    async def redrive(self, key: str, *, where: object = None) -> Changed:
        """Put the dead letters that match back in line.

        Raises:
            Invalid, ReservedKey, OutboxFull, Unavailable, OutcomeUnknown: what was done before stays.
        """
        return await self._drive(flow.change("redrive", key, where))

    async def delete_all(self, key: str, *, where: object, triggers: bool = True) -> Changed:
        """Delete the items that match; ``{}`` is every item of the key, and None is refused.

        Raises:
            Invalid, ReservedKey, OutboxFull, Unavailable, OutcomeUnknown: what was done before stays.
        """
        return await self._drive(flow.change("delete", key, where, triggers=triggers))

    # Claims

    async def claim(
        self,
        key: str,
        *,
        worker_id: str,
        limit: int = 1,
        wait: float = 0,
        **options: Unpack[ClaimArguments],
    ) -> Claimed:
        """Claim up to ``limit`` items; none there, wait up to ``wait`` seconds for one.

        Raises:
            Invalid, ReservedKey, Corrupt, OutboxFull, Unavailable, OutcomeUnknown
        """
        asked = {"worker_id": worker_id, "limit": limit, **options}
        return await self._drive(flow.claim(key, wait, asked, self._next_key()))

    # Workers

    async def heartbeat(self, presence: Presence) -> str | None:
        """Say that a worker lives -> ``quiet`` or ``stop`` if it is asked to, as its own loop does every few seconds.

        Raises:
            Invalid, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.heartbeat(presence))

    async def leave(self, presence: Presence) -> None:
        """A worker has ended.

        Raises:
            Invalid, Unavailable, OutcomeUnknown
        """
        await self._drive(flow.leave(presence))

    async def workers(self) -> Workers:
        """The workers that live, at most 10,000.

        Raises:
            Corrupt, Unavailable
        """
        return await self._drive(flow.workers())

    async def signal_worker(self, presence: Presence, signal: str) -> None:
        """Ask a worker to claim no more (``quiet``), or to ``stop``; it learns of it by its next heartbeat.

        Raises:
            NotFound: no such worker has been heard of.
            Invalid, Unavailable, OutcomeUnknown
        """
        await self._drive(flow.signal_worker(presence, signal))

    # Settings of a key

    async def configure(self, key: str, **settings: Unpack[SettingsArguments]) -> KeySettings:
        """Change settings of a key -> what holds then. None brings a default back, what is not named stays.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable, OutcomeUnknown
        """
        return await self._drive(flow.configure(key, settings))

    async def key_settings(self, key: str) -> KeySettings:
        """The settings of a key.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable
        """
        return await self._drive(flow.configure(key, {}))

    async def pause(self, key: str) -> None:
        """Give out no claims of a key until it is resumed. Who holds an item goes on.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable, OutcomeUnknown
        """
        await self._drive(flow.set_paused(key, paused=True))

    async def resume(self, key: str) -> None:
        """Let a key's items be claimed again.

        Raises:
            Invalid, ReservedKey, Corrupt, Unavailable, OutcomeUnknown
        """
        await self._drive(flow.set_paused(key, paused=False))

    async def builds(self, key: str) -> dict[str, Build]:
        """How far the indexes of a key are that are not complete yet, by their fields.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        return await self._drive(flow.builds(key))

    # Reading

    async def get(self, key: str, sort_field: str) -> Item:
        """One item.

        Raises:
            NotFound: there is no such item.
            Invalid, Corrupt, Unavailable
        """
        return await self._drive(flow.get(key, sort_field))

    async def get_many(self, names: Sequence[tuple[str, str]]) -> list[Item | None]:
        """Items by key and sortField, in order; None where there is none.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        return await self._drive(flow.get_many(names))

    async def wait_for(self, key: str, sort_field: str, *, until: object = None, timeout: float = 30) -> Item | None:
        """The item once it meets the filters ``until``, or has ended if there are none; None if that takes longer.

        Raises:
            NotFound: there is no such item, or not any more.
            Invalid, Corrupt, Unavailable
        """
        return await self._drive(flow.wait_for(key, sort_field, until, timeout))

    async def query(
        self,
        key: str,
        *,
        where: object = None,
        order: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Items of a key that match, as a datastore finds them.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        asked = {"where": where, "order": order, "limit": limit, "cursor": cursor}
        return await self._drive(flow.query(key, asked))

    async def count(self, key: str, *, where: object = None, cursor: str | None = None) -> Count:
        """How many items of a key match; with a ``cursor`` in it the count is to be gone on with, and added up.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        return await self._drive(flow.count(key, {"where": where, "cursor": cursor}))

    async def items(
        self, key: str, *, where: object = None, order: str | None = None, page: int = 250
    ) -> AsyncIterator[Item]:
        """All items of a key that match, page after page.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        cursor: str | None = None
        while True:
            found = await self.query(key, where=where, order=order, limit=page, cursor=cursor)
            for item in found.items:
                yield item
            cursor = found.cursor
            if cursor is None:
                return

    async def command(self, text: str, names: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a text of the command language -> its results; ``names`` are values that it may name.

        Raises:
            HooklineError: a command was refused, or the text is none. Its ``stopped`` has where, and the results of
                what came before, which has been done.
        """
        return await self._drive(flow.command(text, names or {}))
