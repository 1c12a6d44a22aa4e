"""One item: the verbs, the refusals, and values that come back as they were."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from conftest import NOW_MS, Clock
from hookline import Datastore
from hookline.clock import format_time
from hookline.errors import (
    Corrupt,
    Exists,
    HooklineError,
    Locked,
    NotClaimable,
    NotFound,
    PreconditionFailed,
    StaleToken,
    VersionConflict,
)
from hookline.sortfield import new_sort_field
from jobs import WAITING, claim_one, pages, spoil, tags
from values import FIELD_NAMES, JSON, same


async def test_create_and_get(datastore: Datastore) -> None:
    created = await datastore.create("jobs", "a", content={"x": [1, 2.0, {}, []]}, metadata={"type": "report"})
    assert created.item is not None
    assert await datastore.get("jobs", "a") == created.item


async def test_what_create_gives(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    urls = [{"url": "http://worker.example/", "apiKey": "canary", "events": ["created"]}]
    outcome = await datastore.create("jobs", "a", content=[1], metadata={**WAITING, "x": None}, trigger_urls=urls)
    assert outcome.item is not None
    assert outcome.item.to_dict() == {
        "key": "jobs", "sortField": "a", "content": [1], "version": 1,
        "metadata": {"status": "not_started", "attempts": 0, "version": 1},
        "triggerUrls": [{"url": "http://worker.example/", "events": ["created"], "hasApiKey": True}],
        "createdAt": format_time(NOW_MS), "updatedAt": format_time(NOW_MS),
    }  # fmt: skip
    assert (outcome.word, outcome.ok, outcome.version, outcome.status) == ("ok", True, 1, "not_started")
    assert "canary" not in repr(outcome)


async def test_the_life_of_a_job(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", content=1, metadata={**WAITING, "type": "report"})
    item = await claim_one(datastore, lock_for="1m")
    assert (item.version, item.status, item.content, item.metadata["type"]) == (2, "started", 1, "report")
    assert item.token is not None
    assert item.token.startswith("2.")
    assert (await datastore.get("jobs", "a")).token is None
    calls = datastore.calls
    (extended,) = await datastore.settle([calls.extend("jobs", "a", item.token, lock_for="2m")])
    assert extended.version == 2
    assert (extended.locked_until_ms or 0) > (item.locked_until_ms or 0)
    (completed,) = await datastore.settle([calls.complete("jobs", "a", item.token, metadata={"result": {"n": 1}})])
    assert (completed.version, completed.status, completed.locked_until_ms) == (3, "completed", None)
    (stale,) = await datastore.settle([calls.complete("jobs", "a", item.token)])
    assert stale.word == "stale_token"
    assert isinstance(stale.error(), StaleToken)
    done = await datastore.get("jobs", "a")
    assert done.metadata["result"] == {"n": 1}
    assert done.metadata["worker_id"] == "w"
    assert (await datastore.delete("jobs", "a")).item == done
    with pytest.raises(NotFound):
        await datastore.get("jobs", "a")


async def test_fail_and_release(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    calls = datastore.calls
    first = await claim_one(datastore)
    await datastore.settle([calls.release("jobs", "a", first.token or "")])
    again = await claim_one(datastore)
    assert (again.metadata["attempts"], again.version) == (1, 4)
    await datastore.settle([calls.fail("jobs", "a", again.token or "", error="no luck", retry_after=60)])
    failed = await datastore.get("jobs", "a")
    assert (failed.status, failed.metadata["last_error"]) == ("scheduled", "no luck")
    assert (await datastore.claim("jobs", worker_id="w")).items == []


async def test_update(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", content=1, metadata={"x": {"a": 1}, "y": 2})
    first = await datastore.update("jobs", "a", metadata={"x": {"b": 2}, "y": None, "z": [None]})
    assert first.item is not None
    assert first.item.metadata == {"x": {"b": 2}, "z": [None], "version": 2}
    assert first.item.content == 1
    second = await datastore.update("jobs", "a", content=None, version=2)
    assert second.item is not None
    assert (second.item.content, second.item.version) == (None, 3)
    assert await datastore.get("jobs", "a") == second.item
    warned = await datastore.update("jobs", "a", metadata={"status": "started", "locked_until": "2020-01-01T00:00:00Z"})
    assert [warning.partition(":")[0] for warning in warned.warnings] == ["locked_until is already past"]


async def test_upsert_replaces_whole(datastore: Datastore) -> None:
    new = await datastore.create("jobs", "a", content=1, metadata={"x": 1, "y": 1, **WAITING}, upsert=True)
    old = await datastore.create("jobs", "a", metadata={"y": 2}, upsert=True)
    assert new.item is not None
    assert old.item is not None
    assert (new.item.version, old.item.version) == (1, 2)
    assert (old.item.content, old.item.status) == (None, None)
    assert {name: old.item.metadata.get(name) for name in "xy"} == {"x": None, "y": 2}
    assert await datastore.get("jobs", "a") == old.item
    with pytest.raises(VersionConflict):
        await datastore.create("jobs", "a", upsert=True, version=1)


@pytest.mark.parametrize(
    ("error", "verb", "options"),
    [
        (Exists, "create", {}),
        (VersionConflict, "update", {"version": 7}),
        (VersionConflict, "update", {"metadata": {"version": 7}}),
        (PreconditionFailed, "update", {"match": 7}),
        (PreconditionFailed, "update", {"match": 7, "version": 7}),
        (Locked, "update", {"metadata": {"status": "started", "worker_id": "w"}}),
        (Locked, "update", {"metadata": {"worker_id": "other"}}),
        (StaleToken, "update", {"token": "2.no"}),
        (VersionConflict, "delete", {"version": 7}),
        (PreconditionFailed, "delete", {"match": 7}),
        (StaleToken, "delete", {"token": "2.no"}),
    ],
)
async def test_refusals_carry_the_item(
    datastore: Datastore, error: type[HooklineError], verb: str, options: dict[str, Any]
) -> None:
    await datastore.create("jobs", "a", content=1, metadata=WAITING)
    held = await claim_one(datastore)
    with pytest.raises(error) as refused:
        await getattr(datastore, verb)("jobs", "a", **options)
    item = await datastore.get("jobs", "a")
    assert getattr(refused.value, "item", None) == item
    assert (item.token, item.version) == (None, held.version)


@pytest.mark.parametrize("verb", ["update", "delete", "get"])
async def test_nothing_there(datastore: Datastore, verb: str) -> None:
    with pytest.raises(NotFound) as refused:
        await getattr(datastore, verb)("jobs", "a")
    assert refused.value.item is None


async def test_terminal_items_are_not_claimed_by_update(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata={"status": "completed"})
    with pytest.raises(NotClaimable):
        await datastore.update("jobs", "a", metadata={"status": "started"})
    assert (await datastore.update("jobs", "a", metadata={"status": "started"}, version=1)).version == 2


async def check_round_trip(datastore: Datastore, name: str, content: object, metadata: dict[str, Any]) -> None:
    await datastore.create("jobs", name, content=content, metadata=metadata, upsert=True)
    wanted = {name: value for name, value in metadata.items() if value is not None}
    (listed,) = (await datastore.query("jobs", where={"version": {"gte": 1}})).items
    for item in (await datastore.get("jobs", name), listed):
        assert same(item.content, content)
        found = {name: value for name, value in item.metadata.items() if name != "version"}
        assert same(dict(sorted(found.items())), dict(sorted(wanted.items())))


@limits(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, st.dictionaries(FIELD_NAMES, JSON.filter(lambda value: value != "CURRENT_TIMESTAMP"), max_size=4))
async def test_any_value_comes_back(datastore: Datastore, content: object, metadata: dict[str, Any]) -> None:
    await check_round_trip(datastore, "a", content, metadata)


@pytest.mark.parametrize(
    "value",
    [
        {}, [], [{}], {"a": {}}, {"a": [], "b": [[]]}, [None, [None, {"a": None}]], "", "\0", "é😀\u2028", {"": ""},
        1.0, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), True, [1, 1.0, True, "1"],
        {str(n): n for n in range(1000)}, [[[[[[[[1]]]]]]]], "x" * 100_000, "CURRENT_TIMESTAMP ",
    ],
)  # fmt: skip
async def test_values_that_are_easily_lost(datastore: Datastore, value: object) -> None:
    await check_round_trip(datastore, "a", value, {"x": value})
    await datastore.update("jobs", "a", metadata={**WAITING, "y": value})
    claimed = await claim_one(datastore)
    assert all(same(found, value) for found in (claimed.content, claimed.metadata["x"], claimed.metadata["y"]))
    token = claimed.token or ""
    await datastore.settle([datastore.calls.complete("jobs", "a", token, metadata={"z": value})])
    item = await datastore.get("jobs", "a")
    assert all(same(found, value) for found in (item.content, *(item.metadata[name] for name in "xyz")))


async def test_a_mebibyte_of_content(datastore: Datastore) -> None:
    for name in "abc":
        content = {"text": name * (1_048_576 - 20), "n": 1}
        await datastore.create("jobs", name, content=content, metadata=WAITING)
        assert (await datastore.get("jobs", name)).content == content
    assert [len(page) for page in await pages(datastore, limit=10)] == [3]
    claimed = await datastore.claim("jobs", worker_id="w", limit=3)
    assert sorted(item.content["text"][0] for item in claimed.items) == ["a", "b", "c"]


@pytest.mark.parametrize("name", [" ", "a/b", "é😀", "a:b{c}", "\n", "x" * 512, "-", "\x01", "a\u0301"])
async def test_any_sort_field(datastore: Datastore, name: str) -> None:
    await datastore.create("jobs", name, metadata=WAITING)
    assert (await datastore.get("jobs", name)).sort_field == name
    assert await pages(datastore) == [[name]]
    assert (await claim_one(datastore)).sort_field == name
    assert (await datastore.delete("jobs", name)).ok


async def test_generated_sort_fields(datastore: Datastore) -> None:
    made = [new_sort_field() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    created = [(await datastore.create("jobs")).sort_field for _ in range(20)]
    assert created == sorted(created)
    assert await pages(datastore) == [created]
    assert all(len(name) == 25 for name in created)


@pytest.mark.spoils
@pytest.mark.parametrize("index", ["i:jobs:a", "k:jobs", "s:jobs:not_started", "r"])
async def test_spoilt_keys(datastore: Datastore, raw: aioredis.Redis, index: str) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    await spoil(raw, f"{tags(datastore)[datastore.calls.partition('jobs', 'a')]}:{index}")
    with pytest.raises(Corrupt):
        await datastore.update("jobs", "a", metadata={"x": 1})
    if index == "i:jobs:a":
        with pytest.raises(Corrupt):
            await datastore.get("jobs", "a")
    elif index != "r":
        with pytest.raises(Corrupt):
            await datastore.query("jobs", where=WAITING if index.startswith("s") else None)
    if index in ("s:jobs:not_started", "r"):
        with pytest.raises(Corrupt):
            await datastore.claim("jobs", worker_id="w")
        with pytest.raises(Corrupt):
            await datastore.exchange([], "jobs", worker_id="w")


async def test_a_write_whose_item_cannot_be_shown_says_so_and_that_it_is_done(
    datastore: Datastore, raw: aioredis.Redis
) -> None:
    for name in ("a", "b", "c"):
        await datastore.create("jobs", name, metadata=WAITING)
        hash_name = datastore.calls.item_name("jobs", name)
        if name != "c":
            await raw.hset(hash_name, "c", b"\xc1")
    with pytest.raises(Corrupt, match="the hash of jobs/a can be no item; the operation is done all the same"):
        await datastore.update("jobs", "a", metadata={"n": 1})
    calls = [datastore.calls.update("jobs", name, metadata={"n": 2}) for name in ("a", "b", "c")]
    assert [outcome.word for outcome in await datastore.run(calls)] == ["corrupt", "corrupt", "ok"]
    assert (await datastore.update("jobs", "a", content={"whole": True})).version == 4
    with pytest.raises(Corrupt, match="done all the same"):
        await datastore.delete("jobs", "b")
    with pytest.raises(NotFound):
        await datastore.delete("jobs", "b")


class Word(StrEnum):
    STATUS = "not_started"
    OTHER = "caf\u00e9"


class Mixed(str, Enum):  # noqa: UP042 - users have it
    STATUS = "not_started"
    OTHER = "caf\u00e9"


@pytest.mark.parametrize("kind", [Word, Mixed])
async def test_members_of_an_enum_are_the_text_that_they_stand_for(
    datastore: Datastore, kind: type[Word] | type[Mixed]
) -> None:
    written = {"status": kind.STATUS, "last_error": kind.OTHER, "tag": kind.OTHER, kind.OTHER: 1}
    created = await datastore.create("jobs", "a", metadata=written)
    plain = {"status": "not_started", "last_error": "caf\u00e9", "tag": "caf\u00e9", "caf\u00e9": 1}
    assert created.item == await datastore.get("jobs", "a")
    assert created.status == "not_started"
    assert created.item
    assert created.item.metadata == {**plain, "attempts": 0, "version": 1}
    updated = await datastore.update("jobs", "a", metadata=written)
    assert (updated.status, updated.item) == ("not_started", await datastore.get("jobs", "a"))
    for item in (created.item, updated.item):
        assert item
        assert {type(name) for name in item.metadata} | {type(item.metadata[name]) for name in plain} == {str, int}
    page = await datastore.query("jobs", where={"status": kind.STATUS, "tag": kind.OTHER, kind.OTHER: 1})
    assert page.items == [updated.item]
