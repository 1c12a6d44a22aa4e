"""delete: nothing is left of an item, in no index; and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from hookline import Datastore
from hookline.codec import pack
from scripts import KEY, NOW, URL, Scripts, at, calling, line, ms, snapshot, unchanged

STATES: list[dict[str, Any]] = [
    {},
    {"status": "review"},
    {"status": "not_started", "priority": 9},
    {"status": "scheduled", "scheduled_at": at(60)},
    {"status": "started", "worker_id": "w"},
    {"status": "completed"},
]


@pytest.mark.parametrize("metadata", STATES)
async def test_nothing_is_left(scripts: Scripts, datastore: Datastore, metadata: dict[str, Any]) -> None:
    await scripts.create("b", metadata=metadata)
    before = await snapshot(scripts.raw)
    await scripts.create(content=1, metadata=metadata, trigger_urls={URL: "secret"})
    item = await datastore.get(KEY, "a")
    outcome = await scripts.delete()
    assert (outcome.word, outcome.item) == ("ok", item)
    assert await snapshot(scripts.raw) == before
    assert (await scripts.delete()).word == "not_found"


async def test_the_last_of_a_key_leaves_nothing(scripts: Scripts) -> None:
    await scripts.create(metadata={"status": "not_started"})
    await scripts.delete()
    assert await snapshot(scripts.raw) == {}


@pytest.mark.parametrize(
    ("condition", "word"),
    [
        ({"version": 2}, "version_conflict"),
        ({"match": 2}, "precondition_failed"),
        ({"token": "1.ab"}, "stale_token"),
        ({"version": 1}, "ok"),
        ({"match": 1}, "ok"),
    ],
)
async def test_conditions(scripts: Scripts, datastore: Datastore, condition: dict[str, Any], word: str) -> None:
    await scripts.create(content=1, metadata={"status": "started", "worker_id": "w"})
    item = await datastore.get(KEY, "a")
    if word == "ok":
        assert (await scripts.delete(**condition)).word == "ok"
    else:
        async with unchanged(scripts.raw):
            outcome = await scripts.delete(**condition)
        assert (outcome.word, outcome.item) == (word, item)
        assert await scripts.counts() == ({"lost_locks": "1"} if word == "stale_token" else {})


async def test_a_token_of_what_was_cancelled(scripts: Scripts) -> None:
    await scripts.create(metadata={"status": "started"})
    token = await scripts.token()
    await scripts.update(metadata={"status": "cancelled"})
    assert (await scripts.delete(token=token)).word == "cancelled"


async def test_the_holder_finds_nothing(scripts: Scripts) -> None:
    await scripts.create(metadata={"status": "started"})
    token = await scripts.token()
    assert (await scripts.delete()).word == "ok"
    assert (await scripts.extend(token=token)).word == "not_found"
    assert (await scripts.complete(token=token)).word == "not_found"


async def test_twice_in_one_call(scripts: Scripts) -> None:
    await scripts.create()
    assert await scripts.words(scripts.calls.delete(KEY, "a"), scripts.calls.delete(KEY, "a")) == ["ok", "not_found"]


@pytest.mark.parametrize(
    ("events", "triggers", "fired"),
    [
        (("deleted",), True, 1),
        (("created", "updated"), True, 0),
        (("deleted",), False, 0),
    ],
)
async def test_deleted_fires(scripts: Scripts, events: tuple[str, ...], triggers: bool, fired: int) -> None:
    await scripts.create(content=1, metadata={"type": "r"}, trigger_urls=calling(*events), triggers=False)
    scripts.clock.advance(1)
    await scripts.delete(triggers=triggers)
    found = await scripts.events()
    assert len(found) == fired
    for event in found:
        assert event["after"].pop("t")
        assert event == {
            "event": "deleted", "key": KEY, "sort": "a", "at": ms(1), "token": "", "urls": [URL], "before": {},
            "after": {"v": b"1", "c": pack(1), "ca": NOW.encode(), "ua": NOW.encode(), "m:type": pack("r")},
        }  # fmt: skip


async def test_nothing_before_reads_as_a_map(scripts: Scripts, raw: aioredis.Redis) -> None:
    """cmsgpack packs an empty table as a list, which no reader of events expects."""
    await scripts.create(trigger_urls=calling("deleted"))
    await scripts.delete()
    (entry,) = (await snapshot(raw))["outbox"]
    assert entry["before"] == b"\x80"


async def test_outbox_full(scripts: Scripts) -> None:
    scripts.outbox_max = 0
    await scripts.create(trigger_urls=calling("deleted"))
    async with unchanged(scripts.raw):
        assert (await scripts.delete()).word == "outbox_full"
    assert (await scripts.delete(triggers=False)).word == "ok"


async def test_others_keep_their_place(scripts: Scripts) -> None:
    await scripts.run(*(scripts.calls.create(KEY, name, metadata={"status": "not_started"}) for name in "abc"))
    await scripts.delete("b")
    keyspace = await snapshot(scripts.raw)
    assert keyspace["s:jobs:not_started"] == {"a": line(place=1), "c": line(place=3)}
    assert keyspace["k:jobs"] == {"a": 0, "c": 0}
