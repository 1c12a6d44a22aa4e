"""Declared indexes: what they hold, what they answer, and how they are built beside running writes."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Backend
from conftest import NOW_MS, Clock
from hookline import Datastore
from hookline.errors import Invalid
from hookline.index import Index
from invariants import check_invariants
from jobs import WAITING, by_partition, fill, names, script_calls, spoil, tags

VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 1.5, 2**53 + 1, 2**64 - 1, -(2**63), 1e300, {}, [], ["a"]),
    *("", "a", "a\0", "a\0b", "a\1", "ab", "A", "é", "x" * 256, "x" * 257, "x" * 300, "x" * 255 + "é", "10", "9"),
    *("2027-01-15T08:00:00Z", "2027-01-15T10:00:00+02:00", "2027-01-15T08:00:00.0001Z", "1969-12-31T23:59:59Z", "2027"),
]
TESTS = ("eq", "ne", "lt", "lte", "gt", "gte", "prefix")


async def found(datastore: Datastore, key: str = "jobs", **query: Any) -> tuple[list[str], str]:
    """The sortFields of all pages, and the index that was walked."""
    names: list[str] = []
    page = await datastore.query(key, **query)
    while True:
        names += [item.sort_field for item in page.items]
        if page.cursor is None:
            return names, page.explanation.index
        page = await datastore.query(key, **query, cursor=page.cursor)


async def put(datastore: Datastore, values: list[Any], field: str = "x") -> None:
    calls = [datastore.calls.create("jobs", f"{n:03}", metadata={field: value}) for n, value in enumerate(values)]
    assert all(outcome.ok for outcome in await datastore.run(calls))


async def build(datastore: Datastore) -> None:
    while await datastore.builds("jobs"):
        await datastore.sweep()


async def test_filters_find_the_same_with_and_without_an_index(datastore: Datastore, raw: aioredis.Redis) -> None:
    kinds = ("number", "string", "time")
    create = datastore.calls.create
    made = [create("jobs", f"{n:03}", metadata=dict.fromkeys(("x", *kinds), value)) for n, value in enumerate(VALUES)]
    assert all(outcome.ok for outcome in await datastore.run(made))
    asked: list[dict[str, Any]] = [
        {test: value}
        for test in TESTS
        for value in VALUES
        if test in ("eq", "ne") or (isinstance(value, str) if test == "prefix" else type(value) in (str, int, float))
    ]
    asked += [{"in": VALUES[place : place + 3]} for place in range(len(VALUES))]
    asked += [{"gte": one, "lt": other} for one in (-1, "a", VALUES[-2]) for other in (1.5, "x" * 256, VALUES[-5])]
    without = [sorted((await found(datastore, where={"x": each}))[0]) for each in asked]
    await datastore.configure("jobs", indexes={kind: kind for kind in kinds})
    await build(datastore)
    for kind in kinds:
        walked = set()
        for each, expected in zip(asked, without, strict=True):
            names, index = await found(datastore, where={kind: each}, limit=20)
            assert sorted(names) == expected, (kind, each)
            walked.add(index)
            assert (await datastore.count("jobs", where={kind: each})).count == len(expected), (kind, each)
        assert walked == {kind, "sortField"}
    await check_invariants(raw)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("number", [3, "3", 1.5, None, -2, 1.5, True], [4, 2, 5, 0]),
        ("string", ["b", 1, "a", "ab", "B", "a", "é"], [4, 2, 5, 3, 0, 6]),
        ("time", ["2027-01-15T08:00:00Z", "soon", "2027-01-15T09:00:00+02:00", 5], [2, 0]),
    ],
)
@pytest.mark.parametrize("limit", [2, 50])
async def test_order(datastore: Datastore, kind: str, values: list[Any], expected: list[int], limit: int) -> None:
    """By value, then by sortField; what has no value of the kind is left out."""
    await datastore.configure("jobs", indexes={"a.x": kind})
    await put(datastore, [{"x": value} for value in values], "a")
    names = [f"{n:03}" for n in expected]
    assert await found(datastore, order="a.x", limit=limit) == (names, "a.x")
    assert await found(datastore, order="a.x:desc", limit=limit) == (names[::-1], "a.x")
    page = await datastore.query("jobs", order="a.x", where={"sortField": {"gt": "001"}})
    assert [item.sort_field for item in page.items] == [name for name in names if name > "001"]


async def test_every_change_moves_the_entry(datastore: Datastore, raw: aioredis.Redis, clock: Clock) -> None:
    clock.ms = NOW_MS
    await datastore.configure(
        "jobs", indexes={"x": "string", "attempts": "number", "worker_id": "string", "locked_until": "time"}
    )
    await datastore.configure(
        "jobs", indexes={"x": "string", "updatedAt": "time", "started_at": "time", "n.m": "number"}
    )

    async def check(order: str, *names: str) -> None:
        await check_invariants(raw)
        assert (await found(datastore, order=order))[0] == list(names)

    for name in "ab":
        await datastore.create("jobs", name, metadata={"status": "not_started", "x": name, "n": {"m": 1}})
    await check("x", "a", "b")
    clock.advance(1)
    await datastore.update("jobs", "a", metadata={"x": "c", "n": {"m": 2}})
    await check("x", "b", "a")
    await check("updatedAt", "b", "a")
    await check("n.m:desc", "a", "b")
    await check("started_at")
    claimed = await datastore.claim("jobs", worker_id="w", limit=2, lock_for=5)
    await check("started_at", "a", "b")
    clock.advance(1)
    first, second = sorted(claimed.items, key=lambda item: item.sort_field)
    await datastore.settle(
        [datastore.calls.complete("jobs", first.sort_field, first.token or "", metadata={"x": None})]
    )
    await check("x", second.sort_field)
    await datastore.settle([datastore.calls.release("jobs", second.sort_field, second.token or "")])
    await check("started_at", first.sort_field)
    await datastore.create("jobs", "a", metadata={"x": "z"}, upsert=True)
    await check("x", "b", "a")
    await datastore.delete("jobs", "b")
    await check("x", "a")
    await datastore.delete("jobs", "a")
    assert [name async for name in raw.scan_iter(b"*:x:*")] == []


async def test_an_index_is_built_beside_running_writes(datastore: Datastore, raw: aioredis.Redis) -> None:
    await put(datastore, [n % 10 for n in range(1500)])
    before = await found(datastore, where={"x": 3}, limit=1000)
    await datastore.configure("jobs", indexes={"x": "number", "y": "number"})
    assert set(await datastore.builds("jobs")) == {"x", "y"}
    with pytest.raises(Invalid, match=r"^/order: "):
        await datastore.query("jobs", order="x")

    async def write() -> None:
        for n in range(0, 1500, 7):
            await datastore.update("jobs", f"{n:03}", metadata={"x": 3 if n % 2 else 100})
        for n in range(3, 1500, 70):
            await datastore.delete("jobs", f"{n:03}")

    async def query() -> None:
        refusals = set()
        while True:
            try:
                await datastore.query("jobs", order="x")
            except Invalid as error:
                refusals.add(str(error).partition(":")[0])
            else:
                break
        assert refusals <= {"/order"}

    progress = []

    async def build_it() -> None:
        async for builds in datastore.upkeep.build_all("jobs"):
            progress.append(builds)
            await asyncio.sleep(0.01)

    await asyncio.gather(write(), query(), build_it())
    assert len(progress) > 4 or datastore.calls.partitions > 1
    assert all(0 <= build.done <= build.total for builds in progress for build in builds.values())
    assert progress[-1]
    assert all(build.done == build.total for build in progress[-1].values())
    await check_invariants(raw)
    names, index = await found(datastore, where={"x": 3}, limit=1000)
    assert index == "x"
    assert set(names) != set(before[0])


async def test_a_build_ends_with_the_last_item(datastore: Datastore) -> None:
    """Also where a step ends there."""
    await put(datastore, [*range(300)])
    await datastore.configure("jobs", indexes={"x": "number"})
    progress = [builds["x"] async for builds in datastore.upkeep.build_all("jobs")]
    assert (progress[-1].done, progress[-1].total) == (300, 300)
    assert await datastore.builds("jobs") == {}
    assert len((await found(datastore, order="x"))[0]) == 300


async def test_a_step_of_a_build_looks_at_fewer_items_whose_values_are_large(datastore: Datastore) -> None:
    await put(datastore, [{"x": n, "list": [1000] * 2000} for n in range(40)], "a")
    await datastore.configure("jobs", indexes={"a.x": "number"})
    assert (await datastore.upkeep.build("jobs", 300))["a.x"].done <= datastore.calls.partitions
    await build(datastore)
    assert await found(datastore, order="a.x") == ([f"{n:03}" for n in range(40)], "a.x")


async def test_a_step_of_many_builds_is_bounded(datastore: Datastore) -> None:
    keys = [f"key-{n}" for n in range(60)]
    await datastore.run([datastore.calls.create(key, name, metadata={"x": 1}) for key in keys for name in "abc"])
    for key in keys:
        await datastore.configure(key, indexes={"x": "number"})
    _, rows, _ = await datastore.connection.read("backfill", 0, {"work": 100})
    assert 1 <= len(rows) <= (8 if datastore.calls.partitions == 1 else 10)
    await datastore.sweep()
    for key in keys:
        assert (await found(datastore, key, order="x"))[0] == [*"abc"]


@pytest.mark.spoils
async def test_builds_that_are_not_possible_hold_up_no_others(datastore: Datastore, raw: aioredis.Redis) -> None:
    for tag in tags(datastore):
        await raw.hset(f"{tag}:builds", mapping={f"key-{n}\0x": "" for n in range(100)})
        for n in range(100):
            await spoil(raw, f"{tag}:cfg:key-{n}")
    await put(datastore, [*range(10)])
    await datastore.configure("jobs", indexes={"x": "number"})
    for _ in range(100):  # each looks at a third of them or more
        await datastore.sweep()
        if not await datastore.builds("jobs"):
            break
    assert len((await found(datastore, order="x"))[0]) == 10


@pytest.mark.spoils
async def test_a_sweep_does_not_try_on_where_nothing_can_be_built(
    datastore: Datastore, raw: aioredis.Redis, store: Backend
) -> None:
    await put(datastore, [*range(10)])
    await datastore.configure("jobs", indexes={"x": "number"})
    for tag in tags(datastore):
        await spoil(raw, f"{tag}:k:jobs")
    before = await _calls(store)
    await datastore.sweep()
    assert await _calls(store) - before <= 2 * datastore.calls.partitions + looks(datastore, store)


def looks(datastore: Datastore, store: Backend) -> int:
    """Calls by which the nodes are asked where there is something to do; none where there is one partition."""
    return len(store.nodes) if datastore.calls.partitions > 1 else 0


async def _calls(store: Backend) -> int:
    """How many script calls there were."""
    stats = [await node.info("commandstats") for node in store.nodes]
    return sum(
        each[f"cmdstat_{name}"]["calls"]
        for each in stats
        for name in ("fcall", "fcall_ro")
        if f"cmdstat_{name}" in each
    )


async def test_an_index_is_dropped_and_declared_anew(datastore: Datastore, raw: aioredis.Redis) -> None:
    await put(datastore, ["2027-01-15T08:00:00Z", "a", "2027-01-16T08:00:00Z"])
    await datastore.configure("jobs", indexes={"x": "string"})
    await build(datastore)
    page = await datastore.query("jobs", where={"x": {"gte": ""}}, limit=1)
    assert page.explanation.index == "x"
    await datastore.configure("jobs", indexes={"x": "time"})
    assert await datastore.builds("jobs")
    await build(datastore)
    with pytest.raises(Invalid, match=r"^/cursor: the index on x, .* is gone"):
        await datastore.query("jobs", where={"x": {"gte": ""}}, limit=1, cursor=page.cursor)
    by_time = await datastore.query("jobs", order="x", limit=1)
    await datastore.configure("jobs", indexes={"x": "number"})
    await build(datastore)
    with pytest.raises(Invalid, match=r"^/cursor: the index on x, .* is gone"):
        await datastore.query("jobs", order="x", limit=1, cursor=by_time.cursor)
    await datastore.configure("jobs", indexes={"x": "time"})
    await build(datastore)
    assert (await found(datastore, order="x"))[0] == ["000", "002"]
    await datastore.configure("jobs", indexes=None)
    assert [name async for name in raw.scan_iter(b"*:x:*")] == []
    with pytest.raises(Invalid, match=r"^/order: .*; x has no index"):
        await datastore.query("jobs", order="x")
    with pytest.raises(Invalid, match=r"^/cursor: the index on x, .* is gone"):
        await datastore.query("jobs", where={"x": {"gte": ""}}, limit=1, cursor=page.cursor)
    await check_invariants(raw)


async def test_others_learn_of_an_index_by_themselves(datastore: Datastore, store: Backend, clock: Clock) -> None:
    async with Datastore(store.url, datastore.settings, datastore.secrets, now_ms=clock) as other:
        await put(other, [2, 1])
        assert (await found(other, where={"x": 1}))[1] == "sortField"
        await datastore.configure("jobs", indexes={"x": "number"})
        await build(datastore)
        assert await found(other, order="x") == (["001", "000"], "x")
        await other.create("jobs", "b", metadata={"x": 0})
        await datastore.configure("jobs", indexes={"y": "number"})
        assert (await found(other, where={"x": 1}))[1] == "sortField"
        with pytest.raises(Invalid, match="x has no index"):
            await found(other, order="x")


@pytest.mark.parametrize("known_first", [True, False])
async def test_a_partition_whose_index_is_of_another_kind_is_not_walked(
    datastore: Datastore, known_first: bool
) -> None:
    """A change of settings may have reached only the first partition."""
    await put(datastore, [f"{n:02}" for n in range(50)])
    await datastore.configure("jobs", indexes={"x": "number"})
    await build(datastore)
    if known_first:
        await found(datastore, order="x")
    change = {"key": "jobs", "set": {"x:x": Index("x", "string").pack()}, "unset": []}
    await datastore.connection.change("configure", 0, change)
    await build(datastore)
    assert len((await found(datastore, where={"x": {"gte": "00"}}))[0]) == 50
    assert (await datastore.count("jobs", where={"x": {"gte": "00"}})).count == 50
    await datastore.key_settings("jobs")
    await build(datastore)
    assert await found(datastore, where={"x": {"gte": "00"}}, limit=50) == ([f"{n:03}" for n in range(50)], "x")


async def test_the_smallest_index_is_walked(datastore: Datastore) -> None:
    await datastore.configure("jobs", indexes={"type": "string", "size": "number"})
    calls = [
        datastore.calls.create(
            "jobs", f"{n:03}", metadata={"status": "ready" if n < 80 else "done", "type": f"t{n % 2}", "size": n}
        )
        for n in range(100)
    ]
    await datastore.run(calls)

    async def explain(**where: Any) -> dict[str, Any]:
        return (await datastore.query("jobs", where=where, limit=1000)).explanation.to_dict()

    sizes = {"status": 20, "type": 50}
    assert await explain(status="done", type="t1") == {"index": "status", "examined": 20, "candidates": sizes}
    sizes = {"status": 80, "type": 50, "size": 9}
    where: dict[str, Any] = {"status": "ready", "type": "t1", "size": {"gt": 90}}
    assert await explain(**where) == {"index": "size", "examined": 9, "candidates": sizes}
    assert await explain(type="t1", sortField={"prefix": "00"}) == {
        "index": "sortField", "examined": 10, "candidates": {"type": 50, "sortField": 10},
    }  # fmt: skip
    assert await explain(type="t1") == {"index": "type", "examined": 50, "candidates": {}}
    assert await explain() == {"index": "sortField", "examined": 100, "candidates": {}}


async def test_sort_field_ranges(datastore: Datastore) -> None:
    names = ["a", "a/1", "a/2", "b", "b/1", "é", "z"]
    await datastore.run([datastore.calls.create("jobs", name) for name in names])

    async def those(condition: Any, **query: Any) -> list[str]:
        return (await found(datastore, where={"sortField": condition}, limit=2, **query))[0]

    assert await those({"prefix": "a/"}) == ["a/1", "a/2"]
    assert await those({"gte": "a/2", "lt": "é"}, order="sortField:desc") == ["z", "b/1", "b", "a/2"]
    assert await those("b") == ["b"]
    assert await those({"in": ["z", "a", "z", "x"]}) == ["a", "z"]
    assert await those({"in": ["z", "a"]}, order="sortField:desc") == ["z", "a"]
    assert await those({"in": ["z", "a", "b"], "gt": "a"}) == ["b", "z"]
    assert sorted(await those({"ne": "b"})) == sorted({*names} - {"b"})
    assert (await datastore.count("jobs", where={"sortField": {"prefix": "b"}})).explanation.examined == 0


async def test_counting_goes_on_by_a_cursor(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(datastore, [n % 3 for n in range(200)])
    monkeypatch.setattr("hookline.query.BUDGET", 3)
    monkeypatch.setattr("hookline.query._ROUNDS", 2)
    count = await datastore.count("jobs", where={"x": 1})
    total, steps = count.count, 1
    while count.cursor:
        count = await datastore.count("jobs", where={"x": 1}, cursor=count.cursor)
        total, steps = total + count.count, steps + 1
    assert total == 67
    assert steps > 2
    whole = await datastore.count("jobs")
    assert (whole.count, whole.cursor, whole.explanation.examined) == (200, None, 0)


KEYS = count(1)


@given(
    values=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-2, 2)), min_size=1, max_size=30),
    low=st.integers(-3, 3),
    high=st.integers(-3, 3),
    limit=st.integers(1, 9),
    descending=st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_are_the_sorted_matches(
    datastore: Datastore, values: list[tuple[str, int]], low: int, high: int, limit: int, descending: bool
) -> None:
    key = f"jobs-{next(KEYS)}"
    await datastore.configure(key, indexes={"n": "number", "s": "string"})
    rows = [(number, text, f"{place:02}") for place, (text, number) in enumerate(values)]
    await datastore.run(
        [datastore.calls.create(key, name, metadata={"s": text, "n": number}) for number, text, name in rows]
    )
    matches = [row for row in rows if low <= row[0] < high]
    by_number = sorted(((number, name) for number, _, name in matches), reverse=descending)
    by_text = sorted(((text, name) for _, text, name in matches), reverse=descending)
    for order, expected in (("n", by_number), ("s", by_text)):
        suffix = ":desc" if descending else ""
        names, _ = await found(datastore, key, where={"n": {"gte": low, "lt": high}}, order=order + suffix, limit=limit)
        assert names == [name for _, name in expected]


# Claims


async def test_claims_find_by_an_index_what_stands_far_behind(datastore: Datastore, store: Backend) -> None:
    await datastore.configure("jobs", indexes={"type": "string"})
    await fill(datastore, 3000, **WAITING, type="many")
    few = {"second": 5, "low": 1, "high": 9, "first": 5}
    for name, priority in few.items():
        await datastore.create("jobs", name, metadata={**WAITING, "type": "few", "priority": priority})
    await datastore.create("jobs", "done", metadata={"status": "completed", "type": "few"})
    claimed = await datastore.claim("jobs", worker_id="w", limit=3, where={"type": "few"})
    rest = await datastore.claim("jobs", worker_id="w", limit=3, where={"type": "few"})
    assert (len(claimed.items), len(rest.items)) == (3, 1)
    line = by_partition(datastore, ["high", "second", "first", "low"])
    assert by_partition(datastore, names(claimed.items + rest.items)) == line
    assert (await datastore.claim("jobs", worker_id="w", limit=3, where={"type": "few"})).items == []
    calls = await script_calls(*store.nodes)
    assert (await datastore.claim("jobs", worker_id="w", where={"type": "none"})).items == []
    assert await script_calls(*store.nodes) == calls + datastore.calls.partitions + looks(datastore, store)


async def test_an_expired_lock_comes_first_and_an_exhausted_one_is_buried(
    datastore: Datastore, raw: aioredis.Redis, clock: Clock
) -> None:
    clock.ms = NOW_MS
    await datastore.configure("jobs", indexes={"type": "string"})
    for n in range(20):
        await datastore.create("jobs", f"other-{n}", metadata={"status": "not_started", "type": "b", "priority": 9})
    for name, most in (("crashed", 5), ("spent", 1)):
        started = {"status": "started", "locked_until": "+5s", "type": "a", "max_attempts": most}
        await datastore.create("jobs", name, metadata=started)
    await datastore.create("jobs", "waits", metadata={"status": "not_started", "type": "a", "priority": 9})
    await datastore.create("jobs", "held", metadata={"status": "started", "locked_until": "+9m", "type": "a"})
    clock.advance(10)
    claimed = await datastore.claim("jobs", worker_id="w", limit=5, where={"type": "a"})
    assert by_partition(datastore, names(claimed.items)) == by_partition(datastore, ["crashed", "waits"])
    assert (await datastore.get("jobs", "spent")).status == "failed"
    await check_invariants(raw)


async def test_claims_by_an_index_reach_all_that_match(datastore: Datastore, raw: aioredis.Redis) -> None:
    """More than one step looks at, claimed by many at a time, with most of the index not to be claimed."""
    await datastore.configure("jobs", indexes={"n": "number"})
    made = [
        datastore.calls.create(
            "jobs", f"{n:05}", metadata={"status": "completed" if n < 1500 else "not_started", "n": n % 2}
        )
        for n in range(3800)
    ]
    await datastore.run(made)
    taken: list[str] = []

    async def work() -> None:
        while items := (await datastore.claim("jobs", worker_id="w", limit=70, where={"n": 1})).items:
            taken.extend(item.sort_field for item in items)

    await asyncio.gather(*(work() for _ in range(5)))
    assert sorted(taken) == [f"{n:05}" for n in range(1501, 3800, 2)]
    await check_invariants(raw)


async def test_of_many_claims_in_one_call_none_is_told_that_nothing_is_left(datastore: Datastore) -> None:
    """Also those that find the time of the call used up before they have looked at anything."""
    await datastore.configure("jobs", indexes={"n": "number"})
    made = [datastore.calls.create("jobs", f"{n:05}", metadata={**WAITING, "n": n % 50}) for n in range(3000)]
    await datastore.run(made)
    where = {"n": {"in": [*range(40)]}}
    for _ in range(2):
        claims = (datastore.claim("jobs", worker_id="w", where=where) for _ in range(100))
        assert [len(claimed.items) for claimed in await asyncio.gather(*claims)] == [1] * 100
