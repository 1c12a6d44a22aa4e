"""The store under test with the model beside it: every step is done to both, and both must tell the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Call, Claimed, Datastore, Item, Outcome, SecretBox, Settings, bulk
from hookline.bulk import Progress
from hookline.calls import Calls
from hookline.errors import Invalid
from hookline.keys import partition_tag
from invariants import PLACES, check_invariants
from model.item import Answer, Filters, Settle, Shown
from model.model import Model
from proxy import Proxy

KEYS = ("jobs", "other")
NAMES = ("a", "b", "B:1", "é", "c", "z")
"""With three partitions, each holds some of them."""
Name = tuple[str, str]
Given = list[tuple[str, Shown]]
T = TypeVar("T")


def shown(item: Item) -> Shown:
    """What the model says of an item, as the store tells it."""
    return Shown(item.version, item.metadata, item.content, item.created_at, item.updated_at)


class World:
    """One store with its two datastores (``far`` is behind a proxy that loses calls and answers), and the model.

    Everything runs on a loop of its own, so that the steps can be plain functions.
    """

    def __init__(self, url: str, partitions: int, runner: asyncio.Runner) -> None:
        self.partitions = partitions
        self._url, self._runner = url, runner
        self._tags = [partition_tag("default", partition, partitions) for partition in range(partitions)]
        self._settings = replace(Settings(), partitions=partitions, call_timeout=2.0, connections=4)
        self._proxy = Proxy(url.removeprefix("unix://"))
        self._raw = aioredis.Redis.from_url(url, decode_responses=False, protocol=2)

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self._runner.run(step)

    async def open(self) -> None:
        """Once, before the first example."""
        await self._proxy.start()

    async def close(self) -> None:
        """Once, after the last example."""
        await self._proxy.stop()
        await self._raw.aclose()

    async def begin(self) -> None:
        """Before each example: nothing is there."""
        await self._raw.flushall()
        self._proxy.faults.clear()
        self._proxy.calls.clear()
        self.clock = Clock(NOW_MS)
        self.model = Model(self.partitions, NOW_MS)
        self.fault: bytes | None = None
        self._spent: set[str] = set()
        secrets = SecretBox(bytes(range(32)))
        self.direct = Datastore(self._url, self._settings, secrets, now_ms=self.clock)
        self.far = Datastore(self._proxy.url, self._settings, secrets, now_ms=self.clock)
        self._far_is_open = False
        await self.direct.open()

    async def end(self) -> None:
        """After each example."""
        await self.direct.close()
        await self.far.close()

    @property
    def calls(self) -> Calls:
        """Makes calls for either datastore."""
        return self.direct.calls

    def advance(self, seconds: float) -> None:
        """The clocks of both go on."""
        self.clock.advance(seconds)
        self.model.now = self.clock.ms or 0

    async def flush_scripts(self) -> None:
        """The store forgets the scripts."""
        await self._raw.function_flush()

    async def _reach(self) -> tuple[Datastore, bool]:
        """The datastore to use, and whether its first call or answer will be lost."""
        if self.fault is None:
            return self.direct, False
        if not self._far_is_open:
            await self.far.open()
            self._far_is_open = True
        self._proxy.faults.append(self.fault)
        self.fault = None
        return self.far, True

    # Steps

    async def write(self, calls: Sequence[Call], answers: Sequence[Answer]) -> None:
        """Run calls of one script -> the outcomes are the model's answers."""
        self.model.flush()
        datastore, lost = await self._reach()
        outcomes = await datastore.run(calls)
        for call, outcome, answer in zip(calls, outcomes, answers, strict=True):
            self._check_outcome(call, outcome, answer, anew=lost and len(calls) > 1)
        await self.verify()

    async def claim(self, key: str, worker: str, limit: int, lock_for: str | None, where: Filters | None) -> None:
        """Claim: the items and their order are the model's."""
        datastore, _ = await self._reach()
        first = datastore.claims.partition(key)
        given, due = self.model.take(key, worker, limit, lock_for, where, first)
        claimed = await datastore.claim(key, worker_id=worker, limit=limit, lock_for=lock_for, where=where)
        self._check_claimed(key, claimed, given, due)
        await self.verify()

    async def exchange(
        self, calls: Sequence[Call], settles: list[Settle], key: str, worker: str, limit: int, where: Filters | None
    ) -> None:
        """Settle, and claim again in the same call."""
        datastore, lost = await self._reach()
        first = datastore.claims.partition(key)
        answers, given, due = self.model.exchange(settles, key, worker, limit, where, first)
        outcomes, claimed = await datastore.exchange(calls, key, worker_id=worker, limit=limit, where=where)
        for call, outcome, answer in zip(calls, outcomes, answers, strict=True):
            self._check_outcome(call, outcome, answer, anew=lost)
        self._check_claimed(key, claimed, given, due)
        await self.verify()

    async def sweep(self) -> None:
        """What the servers do every second."""
        self.model.sweep()
        assert await self.direct.sweep() == []
        await self.verify()

    async def set_status(self, key: str, left: str, where: Filters, status: str) -> None:
        """Redrive or cancel all that match, in steps."""
        changed = self.model.set_status(key, left, where, status)
        change, named = (bulk.redrive, {}) if status == "not_started" else (bulk.cancel, {"status": left})
        progress = [step async for step in change(self.direct, key, {**where, **named})]
        assert progress[-1] == Progress(changed, 0, None)
        if self.model.setting(key, "indexes"):
            await self._learn_places(key)
        await self.verify()

    async def _learn_places(self, key: str) -> None:
        """Along an index items are changed in an order of its own, and stand in line by it."""
        for tag in self._tags:
            line: list[Any] = await self._raw.zrange(f"{tag}:s:{key}:not_started", 0, -1, withscores=True)
            for name, score in line:
                self.model.items[key, name.decode()].place = int(score) % PLACES

    async def configure(self, key: str, settings: dict[str, Any]) -> None:
        """Change settings of a key."""
        self.model.settings.setdefault(key, {}).update(settings)
        found = await self.direct.configure(key, **settings)
        assert found.paused == bool(self.model.setting(key, "paused"))
        assert found.max_attempts == self.model.setting(key, "max_attempts")
        await self.verify()

    async def query(self, key: str, status: str | None, limit: int, where: Filters) -> None:
        """Read all pages: the order is that of the line, or of another status, or of the sortFields."""
        model, asked = self.model, {**where, **({"status": status} if status else {})}
        items = model.of_status(key, status) if status else model.of_key(key)
        matching = [(item.sort_field, item.show()) for item in items if model.meets(item, where)]
        order = None if not model.setting(key, "indexes") else "status" if status else "sortField"
        assert await self._read(key, asked, limit, order) == matching
        count = await self.direct.count(key, where=asked)
        assert (count.count, count.cursor) == (len(matching), None)
        if order:
            anyhow = await self._read(key, asked, limit, None)
            assert sorted(anyhow, key=lambda row: row[0]) == sorted(matching, key=lambda row: row[0])

    async def query_by(self, key: str, name: str, limit: int, where: Filters) -> None:
        """Read all pages in the order of a declared index; refused, if it is not complete."""
        if name not in (self.model.setting(key, "indexes") or {}) or name in await self.direct.builds(key):
            with pytest.raises(Invalid, match=r"^/order: "):
                await self.direct.query(key, order=name, limit=limit)
            return
        rows = [(self.model.value(item, name), item) for item in self.model.of_key(key)]
        rows = sorted((row for row in rows if row[0] is not None), key=lambda row: row[0])
        expected = [(item.sort_field, item.show()) for _, item in rows if self.model.meets(item, where)]
        assert await self._read(key, where, limit, name) == expected
        assert await self._read(key, where, limit, f"{name}:desc") == expected[::-1]

    async def _read(self, key: str, where: Filters, limit: int, order: str | None) -> list[tuple[str, Shown]]:
        """What all pages of a query have."""
        pages = [await self.direct.query(key, where=where, limit=limit, order=order)]
        while cursor := pages[-1].cursor:
            pages.append(await self.direct.query(key, where=where, limit=limit, order=order, cursor=cursor))
        return [(item.sort_field, shown(item)) for page in pages for item in page.items]

    # Checks

    def _check_outcome(self, call: Call, outcome: Outcome | Claimed, answer: Answer, *, anew: bool) -> None:
        """An outcome is the answer; read ``anew`` after a loss, its item may have gone on within the batch."""
        assert isinstance(outcome, Outcome)
        assert outcome.word == answer.word
        assert not (outcome.ok and call.request.get("token") in self._spent), "a token of a claim that had ended"
        if outcome.ok and answer.shown:
            assert outcome.version == answer.shown.version
        if not anew:
            settled = outcome.ok and call.script == "settle"
            assert (outcome.item and shown(outcome.item)) == (None if settled else answer.shown)
            assert (outcome.status, outcome.locked_until_ms) == (answer.status, answer.locked_until)
            assert bool(outcome.item and outcome.item.token) == answer.claims
        if outcome.item and outcome.item.token:
            self.model.learn(call.key, call.sort_field, outcome.version or 0, outcome.item.token)

    def _check_claimed(self, key: str, claimed: Claimed, given: Given, due: int | None) -> None:
        assert [(item.sort_field, shown(item)) for item in claimed.items] == given
        assert claimed.next_ms == due
        assert claimed.failure is None
        for item in claimed.items:
            self.model.learn(key, item.sort_field, item.version, item.token or "")

    async def verify(self) -> None:
        """Every item and count is as the model has it, and the store's keys fit together."""
        names = [(key, sort_field) for key in KEYS for sort_field in NAMES]
        items = await self.direct.get_many(names)
        found = {name: shown(item) for name, item in zip(names, items, strict=True) if item}
        assert found == {name: item.show() for name, item in self.model.items.items()}
        assert await self._counts() == self.model.counts
        await check_invariants(self._raw)
        self._spent = set(self.model.ended)

    async def _counts(self) -> Counter[Name]:
        """What the store has counted of each key, over all partitions."""
        pipe = self._raw.pipeline(transaction=False)
        asked = [(key, pipe.hgetall(f"{tag}:n:{key}"))[0] for tag in self._tags for key in KEYS]
        counts: Counter[Name] = Counter()
        for key, fields in zip(asked, await pipe.execute(), strict=True):
            for name, count in fields.items():
                counts[key, name.decode()] += int(count)
        return counts
