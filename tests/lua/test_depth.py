"""depth: what of a key can be claimed, and since when the oldest waits; the outbox and its oldest event."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS
from hookline import Datastore
from hookline.depth import Depth, Depths, key_names, read_depths
from jobs import WAITING
from scripts import KEY, URL, Scripts, at, ms, snapshot, unchanged


async def depths(datastore: Datastore, *keys: str) -> Depths:
    return await read_depths(datastore.connection, 1, keys)


async def depth(datastore: Datastore, key: str = KEY) -> Depth:
    (found,) = (await depths(datastore, key)).keys
    return found


async def test_nothing(scripts: Scripts, datastore: Datastore) -> None:
    nothing = dict.fromkeys(("scheduled", "not_started", "started", "completed", "failed", "cancelled"), 0)
    counts = dict.fromkeys(("refused_claims", "lost_locks", "expired_locks"), 0)
    async with unchanged(scripts.raw):
        assert await depths(datastore) == Depths(NOW_MS, [], 0, None)
        assert await depth(datastore) == Depth(KEY, 0, nothing, counts, 0, None, False)


async def test_statuses_and_what_can_be_claimed(scripts: Scripts, datastore: Datastore) -> None:
    metadata: dict[str, dict[str, Any]] = {
        "a": WAITING,
        "b": {"status": "scheduled", "scheduled_at": at(60)},
        "c": {"status": "scheduled", "scheduled_at": at(30)},
        "d": {"status": "started", "locked_until": at(50)},
        "e": {"status": "review"},
        "f": {},
        "g": {"status": "completed"},
    }
    await scripts.run(*(scripts.calls.create(KEY, name, metadata=fields) for name, fields in metadata.items()))
    found = await depth(datastore)
    assert found.items == 7
    assert {status: count for status, count in found.statuses.items() if count} == {
        "not_started": 1, "scheduled": 2, "started": 1, "completed": 1,
    }  # fmt: skip
    assert (found.claimable, found.oldest_ms) == (1, NOW_MS)
    scripts.clock.advance(30)
    assert (await depth(datastore)).claimable == 2
    scripts.clock.advance(25)
    assert (await depth(datastore)).claimable == 3
    scripts.clock.advance(25)
    assert (await depth(datastore)).claimable == 4
    assert (await depths(datastore, KEY)).now_ms == NOW_MS + 80_000


@pytest.mark.parametrize("first", [0, 5, 9])
async def test_the_oldest_may_have_any_priority(scripts: Scripts, datastore: Datastore, first: int) -> None:
    order = [first, *(priority for priority in range(10) if priority != first)]
    for priority in order:
        await scripts.create(f"{priority}", metadata={**WAITING, "priority": priority})
        scripts.clock.advance(1)
        assert (await depth(datastore)).oldest_ms == NOW_MS
    await scripts.delete(f"{first}")
    assert (await depth(datastore)).oldest_ms == int(ms(1))


async def test_what_is_due_has_waited_since_it_was(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create("a", metadata={"status": "scheduled", "scheduled_at": at(10)})
    await scripts.create("b", metadata={"status": "started", "locked_until": at(20)})
    scripts.clock.advance(15)
    assert (await depth(datastore)).oldest_ms == int(ms(10))
    await scripts.delete("a")
    assert (await depth(datastore)).oldest_ms is None
    scripts.clock.advance(15)
    assert (await depth(datastore)).oldest_ms == int(ms(20))


async def test_of_a_paused_key_nothing_can_be_claimed(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata=WAITING)
    await datastore.pause(KEY)
    found = await depth(datastore)
    assert (found.paused, found.claimable, found.oldest_ms) == (True, 0, None)
    assert found.statuses["not_started"] == 1
    await datastore.resume(KEY)
    assert (await depth(datastore)).claimable == 1


async def test_counts(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata={"status": "started", "locked_until": at(5)})
    await scripts.update(metadata={"status": "started"})
    await scripts.complete(token="1.ab")
    scripts.clock.advance(10)
    await scripts.claim()
    assert (await depth(datastore)).counts == {"refused_claims": 1, "lost_locks": 1, "expired_locks": 1}


async def test_the_outbox_and_its_oldest_event(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    await scripts.create(trigger_urls={URL: "secret"})
    for n in range(3):
        await scripts.update(metadata={"n": n})
    entries: Any = await raw.xrange("hl:{default/0}:outbox")
    first: bytes = entries[0][0]
    found = await depths(datastore)
    assert (found.outbox, found.outbox_since_ms) == (3, int(first.partition(b"-")[0]))


async def test_many_keys_in_their_order(scripts: Scripts, datastore: Datastore) -> None:
    names = [f"key-{n:03}" for n in range(60)]
    await scripts.run(*(scripts.calls.create(name, "a", metadata=WAITING) for name in names))
    assert await key_names(datastore.connection, 1, "r") == (names, True)
    assert [found.key for found in (await depths(datastore, *names[::-1])).keys] == names[::-1]


async def test_names_are_read_up_to_a_bound(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    for start in range(0, 2000, 100):
        await scripts.run(*(scripts.calls.create(f"key-{start + n}", "a") for n in range(100)))
    names, whole = await key_names(datastore.connection, 1, "r", pages=2)
    assert not whole
    assert 900 < len(names) < 1300


@pytest.mark.spoils
@pytest.mark.parametrize("name", ["k:jobs", "s:jobs:not_started", "s:jobs:scheduled", "n:jobs", "cfg:jobs", "outbox"])
async def test_what_is_corrupt_counts_nothing(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis, name: str
) -> None:
    await scripts.create(metadata=WAITING)
    await scripts.one(scripts.calls.create("other", "a", metadata=WAITING))
    await scripts.spoil(name)
    before = await snapshot(raw)
    spoilt, other = (await depths(datastore, KEY, "other")).keys
    assert (other.items, other.claimable) == (1, 1)
    assert spoilt.claimable == (0 if name == "s:jobs:not_started" else 1)
    assert spoilt.items == (0 if name == "k:jobs" else 1)
    assert await snapshot(raw) == before
