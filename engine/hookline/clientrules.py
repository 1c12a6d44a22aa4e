"""The orchestrations and schedules of a datastore behind a server: what :mod:`hookline.rulebook` does, over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from hookline.rule import Rule, Runs, Stored, Tick
from hookline.ruleflow import Kind

if TYPE_CHECKING:
    from hookline.client import Client
    from hookline.syncclient import SyncClient

R = TypeVar("R", bound=Rule)
A = TypeVar("A")


class ClientRules(Generic[R, A]):
    """The stored rules of one kind; each verb raises what that of a datastore does."""

    def __init__(self, client: Client, kind: Kind[R, A]) -> None:
        self._client = client
        self._kind = kind

    async def put(self, name: str, rule: R) -> Stored[R]:
        """Store a rule under a name."""
        return await self._client._drive(self._kind.ask("PUT", name, body=msgspec.to_builtins(rule)))

    async def get(self, name: str) -> Stored[R]:
        """One rule."""
        return await self._client._drive(self._kind.ask("GET", name))

    async def all(self) -> list[Stored[R]]:
        """The rules, in order of their names."""
        return await self._client._drive(self._kind.all())

    async def enable(self, name: str) -> Stored[R]:
        """Let a rule run at its times."""
        return await self._client._drive(self._kind.ask("POST", name, "/enable"))

    async def disable(self, name: str) -> Stored[R]:
        """Let a rule run by hand alone."""
        return await self._client._drive(self._kind.ask("POST", name, "/disable"))

    async def delete(self, name: str) -> None:
        """Remove a rule."""
        await self._client._drive(self._kind.delete(name))

    async def run(self, name: str) -> A:
        """Run a rule now."""
        return await self._client._drive(self._kind.run(name))

    async def runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Runs:
        """What came of the runs of a rule, the last ones first."""
        return await self._client._drive(self._kind.runs(name, limit, cursor))

    async def next(self, name: str, count: int = 10) -> list[Tick]:
        """The next times of a rule, without the random delay."""
        return await self._client._drive(self._kind.next(name, count))


class SyncRules(Generic[R, A]):
    """The same for code without a loop."""

    def __init__(self, client: SyncClient, kind: Kind[R, A]) -> None:
        self._client = client
        self._kind = kind

    def put(self, name: str, rule: R) -> Stored[R]:
        """Store a rule under a name."""
        return self._client._drive(self._kind.ask("PUT", name, body=msgspec.to_builtins(rule)))

    def get(self, name: str) -> Stored[R]:
        """One rule."""
        return self._client._drive(self._kind.ask("GET", name))

    def all(self) -> list[Stored[R]]:
        """The rules, in order of their names."""
        return self._client._drive(self._kind.all())

    def enable(self, name: str) -> Stored[R]:
        """Let a rule run at its times."""
        return self._client._drive(self._kind.ask("POST", name, "/enable"))

    def disable(self, name: str) -> Stored[R]:
        """Let a rule run by hand alone."""
        return self._client._drive(self._kind.ask("POST", name, "/disable"))

    def delete(self, name: str) -> None:
        """Remove a rule."""
        self._client._drive(self._kind.delete(name))

    def run(self, name: str) -> A:
        """Run a rule now."""
        return self._client._drive(self._kind.run(name))

    def runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Runs:
        """What came of the runs of a rule, the last ones first."""
        return self._client._drive(self._kind.runs(name, limit, cursor))

    def next(self, name: str, count: int = 10) -> list[Tick]:
        """The next times of a rule, without the random delay."""
        return self._client._drive(self._kind.next(name, count))
