"""claim: who is taken, in what order, under which token; promotion, dead letters, budgets, filters, refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS
from hookline import Datastore
from jobs import WAITING
from scripts import KEY, URL, Scripts, at, calling, ms, snapshot, unchanged


async def put(scripts: Scripts, **items: dict[str, Any]) -> None:
    """Create items, each with its metadata, in one call."""
    calls = [scripts.calls.create(KEY, name, metadata=metadata) for name, metadata in items.items()]
    assert set(await scripts.words(*calls)) == {"ok"}


async def names(scripts: Scripts, **options: Any) -> list[str]:
    """The sortFields that a claim takes, in order."""
    return [item.sort_field for item in (await scripts.claim(**options)).items]


HELD = {"status": "started", "worker_id": "w", "locked_until": at(60)}
EXPIRED = {"status": "started", "worker_id": "w", "locked_until": at(5)}
DUE = {"status": "scheduled", "scheduled_at": at(5)}
LATER = {"status": "scheduled", "scheduled_at": at(60)}


@pytest.mark.parametrize("how", ["claim", "claim again", "extend", "update"])
async def test_the_note_of_what_is_held_lives_as_long_as_its_lock(
    scripts: Scripts, datastore: Datastore, how: str
) -> None:
    await put(scripts, a=WAITING)
    bound: dict[str, Any] = {"worker_id": "w", "max_in_flight": 1}
    day = 86_400
    (a,) = (await datastore.claim(KEY, **bound, lock_for="60d" if "claim" in how else "10m")).items
    if how == "claim again":
        assert not (await datastore.claim(KEY, **bound)).items
    elif how == "extend":
        (outcome,) = await datastore.settle([datastore.calls.extend(KEY, "a", a.token or "", lock_for="60d")])
        assert outcome.ok
    elif how == "update":
        later = {"status": "started", "locked_until": at(60 * day)}
        assert (await datastore.update(KEY, "a", token=a.token, metadata=later)).ok
    (note,) = await scripts.raw.keys("*:held:*")
    assert 59 * day < await scripts.raw.ttl(note) <= 60 * day


# What a claim writes


async def test_raw_keys_of_one_from_the_line(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(content={"n": 1}, metadata={**WAITING, "type": "r"})
    before = await scripts.fields()
    scripts.clock.advance(10)
    claimed = await scripts.claim("v")
    keyspace = await snapshot(scripts.raw)
    token = keyspace["i:jobs:a"].pop("tk")
    assert keyspace == {
        "i:jobs:a": {
            **before, "v": "2", "ua": ms(10), "s": "started", "a": "1", "w": "v", "sa": ms(10), "lu": ms(610),
        },
        "k:jobs": {"a": 0},
        "s:jobs:started": {"a": NOW_MS + 610_000},
        "r": {"jobs\0", "jobs\0started"},
        "due": {"jobs": NOW_MS + 610_000},
    }  # fmt: skip
    (item,) = claimed.items
    assert item.token == token
    assert token.startswith("2.")
    assert item.content == {"n": 1}
    assert item.metadata == (await datastore.get(KEY, "a")).metadata
    assert (claimed.next_ms, claimed.more) == (None, False)


async def test_raw_keys_of_an_expired_one(scripts: Scripts) -> None:
    await put(scripts, a=EXPIRED)
    before = await scripts.fields()
    scripts.clock.advance(10)
    assert await names(scripts, worker_id="v") == ["a"]
    fields = await scripts.fields()
    assert fields.pop("tk") != before.pop("tk")
    assert fields == {**before, "v": "2", "ua": ms(10), "w": "v", "sa": ms(10), "lu": ms(610), "a": "2", "cr": "1"}
    assert await scripts.counts() == {"expired_locks": "1"}


async def test_raw_keys_of_a_due_one(scripts: Scripts) -> None:
    """It is promoted first, which makes a version of its own."""
    await put(scripts, a=DUE)
    before = await scripts.fields()
    scripts.clock.advance(10)
    assert await names(scripts, worker_id="v") == ["a"]
    fields = await scripts.fields()
    assert fields.pop("tk").startswith("3.")
    assert fields == {
        **before, "v": "3", "ua": ms(10), "s": "started", "w": "v", "sa": ms(10), "lu": ms(610), "a": "1",
    }  # fmt: skip


@pytest.mark.parametrize("expiry", [at(10), at(9)])
async def test_a_lock_ends_at_its_very_millisecond(scripts: Scripts, expiry: str) -> None:
    await put(scripts, a={**HELD, "locked_until": expiry})
    scripts.clock.advance(8.999)
    assert await names(scripts) == []
    scripts.clock.advance(1.001)
    assert await names(scripts) == ["a"]


@pytest.mark.parametrize("metadata", [HELD, LATER, {}, *({"status": s} for s in ("review", "completed", "cancelled"))])
async def test_what_is_not_claimable(scripts: Scripts, metadata: dict[str, Any]) -> None:
    await put(scripts, a=metadata)
    scripts.clock.advance(10)
    async with unchanged(scripts.raw):
        assert await names(scripts) == []


@pytest.mark.parametrize(
    ("setting", "lock_for", "until"),
    [({}, None, ms(600)), ({"lock_ms": 5000}, None, ms(5)), ({"lock_ms": 5000}, "30s", ms(30)), ({}, 2.5, ms(2.5))],
)
async def test_lock(scripts: Scripts, setting: dict[str, int], lock_for: object, until: str) -> None:
    await put(scripts, a=WAITING)
    await scripts.configure(**setting) if setting else None
    await scripts.claim(lock_for=lock_for)
    assert (await scripts.fields())["lu"] == until


async def test_a_token_fits_its_own_item_only(scripts: Scripts) -> None:
    await put(scripts, a=WAITING, b=WAITING)
    a, b = (await scripts.claim(limit=2)).items
    assert a.token != b.token
    assert [(await scripts.fields(name))["tk"] for name in "ab"] == [a.token, b.token]
    async with unchanged(scripts.raw):
        assert (await scripts.complete("b", token=a.token or "")).word == "stale_token"
    assert (await scripts.complete("b", token=b.token or "")).word == "ok"


# Order


async def test_expired_first_then_the_line_by_priority_time_and_place(scripts: Scripts) -> None:
    await put(scripts, early=WAITING, second=WAITING, first={**WAITING, "priority": 9}, last={**WAITING, "priority": 0})
    await put(scripts, e2={**EXPIRED, "locked_until": at(4)}, e1={**EXPIRED, "locked_until": at(3)}, due=DUE)
    scripts.clock.advance(1)
    await put(scripts, late=WAITING)
    scripts.clock.advance(9)
    expected = ["e1", "e2", "first", "early", "second", "late", "due", "last"]
    assert await names(scripts, limit=2) == expected[:2]
    assert await names(scripts, limit=1) == expected[2:3]
    assert await names(scripts, limit=100) == expected[3:]
    assert await names(scripts, limit=100) == []


async def test_each_item_goes_to_one_of_many_claims_in_one_call(scripts: Scripts) -> None:
    await put(scripts, **{f"n{n}": WAITING for n in range(7)}, e1=EXPIRED, e2=EXPIRED)
    scripts.clock.advance(10)
    calls = [scripts.calls.claim(KEY, worker_id=f"w{n}", limit=3) for n in range(4)]
    taken = [[item.sort_field for item in claimed.items] for claimed in await scripts.run(*calls)]
    assert taken == [["e1", "e2", "n0"], ["n1", "n2", "n3"], ["n4", "n5", "n6"], []]


async def test_claims_of_one_call_with_and_without_filters(scripts: Scripts) -> None:
    await put(scripts, **{name: {**WAITING, "type": name[0]} for name in ("a1", "b1", "a2", "b2", "a3", "b3")})
    wheres: list[Any] = [{"type": "b"}, None, {"type": "a"}, None]
    calls = [scripts.calls.claim(KEY, worker_id="w", limit=2, where=where) for where in wheres]
    taken = [[item.sort_field for item in claimed.items] for claimed in await scripts.run(*calls)]
    assert taken[0] == ["b1", "b2"]
    assert sorted(name for each in taken for name in each) == ["a1", "a2", "a3", "b1", "b2", "b3"]


async def test_more_than_lua_passes_at_once(scripts: Scripts) -> None:
    count = 4500
    for first in range(0, count, 500):
        await scripts.run(*(scripts.calls.create(KEY, f"{n:04}", metadata=WAITING) for n in range(first, first + 500)))
    calls = [scripts.calls.claim(KEY, worker_id="w", limit=100) for _ in range(46)]
    claimed = await scripts.run(*calls)
    assert [len(each.items) for each in claimed] == [100] * 45 + [0]


# Attempts


@pytest.mark.parametrize(
    ("setting", "metadata", "claims"),
    [
        pytest.param({}, {}, 10, id="default"),
        pytest.param({"max_attempts": 2}, {}, 2, id="of the key"),
        pytest.param({"max_attempts": 2}, {"max_attempts": 3}, 3, id="of the item"),
        pytest.param({}, {"max_attempts": 1}, 1, id="one"),
        pytest.param({}, {"max_attempts": 0}, 15, id="no limit"),
        pytest.param({"max_attempts": 0}, {}, 15, id="no limit of the key"),
    ],
)
async def test_max_attempts(scripts: Scripts, setting: dict[str, int], metadata: dict[str, Any], claims: int) -> None:
    await put(scripts, a={**WAITING, **metadata})
    await scripts.configure(**setting) if setting else None
    for taken in range(15):
        assert await names(scripts, lock_for=1) == (["a"] if taken < claims else [])
        scripts.clock.advance(2)
    fields = await scripts.fields()
    assert fields["a"] == str(claims)
    assert fields["s"] == ("started" if claims == 15 else "failed")


@pytest.mark.parametrize("swept", [False, True])
async def test_raw_keys_of_a_dead_letter(scripts: Scripts, datastore: Datastore, swept: bool) -> None:
    await put(scripts, a={**EXPIRED, "max_attempts": 1})
    before = await scripts.fields()
    scripts.clock.advance(10)
    await (datastore.sweep() if swept else scripts.claim())
    keyspace = await snapshot(scripts.raw)
    expected = {**before, "v": "2", "ua": ms(10), "s": "failed", "le": "lock expired", "cr": "1"}
    assert keyspace["i:jobs:a"] == {name: value for name, value in expected.items() if name not in ("tk", "lu")}
    assert keyspace["s:jobs:failed"] == {"a": NOW_MS + 10_000}
    assert "s:jobs:started" not in keyspace
    assert await scripts.counts() == {"expired_locks": "1"}
    assert (await scripts.complete(token=before["tk"])).word == "stale_token"


# Promotion


async def test_promotion_keeps_priority(scripts: Scripts) -> None:
    await put(scripts, a={**DUE, "priority": 1}, b={**DUE, "priority": 8, "scheduled_at": at(6)})
    scripts.clock.advance(10)
    assert await names(scripts, limit=2) == ["b", "a"]


async def test_promotion_is_bounded(scripts: Scripts) -> None:
    await put(scripts, **{f"n{n:03}": DUE for n in range(150)})
    scripts.clock.advance(10)
    where = {"n": {"exists": True}}
    assert (await scripts.claim(where=where)).more
    assert len((await snapshot(scripts.raw))["s:jobs:not_started"]) == 100
    assert not (await scripts.claim(where=where)).more
    assert len((await snapshot(scripts.raw))["s:jobs:not_started"]) == 150


async def test_promotions_are_those_of_all_claims_in_a_call(scripts: Scripts) -> None:
    keys = ("jobs", "other", "third")
    for key in keys:
        await scripts.run(*(scripts.calls.create(key, f"{n:02}", metadata=DUE) for n in range(60)))
    scripts.clock.advance(10)
    claimed = await scripts.run(*(scripts.calls.claim(key, worker_id="w", limit=100) for key in (*keys, "jobs")))
    assert [(len(each.items), each.more) for each in claimed] == [(60, False), (40, True), (0, True), (0, False)]


async def test_who_waits_is_woken_by_a_promotion(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a=DUE)
    scripts.clock.advance(10)
    async with datastore.wakes.listening(f"ready:{KEY}") as woken:
        await scripts.claim(where={"n": 1})
        await asyncio.wait_for(woken.wait(), 10)


@pytest.mark.parametrize(
    ("items", "next_ms"),
    [
        ({}, None),
        ({"a": LATER}, NOW_MS + 60_000),
        ({"a": HELD}, NOW_MS + 60_000),
        ({"a": LATER, "b": {**HELD, "locked_until": at(30)}}, NOW_MS + 30_000),
        ({"a": {**LATER, "scheduled_at": at(20)}, "b": HELD}, NOW_MS + 20_000),
        ({"a": EXPIRED, "b": LATER}, NOW_MS + 60_000),
        ({"a": EXPIRED}, NOW_MS + 610_000),
        ({"a": WAITING, "b": {**HELD, "locked_until": at(700)}}, NOW_MS + 610_000),
    ],
)
async def test_when_there_may_be_more(scripts: Scripts, items: dict[str, Any], next_ms: int | None) -> None:
    await put(scripts, **items) if items else None
    scripts.clock.advance(10)
    assert (await scripts.claim(limit=5)).next_ms == next_ms


@pytest.mark.parametrize("where", [None, {"status": "not_started"}], ids=["plain", "filtered"])
async def test_a_claim_that_comes_too_late_learns_when_the_others_of_its_call_end(
    scripts: Scripts, where: dict[str, Any] | None
) -> None:
    await put(scripts, a=WAITING, b=WAITING, c={**HELD, "locked_until": at(50)})
    calls = [
        scripts.calls.claim(KEY, worker_id=f"w{lock_for}", lock_for=lock_for, where=where) for lock_for in (20, 10, 30)
    ]
    *_, late, of_another = await scripts.run(*calls, scripts.calls.claim("other", worker_id="w"))
    assert ([late.items, late.next_ms], of_another.next_ms) == ([[], NOW_MS + 10_000], None)


async def test_claims_of_one_call_learn_of_a_burial_that_was_put_off(scripts: Scripts, datastore: Datastore) -> None:
    scripts.outbox_max = 0
    await put(scripts, a={**EXPIRED, "max_attempts": 1})
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    scripts.clock.advance(10)
    claims = [scripts.calls.claim(KEY, worker_id=f"w{n}") for n in range(2)]
    assert [claimed.next_ms for claimed in await scripts.run(*claims, generation=1)] == [NOW_MS + 70_000] * 2


# Filters and budgets


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"type": "b"}, ["e2", "b1", "b2"]),
        ({"type": {"in": ["a", "c"]}}, ["e1", "a1"]),
        ({"status": "not_started"}, ["a1", "b1", "b2", "z"]),
        ({"status": "started"}, ["e1", "e2"]),
        ({"priority": {"lt": 5}, "attempts": 0}, ["z"]),
        ({"attempts": {"gt": 0}, "type": "b"}, ["e2"]),
        ({"nothing": {"exists": True}}, []),
    ],
)
async def test_where(scripts: Scripts, where: dict[str, Any], expected: list[str]) -> None:
    types = {"e1": "a", "e2": "b", "a1": "a", "b1": "b", "b2": "b"}
    await put(
        scripts,
        **{name: {**(EXPIRED if name[0] == "e" else WAITING), "type": kind} for name, kind in types.items()},
        z={**WAITING, "priority": 4},
    )
    scripts.clock.advance(10)
    assert await names(scripts, limit=9, where=where) == expected


async def fill(scripts: Scripts, count: int, **metadata: Any) -> None:
    """Items n0000, n0001, ... each with its number."""
    for first in range(0, count, 100):
        await put(scripts, **{f"n{n:04}": {**WAITING, "n": n, **metadata} for n in range(first, first + 100)})
        scripts.clock.advance(0.001)


async def test_filters_look_as_far_as_the_work_of_a_call_and_go_on_from_there(scripts: Scripts) -> None:
    await fill(scripts, 1200)
    where = {"n": {"gte": 1150}}
    first = await scripts.claim(limit=100, where=where)
    assert (first.items, first.more) == ([], True)
    second = await scripts.claim(limit=100, where=where, after=first.after)
    assert [item.sort_field for item in second.items] == [f"n{n}" for n in range(1150, 1200)]
    assert (second.more, second.after) == (False, None)


async def test_the_place_where_a_claim_ended_may_be_gone(scripts: Scripts) -> None:
    await fill(scripts, 1200)
    where = {"n": {"gte": 1150}}
    after = (await scripts.claim(where=where)).after
    assert after is not None
    assert after[0] == b"not_started"
    for name in (after[2].decode(), f"n{int(after[2][1:]) + 1:04}"):
        assert "n0950" < name < "n1000"
        await scripts.delete(name)
    assert await names(scripts, where=where, after=after) == ["n1150"]


async def test_claims_of_a_call_share_its_work(scripts: Scripts) -> None:
    """One that filters much leaves the others their part, and those with the same filters go on where it ended."""
    await fill(scripts, 1200)
    calls = [
        *(scripts.calls.claim(KEY, worker_id="w", where={"n": {"gte": 1150}}) for _ in range(3)),
        scripts.calls.claim(KEY, worker_id="w"),
    ]
    claimed = await scripts.run(*calls)
    assert [[item.sort_field for item in each.items] for each in claimed] == [[], [], [], ["n0000"]]
    assert [each.more for each in claimed] == [True, True, True, False]
    ends = [int(each.after[2][1:]) for each in claimed if each.after]
    assert [round(end, -1) for end in ends] == [250, 490, 740]


async def test_a_heavy_filter_does_not_starve_the_claims_after_it(scripts: Scripts) -> None:
    await put(scripts, **{f"b{n}": {**WAITING, "blob": "x" * 140_000} for n in range(3)})
    await scripts.run(*(scripts.calls.create("other", f"n{n}", metadata=WAITING) for n in range(9)))
    heavy = [scripts.calls.claim(KEY, worker_id="w", where={"blob": {"gt": "y"}}) for _ in range(5)]
    light = [scripts.calls.claim("other", worker_id="w") for _ in range(9)]
    claimed = await scripts.run(*heavy, *light)
    assert [len(each.items) for each in claimed] == [0] * 5 + [1] * 9


async def test_claims_that_go_on_share_the_furthest_place(scripts: Scripts) -> None:
    await fill(scripts, 2500)
    where, found = {"n": {"gte": 2490}}, list[str]()
    after: list[Any] = [None, None, None]
    for _ in range(4):
        calls = [scripts.calls.claim(KEY, worker_id="w", where=where, after=place) for place in after]
        claimed = await scripts.run(*calls)
        found += [item.sort_field for each in claimed for item in each.items]
        after = [each.after for each in claimed if not each.items]
    assert (found, after) == (["n2490", "n2491", "n2492"], [])


async def test_many_conditions_cost_more(scripts: Scripts) -> None:
    await fill(scripts, 1200, pad="x" * 100)
    claimed = await scripts.claim(where={"pad": {"prefix": "x", "ne": ""}, "n": {"gte": 1150}})
    assert claimed.more
    assert claimed.after is not None
    assert b"n0200" < claimed.after[2] < b"n0500"


@pytest.mark.parametrize("fits", [False, True])
async def test_what_has_expired_too_often_is_buried_within_the_work_of_a_call(scripts: Scripts, fits: bool) -> None:
    count = 50 if fits else 150
    await put(scripts, **{f"n{n:03}": {**EXPIRED, "max_attempts": 1} for n in range(count)}, z=WAITING)
    scripts.clock.advance(10)
    claimed = await scripts.claim()
    assert (len(claimed.items), claimed.more) == (fits, not fits)
    assert len((await snapshot(scripts.raw))["s:jobs:failed"]) == min(count, 100)
    assert await names(scripts, after=claimed.after) == ([] if fits else ["z"])


async def test_filters_look_beyond_the_first_hundred_expired(scripts: Scripts) -> None:
    await put(scripts, **{f"n{n:03}": {**EXPIRED, "n": n} for n in range(150)})
    scripts.clock.advance(10)
    assert await names(scripts, limit=2, where={"n": {"gte": 120}}) == ["n120", "n121"]


async def test_a_budget_of_bytes(scripts: Scripts) -> None:
    text = "x" * 1_000_000
    calls = [scripts.calls.create(KEY, f"n{n}", content=text, metadata=WAITING) for n in range(7)]
    await scripts.run(*calls)
    claimed = await scripts.claim(limit=7)
    assert ([item.sort_field for item in claimed.items], claimed.more) == (["n0", "n1", "n2", "n3", "n4"], True)
    assert await names(scripts, limit=7) == ["n5", "n6"]


# Triggers


@pytest.mark.parametrize(("triggers", "fired"), [("key", 0), ("off", 0), ("on", 1)])
async def test_triggers(scripts: Scripts, triggers: str, fired: int) -> None:
    await scripts.create(metadata=WAITING, trigger_urls={URL: "secret"})
    claimed = await scripts.claim(triggers=triggers)
    events = await scripts.events()
    assert [event["token"] for event in events] == [claimed.items[0].token] * fired
    for event in events:
        assert event["before"] == {"s": b"not_started", "a": b"0", "w": False, "sa": False, "lu": False}
        assert "tk" not in event["after"]


async def test_triggers_of_other_events(scripts: Scripts) -> None:
    await scripts.create(metadata=WAITING, trigger_urls=calling("created", "deleted"), triggers=False)
    await scripts.claim(triggers="on")
    assert await scripts.events() == []


async def test_a_burial_fires_what_stands_on_the_key(scripts: Scripts, datastore: Datastore) -> None:
    await put(scripts, a={**EXPIRED, "max_attempts": 1}, b={**EXPIRED, "max_attempts": 1}, c=EXPIRED)
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    scripts.clock.advance(10)
    scripts.outbox_max = 1
    claim = scripts.calls.claim(KEY, worker_id="w", limit=9, triggers="off")
    (claimed,) = await scripts.run(claim, generation=1)
    assert ([item.sort_field for item in claimed.items], claimed.buried, claimed.next_ms) == (["c"], 1, NOW_MS + 70_000)
    assert (await scripts.fields("b"))["s"] == "started", "there is no room for its event"
    scripts.outbox_max = 9
    (claimed,) = await scripts.run(claim, generation=1)
    assert (claimed.buried, claimed.examined, claimed.next_ms) == (0, 0, NOW_MS + 70_000), "it was put off"
    scripts.clock.advance(60)
    assert (await scripts.run(claim, generation=1))[0].buried == 1
    events = await scripts.events()
    assert [(event["sort"], event["urls"], event["token"]) for event in events] == [("a", [URL], ""), ("b", [URL], "")]


async def test_burials_of_large_items_by_many_claims(scripts: Scripts, datastore: Datastore) -> None:
    """What they tell counts as what is given does, for all claims of a call."""
    text = "x" * 1_000_000
    for n in range(8):
        await scripts.create(f"n{n}", content=text, metadata={**EXPIRED, "max_attempts": 1})
    await put(scripts, z=WAITING)
    await datastore.configure(KEY, trigger_urls=calling("status:failed"))
    scripts.clock.advance(10)
    claims = [scripts.calls.claim(KEY, worker_id="w") for _ in range(20)]
    claimed = await scripts.run(*claims, generation=1)
    assert sum(each.buried for each in claimed) == len(await scripts.events()) == 5
    assert all(each.more for each in claimed)
    claimed = await scripts.run(*claims, generation=1)
    assert (sum(each.buried for each in claimed), [len(each.items) for each in claimed if each.items]) == (3, [1])


async def test_outbox_full(scripts: Scripts) -> None:
    await scripts.create("a", metadata=WAITING)
    await scripts.create("b", metadata=EXPIRED, trigger_urls={URL: "secret"})
    await scripts.create("c", metadata=WAITING)
    scripts.clock.advance(10)
    scripts.outbox_max = 0
    refused, given = scripts.calls.claim(KEY, worker_id="w", triggers="on"), scripts.calls.claim(KEY, worker_id="w")
    async with unchanged(scripts.raw):
        assert await scripts.words(refused) == ["outbox_full"]
    assert await scripts.counts() == {}
    assert await scripts.words(refused, given) == ["outbox_full", "ok"]
    assert (await scripts.fields("b"))["s"] == "started"
    assert await scripts.counts() == {"expired_locks": "1"}


async def test_outbox_full_ends_a_claim_with_what_it_has(scripts: Scripts) -> None:
    await put(scripts, a=WAITING)
    await scripts.create("b", metadata=WAITING, trigger_urls={URL: "secret"})
    await put(scripts, c=WAITING)
    scripts.outbox_max = 0
    claimed = await scripts.claim(limit=9, triggers="on")
    assert ([item.sort_field for item in claimed.items], claimed.more) == (["a"], False)


# Pause


async def test_a_paused_key_gives_nothing(scripts: Scripts, raw: aioredis.Redis) -> None:
    await put(scripts, a=WAITING, b=EXPIRED, c=DUE)
    await scripts.one(scripts.calls.create("other", "a", metadata=WAITING))
    scripts.clock.advance(10)
    await scripts.configure(paused="1")
    calls = [scripts.calls.claim(key, worker_id="w", limit=9) for key in (KEY, "other")]
    before = await snapshot(raw)
    paused, other = await scripts.run(*calls)
    assert (paused.items, paused.more, paused.next_ms, len(other.items)) == ([], False, None, 1)
    after = await snapshot(raw)
    assert {name for name in before if "jobs" in name and before[name] != after[name]} == set()
    assert (await scripts.extend("b")).word == "ok"
    assert (await scripts.complete("b")).word == "ok"


# Corrupt keys


@pytest.mark.spoils
async def test_corrupt_items_are_passed_over(scripts: Scripts, raw: aioredis.Redis) -> None:
    """Their index entries stay, for whoever repairs the item."""
    await put(scripts, a=WAITING, due1=DUE, due2=DUE, e1=EXPIRED, e2=EXPIRED, z=WAITING)
    for name in ("a", "due1", "e1"):
        await scripts.spoil(f"i:jobs:{name}")
    await raw.delete("hl:{default/0}:i:jobs:due2")
    scripts.clock.advance(10)
    assert await names(scripts, limit=9) == ["e2", "z"]
    assert await names(scripts, limit=9, where={"status": {"exists": True}}) == []


async def test_nothing_there(scripts: Scripts) -> None:
    claimed = await scripts.claim(limit=100)
    assert (claimed.items, claimed.next_ms, claimed.more) == ([], None, False)
    assert await snapshot(scripts.raw) == {}
