"""The same datastore over several partitions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock, wait_until
from hookline import Datastore, Settings, keys
from hookline.errors import Corrupt, Invalid
from invariants import check_invariants

PARTITIONS = 8
COUNT = 300
NAMES = [f"{n:03}" for n in range(COUNT)]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, partitions=PARTITIONS)


@pytest_asyncio.fixture(loop_scope="session")
async def filled(datastore: Datastore, raw: aioredis.Redis) -> AsyncIterator[Datastore]:
    """A datastore with 300 items."""
    outcomes = await datastore.run(
        [
            datastore.calls.create("jobs", name, content=name, metadata={"status": "not_started", "n": int(name) % 3})
            for name in NAMES
        ]
    )
    assert all(outcome.ok for outcome in outcomes)
    yield datastore
    await check_invariants(raw)


async def test_items_lie_in_their_partition(filled: Datastore, raw: aioredis.Redis) -> None:
    tags = [keys.partition_tag("default", partition, PARTITIONS) for partition in range(PARTITIONS)]
    for partition, tag in enumerate(tags):
        members = await raw.zrange(f"{tag}:k:jobs", 0, -1)
        wanted = [name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) == partition]
        assert members == [name.encode() for name in wanted]
        assert len(members) > COUNT / PARTITIONS / 2
    for name in NAMES[::10]:
        assert (await filled.get("jobs", name)).content == name


async def pages(datastore: Datastore, limit: int, **query: Any) -> AsyncIterator[list[str]]:
    """The sortFields of each page."""
    cursor: str | None = None
    while True:
        page = await datastore.query("jobs", limit=limit, cursor=cursor, **query)
        yield [item.sort_field for item in page.items]
        cursor = page.cursor
        if cursor is None:
            return


async def test_pages_hold_each_item_once_in_order(filled: Datastore) -> None:
    queries: list[tuple[dict[str, Any], list[str]]] = [
        ({}, NAMES),
        ({"order": "sortField:desc"}, NAMES[::-1]),
        ({"where": {"n": 1}}, NAMES[1::3]),
        ({"where": {"n": 1}, "order": "sortField:desc"}, NAMES[1::3][::-1]),
        ({"where": {"n": 7}}, []),
    ]
    for query, wanted in queries:
        for limit in (3, 50, 299, 300, 1000):
            found = [page async for page in pages(filled, limit, **query)]
            assert [name for page in found for name in page] == wanted, (query, limit)
            assert all(len(page) == limit for page in found[:-1])
            assert len(found[-1]) <= limit


async def test_pages_by_status_are_in_the_order_of_the_line(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    made: list[str] = []
    for n in range(60):
        clock.advance(0.001)
        made.append((await datastore.create("jobs", f"{n * 37 % 60}", metadata={"status": "not_started"})).sort_field)
    assert [name async for page in pages(datastore, 7, where={"status": "not_started"}) for name in page] == made


async def test_small_budgets_lose_nothing(filled: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.query.BUDGET", 3)
    monkeypatch.setattr("hookline.query._ROUNDS", 4)
    found = [page async for page in pages(filled, 50, where={"n": 1})]
    assert sorted(name for page in found for name in page) == NAMES[1::3]
    assert any(len(page) < 50 for page in found[:-1])


@pytest.mark.parametrize("limit", [1, 13, 50, 400])
async def test_claims_take_everything_and_never_too_much(filled: Datastore, limit: int) -> None:
    taken: list[str] = []
    while True:
        claimed = await filled.claim("jobs", worker_id="w", limit=limit)
        assert len(claimed.items) <= limit
        taken += [item.sort_field for item in claimed.items]
        if len(claimed.items) < limit or (limit == 1 and len(taken) == 60):
            break
    if limit > 1:
        assert sorted(taken) == NAMES
    assert len(set(taken)) == len(taken)


async def test_a_claim_stays_where_there_is_work(filled: Datastore) -> None:
    claimed = await filled.claim("jobs", worker_id="w", limit=20)
    assert len({keys.partition_of("jobs", item.sort_field, PARTITIONS) for item in claimed.items}) == 1


async def test_together_claims_take_each_item_once(filled: Datastore) -> None:
    claims = await asyncio.gather(*(filled.claim("jobs", worker_id=f"w{n}", limit=17) for n in range(30)))
    taken = Counter(item.sort_field for claimed in claims for item in claimed.items)
    assert max(taken.values()) == 1
    assert sorted(taken) == NAMES


async def test_filtered_claims(filled: Datastore) -> None:
    claimed = await filled.claim("jobs", worker_id="w", limit=400, where={"n": 2})
    assert sorted(item.sort_field for item in claimed.items) == NAMES[2::3]


async def test_the_earliest_of_all_partitions(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    for n in range(40):
        await datastore.create("jobs", f"{n}", metadata={"status": "not_started", "scheduled_at": f"+{100 - n}s"})
    for _ in range(3):
        assert (await datastore.claim("jobs", worker_id="w")).next_ms == NOW_MS + 61_000


async def test_a_waiting_claim_is_woken_from_any_partition(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    by_partition = {keys.partition_of("jobs", f"{n}", PARTITIONS): f"{n}" for n in range(100)}
    assert len(by_partition) == PARTITIONS
    for name in by_partition.values():
        waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
        await wait_until(lambda: datastore.claims.lines.waiting("jobs"))
        await datastore.create("jobs", name, metadata={"status": "not_started"})
        assert [item.sort_field for item in (await asyncio.wait_for(waiting, 5)).items] == [name]


async def test_sums(filled: Datastore) -> None:
    await filled.claim("jobs", worker_id="w", limit=100)
    counts: Counter[str] = Counter()
    for row in (await filled.stats()).rows:
        counts[row.status] += row.count
    assert counts == {"": 300, "not_started": 200, "started": 100}


async def test_settled_over_all_partitions(filled: Datastore) -> None:
    items = (await filled.claim("jobs", worker_id="w", limit=300)).items
    outcomes = await filled.settle([filled.calls.complete("jobs", item.sort_field, item.token or "") for item in items])
    assert [(outcome.word, outcome.sort_field) for outcome in outcomes] == [("ok", item.sort_field) for item in items]


async def test_what_was_claimed_before_an_error_reaches_the_caller(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.run([datastore.calls.create("jobs", name, metadata={"status": "not_started"}) for name in NAMES])
    spoilt = f"{keys.partition_tag('default', 3, PARTITIONS)}:s:jobs:not_started"
    await raw.delete(spoilt)
    await raw.set(spoilt, "spoilt")
    claimed = await datastore.claim("jobs", worker_id="w", limit=300)
    wanted = [name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) != 3]
    assert sorted(item.sort_field for item in claimed.items) == wanted
    assert isinstance(claimed.failure, Corrupt)
    with pytest.raises(Corrupt):
        await datastore.claim("jobs", worker_id="w")


async def test_cursors_of_another_namespace(filled: Datastore) -> None:
    cursor = (await filled.query("jobs", limit=5)).cursor
    filled.connection.cursor_secret = bytes(32)
    with pytest.raises(Invalid):
        await filled.query("jobs", limit=5, cursor=cursor)
