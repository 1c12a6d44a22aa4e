"""create: the raw keys of a new item in each status, upsert, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis
from msgspec import structs

from conftest import NOW_MS
from hookline import Datastore, codec
from hookline.codec import pack
from invariants import check_invariants
from scripts import KEY, NOW, URL, Scripts, at, calling, line, ms, snapshot, unchanged

FRESH = {"v": "1", "c": b"\xc0", "ca": NOW, "ua": NOW}
WAITING = {"s": "not_started", "a": "0", "at": NOW}
HELD = {"s": "started", "a": "1", "sa": NOW, "lu": ms(600)}


@pytest.mark.parametrize(
    ("metadata", "fields", "score"),
    [
        pytest.param({}, {}, None, id="plain document"),
        pytest.param({"type": "report", "n": {}}, {"m:type": pack("report"), "m:n": b"\x80"}, None, id="fields"),
        pytest.param({"seen": "CURRENT_TIMESTAMP"}, {"m:seen": pack(at(0))}, None, id="stamped field"),
        pytest.param({"status": "review"}, {"s": "review"}, NOW_MS, id="status of the user's own"),
        pytest.param({"status": "not_started"}, WAITING, line(), id="not_started"),
        pytest.param({"status": "not_started", "priority": 9}, {**WAITING, "p": "9"}, line(priority=9), id="first"),
        pytest.param({"status": "not_started", "priority": 0}, {**WAITING, "p": "0"}, line(priority=0), id="last"),
        pytest.param({"status": "not_started", "worker_id": "w"}, WAITING, line(), id="nobody holds what waits"),
        pytest.param(
            {"status": "not_started", "scheduled_at": at(60)},
            {"s": "scheduled", "a": "0", "at": ms(60), "sd": ms(60)},
            NOW_MS + 60_000,
            id="not_started later is scheduled",
        ),
        pytest.param(
            {"status": "not_started", "scheduled_at": "+1m"},
            {"s": "scheduled", "a": "0", "at": ms(60), "sd": ms(60)},
            NOW_MS + 60_000,
            id="relative time",
        ),
        pytest.param(
            {"status": "scheduled", "scheduled_at": at(-60)},
            {**WAITING, "sd": ms(-60)},
            line(),
            id="scheduled in the past is not_started",
        ),
        pytest.param(
            {"status": "not_started", "scheduled_at": "CURRENT_TIMESTAMP"},
            {**WAITING, "sd": NOW},
            line(),
            id="due at once",
        ),
        pytest.param({"status": "started"}, HELD, NOW_MS + 600_000, id="started"),
        pytest.param(
            {"status": "started", "worker_id": "w", "locked_until": at(30), "started_at": at(-5)},
            {**HELD, "w": "w", "lu": ms(30), "sa": ms(-5)},
            NOW_MS + 30_000,
            id="started by somebody",
        ),
        pytest.param({"status": "completed"}, {"s": "completed", "da": NOW}, NOW_MS, id="completed"),
        pytest.param(
            {"status": "completed", "completed_at": at(-9), "worker_id": "w"},
            {"s": "completed", "da": ms(-9), "w": "w"},
            NOW_MS,
            id="completed before",
        ),
        pytest.param({"status": "failed", "last_error": "no"}, {"s": "failed", "le": "no"}, NOW_MS, id="failed"),
        pytest.param({"status": "cancelled"}, {"s": "cancelled"}, NOW_MS, id="cancelled"),
        pytest.param({"max_attempts": 3}, {"ma": "3"}, None, id="max_attempts"),
    ],
)
async def test_raw_keys(
    scripts: Scripts, datastore: Datastore, metadata: dict[str, Any], fields: dict[str, Any], score: float | None
) -> None:
    assert await snapshot(scripts.raw) == {}
    outcome = await scripts.create(metadata=metadata)
    keyspace = await snapshot(scripts.raw)
    token = keyspace["i:jobs:a"].pop("tk", None)
    expected: dict[str, Any] = {"i:jobs:a": {**FRESH, **fields}, "k:jobs": {"a": 0}, "r": {"jobs\0"}}
    if "s" in fields:
        expected[f"s:jobs:{fields['s']}"] = {"a": score}
        expected["r"].add(f"jobs\0{fields['s']}")
    if fields.get("s") in ("scheduled", "started"):
        expected["due"] = {"jobs": score}
    if fields.get("s") in ("not_started", "scheduled"):
        expected["ready:jobs"] = {"": 0}
    assert keyspace == expected
    assert outcome.word == "ok"
    assert outcome.item is not None
    assert outcome.item.token == token
    assert structs.replace(outcome.item, token=None) == await datastore.get(KEY, "a")


async def test_content_and_triggers(scripts: Scripts) -> None:
    content = {"empty": {}, "list": [], "float": 1.0, "big": 2**53 + 1, "none": None}
    await scripts.create(content=content, trigger_urls={URL: "secret"})
    fields = await scripts.fields()
    assert fields["c"] == pack(content)
    assert URL.encode() in fields["t"]
    assert b"secret" not in fields["t"]
    assert (await scripts.create("b", trigger_urls={})).ok
    assert "t" not in await scripts.fields("b")


@pytest.mark.parametrize(
    ("metadata", "warned"),
    [
        ({"status": "started", "locked_until": at(-1)}, "past"),
        ({"status": "started", "locked_until": "CURRENT_TIMESTAMP"}, "past"),
        ({"status": "not_started", "locked_until": at(60)}, "dropped"),
        ({"locked_until": at(60)}, "dropped"),
        ({"scheduled_at": at(60)}, "without status"),
        ({"scheduled_at": "+1h", "locked_until": at(60)}, "without status"),
        ({"status": "scheduled", "scheduled_at": at(60)}, ""),
        ({"status": "not_started", "scheduled_at": at(60)}, ""),
        ({"status": "started", "locked_until": at(1)}, ""),
    ],
)
async def test_warnings(scripts: Scripts, metadata: dict[str, Any], warned: str) -> None:
    outcome = await scripts.create(metadata=metadata)
    assert outcome.word == "ok"
    assert warned in " ".join(outcome.warnings)
    assert bool(warned) == bool(outcome.warnings)


async def test_a_batch_stands_in_line_in_its_order(scripts: Scripts) -> None:
    calls = [scripts.calls.create(KEY, name, metadata={"status": "not_started"}) for name in "cab"]
    assert await scripts.words(*calls) == ["ok"] * 3
    in_line = (await snapshot(scripts.raw))["s:jobs:not_started"]
    assert in_line == {"c": line(place=1), "a": line(place=2), "b": line(place=3)}


async def test_upsert_creates_then_replaces(scripts: Scripts) -> None:
    first = {"type": "report", "status": "not_started", "priority": 7, "max_attempts": 3}
    await scripts.create(content=1, metadata=first, trigger_urls={URL: "secret"}, upsert=True)
    scripts.clock.advance(1)
    outcome = await scripts.create(content=2, metadata={"owner": "me"}, upsert=True)
    assert outcome.item is not None
    assert outcome.item.metadata == {"owner": "me", "version": 2}
    fields = await scripts.fields()
    assert fields == {
        "v": "2", "c": pack(2), "ca": NOW, "ua": ms(1), "m:owner": pack("me"), "at": NOW,
    }  # fmt: skip
    assert "s:jobs:not_started" not in await snapshot(scripts.raw)


async def test_upsert_that_prolongs_a_lock_keeps_its_holder(scripts: Scripts) -> None:
    held = {"status": "started", "worker_id": "w"}
    await scripts.create(metadata={**held, "type": "report"})
    before = await scripts.fields()
    outcome = await scripts.create(metadata={**held, "version": 1, "locked_until": at(900)}, upsert=True)
    assert outcome.word == "ok"
    fields = await scripts.fields()
    assert "m:type" not in fields
    assert [fields[name] for name in ("w", "sa", "tk", "a", "lu", "v")] == [
        *(before[name] for name in ("w", "sa", "tk", "a")), ms(900), "2",
    ]  # fmt: skip


HELD_BY_W = {"status": "started", "worker_id": "w"}


@pytest.mark.parametrize(
    ("there", "create", "word"),
    [
        pytest.param({}, {}, "exists", id="exists"),
        pytest.param({}, {"upsert": True, "version": 2}, "version_conflict", id="upsert of another version"),
        pytest.param({}, {"upsert": True, "match": 2}, "precondition_failed", id="upsert with If-Match"),
        pytest.param(None, {"upsert": True, "version": 1}, "not_found", id="upsert of a version of nothing"),
        pytest.param(None, {"upsert": True, "match": 1}, "precondition_failed", id="If-Match of nothing"),
        pytest.param(HELD_BY_W, {"upsert": True, "metadata": HELD_BY_W}, "locked", id="upsert claims what is held"),
        pytest.param(HELD_BY_W, {"upsert": True, "metadata": {"worker_id": "v"}}, "locked", id="not the holder"),
        pytest.param(
            {"status": "completed"}, {"upsert": True, "metadata": {"status": "started"}}, "not_claimable", id="over"
        ),
    ],
)
async def test_refusals(
    scripts: Scripts, datastore: Datastore, there: dict[str, Any] | None, create: dict[str, Any], word: str
) -> None:
    if there is not None:
        await scripts.create(content=1, metadata=there)
    async with unchanged(scripts.raw):
        outcome = await scripts.create(**{"content": 1, **create})
    assert outcome.word == word
    assert outcome.item == (None if there is None else await datastore.get(KEY, "a"))


async def test_the_second_of_a_batch_finds_the_first(scripts: Scripts) -> None:
    calls = [scripts.calls.create(KEY, "a", content=n) for n in (1, 2)]
    first, second = await scripts.run(*calls)
    assert (first.word, second.word) == ("ok", "exists")
    assert second.item.content == 1
    assert (await scripts.fields())["c"] == pack(1)


@pytest.mark.parametrize(
    ("triggers", "events", "fired"),
    [
        pytest.param(True, ("created",), 1, id="asked for"),
        pytest.param(True, ("created", "updated", "deleted"), 1, id="among others"),
        pytest.param(True, ("updated", "deleted"), 0, id="not asked for"),
        pytest.param(False, ("created",), 0, id="triggers off"),
    ],
)
async def test_created_fires(scripts: Scripts, triggers: bool, events: tuple[str, ...], fired: int) -> None:
    await scripts.create(metadata={"type": "report"}, trigger_urls=calling(*events), triggers=triggers)
    assert [event["event"] for event in await scripts.events()] == ["created"] * fired


async def test_map_form_does_not_fire_on_creation(scripts: Scripts) -> None:
    await scripts.create(metadata={"status": "started"}, trigger_urls={URL: "secret"})
    assert await scripts.events() == []


async def test_the_event_of_a_creation(scripts: Scripts) -> None:
    outcome = await scripts.create(metadata={"status": "started", "type": "r"}, trigger_urls=calling("created"))
    (event,) = await scripts.events()
    fields = await scripts.fields()
    token = fields.pop("tk")
    assert outcome.item is not None
    assert token == event["token"] == outcome.item.token
    told = {name: value for name, value in event.items() if name not in ("before", "after", "urls")}
    assert told == {"event": "created", "key": "jobs", "sort": "a", "at": NOW, "token": token}
    assert event["urls"] == [URL]
    assert event["after"].keys() == fields.keys()
    assert set(event["before"].values()) == {False}
    assert {"s", "m:type", "c", "lu"} <= event["before"].keys()


async def test_outbox_full(scripts: Scripts) -> None:
    scripts.outbox_max = 1
    calls = [scripts.calls.create(KEY, name, trigger_urls=calling("created")) for name in "ab"]
    quiet = scripts.calls.create(KEY, "c")
    assert await scripts.words(*calls, quiet) == ["ok", "outbox_full", "ok"]
    keyspace = await snapshot(scripts.raw)
    assert keyspace["k:jobs"] == {"a": 0, "c": 0}
    assert len(keyspace["outbox"]) == 1
    async with unchanged(scripts.raw):
        assert (await scripts.one(calls[1])).word == "outbox_full"


# The length of a key


async def test_a_full_key(scripts: Scripts) -> None:
    await scripts.configure(length_max=2)
    creates = [scripts.calls.create(KEY, name) for name in "abc"]
    assert await scripts.words(*creates) == ["ok", "ok", "key_full"]
    assert (await scripts.create("a", content=1)).word == "exists"
    assert (await scripts.create("a", content=1, upsert=True)).word == "ok"
    async with unchanged(scripts.raw):
        assert (await scripts.create("c", upsert=True)).word == "key_full"
    assert await scripts.words(scripts.calls.create("other", "c")) == ["ok"]
    await scripts.delete("b")
    assert await scripts.words(*(scripts.calls.create(KEY, name) for name in "cd")) == ["ok", "key_full"]


async def test_what_is_refused_takes_no_room(scripts: Scripts) -> None:
    await scripts.configure(length_max=1)
    scripts.outbox_max = 0
    refused = scripts.calls.create(KEY, "a", trigger_urls=calling("created"))
    assert await scripts.words(refused, scripts.calls.create(KEY, "b")) == ["outbox_full", "ok"]


async def test_what_a_call_made_at_once_can_be_met_again_in_it(scripts: Scripts, raw: aioredis.Redis) -> None:
    """A plain create is written ahead of its index moves: who meets it in the same call does not undo them."""
    create, waiting = scripts.calls.create, {"status": "not_started"}
    calls = [
        create(KEY, "a", metadata=waiting),
        create(KEY, "b", metadata={**waiting, "priority": 9}),
        create(KEY, "a", metadata=waiting),
        create(KEY, "a", metadata={"status": "review"}, upsert=True),
        create(KEY, "c"),
        create(KEY, "c", metadata=waiting, upsert=True),
        create("other", "a", metadata=waiting),
        create(KEY, "b", metadata={**waiting, "priority": 1}, upsert=True),
    ]
    outcomes = await scripts.run(*calls)
    assert [(outcome.word, outcome.version) for outcome in outcomes] == [
        ("ok", 1), ("ok", 1), ("exists", 1), ("ok", 2), ("ok", 1), ("ok", 2), ("ok", 1), ("ok", 2),
    ]  # fmt: skip
    keyspace = await snapshot(scripts.raw)
    assert {name: list(members) for name, members in keyspace.items() if name[:2] in ("s:", "k:")} == {
        "k:jobs": ["a", "b", "c"], "k:other": ["a"], "s:jobs:review": ["a"], "s:jobs:not_started": ["c", "b"],
        "s:other:not_started": ["a"],
    }  # fmt: skip
    await check_invariants(raw)


async def test_the_filters_of_a_key_are_asked_of_each_item_of_a_call(scripts: Scripts, datastore: Datastore) -> None:
    filters = [{"size": {"in": [1, 2]}}, {"size": {"gt": 1}, "type": "r"}, {"type": {"ne": "r"}}]
    urls = [{"url": f"{URL}{n}", "events": ["created"], "where": where} for n, where in enumerate(filters)]
    await datastore.configure(KEY, trigger_urls=urls)
    metadata = [{"size": size, "type": kind} for kind in "rs" for size in (1, 2, 3)]
    calls = [scripts.calls.create(KEY, str(n), metadata=each) for n, each in enumerate(metadata)]
    assert [outcome.word for outcome in await datastore.run(calls)] == ["ok"] * 6
    fired = {event["sort"]: [url.removeprefix(URL) for url in event["urls"]] for event in await scripts.events()}
    assert fired == {"0": ["0"], "1": ["0", "1"], "2": ["1"], "3": ["0", "2"], "4": ["0", "2"], "5": ["2"]}
    for entry in (await snapshot(scripts.raw))["outbox"]:
        assert all(options[:2] == [False, False] for *_, options in codec.unpack_answer(entry["triggers"]))
