"""Straight to the store: the engine's own verbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hookline import Datastore
from hookline_bench.job import CONTENT, METADATA, PAGE, Held

WORKER = "bench"


class Direct:
    """A :class:`Way` by a datastore; ``more`` are further arguments of each create."""

    def __init__(self, datastore: Datastore, more: dict[str, Any] | None = None) -> None:
        self._datastore = datastore
        self._fields: dict[str, Any] = {"content": CONTENT, "metadata": METADATA, **(more or {})}

    async def create(self, key: str, names: Sequence[str]) -> int:
        """One by the verb for one; many by the verb for many."""
        if len(names) == 1:
            await self._datastore.create(key, names[0], **self._fields)
            return 1
        make = self._datastore.calls.create
        outcomes = await self._datastore.run([make(key, name, **self._fields) for name in names])
        return sum(outcome.ok for outcome in outcomes)

    async def claim(self, key: str, limit: int) -> list[Held]:
        """Claim jobs."""
        claimed = await self._datastore.claim(key, worker_id=WORKER, limit=limit)
        return [(item.sort_field, item.token or "") for item in claimed.items]

    async def exchange(self, key: str, done: Sequence[Held], failed: Sequence[Held], limit: int) -> list[Held]:
        """Settle, and claim in the same call."""
        make = self._datastore.calls
        calls = [make.complete(key, *held) for held in done]
        calls += [make.fail(key, *held, error="on purpose", retry_after=0) for held in failed]
        if limit:
            outcomes, claimed = await self._datastore.exchange(calls, key, worker_id=WORKER, limit=limit)
        else:
            outcomes, claimed = await self._datastore.settle(calls), None
        for outcome in outcomes:
            if not outcome.ok:
                raise RuntimeError(f"expected a settled claim, got {outcome.word}")
        return [(item.sort_field, item.token or "") for item in claimed.items] if claimed else []

    async def get(self, key: str, name: str) -> None:
        """Read one."""
        await self._datastore.get(key, name)

    async def update(self, key: str, name: str) -> None:
        """Note progress."""
        await self._datastore.update(key, name, metadata={"progress": 50})

    async def query(self, key: str, kind: str) -> int:
        """A page by an index, if the key has one."""
        return len((await self._datastore.query(key, where={"type": kind}, limit=PAGE)).items)
