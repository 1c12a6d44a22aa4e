"""sweep: promotion and burial without a claim, in the order in which keys become due, within a budget of work."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS
from hookline import Datastore
from hookline.errors import Corrupt
from hookline.upkeep import Upkeep
from jobs import WAITING
from scripts import KEY, TAG, URL, Scripts, at, calling, line, ms, snapshot, unchanged

EXPIRED = {"status": "started", "worker_id": "w", "locked_until": at(5)}
SPENT = {**EXPIRED, "max_attempts": 1}
DUE = {"status": "scheduled", "scheduled_at": at(5)}
LATER = {"status": "scheduled", "scheduled_at": at(60)}


async def put(scripts: Scripts, key: str = KEY, /, **items: dict[str, Any]) -> None:
    """Create items, each with its metadata."""
    names = list(items)
    for first in range(0, len(names), 500):
        calls = [scripts.calls.create(key, name, metadata=items[name]) for name in names[first : first + 500]]
        assert set(await scripts.words(*calls)) == {"ok"}


async def step(
    datastore: Datastore,
    work: int = 1000,
    places: dict[bytes, Any] | None = None,
    passed: list[bytes] | None = None,
    outbox_max: int = 1000,
) -> Any:
    """One step of a sweep."""
    request = {"work": work, "places": places or {}, "passed": passed or [], "outbox_max": outbox_max}
    return await datastore.connection.read("sweep", 0, request)


async def size(scripts: Scripts, name: str) -> int:
    return int(await scripts.raw.zcard(f"{TAG}:{name}"))


async def stored(scripts: Scripts, name: str) -> dict[str, bytes]:
    """All fields of an item as the store has them."""
    fields: Any = await scripts.raw.hgetall(f"{TAG}:i:{KEY}:{name}")
    return {field.decode(): value for field, value in fields.items()}


async def status(scripts: Scripts, name: str) -> str:
    found: str = (await scripts.fields(name))["s"]
    return found


async def test_raw_keys(scripts: Scripts, datastore: Datastore) -> None:
    due = scripts.calls.create(KEY, "due", metadata=DUE, trigger_urls={URL: "secret"})
    await scripts.one(due)
    await put(scripts, later=LATER, over=SPENT, expired=EXPIRED, waits=WAITING)
    before = await snapshot(scripts.raw)
    assert before["due"] == {KEY: NOW_MS + 5000}
    scripts.clock.advance(10)
    await datastore.sweep()
    after = await snapshot(scripts.raw)
    assert after["i:jobs:due"] == {**before["i:jobs:due"], "v": "2", "ua": ms(10), "s": "not_started"}
    assert after["s:jobs:not_started"] == {"waits": before["s:jobs:not_started"]["waits"], "due": line(5, place=0)}
    assert after["s:jobs:started"] == {"expired": NOW_MS + 5000}
    assert after["s:jobs:failed"] == {"over": NOW_MS + 10_000}
    assert after["s:jobs:scheduled"] == {"later": NOW_MS + 60_000}
    assert after["due"] == {KEY: NOW_MS + 60_000}
    assert after["n:jobs"] == {"expired_locks": "1"}
    assert "outbox" not in after
    async with unchanged(scripts.raw):
        await datastore.sweep()


@pytest.mark.parametrize(
    ("items", "noted"),
    [
        ({"a": WAITING}, None),
        ({"a": {"status": "review"}}, None),
        ({"a": LATER}, 60),
        ({"a": LATER, "b": DUE, "c": LATER}, 5),
        ({"a": {"status": "started", "locked_until": at(30)}, "b": LATER}, 30),
    ],
)
async def test_what_is_noted_to_become_due(scripts: Scripts, items: dict[str, Any], noted: float | None) -> None:
    await put(scripts, **items)
    expected = {} if noted is None else {KEY: NOW_MS + noted * 1000}
    assert (await snapshot(scripts.raw)).get("due", {}) == expected


async def test_nothing_is_noted_once_nothing_can_become_due(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=DUE, b=EXPIRED, c=WAITING)
    await scripts.one(scripts.calls.delete(KEY, "b"))
    scripts.clock.advance(10)
    await datastore.sweep()
    assert "due" not in await snapshot(scripts.raw)


async def test_an_extended_lock_is_looked_at_when_it_ends(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=SPENT)
    await scripts.extend(lock_for=30)
    scripts.clock.advance(10)
    await datastore.sweep()
    assert (await snapshot(scripts.raw))["due"] == {KEY: NOW_MS + 30_000}
    assert (await scripts.fields())["s"] == "started"
    scripts.clock.advance(20)
    await datastore.sweep()
    assert (await scripts.fields())["s"] == "failed"


@pytest.mark.parametrize("limit", ["of the item", "of the key", "attempts"])
async def test_a_lock_that_was_looked_at_and_has_another_limit_since(
    scripts: Scripts, datastore: Datastore, limit: str
) -> None:
    await put(scripts, a=EXPIRED)
    scripts.clock.advance(10)
    await datastore.sweep()
    assert "due" not in await snapshot(scripts.raw)
    if limit == "of the key":
        await datastore.configure(KEY, max_attempts=1)
    else:
        await scripts.update(metadata={"max_attempts": 1} if limit == "of the item" else {"attempts": 10})
    await datastore.sweep()
    assert (await scripts.fields())["s"] == "failed"


async def test_who_waits_is_woken(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=DUE)
    scripts.clock.advance(10)
    async with datastore.wakes.listening(f"ready:{KEY}") as woken:
        await datastore.sweep()
        await asyncio.wait_for(woken.wait(), 10)


async def test_promotion_takes_several_steps(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, KEY, **{f"n{n:03}": {**DUE, "scheduled_at": at((n + 1) / 100)} for n in range(250)})
    scripts.clock.advance(10)
    for promoted, more in ((100, True), (200, True), (250, False)):
        assert bool((await step(datastore))[b"more"]) is more
        assert await size(scripts, "s:jobs:not_started") == promoted
        assert (await snapshot(scripts.raw)).get("due", {}) == ({KEY: NOW_MS + promoted * 10} if more else {})


async def test_burial_takes_several_steps(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, KEY, **{f"n{n:03}": SPENT for n in range(250)}, z=DUE)
    scripts.clock.advance(10)
    await datastore.sweep()
    assert await size(scripts, "s:jobs:failed") == 250
    assert (await scripts.fields("z"))["s"] == "not_started"


# A burial is an event


async def test_a_burial_fires_what_stands_on_the_key(scripts: Scripts, datastore: Datastore) -> None:
    held = scripts.calls.create(KEY, "a", content="text", metadata={**SPENT, "n": 1}, trigger_urls={URL + "/own": ""})
    await scripts.one(held)
    await put(scripts, due=DUE, expired=EXPIRED)
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    scripts.clock.advance(10)
    async with datastore.wakes.listening("outbox") as woken:
        await datastore.sweep()
        await asyncio.wait_for(woken.wait(), 10)
    (event,) = await scripts.events()
    assert (event["event"], event["sort"], event["urls"], event["token"]) == ("updated", "a", [URL], "")
    assert event["after"] == await stored(scripts, "a")
    assert event["before"] == {"s": b"started", "lu": ms(5).encode(), "le": False, "cr": False}


async def test_a_burial_is_put_off_while_the_outbox_is_full(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=SPENT, b=SPENT, c=SPENT, due=DUE)
    token = await scripts.token("b")
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    scripts.clock.advance(10)
    answer = await step(datastore, outbox_max=1)
    assert (bool(answer[b"more"]), answer[b"put_off"], dict(answer[b"places"])) == (False, 2, {})
    assert [await status(scripts, name) for name in ("a", "b", "c", "due")] == [
        *("failed", "started", "started", "not_started")
    ]
    after = await snapshot(scripts.raw)
    assert (after["due"], after["s:jobs:started"]) == ({KEY: NOW_MS + 70_000}, dict.fromkeys("bc", NOW_MS + 70_000))
    assert {name: after["i:jobs:b"].get(name) for name in ("v", "lu", "cr")} == {"v": "1", "lu": ms(70), "cr": None}
    assert await scripts.words(scripts.calls.complete(KEY, "b", token), generation=1) == ["stale_token"]
    async with unchanged(scripts.raw):
        await step(datastore, outbox_max=1)
    scripts.clock.advance(60)
    await datastore.sweep()
    assert [event["sort"] for event in await scripts.events()] == ["a", "b", "c"]
    assert await scripts.counts() == {"expired_locks": "3", "lost_locks": "1"}
    assert "due" not in await snapshot(scripts.raw)


async def test_what_is_put_off_takes_no_slot(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a={**WAITING, "max_attempts": 1}, b=WAITING)
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    bound: dict[str, Any] = {"worker_id": "w", "max_in_flight": 1, "lock_for": 5}
    assert [item.sort_field for item in (await datastore.claim(KEY, **bound)).items] == ["a"]
    datastore.upkeep = Upkeep(datastore.connection, datastore.together, 1, outbox_max=0)
    scripts.clock.advance(10)
    await datastore.sweep()
    assert (await status(scripts, "a"), [item.sort_field for item in (await datastore.claim(KEY, **bound)).items]) == (
        *("started", ["b"]),
    )


async def test_a_full_outbox_holds_up_no_other_key(scripts: Scripts, datastore: Datastore) -> None:
    """Nor what its own key's triggers do not listen to."""
    for n in range(120):
        await put(scripts, f"key-{n:03}", a={**SPENT, "locked_until": at(1)})
        await datastore.configure(f"key-{n:03}", trigger_urls=calling("status:failed"))
    await put(scripts, "behind", a=DUE)
    await put(scripts, a=SPENT)
    await datastore.configure(KEY, trigger_urls=calling("created", "status:completed"))
    scripts.clock.advance(10)
    datastore.upkeep = Upkeep(datastore.connection, datastore.together, 1, outbox_max=0)
    await datastore.sweep()
    after = await snapshot(scripts.raw)
    assert (after["i:behind:a"]["s"], after["i:jobs:a"]["s"]) == ("not_started", "failed")
    assert {after[f"i:key-{n:03}:a"]["lu"] for n in range(120)} == {ms(70)}


async def test_a_burial_whose_event_cannot_be_written_is_told(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=SPENT, b=SPENT)
    await put(scripts, "other", a=SPENT)
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    await scripts.spoil("outbox")
    scripts.clock.advance(10)
    assert await datastore.sweep() == [KEY]
    after = await snapshot(scripts.raw)
    assert (after["i:jobs:a"]["s"], after["i:other:a"]["s"]) == ("started", "failed")


async def test_burials_of_large_items_take_several_steps(scripts: Scripts, datastore: Datastore) -> None:
    text = "x" * 1_000_000
    for n in range(6):
        await scripts.create(f"n{n}", content=text, metadata=SPENT)
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    scripts.clock.advance(10)
    assert (await step(datastore))[b"more"]
    assert len(await scripts.events()) == 1
    await datastore.sweep()
    assert len(await scripts.events()) == 6


async def test_many_locks_that_end_at_once_and_nobody_claims(scripts: Scripts, datastore: Datastore) -> None:
    """A step that ends among them names its place, and the next goes on from there."""
    await put(scripts, KEY, **{f"n{n:04}": EXPIRED for n in range(2500)}, z=SPENT)
    scripts.clock.advance(10)
    answer = await step(datastore)
    assert dict(answer[b"places"]) == {b"jobs": [str(NOW_MS + 5000).encode(), b"n0999"]}
    for _ in range(2):
        assert answer[b"more"]
        answer = await step(datastore, places=answer[b"places"])
    assert (bool(answer[b"more"]), await size(scripts, "s:jobs:failed")) == (False, 1)
    assert "due" not in await snapshot(scripts.raw)


async def test_a_key_with_much_to_do_lets_the_others_come_between(scripts: Scripts, datastore: Datastore) -> None:
    busy = {f"n{n:04}": {**DUE, "scheduled_at": at(5 + n / 1000)} for n in range(500)}
    await put(scripts, KEY, **busy)
    await put(scripts, "other", a={**DUE, "scheduled_at": at(5.25)}, b={**SPENT, "locked_until": at(5.25)})
    scripts.clock.advance(10)
    answer = await step(datastore)
    assert (answer[b"passed"], await size(scripts, "s:other:not_started")) == ([b"jobs"], 0)
    await step(datastore, passed=answer[b"passed"])
    assert [await size(scripts, f"s:other:{name}") for name in ("not_started", "failed")] == [1, 1]
    assert 150 < await size(scripts, "s:jobs:not_started") < 200  # it has what is left of the work
    await datastore.sweep()
    assert await size(scripts, "s:jobs:not_started") == 500


async def test_keys_with_much_to_do_take_turns(scripts: Scripts, datastore: Datastore) -> None:
    for key in ("a", "b", "c"):
        await put(scripts, key, **{f"n{n:03}": DUE for n in range(300)})
    scripts.clock.advance(10)
    passed: list[bytes] = []
    for _ in range(6):
        passed = (await step(datastore, passed=passed))[b"passed"]
    assert [await size(scripts, f"s:{key}:not_started") for key in ("a", "b", "c")] == [200, 200, 200]


async def test_places_are_kept_while_others_have_their_turn(scripts: Scripts, datastore: Datastore) -> None:
    for key in ("a", "b"):
        await put(scripts, key, **{f"n{n:04}": EXPIRED for n in range(2500)})
    scripts.clock.advance(10)
    answer, steps = await step(datastore), 1
    while answer[b"more"] and steps < 20:
        answer, steps = await step(datastore, places=dict(answer[b"places"]), passed=answer[b"passed"]), steps + 1
    assert steps <= 7
    assert "due" not in await snapshot(scripts.raw)


async def test_a_step_ends_early_where_keys_take_longer(scripts: Scripts, datastore: Datastore) -> None:
    """The store's own clock says so: 100 keys take many times as long as a step may."""
    scripts.clock.ms = 1735689600000  # so that they are due by that clock
    for n in range(100):
        await put(scripts, f"key-{n:03}", a={**DUE, "scheduled_at": "2025-01-01T00:00:01Z"})
    scripts.clock.ms = None
    answer = await step(datastore, work=1_000_000)
    assert answer[b"more"]
    assert 1 <= 100 - await size(scripts, "due") < 100


async def test_a_sweep_leaves_half_of_the_time_to_others(
    scripts: Scripts, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(scripts, KEY, **{f"n{n:04}": DUE for n in range(2000)})
    scripts.clock.advance(10)
    read, spans = datastore.connection.read, []

    async def timed(*request: Any) -> Any:
        began = time.monotonic()
        answer = await read(*request)
        spans.append(time.monotonic() - began)
        return answer

    monkeypatch.setattr(datastore.connection, "read", timed)
    began = time.monotonic()
    await datastore.sweep()
    assert len(spans) >= 20
    assert time.monotonic() - began > 1.9 * sum(spans[:-1])


async def test_a_whole_sweep_of_many(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, KEY, **{f"n{n:04}": EXPIRED for n in range(2500)}, z=SPENT)
    scripts.clock.advance(10)
    await datastore.sweep()
    assert (await scripts.fields("z"))["s"] == "failed"


async def test_a_place_that_is_not_the_keys_any_more(scripts: Scripts, datastore: Datastore) -> None:
    """What became due before it meanwhile is looked at all the same."""
    await put(scripts, a={**SPENT, "locked_until": at(3)}, b=SPENT)
    scripts.clock.advance(10)
    await step(datastore, places={b"jobs": [str(NOW_MS + 5000).encode(), b"z"]})
    assert await size(scripts, "s:jobs:failed") == 2


async def test_many_keys_those_due_first_come_first(scripts: Scripts, datastore: Datastore) -> None:
    for n in range(250):
        await put(scripts, f"key-{n:03}", a={**DUE, "scheduled_at": at(9 - n / 100)})
    await put(scripts, "busy", **{f"n{n:03}": {**DUE, "scheduled_at": at(8)} for n in range(150)})
    scripts.clock.advance(10)
    answer = await step(datastore)
    assert answer[b"more"]
    waiting = [key async for key in scripts.raw.scan_iter(f"{TAG}:s:*:not_started")]
    assert max(waiting) == f"{TAG}:s:key-249:not_started".encode()
    assert 20 <= len(waiting) <= 40
    assert f"{TAG}:s:busy:not_started".encode() not in waiting
    await datastore.sweep()
    assert await size(scripts, "s:busy:not_started") == 150
    assert "due" not in await snapshot(scripts.raw)


# Indexes


@pytest.mark.spoils
async def test_a_step_of_many_builds_ends_early_where_they_take_longer(scripts: Scripts, datastore: Datastore) -> None:
    """The store's own clock says so."""
    scripts.clock.ms = None
    await scripts.raw.hset(f"{TAG}:builds", mapping={f"key-{n}\0x": "" for n in range(2000)})
    _, rows, _ = await datastore.connection.read("backfill", 0, {"work": 1_000_000})
    assert 1 <= len(rows) < 2000


@pytest.mark.spoils
async def test_a_name_that_is_none_is_not_built_and_keeps_nobody_awake(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a={**DUE, "n": 1})
    await datastore.configure(KEY, indexes={"n": "number"})
    await scripts.raw.hset(f"{TAG}:builds", mapping={"nothing": "", "jobs\0gone": "", "none\0n": ""})
    scripts.clock.advance(10)
    assert await datastore.sweep() == []
    assert await status(scripts, "a") == "not_started"
    assert await size(scripts, "x:jobs:n") == 1
    assert not await scripts.raw.exists(f"{TAG}:builds")
    assert await datastore.upkeep.next_ms() > 0


# Corrupt keys


@pytest.mark.spoils
@pytest.mark.parametrize("name", ["k:bad", "cfg:bad", *(f"s:bad:{s}" for s in ("scheduled", "started", "failed"))])
async def test_a_corrupt_key_is_told_and_put_off(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis, name: str
) -> None:
    for key in ("bad", KEY):
        await put(scripts, key, a=DUE, b=SPENT)
    scripts.clock.advance(10)
    await scripts.spoil(name)
    before = await snapshot(raw)
    assert await datastore.sweep() == ["bad"]
    assert await datastore.sweep() == []
    after = await snapshot(raw)
    assert after["due"] == {"bad": NOW_MS + 70_000}
    assert {name for name in after if ":bad" in name and after[name] != before[name]} == set()
    assert (await scripts.fields())["s"] == "not_started"


@pytest.mark.spoils
async def test_an_item_that_lacks_its_time_holds_up_nobody(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=DUE)
    await put(scripts, "other", a=DUE)
    await scripts.raw.hdel(f"{TAG}:i:jobs:a", "at")
    scripts.clock.advance(10)
    await datastore.sweep()
    assert await size(scripts, "s:other:not_started") == 1


@pytest.mark.spoils
async def test_corrupt_items_are_passed_over(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=DUE, b=SPENT, c=DUE, d=SPENT)
    await scripts.spoil("i:jobs:a")
    await scripts.spoil("i:jobs:b")
    scripts.clock.advance(10)
    await datastore.sweep()
    assert [(await scripts.fields(name))["s"] for name in "cd"] == ["not_started", "failed"]


@pytest.mark.spoils
async def test_a_corrupt_list_of_what_is_due(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    await put(scripts, a=DUE)
    await scripts.spoil("due")
    await put(scripts, b=DUE, c=WAITING)
    with pytest.raises(Corrupt):
        await datastore.sweep()
    scripts.clock.advance(10)
    assert len((await scripts.claim(limit=9)).items) == 3
