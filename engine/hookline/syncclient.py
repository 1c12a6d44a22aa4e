"""The client for code without a loop: the verbs and flows of :class:`Client`, but they block."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
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
from hookline.clientrules import SyncRules
from hookline.errors import HooklineError
from hookline.flow import Answer, Flow, Request
from hookline.item import Item
from hookline.keysettings import KeySettings
from hookline.operations import Operation
from hookline.outcome import Changed, Claimed, Outcome
from hookline.query import Count, Page
from hookline.registry import Presence, Workers
from hookline.rule import Orchestration, Schedule
from hookline.syncsession import SyncSession
from hookline.transport import WAITS_MAX, Http, outcome, pause, repeat
from hookline.upkeep import Build

T = TypeVar("T")


class SyncClient(Http):
    """The same for code without a loop. ``with SyncClient("http://127.0.0.1:8080") as client: ...``.

    Threads may share one. Its arguments are those of :class:`Client`, and each verb raises what that of a client does.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 15.0, connections: int = 20) -> None:
        super().__init__(url, api_key=api_key, timeout=timeout, connections=connections)
        self._session = SyncSession(self, connections)
        self._waits = SyncSession(self, max(connections, WAITS_MAX))
        self._watches = SyncSession(self, max(connections, WAITS_MAX))

    def close(self) -> None:
        """Close every connection."""
        self._session.close()
        self._waits.close()
        self._watches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _drive(self, steps: Flow[T]) -> T:
        """Send what a flow asks for, until it returns."""
        keys = self._keys()
        try:
            request = next(steps)
            while True:
                try:
                    answer = self._send(self._mark(request, keys))
                except HooklineError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as returned:
            value: T = returned.value
            return value

    def _send(self, request: Request) -> Answer:
        following, tries = request, 0
        failure: HooklineError | None = None
        deadline = time.monotonic() + request.patience
        while True:
            tries += 1
            session = self._watches if following.watches else self._waits if following.patience else self._session
            try:
                return session.send(following)
            except HooklineError as error:
                again = repeat(following, error, tries, deadline - time.monotonic())
                failure = outcome(error, failure)
            if not again or session.closed:
                raise failure
            following = again
            time.sleep(pause(tries))

    # Writing

    def create(self, key: str, sort_field: str | None = None, **fields: Unpack[CreateArguments]) -> Outcome:
        """Create an item (:meth:`Operations.create`); without a sortField it gets one, unique and time-ordered."""
        named = sort_field is not None or self._marks is None
        return self._drive(flow.create(self.calls.create(key, sort_field, **fields), named=named))

    def update(self, key: str, sort_field: str, **fields: Unpack[UpdateArguments]) -> Outcome:
        """Update an item (:meth:`Operations.update`)."""
        return self._drive(flow.update(self.calls.update(key, sort_field, **fields)))

    def delete(self, key: str, sort_field: str, **fields: Unpack[DeleteArguments]) -> Outcome:
        """Delete an item (:meth:`Operations.delete`); the outcome names it, and does not have it."""
        return self._drive(flow.delete(self.calls.delete(key, sort_field, **fields)))

    def run(self, calls: Sequence[Operation]) -> list[Outcome]:
        """Run many operations, made by ``client.calls``, -> their outcomes in order, as a datastore does."""
        return self._drive(flow.run(calls))

    def settle(self, calls: Sequence[Operation]) -> list[Outcome]:
        """End or prolong claims: made by ``calls.complete / fail / release / extend`` -> outcomes in order."""
        return self._drive(flow.run(calls))

    def exchange(
        self,
        calls: Sequence[Operation],
        key: str,
        *,
        worker_id: str,
        limit: int = 1,
        **options: Unpack[ExchangeArguments],
    ) -> tuple[list[Outcome], Claimed]:
        """Settle, and claim up to ``limit`` items again, in one request."""
        return self._drive(flow.exchange(calls, key, {"worker_id": worker_id, "limit": limit, **options}))

    # Rules

    @property
    def orchestrations(self) -> SyncRules[Orchestration, Claimed]:
        """The stored orchestrations."""
        return SyncRules(self, ruleflow.ORCHESTRATIONS)

    @property
    def schedules(self) -> SyncRules[Schedule, Outcome]:
        """The stored schedules."""
        return SyncRules(self, ruleflow.SCHEDULES)

    # All that match

    def cancel(self, key: str, *, where: object = None) -> Changed:
        """Cancel the items that match: those with status ``not_started``, unless ``where`` names another."""
        return self._drive(flow.change("cancel", key, where))

    def redrive(self, key: str, *, where: object = None) -> Changed:
        """Put the dead letters that match back in line."""
        return self._drive(flow.change("redrive", key, where))

    def delete_all(self, key: str, *, where: object, triggers: bool = True) -> Changed:
        """Delete the items that match; ``{}`` is every item of the key, and None is refused."""
        return self._drive(flow.change("delete", key, where, triggers=triggers))

    # Claims

    def claim(
        self,
        key: str,
        *,
        worker_id: str,
        limit: int = 1,
        wait: float = 0,
        **options: Unpack[ClaimArguments],
    ) -> Claimed:
        """Claim up to ``limit`` items; none there, wait up to ``wait`` seconds for one."""
        asked = {"worker_id": worker_id, "limit": limit, **options}
        return self._drive(flow.claim(key, wait, asked, self._next_key()))

    # Workers

    def heartbeat(self, presence: Presence) -> str | None:
        """Say that a worker lives -> ``quiet`` or ``stop`` if it is asked to."""
        return self._drive(flow.heartbeat(presence))

    def leave(self, presence: Presence) -> None:
        """A worker has ended."""
        self._drive(flow.leave(presence))

    def workers(self) -> Workers:
        """The workers that live, at most 10,000."""
        return self._drive(flow.workers())

    def signal_worker(self, presence: Presence, signal: str) -> None:
        """Ask a worker to claim no more (``quiet``), or to ``stop``; it learns of it by its next heartbeat."""
        self._drive(flow.signal_worker(presence, signal))

    # Settings of a key

    def configure(self, key: str, **settings: Unpack[SettingsArguments]) -> KeySettings:
        """Change settings of a key -> what holds then. None brings a default back, what is not named stays."""
        return self._drive(flow.configure(key, settings))

    def key_settings(self, key: str) -> KeySettings:
        """The settings of a key."""
        return self._drive(flow.configure(key, {}))

    def pause(self, key: str) -> None:
        """Give out no claims of a key until it is resumed. Who holds an item goes on."""
        self._drive(flow.set_paused(key, paused=True))

    def resume(self, key: str) -> None:
        """Let a key's items be claimed again."""
        self._drive(flow.set_paused(key, paused=False))

    def builds(self, key: str) -> dict[str, Build]:
        """How far the indexes of a key are that are not complete yet, by their fields."""
        return self._drive(flow.builds(key))

    # Reading

    def get(self, key: str, sort_field: str) -> Item:
        """One item."""
        return self._drive(flow.get(key, sort_field))

    def get_many(self, names: Sequence[tuple[str, str]]) -> list[Item | None]:
        """Items by key and sortField, in order; None where there is none."""
        return self._drive(flow.get_many(names))

    def wait_for(self, key: str, sort_field: str, *, until: object = None, timeout: float = 30) -> Item | None:
        """The item once it meets the filters ``until``, or has ended if there are none; None if that takes longer."""
        return self._drive(flow.wait_for(key, sort_field, until, timeout))

    def query(
        self,
        key: str,
        *,
        where: object = None,
        order: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Items of a key that match, as a datastore finds them."""
        asked = {"where": where, "order": order, "limit": limit, "cursor": cursor}
        return self._drive(flow.query(key, asked))

    def count(self, key: str, *, where: object = None, cursor: str | None = None) -> Count:
        """How many items of a key match; with a ``cursor`` in it the count is to be gone on with, and added up."""
        return self._drive(flow.count(key, {"where": where, "cursor": cursor}))

    def items(self, key: str, *, where: object = None, order: str | None = None, page: int = 250) -> Iterator[Item]:
        """All items of a key that match, page after page."""
        cursor: str | None = None
        while True:
            found = self.query(key, where=where, order=order, limit=page, cursor=cursor)
            yield from found.items
            cursor = found.cursor
            if cursor is None:
                return

    def command(self, text: str, names: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run a text of the command language -> its results; ``names`` are values that it may name."""
        return self._drive(flow.command(text, names or {}))
