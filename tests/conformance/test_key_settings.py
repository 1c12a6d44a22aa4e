"""Settings of a key hold in every partition, and for who has not heard of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis

from backends import Backend
from conftest import NOW_MS, Clock
from hookline import Datastore, Outcome
from hookline.codec import identity, open_triggers
from hookline.errors import Corrupt, KeyFull, Paused, ReservedKey
from jobs import WAITING, claim_one, fill, names, script_calls, tags


async def test_settings_hold_in_every_partition(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    held = await datastore.configure("jobs", lock_for="30s", max_attempts=2)
    assert (held.lock_ms, held.max_attempts, held.generation) == (30_000, 2, 1)
    await fill(datastore, 200)
    items = (await datastore.claim("jobs", worker_id="w", limit=200)).items
    assert {item.locked_until_ms for item in items} == {clock.ms + 30_000}
    assert len({datastore.calls.partition("jobs", item.sort_field) for item in items}) == datastore.calls.partitions
    assert await datastore.configure("jobs", lock_for=None) == replace(held, lock_ms=600_000, generation=2)
    assert (await datastore.key_settings("other")).generation == 0


async def test_a_change_that_was_cut_off_is_finished_by_the_next_look(
    datastore: Datastore, raw: aioredis.Redis
) -> None:
    first, *others = tags(datastore)
    await datastore.configure("jobs", lock_for="30s")
    await raw.hset(f"{first}:cfg:jobs", mapping={"lock_ms": "1000", "generation": "2"})
    for tag in others[1:3]:
        await raw.delete(f"{tag}:cfg:jobs")
    assert (await datastore.key_settings("jobs")).lock_ms == 1000
    for tag in (first, *others):
        assert await raw.hgetall(f"{tag}:cfg:jobs") == {b"lock_ms": b"1000", b"generation": b"2"}


async def test_many_change_settings_at_once(datastore: Datastore, raw: aioredis.Redis) -> None:
    await asyncio.gather(*(datastore.configure("jobs", max_attempts=n, lock_for=n) for n in range(1, 30)))
    first, *others = [await raw.hgetall(f"{tag}:cfg:jobs") for tag in tags(datastore)]
    assert others == [first] * len(others)
    assert first[b"generation"] == b"29"


async def test_pause_and_resume(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    await datastore.pause("jobs")
    assert (await datastore.claim("jobs", worker_id="w")).items == []
    with pytest.raises(Paused):
        await datastore.update("jobs", "a", metadata={"status": "started"})
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=10))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await datastore.resume("jobs")
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_a_full_key(datastore: Datastore) -> None:
    """The partitions fill about evenly, so it is full at about its length."""
    await datastore.configure("jobs", max_length=96)
    outcomes = await datastore.run([datastore.calls.create("jobs", f"{n:03}") for n in range(300)])
    made = [outcome.sort_field for outcome in outcomes if outcome.ok]
    assert {outcome.word for outcome in outcomes} == {"ok", "key_full"}
    assert len(made) == 96
    with pytest.raises(KeyFull):
        await datastore.create("jobs", outcomes[-1].sort_field)
    await datastore.delete("jobs", made[0])
    await datastore.create("jobs", made[0])


async def test_an_item_without_a_name_goes_where_there_is_room(datastore: Datastore, store: Backend) -> None:
    """One by one as of many, until the key is full as a whole; its triggers go with it."""
    await datastore.configure("jobs", max_length=96)
    fields: list[dict[str, Any]] = [{}, {"metadata": WAITING}, {"trigger_urls": {"http://w.example/": "its-key"}}]
    made = [await datastore.create("jobs", **fields[n % 3]) for n in range(30)]
    outcomes = await datastore.run([datastore.calls.create("jobs", **fields[n % 3]) for n in range(100)])
    assert Counter(outcome.word for outcome in outcomes) == {"ok": 66, "key_full": 34}
    before = await script_calls(*store.nodes)
    with pytest.raises(KeyFull):
        await datastore.create("jobs")
    assert await script_calls(*store.nodes) == before + 1, "it was found full just now"
    made += [outcome for outcome in outcomes if outcome.ok]
    found = (await datastore.query("jobs", limit=100)).items
    assert sorted(names(found)) == sorted(outcome.sort_field for outcome in made)
    for item in found:
        owner = identity("default", "jobs", item.sort_field)
        for trigger in open_triggers(item.sealed_triggers, datastore.secrets, owner):
            assert trigger["apiKey"] == "its-key"


async def test_under_an_idempotency_key_an_item_stays_where_a_repeat_looks_for_it(datastore: Datastore) -> None:
    """Or else it would be made a second time, once there is room where it was refused."""
    await datastore.configure("jobs", max_length=datastore.calls.partitions)
    views = [datastore.once("k", body=b"") for _ in range(2)]
    place = views[0].partition_ahead(0)
    there = await datastore.run([datastore.calls.create("jobs", partition=place)])
    with pytest.raises(KeyFull):
        await views[0].create("jobs")
    await datastore.delete("jobs", there[0].sort_field)
    made = await views[0].create("jobs")
    assert (await views[1].create("jobs")).sort_field == made.sort_field
    assert (await datastore.count("jobs")).count == 1


async def test_what_belongs_in_a_full_partition_says_nothing_of_the_others(datastore: Datastore) -> None:
    partitions = datastore.calls.partitions
    await datastore.configure("jobs", max_length=2 * partitions)
    view = datastore.once("k", body=b"")
    await datastore.run([datastore.calls.create("jobs", partition=view.partition_ahead(0)) for _ in range(2)])
    with pytest.raises(KeyFull):
        await view.create("jobs")
    others = [datastore.calls.create("jobs") for _ in range(2 * partitions - 2)]
    assert {outcome.word for outcome in await datastore.run(others)} <= {"ok"}


async def test_of_triggers_that_are_taken_away_nothing_stays(datastore: Datastore) -> None:
    """Else no item of the key would go the short way any more."""
    await datastore.configure("jobs", trigger_urls={"http://w.example/": "key"}, max_attempts=3)
    await datastore.configure("jobs", trigger_urls=[])
    assert (await datastore.change_settings("jobs", {})).keys() == {b"max_attempts", b"generation"}


async def test_the_engines_own_keys_have_no_settings(datastore: Datastore) -> None:
    with pytest.raises(ReservedKey):
        await datastore.configure("hookline.orchestrations", paused=True)


async def test_changed_settings_are_not_noticed(datastore: Datastore, raw: aioredis.Redis, clock: Clock) -> None:
    clock.ms = NOW_MS
    await datastore.create("jobs", "a", metadata=WAITING)
    for generation in (1, 2, 7):
        for tag in tags(datastore):
            await raw.hset(f"{tag}:cfg:jobs", mapping={"generation": generation, "lock_ms": generation * 1000})
        item = await claim_one(datastore)
        assert item.locked_until_ms == NOW_MS + generation * 1000
        steps: list[Outcome] = await datastore.run(
            [
                datastore.calls.release("jobs", "a", item.token or ""),
                datastore.calls.update("jobs", "a", metadata={"g": generation}),
                *(datastore.calls.create("jobs", f"{generation}-{n}") for n in range(150)),
            ]
        )
        assert all(step.ok for step in steps)
        _, claimed = await datastore.exchange([], "jobs", worker_id="w")
        assert len(claimed.items) == 1
        await datastore.settle([datastore.calls.release("jobs", "a", claimed.items[0].token or "")])
    for tag in tags(datastore):
        await raw.delete(f"{tag}:cfg:jobs")
    assert (await claim_one(datastore)).locked_until_ms == NOW_MS + 600_000


async def test_order_holds_when_settings_change(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.create("jobs", "a", metadata={"n": 0})
    for tag in tags(datastore):
        await raw.hset(f"{tag}:cfg:jobs", mapping={"generation": 3})
    outcomes = await datastore.run(
        [datastore.calls.update("jobs", "a", metadata={"n": n}, version=n) for n in range(1, 251)]
    )
    assert [outcome.version for outcome in outcomes] == [*range(2, 252)]


@pytest.mark.spoils
@pytest.mark.parametrize(
    ("field", "value", "mend"),
    [
        ("t", b"\xc1", {"trigger_urls": None}),
        ("max_attempts", b"x", {"max_attempts": 3}),
        ("keep:completed", b"x", {"retention": None}),
        ("backoff", b"exponential", {"backoff": "5s"}),
    ],
)
async def test_settings_that_can_be_none_say_so_and_can_be_set_again(
    datastore: Datastore, raw: aioredis.Redis, field: str, value: bytes, mend: dict[str, object]
) -> None:
    await datastore.configure("jobs", lock_for="30s")
    for tag in tags(datastore):
        await raw.hset(f"{tag}:cfg:jobs", field, value)
    with pytest.raises(Corrupt, match="the settings hash of jobs can be none"):
        await datastore.key_settings("jobs")
    assert (await datastore.configure("jobs", **mend)).lock_ms == 30_000
    assert (await datastore.key_settings("jobs")).to_dict()
