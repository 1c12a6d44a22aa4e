"""Claims that are answered at once: their order, what they may find, what a sweep does for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis

from backends import Backend
from conftest import NOW_MS, Clock, end
from hookline import Claimed, Datastore
from hookline.errors import Corrupt, OutboxFull
from jobs import WAITING, by_partition, claim_one, fill, names, spoil, tags


async def test_claims_in_line(datastore: Datastore, clock: Clock) -> None:
    """By priority, then by time; exact within a partition."""
    clock.ms = NOW_MS
    priorities = {f"{n:02}": n * 7 % 10 for n in range(40)}
    for name, priority in priorities.items():
        await datastore.create("jobs", name, metadata={**WAITING, "priority": priority})
        clock.advance(1)
    line = sorted(priorities, key=lambda name: -priorities[name])
    first = names((await datastore.claim("jobs", worker_id="w", limit=30, lock_for=60)).items)
    rest = names((await datastore.claim("jobs", worker_id="w", limit=30)).items)
    assert (len(first), len(rest)) == (30, 10)
    assert by_partition(datastore, first + rest) == by_partition(datastore, line)
    clock.advance(60)
    again = await datastore.claim("jobs", worker_id="v", limit=500)
    assert sorted(names(again.items)) == sorted(first)
    assert all(item.metadata["attempts"] == 2 for item in again.items)


async def test_the_earliest_of_all_partitions(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    for n in range(40):
        await datastore.create("jobs", f"{n}", metadata={**WAITING, "scheduled_at": f"+{100 - n}s"})
    for _ in range(3):
        assert (await datastore.claim("jobs", worker_id="w")).next_ms == NOW_MS + 61_000


@pytest.mark.parametrize("limit", [1, 13, 50, 400])
async def test_claims_take_everything_and_never_too_much(datastore: Datastore, limit: int) -> None:
    made = await fill(datastore, 30 if limit == 1 else 300)
    taken: list[str] = []
    while found := names((await datastore.claim("jobs", worker_id="w", limit=limit)).items):
        taken += found
        assert len(found) == limit or len(taken) == len(made)
    assert by_partition(datastore, taken) == by_partition(datastore, made)


async def test_filtered_claims(datastore: Datastore) -> None:
    made = await fill(datastore, 300)
    claimed = await datastore.claim("jobs", worker_id="w", limit=400, where={"n": {"gte": 200}})
    assert by_partition(datastore, names(claimed.items)) == by_partition(datastore, made[200:])


async def test_claim_says_when_there_may_be_more(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    assert await datastore.claim("jobs", worker_id="w") == Claimed([], None)
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+30s"})
    assert (await datastore.claim("jobs", worker_id="w")).next_ms == NOW_MS + 30_000
    await datastore.create("jobs", "b", metadata=WAITING)
    await claim_one(datastore, lock_for=10)
    assert (await datastore.claim("jobs", worker_id="w")).next_ms == NOW_MS + 10_000


async def test_a_job_whose_time_is_taken_away_is_due(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+30s"})
    updated = await datastore.update("jobs", "a", metadata={"scheduled_at": None})
    assert updated.item
    assert updated.item.metadata["status"] == "not_started"
    assert names((await datastore.claim("jobs", worker_id="w")).items) == ["a"]


async def test_what_a_claim_filters_for_may_stand_far_back(datastore: Datastore) -> None:
    made = await fill(datastore, 3150)
    rare = {"n": {"gte": 3000}}
    claimed = await datastore.claim("jobs", worker_id="w", limit=120, where=rare)
    rest = await datastore.claim("jobs", worker_id="w", limit=120, where=rare)
    assert (len(claimed.items), len(rest.items)) == (120, 30)
    assert by_partition(datastore, names(claimed.items + rest.items)) == by_partition(datastore, made[3000:])
    assert (await datastore.claim("jobs", worker_id="w", where=rare)).items == []


async def test_many_who_claim_what_stands_far_back_at_once(datastore: Datastore) -> None:
    made = await fill(datastore, 3050)
    claims = [datastore.claim("jobs", worker_id=f"w{n}", where={"n": {"gte": 3000}}) for n in range(50)]
    claimed = await asyncio.gather(*claims)
    assert sorted(name for each in claimed for name in names(each.items)) == made[3000:]


async def test_a_claim_of_many_goes_on_behind_those_it_got(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.FRUITLESS_MAX", 2600)
    await fill(datastore, 3000)
    claimed = await datastore.claim("jobs", worker_id="w", limit=500, where={"n": {"gte": 2500}})
    assert len(claimed.items) == 500


async def test_a_claim_that_would_fire_into_a_full_outbox(store: Backend, datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING, trigger_urls={"http://127.0.0.1:1/": ""})
    async with Datastore(store.url, replace(datastore.settings, outbox_max=0), datastore.secrets) as full:
        with pytest.raises(OutboxFull):
            await full.claim("jobs", worker_id="w", triggers="on")
        assert len((await full.claim("jobs", worker_id="w")).items) == 1


async def test_a_bound_holds_also_where_a_partition_refuses(store: Backend, datastore: Datastore) -> None:
    await fill(datastore, 100)
    await datastore.configure("jobs", trigger_urls={"http://127.0.0.1:1/": ""})
    first = next(name for name in map(str, range(1000)) if datastore.calls.partition("jobs", name) == 0)
    await datastore.create("jobs", first)
    async with Datastore(store.url, replace(datastore.settings, outbox_max=1), datastore.secrets) as full:
        if full.calls.partitions == 1:
            with pytest.raises(OutboxFull):
                await full.claim("jobs", worker_id="w", limit=10, max_in_flight=1)
        else:
            claimed = await full.claim("jobs", worker_id="w", limit=10, max_in_flight=1)
            assert isinstance(claimed.failure, OutboxFull)
            assert names(claimed.items) == [*claimed.held]
            started = await datastore.query("jobs", where={"status": "started"})
            assert names(started.items) == [*claimed.held]


async def test_sweep(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    await datastore.create("jobs", "due", metadata={**WAITING, "scheduled_at": "+1s"})
    await datastore.create("jobs", "spent", metadata={**WAITING, "max_attempts": 1})
    await claim_one(datastore, lock_for=1)
    clock.advance(2)
    assert await datastore.sweep() == []
    assert (await datastore.get("jobs", "due")).status == "not_started"
    spent = await datastore.get("jobs", "spent")
    assert (spent.status, spent.metadata["last_error"]) == ("failed", "lock expired")


async def test_a_claim_stays_where_there_is_work(datastore: Datastore) -> None:
    await fill(datastore, 600)
    claimed = await datastore.claim("jobs", worker_id="w", limit=20)
    assert len({datastore.calls.partition("jobs", name) for name in names(claimed.items)}) == 1


@pytest.mark.spoils
async def test_what_was_claimed_before_an_error_reaches_the_caller(datastore: Datastore, raw: aioredis.Redis) -> None:
    made = await fill(datastore, 300)
    spoilt = datastore.calls.partition("jobs", made[0])
    await spoil(raw, f"{tags(datastore)[spoilt]}:s:jobs:not_started")
    wanted = [name for name in made if datastore.calls.partition("jobs", name) != spoilt]
    if wanted:
        claimed = await datastore.claim("jobs", worker_id="w", limit=300)
        assert sorted(names(claimed.items)) == wanted
        assert isinstance(claimed.failure, Corrupt)
    with pytest.raises(Corrupt):
        await datastore.claim("jobs", worker_id="w")


async def test_an_item_that_cannot_be_shown_is_told_beside_those_that_were_claimed(
    datastore: Datastore, raw: aioredis.Redis
) -> None:
    for name in ("a", "b"):
        await datastore.create("jobs", name, metadata=WAITING)
    await raw.hset(datastore.calls.item_name("jobs", "a"), "c", b"\xc1")
    claimed = await datastore.claim("jobs", worker_id="w", limit=10)
    assert names(claimed.items) == ["b"]
    assert "the hash of jobs/a can be no item; it becomes a dead letter" in str(claimed.failure)
    assert names((await datastore.claim("jobs", worker_id="w", limit=10)).items) == []
    await datastore.create("jobs", "c", metadata=WAITING)
    await raw.hset(datastore.calls.item_name("jobs", "c"), "c", b"\xc1")
    for wait in (0, 30):
        with pytest.raises(Corrupt, match="jobs/c"):
            await datastore.claim("jobs", worker_id="w", wait=wait)
        name = datastore.calls.item_name("jobs", "c")
        await datastore.run([datastore.calls.update("jobs", "c", metadata=WAITING)])
        assert await raw.hget(name, "s") == b"not_started"


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("way", ["claim", "exchange"])
async def test_who_goes_away_meanwhile_takes_nothing(datastore: Datastore, way: str, turns: int) -> None:
    """Nor is an attempt counted, whenever that is; what an exchange settles is settled."""
    await fill(datastore, 40)
    held = (await datastore.claim("jobs", worker_id="v")).items[0]
    done = datastore.calls.complete("jobs", held.sort_field, held.token or "")
    if way == "claim":
        taking: asyncio.Future[Any] = asyncio.ensure_future(datastore.claim("jobs", worker_id="w", limit=30))
    else:
        taking = asyncio.ensure_future(datastore.exchange([done], "jobs", worker_id="w", limit=30))
    for _ in range(turns):
        await asyncio.sleep(0)
    await end(taking)
    assert taking.cancelled()
    found = (await datastore.query("jobs", limit=100)).items
    assert {item.status for item in found if item.sort_field != held.sort_field} == {"not_started"}
    assert {item.metadata["attempts"] for item in found if item.sort_field != held.sort_field} == {0}


async def test_who_goes_away_gives_back_what_is_the_engines_own(datastore: Datastore) -> None:
    """As a server does that stops while it claims rules or deliveries: nobody waits for its locks to end."""
    await datastore.create("hookline.x", "a", metadata=WAITING, reserved=True)
    taking = asyncio.create_task(datastore.claim("hookline.x", worker_id="w", reserved=True))
    await asyncio.sleep(0)
    await end(taking)
    given_back = await datastore.get("hookline.x", "a")
    assert (given_back.status, given_back.version) == ("not_started", 3)


async def test_nothing_is_kept_of_keys_that_are_asked_for_in_vain(datastore: Datastore) -> None:
    for number in range(20):
        assert (await datastore.claim(f"none-{number}", worker_id="w")).items == []
    assert not datastore.claims._rotation
