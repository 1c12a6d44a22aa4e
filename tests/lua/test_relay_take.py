"""relay_take: who gets which event of the outbox, and what the consumer group then holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as aioredis

from hookline import Datastore
from scripts import TAG, URL, Scripts, snapshot

OUTBOX = f"{TAG}:outbox"


async def fire(scripts: Scripts, *sort_fields: str) -> list[bytes]:
    """Write one event per item -> all ids in the outbox."""
    for sort_field in sort_fields:
        await scripts.create(sort_field, trigger_urls={URL: "secret"})
        await scripts.update(sort_field, metadata={"n": 1})
    entries: list[Any] = await scripts.raw.xrange(OUTBOX) or []
    return [stream_id for stream_id, _ in entries]


async def take(datastore: Datastore, consumer: str = "r1", **request: Any) -> dict[str, Any]:
    """What a relay gets: ids, and whether the group was made for it."""
    asked = {"consumer": consumer, "limit": 10, "idle_ms": 60_000, "dead_ms": 60_000, "look": True, "own": False}
    asked |= request
    answer = await datastore.connection.read("relay_take", 0, asked)
    return {
        "ids": [entry[0] for entry in answer[b"events"]],
        "created": answer[b"created"],
        "corrupt": answer[b"corrupt"],
        "events": answer[b"events"],
    }


async def pending(raw: aioredis.Redis) -> dict[bytes, int]:
    """How many events each consumer holds unacknowledged."""
    summary = await raw.xpending(OUTBOX, "relay")
    return {consumer["name"]: consumer["pending"] for consumer in summary["consumers"]}


async def test_the_first_take_makes_the_group_at_the_first_event(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis
) -> None:
    ids = await fire(scripts, "a", "b")
    entries = (await snapshot(raw))["outbox"]
    taken = await take(datastore)
    assert (taken["ids"], taken["created"], taken["corrupt"]) == (ids, True, False)
    flat = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in taken["events"]]
    assert [{name.decode(): value for name, value in event.items()} for event in flat] == entries
    assert [event[b"sort"] for event in flat] == [b"a", b"b"]
    assert await pending(raw) == {b"r1": 2}
    assert (await snapshot(raw))["outbox"] == entries


async def test_an_outbox_that_is_not_there_yet(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    assert await take(datastore) == {"ids": [], "created": True, "corrupt": False, "events": []}
    assert (await snapshot(raw)) == {"outbox": []}
    ids = await fire(scripts, "a")
    assert (await take(datastore))["ids"] == ids


async def test_each_event_goes_to_one_relay(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    ids = await fire(scripts, *"abcde")
    assert (await take(datastore, "r1", limit=2))["ids"] == ids[:2]
    assert (await take(datastore, "r2", limit=2))["ids"] == ids[2:4]
    assert (await take(datastore, "r1", limit=2))["ids"] == ids[4:]
    assert (await take(datastore, "r2", limit=2))["ids"] == []
    assert await pending(raw) == {b"r1": 3, b"r2": 2}


async def test_what_a_lost_relay_left_is_taken_over_first(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis
) -> None:
    ids = await fire(scripts, *"abcd")
    await take(datastore, "lost", limit=2)
    assert (await take(datastore, "r1", limit=1))["ids"] == ids[2:3]
    assert (await take(datastore, "r2", limit=3, idle_ms=0))["ids"] == ids[:3]
    assert (await take(datastore, "r2", limit=3))["ids"] == ids[3:]
    assert await pending(raw) == {b"r2": 4}


async def test_the_limit_counts_what_is_taken_over(scripts: Scripts, datastore: Datastore) -> None:
    ids = await fire(scripts, *"abcd")
    await take(datastore, "lost", limit=1)
    assert (await take(datastore, "r1", limit=3, idle_ms=0))["ids"] == ids[:3]


async def test_a_relay_not_heard_of_is_taken_over_from_one_that_is_is_not(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis
) -> None:
    ids = await fire(scripts, *"abcd")
    await take(datastore, "gone", limit=2)
    await take(datastore, "lives", limit=1)
    await asyncio.sleep(0.3)
    await take(datastore, "lives", limit=0)
    assert (await take(datastore, "r1", dead_ms=200, look=False))["ids"] == ids[3:]
    assert (await take(datastore, "r1", dead_ms=200, limit=1))["ids"] == ids[:1]
    assert (await take(datastore, "r1", dead_ms=200))["ids"] == ids[1:2]
    assert await pending(raw) == {b"lives": 1, b"r1": 3}
    assert (await take(datastore, "r1", dead_ms=200, own="0"))["ids"] == [ids[0], ids[1], ids[3]]


async def test_a_restarted_relay_begins_with_its_own(scripts: Scripts, datastore: Datastore) -> None:
    ids = await fire(scripts, *"abc")
    await take(datastore, "r1", limit=1)
    await take(datastore, "r2", limit=1)
    assert (await take(datastore, "r1", own="0"))["ids"] == ids[:1]
    assert (await take(datastore, "r1", own="0"))["ids"] == ids[:1]
    assert (await take(datastore, "r1", own=ids[0]))["ids"] == []
    assert (await take(datastore, "r1"))["ids"] == ids[2:]


@pytest.mark.parametrize("own", ["0", False])
async def test_a_deleted_event_is_not_given(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis, own: str | bool
) -> None:
    ids = await fire(scripts, *"abc")
    await take(datastore)
    await raw.xdel(OUTBOX, ids[1])
    assert (await take(datastore, own=own, idle_ms=0 if not own else 60_000))["ids"] == [ids[0], ids[2]]


async def test_a_lost_group_begins_again(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    ids = await fire(scripts, *"ab")
    await take(datastore, limit=1)
    await raw.xgroup_destroy(OUTBOX, "relay")
    taken = await take(datastore)
    assert (taken["ids"], taken["created"]) == (ids, True)
