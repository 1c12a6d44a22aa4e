"""Calls of the scripts just as the engine makes them, but many in one batch and under call ids of the test's choice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore
from hookline.call import Call
from hookline.calls import Calls
from hookline.clock import format_time
from hookline.codec import pack_request, unpack_answer
from hookline.keysettings import Known
from hookline.outcome import Claimed, Outcome
from hookline.row import pack_operations
from hookline_lua import load
from invariants import EPOCH_MS, read_keyspace
from jobs import spoil

TAG = "hl:{default/0}"
KEEP_MS = 4000
KEY = "jobs"
URL = "http://worker.example/run"
NOW = str(NOW_MS)
Snapshot = dict[str, Any]


def at(seconds: float) -> str:
    """The time so long after the clock's start, as users write it."""
    return format_time(NOW_MS + round(seconds * 1000))


def ms(seconds: float) -> str:
    """The time so long after the clock's start, as hashes keep it."""
    return str(NOW_MS + round(seconds * 1000))


def line(seconds: float = 0, *, priority: int = 5, place: int = 1) -> float:
    """The score in line of what became ready then: by priority, then time, then place in its batch."""
    return (9 - priority) * 9 * 10**14 + (int(ms(seconds)) - EPOCH_MS) * 1000 + place


def calling(*events: str) -> list[dict[str, Any]]:
    """One trigger for these events."""
    return [{"url": URL, "apiKey": "secret", "events": list(events)}]


async def snapshot(raw: aioredis.Redis) -> Snapshot:
    """The partition's keys but the outcomes of calls: names within it, values as text where they are text."""
    return {
        (short := name.decode().removeprefix(f"{TAG}:")): _readable(short, entry.value)
        for name, entry in (await read_keyspace(raw)).items()
        if name.startswith(f"{TAG}:".encode()) and not name.startswith(f"{TAG}:o:".encode())
    }


def _readable(name: str, value: Any) -> Any:
    """Names and members as text, and the values of native fields; packed values stay bytes."""
    if isinstance(value, dict):
        texts = {field.decode(): stored for field, stored in value.items()}
        if name.startswith(("i:", "n:", "cfg:")):
            return {field: stored if _packed(field) else stored.decode() for field, stored in texts.items()}
        return texts
    if isinstance(value, set):
        return {member.decode() for member in value}
    if isinstance(value, list):
        return [{field.decode(): stored for field, stored in fields.items()} for _, fields in value]
    return value


def _packed(field: str) -> bool:
    return field in ("c", "t") or field.startswith(("m:", "x:"))


@asynccontextmanager
async def unchanged(raw: aioredis.Redis) -> AsyncIterator[None]:
    """Nothing in the store changes meanwhile but the counts of refusals (and the outcomes of calls)."""
    before = await snapshot(raw)
    yield
    after = await snapshot(raw)
    assert _without_counts(after) == _without_counts(before)


def _without_counts(keyspace: Snapshot) -> Snapshot:
    return {name: value for name, value in keyspace.items() if not name.startswith("n:")}


@dataclass
class Scripts:
    """Runs calls on the one partition. A verb answers with its outcome, also where that is a refusal."""

    raw: aioredis.Redis
    datastore: Datastore
    clock: Clock
    outbox_max: int = 1000

    def __post_init__(self) -> None:
        self._ids = count(1)

    @property
    def calls(self) -> Calls:
        """The engine's calls, to be run in batches by :meth:`run`."""
        return self.datastore.calls

    async def answer(self, calls: Sequence[Call], *, call_id: str | None = None, generation: int = 0) -> bytes:
        """The packed answer of one FCALL for these calls, all of one script."""
        (name,) = {call.script for call in calls}
        args = self.args(calls, call_id=call_id, generation=generation)
        answer: bytes = await self.raw.fcall(load(name).function, 1, *args)
        return answer

    def args(self, calls: Sequence[Call], *, call_id: str | None = None, generation: int = 0) -> list[Any]:
        """The key and the arguments of one such call."""
        request = b"\x93" + pack_request(KEEP_MS) + pack_request(self.outbox_max)
        request += pack_operations([call.pack(Known(generation)) for call in calls])
        now = "" if self.clock.ms is None else str(self.clock.ms)
        return [TAG, now, call_id or f"test-{next(self._ids)}", request]

    async def run(self, *calls: Call, call_id: str | None = None, generation: int = 0) -> list[Any]:
        """Each call's outcome, or what it claimed."""
        answers = unpack_answer(await self.answer(calls, call_id=call_id, generation=generation))
        return [call.decode(answer) for call, answer in zip(calls, answers, strict=True)]

    async def words(self, *calls: Call, generation: int = 0) -> list[str]:
        """Each call's outcome word."""
        answers = unpack_answer(await self.answer(calls, generation=generation))
        return [answer[0].decode() for answer in answers]

    async def twice(self, *calls: Call) -> list[Any]:
        """The outcomes of a call whose first answer was lost: the second is the same, and so is the store after it."""
        first, after = await self.answer(calls, call_id="lost"), await snapshot(self.raw)
        second = await self.answer(calls, call_id="lost")
        assert await snapshot(self.raw) == after
        told, again = (
            [call.decode(each) for call, each in zip(calls, unpack_answer(answer), strict=True)]
            for answer in (first, second)
        )
        assert again == told
        return again

    async def one(self, call: Call) -> Outcome:
        """The outcome of a call alone."""
        (outcome,) = await self.run(call)
        assert isinstance(outcome, Outcome)
        return outcome

    async def create(self, sort_field: str = "a", **fields: Any) -> Outcome:
        return await self.one(self.calls.create(KEY, sort_field, **fields))

    async def update(self, sort_field: str = "a", **fields: Any) -> Outcome:
        return await self.one(self.calls.update(KEY, sort_field, **fields))

    async def delete(self, sort_field: str = "a", **fields: Any) -> Outcome:
        return await self.one(self.calls.delete(KEY, sort_field, **fields))

    async def complete(self, sort_field: str = "a", token: str = "", **fields: Any) -> Outcome:
        return await self.one(self.calls.complete(KEY, sort_field, token or await self.token(sort_field), **fields))

    async def fail(self, sort_field: str = "a", token: str = "", **fields: Any) -> Outcome:
        return await self.one(self.calls.fail(KEY, sort_field, token or await self.token(sort_field), **fields))

    async def release(self, sort_field: str = "a", token: str = "", **fields: Any) -> Outcome:
        return await self.one(self.calls.release(KEY, sort_field, token or await self.token(sort_field), **fields))

    async def extend(self, sort_field: str = "a", token: str = "", **fields: Any) -> Outcome:
        return await self.one(self.calls.extend(KEY, sort_field, token or await self.token(sort_field), **fields))

    async def claim(self, worker_id: str = "w1", **options: Any) -> Claimed:
        (claimed,) = await self.run(self.calls.claim(KEY, worker_id=worker_id, **options))
        assert isinstance(claimed, Claimed)
        return claimed

    async def fields(self, sort_field: str = "a") -> dict[str, Any]:
        """The raw fields of an item's hash."""
        fields: dict[str, Any] = (await snapshot(self.raw))[f"i:{KEY}:{sort_field}"]
        return fields

    async def token(self, sort_field: str = "a") -> str:
        """The token that the store holds for an item."""
        token: str = (await self.fields(sort_field))["tk"]
        return token

    async def counts(self) -> dict[str, str]:
        """The counts of the key."""
        counts: dict[str, str] = (await snapshot(self.raw)).get(f"n:{KEY}", {})
        return counts

    async def spoil(self, name: str) -> None:
        """Put text where Hookline has something else."""
        await spoil(self.raw, f"{TAG}:{name}")

    async def events(self) -> list[dict[str, Any]]:
        """The entries of the outbox; what changed (before, after) decoded to fields."""
        return [_event(entry) for entry in (await snapshot(self.raw)).get("outbox", [])]

    async def configure(self, **settings: int | str) -> None:
        """Write the key's settings as they are stored, generation included only if given."""
        await self.raw.hset(f"{TAG}:cfg:{KEY}", items=[part for pair in settings.items() for part in pair])


def _event(entry: dict[str, bytes]) -> dict[str, Any]:
    packed = {name: unpack_answer(entry[name]) for name in ("before", "after", "triggers")}
    fields = {name: {field.decode(): old for field, old in packed[name].items()} for name in ("before", "after")}
    texts = {name: entry[name].decode() for name in ("event", "key", "sort", "at", "token")}
    return {**texts, **fields, "urls": [trigger[0].decode() for trigger in packed["triggers"]]}
