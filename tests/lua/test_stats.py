"""stats: counts per key and status, the first score, the counts of refusals."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS
from hookline import Datastore, keys
from hookline.depth import key_names
from hookline.stats import weigh
from jobs import WAITING
from scripts import KEY, TAG, Scripts, at, line, snapshot, unchanged


async def rows(datastore: Datastore, prefix: str = "") -> dict[tuple[str, str], tuple[int, float | None]]:
    """(key, status) -> how many, and the lowest score."""
    found = (await datastore.stats(prefix)).rows
    table = {(row.key, row.status): (row.count, row.first) for row in found}
    assert len(table) == len(found)
    return table


async def test_nothing(scripts: Scripts, datastore: Datastore) -> None:
    stats = await datastore.stats()
    assert (stats.now_ms, stats.rows, stats.counts) == (NOW_MS, [], {})


async def test_rows(scripts: Scripts, datastore: Datastore) -> None:
    metadata: dict[str, dict[str, Any]] = {
        "a": WAITING,
        "b": {**WAITING, "priority": 9},
        "c": {"status": "scheduled", "scheduled_at": at(60)},
        "d": {"status": "started", "locked_until": at(30)},
        "e": {"status": "review"},
        "f": {},
    }
    await scripts.run(*(scripts.calls.create(KEY, name, metadata=fields) for name, fields in metadata.items()))
    await scripts.one(scripts.calls.create("other", "a", metadata=WAITING))
    async with unchanged(scripts.raw):
        expected = {
            ("jobs", ""): (6, None),
            ("jobs", "not_started"): (2, line(priority=9, place=2)),
            ("jobs", "scheduled"): (1, NOW_MS + 60_000),
            ("jobs", "started"): (1, NOW_MS + 30_000),
            ("jobs", "review"): (1, NOW_MS),
        }
        others = {("other", ""): (1, None), ("other", "not_started"): (1, line())}
        assert await rows(datastore) == expected | others
        assert await rows(datastore, "jo") == expected
        assert await rows(datastore, "other") == others
        assert await rows(datastore, "x") == {}


async def test_what_has_gone_counts_nothing(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata=WAITING)
    await scripts.update(metadata={"status": "completed"})
    assert await rows(datastore) == {
        ("jobs", ""): (1, None), ("jobs", "completed"): (1, NOW_MS),
    }  # fmt: skip
    await scripts.delete()
    assert await rows(datastore) == {}


async def test_pages(scripts: Scripts, datastore: Datastore) -> None:
    for first in range(0, 600, 100):
        calls = [scripts.calls.create(f"key-{n}", "a", metadata=WAITING) for n in range(first, first + 100)]
        await scripts.run(*calls)
    expected = {(f"key-{n}", status): 1 for n in range(600) for status in ("", "not_started")}
    assert {name: count for name, (count, _) in (await rows(datastore)).items()} == expected
    assert len(await rows(datastore, "key-5")) == 2 * 111


async def test_the_engines_own_keys_are_told_apart(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata=WAITING)
    await scripts.one(scripts.calls.create("hookline.x", "a", reserved=True))
    assert {key for key, _ in await rows(datastore)} == {KEY}
    assert {key for key, _ in await rows(datastore, "hookline.")} == {"hookline.x"}


async def test_counts(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata={"status": "started", "locked_until": at(5)})
    await scripts.update(metadata={"status": "started"})
    await scripts.update(metadata={"status": "started"})
    await scripts.complete(token="1.ab")
    scripts.clock.advance(10)
    await scripts.claim()
    stats = await datastore.stats()
    assert stats.counts == {KEY: {"refused_claims": 2, "lost_locks": 1, "expired_locks": 1}}
    assert (await datastore.stats("x")).counts == {}


@pytest.mark.spoils
@pytest.mark.parametrize("name", ["k:jobs", "s:jobs:not_started", "n:jobs", "r"])
async def test_a_corrupt_key_counts_nothing(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis, name: str
) -> None:
    await scripts.create(metadata=WAITING)
    await scripts.one(scripts.calls.create("other", "a"))
    await scripts.spoil(name)
    before = await snapshot(raw)
    found = await rows(datastore)
    assert found.get(("other", "")) == (None if name == "r" else (1, None))
    assert found.get(("jobs", "not_started")) == {"r": None, "s:jobs:not_started": (0, None)}.get(name, (1, line()))
    assert await snapshot(raw) == before


@pytest.mark.spoils
async def test_a_name_that_is_none_counts_nothing(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    await scripts.create(metadata=WAITING)
    await raw.sadd(f"{TAG}:r", "nothing", "", b"\xff\0not_started", b"a b\0not_started", b"jobs\0\xff")
    assert await rows(datastore) == {
        ("jobs", ""): (1, None), ("jobs", "not_started"): (1, line()), ("jobs", "\ufffd"): (0, None),
    }  # fmt: skip
    names, whole = await key_names(datastore.connection, 1, "r")
    assert ({"jobs"} <= set(names) <= {"jobs", "nothing"}, whole) == (True, True)


async def test_weights_are_estimates_from_a_few_items(scripts: Scripts, datastore: Datastore) -> None:
    names = [f"{n:03}" for n in range(50)]
    await scripts.run(*(scripts.calls.create(KEY, name, content="x" * 3000) for name in names))
    await scripts.one(scripts.calls.create("one", "a"))
    async with unchanged(scripts.raw):
        jobs, none, one = await weigh(datastore.connection, 1, [KEY, "none", "one"])
        many = await weigh(datastore.connection, 1, [KEY] * 250)
    assert 50 * 3000 < jobs < 50 * 5000
    assert (none, many) == (0, [jobs] * 250)
    assert 0 < one < 2000


async def test_weights_of_what_has_a_wrong_type(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create()
    name = keys.partition_tag("default", 0, 1) + ":k:spoilt"
    await scripts.raw.set(name, "x")
    assert (await weigh(datastore.connection, 1, ["spoilt"])) == [0]
    await scripts.raw.delete(name)
