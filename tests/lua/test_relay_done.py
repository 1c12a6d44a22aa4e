"""relay_done: an event that was delivered is gone from the outbox and from the group, others stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis

from hookline import Datastore
from scripts import TAG, URL, Scripts, snapshot

OUTBOX = f"{TAG}:outbox"


async def fire_and_take(scripts: Scripts, *sort_fields: str) -> list[bytes]:
    """Write one event per item, and have a relay take them all -> their ids."""
    for sort_field in sort_fields:
        await scripts.create(sort_field, trigger_urls={URL: "secret"})
        await scripts.update(sort_field, metadata={"n": 1})
    request = {"consumer": "r1", "limit": 10, "idle_ms": 60_000, "own": False}
    answer = await scripts.datastore.connection.read("relay_take", 0, request)
    return [stream_id for stream_id, _ in answer[b"events"]]


async def done(datastore: Datastore, ids: Sequence[bytes]) -> int:
    answer: int = await datastore.connection.read("relay_done", 0, {"ids": ids})
    return answer


async def pending(raw: aioredis.Redis) -> list[bytes]:
    entries: list[Any] = await raw.xpending_range(OUTBOX, "relay", "-", "+", 10)
    return [entry["message_id"] for entry in entries]


async def test_raw_keys(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    ids = await fire_and_take(scripts, *"abc")
    before = await snapshot(raw)
    assert await done(datastore, [ids[0], ids[2]]) == 2
    assert await snapshot(raw) == {**before, "outbox": before["outbox"][1:2]}
    assert await pending(raw) == [ids[1]]
    assert await done(datastore, ids) == 1
    assert await snapshot(raw) == {**before, "outbox": []}
    assert await pending(raw) == []


async def test_twice_is_once(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    ids = await fire_and_take(scripts, "a")
    assert [await done(datastore, ids) for _ in range(2)] == [1, 0]
    assert await pending(raw) == []


async def test_an_event_of_another_relay(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    """Whoever delivered it says so; that it was taken over meanwhile does not bring it back."""
    ids = await fire_and_take(scripts, "a")
    await raw.xclaim(OUTBOX, "relay", "r2", 0, [*ids])
    assert await done(datastore, ids) == 1
    assert await pending(raw) == []


async def test_without_group_or_stream(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    ids = await fire_and_take(scripts, "a")
    await raw.xgroup_destroy(OUTBOX, "relay")
    assert await done(datastore, ids) == 1
    await raw.delete(OUTBOX)
    assert await done(datastore, ids) == 0
