"""Many operations and many items at once."""

from __future__ import annotations

from collections import Counter

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from hookline import Datastore
from hookline.errors import Invalid, Locked
from jobs import WAITING, by_partition, claim_one, fill, names, statuses, tags


async def test_run_keeps_the_order_of_an_item(datastore: Datastore) -> None:
    calls = datastore.calls
    steps = [
        calls.create("jobs", "a", metadata={"n": 0}),
        calls.update("jobs", "a", metadata={"n": 1}, version=1),
        calls.update("jobs", "a", metadata={"status": "completed"}, version=2),
        calls.delete("jobs", "a", version=3),
        calls.update("jobs", "a", metadata={"n": 4}),
        calls.create("jobs", "a", content=5),
        calls.create("jobs", "a", content=6),
        calls.create("jobs", "a", content=7, upsert=True, version=1),
        calls.update("jobs", "a", content=8, version=1),
        calls.update("jobs", "a", content=9, version=2),
    ]
    others = [calls.create("jobs", f"b{n}") for n in range(len(steps))]
    outcomes = await datastore.run([call for pair in zip(steps, others, strict=True) for call in pair])
    assert [outcome.word for outcome in outcomes[::2]] == [
        "ok", "ok", "ok", "ok", "not_found", "ok", "exists", "ok", "version_conflict", "ok",
    ]  # fmt: skip
    assert [outcome.word for outcome in outcomes[1::2]] == ["ok"] * len(steps)
    assert [outcome.sort_field for outcome in outcomes[1::2]] == [f"b{n}" for n in range(len(steps))]
    item = await datastore.get("jobs", "a")
    assert (item.content, item.version) == (9, 3)


@limits(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["create", "update", "delete", "finish"]), st.sampled_from("abc"))))
async def test_run_is_as_one_after_the_other(datastore: Datastore, steps: list[tuple[str, str]]) -> None:
    for name in "abc":
        await datastore.run([datastore.calls.delete("jobs", name)])
    there: dict[str, int] = {}
    wanted: list[tuple[str, int | None]] = []
    calls = []
    for verb, name in steps:
        if verb == "finish":
            calls.append(datastore.calls.update("jobs", name, metadata={"status": "completed"}))
        else:
            calls.append(getattr(datastore.calls, verb)("jobs", name))
        version = there.get(name)
        if verb == "create":
            wanted.append(("exists", version) if version else ("ok", 1))
            there.setdefault(name, 1)
        elif version is None:
            wanted.append(("not_found", None))
        elif verb == "delete":
            wanted.append(("ok", there.pop(name)))
        else:
            there[name] = version + 1
            wanted.append(("ok", version + 1))
    assert [(outcome.word, outcome.version) for outcome in await datastore.run(calls)] == wanted


async def test_run_with_more_than_one_call_takes(datastore: Datastore) -> None:
    outcomes = await datastore.run([datastore.calls.create("jobs", f"{n % 300:03}", content=n) for n in range(500)])
    assert [outcome.word for outcome in outcomes] == ["ok"] * 300 + ["exists"] * 200
    assert await datastore.run([]) == []


async def test_exchange(datastore: Datastore) -> None:
    made = await fill(datastore, 30)
    outcomes, claimed = await datastore.exchange([], "jobs", worker_id="w", limit=10)
    done: list[str] = []
    while claimed.items:
        taken = names(claimed.items)
        assert len(taken) <= 10
        done += taken
        finished = [datastore.calls.complete("jobs", item.sort_field, item.token or "") for item in claimed.items]
        outcomes, claimed = await datastore.exchange(finished, "jobs", worker_id="w", limit=10)
        assert [(outcome.word, outcome.sort_field) for outcome in outcomes] == [("ok", name) for name in taken]
    assert by_partition(datastore, done) == by_partition(datastore, made)
    assert await statuses(datastore) == {"": 30, "completed": 30}


async def test_exchange_sees_what_it_settles(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    item = await claim_one(datastore)
    outcomes, claimed = await datastore.exchange(
        [datastore.calls.release("jobs", "a", item.token or ""), datastore.calls.complete("jobs", "a", "1.stale")],
        "jobs",
        worker_id="v",
    )
    assert [outcome.word for outcome in outcomes] == ["ok", "stale_token"]
    assert [(item.sort_field, item.version, item.metadata["worker_id"]) for item in claimed.items] == [("a", 4, "v")]


async def test_get_many(datastore: Datastore) -> None:
    await datastore.run([datastore.calls.create("jobs", f"{n:03}", content=n) for n in range(0, 250, 2)])
    found = await datastore.get_many([("jobs", f"{n:03}") for n in range(250)] + [("jobs", "000"), ("other", "000")])
    assert [item and item.content for item in found] == [n if n % 2 == 0 else None for n in range(250)] + [0, None]
    assert await datastore.get_many([]) == []
    with pytest.raises(Invalid):
        await datastore.get_many([("jobs", "a"), ("no key", "a")])


async def test_stats(datastore: Datastore) -> None:
    await fill(datastore, 7)
    await datastore.create("docs", "a")
    item = await claim_one(datastore)
    with pytest.raises(Locked):
        await datastore.update("jobs", item.sort_field, metadata={"status": "started"})
    stats = await datastore.stats()
    counts: Counter[tuple[str, str]] = Counter()
    for row in stats.rows:
        counts[row.key, row.status] += row.count
    assert counts == {("jobs", ""): 7, ("jobs", "not_started"): 6, ("jobs", "started"): 1, ("docs", ""): 1}
    assert stats.counts["jobs"] == {"refused_claims": 1}
    assert {row.key for row in (await datastore.stats("do")).rows} == {"docs"}


async def test_settled_over_all_partitions(datastore: Datastore) -> None:
    await fill(datastore, 300)
    items = (await datastore.claim("jobs", worker_id="w", limit=300)).items
    assert len(items) == 300
    outcomes = await datastore.settle(
        [datastore.calls.complete("jobs", item.sort_field, item.token or "") for item in items]
    )
    assert [(outcome.word, outcome.sort_field) for outcome in outcomes] == [("ok", name) for name in names(items)]


async def test_items_lie_in_their_partition(datastore: Datastore, raw: aioredis.Redis) -> None:
    """And about as many in each."""
    made = await fill(datastore, 600)
    prefixes = tags(datastore)
    lying = [await raw.zrange(f"{tag}:k:jobs", 0, -1) for tag in prefixes]
    assert lying == [[name.encode() for name in wanted] for wanted in by_partition(datastore, made)]
    assert min(map(len, lying)) > len(made) / len(prefixes) / 2
