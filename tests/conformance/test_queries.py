"""Queries: pages, orders, cursors."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore
from hookline.errors import Corrupt, Invalid
from jobs import WAITING, by_partition, fill, names, pages


@pytest.mark.parametrize("limit", [1, 7, 50, 299, 300, 1000])
async def test_pages(datastore: Datastore, limit: int) -> None:
    """Each item that matches, once, and in order: that of sortFields is exact."""
    made = await fill(datastore, 30 if limit == 1 else 300)
    some = {"n": {"gte": 20, "lt": 120}}
    for query, wanted in (
        ({}, made),
        ({"order": "sortField"}, made),
        ({"order": "sortField:asc"}, made),
        ({"order": "sortField:desc"}, made[::-1]),
        ({"where": some}, made[20:120]),
        ({"where": {"n": {"in": [3, 11, 12]}}, "order": "sortField:desc"}, [made[n] for n in (12, 11, 3)]),
        ({"where": {**WAITING, **some}, "order": "sortField:desc"}, made[20:120][::-1]),
        ({"where": {"status": "started"}}, []),
        ({"where": {"n": -1}}, []),
    ):
        found = await pages(datastore, limit=limit, **query)
        assert [name for page in found for name in page] == wanted, query
        assert all(len(page) == limit for page in found[:-1])


@pytest.mark.parametrize("limit", [7, 300])
async def test_pages_by_status(datastore: Datastore, limit: int) -> None:
    """In the order of the line, exact within a partition."""
    made = await fill(datastore, 300)
    for where, wanted in ((WAITING, made), ({**WAITING, "n": {"lt": 100}}, made[:100])):
        found = await pages(datastore, where=where, limit=limit)
        assert by_partition(datastore, chain(*found)) == by_partition(datastore, wanted)
        assert all(len(page) == limit for page in found[:-1])


async def test_pages_by_status_are_in_the_order_of_their_times(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    made: list[str] = []
    for n in range(60):
        clock.advance(0.001)
        made.append((await datastore.create("jobs", f"{n * 37 % 60}", metadata=WAITING)).sort_field)
    assert [*chain(*await pages(datastore, limit=7, where=WAITING))] == made


@pytest.mark.spoils
async def test_a_page_reads_no_more_than_it_shows(datastore: Datastore, raw: aioredis.Redis) -> None:
    """What other partitions have further on is told of when it is its turn."""
    for name in "abcdefgh":
        await datastore.create("jobs", name)
        if name != "a":
            await raw.hset(datastore.calls.item_name("jobs", name), "c", b"\xc1")
    page = await datastore.query("jobs", limit=1)
    assert names(page.items) == ["a"]
    with pytest.raises(Corrupt):
        await datastore.query("jobs", limit=1, cursor=page.cursor)


async def test_order_is_by_bytes(datastore: Datastore) -> None:
    made = ["a", "B", "é", "z", "a/b", "😀", "\uffee", "a b", "10", "9"]
    for name in made:
        await datastore.create("jobs", name)
    assert await pages(datastore) == [sorted(made, key=str.encode)]
    assert await pages(datastore, order="sortField:desc") == [sorted(made, key=str.encode, reverse=True)]


async def test_pages_while_items_move(datastore: Datastore) -> None:
    """Whatever stays is found exactly once."""
    made = await fill(datastore, 100)
    first = await datastore.query("jobs", limit=40)
    for name in (*made[10:20], made[39], *made[60:70]):
        await datastore.delete("jobs", name)
    second = await datastore.query("jobs", limit=100, cursor=first.cursor)
    assert [item.sort_field for item in second.items] == [*made[40:60], *made[70:]]

    by_status = await datastore.query("jobs", where=WAITING, limit=30)
    taken = by_status.items[-1].sort_field
    for name in (taken, by_status.items[0].sort_field):
        await datastore.update("jobs", name, metadata={"status": "completed"})
    rest = await datastore.query("jobs", where=WAITING, limit=100, cursor=by_status.cursor)
    seen = [item.sort_field for item in (*by_status.items, *rest.items)]
    assert len(seen) == len(set(seen)) == 79


async def test_expired_locks_are_found(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    await fill(datastore, 10)
    first = sorted(names((await datastore.claim("jobs", worker_id="w", limit=4, lock_for=10)).items))
    clock.advance(5)
    await datastore.claim("jobs", worker_id="w", limit=4, lock_for=60)
    clock.advance(6)
    where = {"status": "started", "locked_until": {"lt": "CURRENT_TIMESTAMP"}}
    assert await pages(datastore, where=where, limit=3) == [first[:3], first[3:]]


async def test_a_page_is_short_when_its_budget_is_spent(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.query.BUDGET", 3)
    monkeypatch.setattr("hookline.query._ROUNDS", 2)
    made = await fill(datastore, 300)
    page = await datastore.query("jobs", where={"n": -1})
    calls = len({datastore.connection.node_of(partition) for partition in range(datastore.calls.partitions)})
    # As nothing was found so, each partition has a budget of its own then.
    examined = 3 * calls + 3 * datastore.calls.partitions
    assert (page.items, page.explanation.examined, page.cursor is None) == ([], examined, False)
    for order, wanted in (("sortField", made[:100]), ("sortField:desc", made[:100][::-1])):
        found = await pages(datastore, where={"n": {"lt": 100}}, order=order, limit=50)
        assert [*chain(*found)] == wanted
        assert any(len(page) < 50 for page in found[:-1])


@pytest.mark.parametrize(
    "other",
    [
        {"where": {"status": "started"}},
        {"order": "sortField"},
        {"where": WAITING, "order": "sortField:desc"},
        {"where": {**WAITING, "n": 1}},
        {},
    ],
)
async def test_a_cursor_is_of_one_query(datastore: Datastore, other: dict[str, Any]) -> None:
    made = await fill(datastore, 5)
    page = await datastore.query("jobs", where=WAITING, limit=2)
    cursor = page.cursor
    rest = await datastore.query("jobs", where=WAITING, limit=9, cursor=cursor)
    assert sorted(names(page.items + rest.items)) == made
    for key, query in (("jobs", other), ("jobs2", {"where": WAITING})):
        with pytest.raises(Invalid, match="/cursor"):
            await datastore.query(key, cursor=cursor, **query)


async def test_a_tampered_cursor(datastore: Datastore) -> None:
    await fill(datastore, 5)
    cursor = (await datastore.query("jobs", limit=2)).cursor
    assert cursor is not None
    for place in range(len(cursor)):
        altered = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        with pytest.raises(Invalid, match="/cursor"):
            await datastore.query("jobs", cursor=altered)


async def test_a_cursor_of_another_namespace(datastore: Datastore) -> None:
    await fill(datastore, 10)
    cursor = (await datastore.query("jobs", limit=5)).cursor
    datastore.connection.meta.cursor_secret = bytes(32)
    with pytest.raises(Invalid):
        await datastore.query("jobs", limit=5, cursor=cursor)
