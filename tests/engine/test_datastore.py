"""The engine's verbs over a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from conftest import NOW_MS, Clock, wait_until
from hookline import Claimed, Datastore, EmbeddedStore, Item, Outcome
from hookline.calls import CLAIM_MAX, QUERY_MAX
from hookline.clock import format_time
from hookline.datastore import new_sort_field
from hookline.errors import (
    Corrupt,
    Exists,
    HooklineError,
    Invalid,
    Locked,
    NotClaimable,
    NotFound,
    OutboxFull,
    PreconditionFailed,
    StaleToken,
    VersionConflict,
)
from invariants import check_invariants
from values import FIELD_NAMES, JSON, same

TAG = "hl:{default/0}"
WAITING = {"status": "not_started"}


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def invariants(request: pytest.FixtureRequest, raw: aioredis.Redis) -> AsyncIterator[None]:
    yield
    if "spoilt" not in request.node.name:
        await check_invariants(raw)


async def claim_one(datastore: Datastore, **options: Any) -> Item:
    (item,) = (await datastore.claim("jobs", worker_id="w", **options)).items
    return item


async def names(datastore: Datastore, **query: Any) -> list[str]:
    return [item.sort_field for item in (await datastore.query("jobs", **query)).items]


async def pages(datastore: Datastore, **query: Any) -> list[list[str]]:
    """The sortFields of each page, until no cursor is left."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await datastore.query("jobs", cursor=cursor, **query)
        found.append([item.sort_field for item in page.items])
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(found) < 1000


# Verbs


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


@pytest.mark.parametrize("limit", [0, -1, CLAIM_MAX + 1, 1.0, True, None])
async def test_bad_limit_of_a_claim(datastore: Datastore, limit: Any) -> None:
    with pytest.raises(Invalid, match="/limit: expected a whole number from 1 to 500"):
        await datastore.claim("jobs", worker_id="w", limit=limit)


# Values


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
    assert [item.content["text"][0] for item in claimed.items] == ["a", "b", "c"]


@pytest.mark.parametrize("name", [" ", "a/b", "é😀", "a:b{c}", "\n", "x" * 512, "-", "\x01", "a\u0301"])
async def test_any_sort_field(datastore: Datastore, name: str) -> None:
    await datastore.create("jobs", name, metadata=WAITING)
    assert (await datastore.get("jobs", name)).sort_field == name
    assert await names(datastore) == [name]
    assert (await claim_one(datastore)).sort_field == name
    assert (await datastore.delete("jobs", name)).ok


async def test_generated_sort_fields(datastore: Datastore) -> None:
    made = [new_sort_field() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    created = [(await datastore.create("jobs")).sort_field for _ in range(20)]
    assert created == sorted(created)
    assert await names(datastore) == created
    assert all(len(name) == 25 for name in created)


# Many at once


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
    for n in range(30):
        await datastore.create("jobs", f"{n:02}", metadata=WAITING)
    outcomes, claimed = await datastore.exchange([], "jobs", worker_id="w", limit=10)
    done: list[str] = []
    while claimed.items:
        done += [item.sort_field for item in claimed.items]
        finished = [datastore.calls.complete("jobs", item.sort_field, item.token or "") for item in claimed.items]
        outcomes, claimed = await datastore.exchange(finished, "jobs", worker_id="w", limit=10)
        assert [(outcome.word, outcome.sort_field) for outcome in outcomes] == [("ok", name) for name in done[-10:]]
    assert done == [f"{n:02}" for n in range(30)]
    assert len(await names(datastore, where={"status": "completed"})) == 30


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


# Claims


async def test_claims_in_line(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    for name, priority in (("c", 5), ("b", 5), ("low", 0), ("high", 9)):
        await datastore.create("jobs", name, metadata={**WAITING, "priority": priority})
        clock.advance(1)
    claimed = await datastore.claim("jobs", worker_id="w", limit=3, lock_for=60)
    assert [item.sort_field for item in claimed.items] == ["high", "c", "b"]
    assert [item.sort_field for item in (await datastore.claim("jobs", worker_id="w", limit=3)).items] == ["low"]
    clock.advance(60)
    again = await datastore.claim("jobs", worker_id="v", limit=500)
    assert sorted(item.sort_field for item in again.items) == ["b", "c", "high"]
    assert all(item.metadata["attempts"] == 2 for item in again.items)


async def test_claim_says_when_there_may_be_more(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    assert await datastore.claim("jobs", worker_id="w") == Claimed([], None)
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+30s"})
    assert (await datastore.claim("jobs", worker_id="w")).next_ms == NOW_MS + 30_000
    await datastore.create("jobs", "b", metadata=WAITING)
    await claim_one(datastore, lock_for=10)
    assert (await datastore.claim("jobs", worker_id="w")).next_ms == NOW_MS + 10_000


async def within(seconds: float, claim: Awaitable[Claimed]) -> Claimed:
    return await asyncio.wait_for(claim, seconds)


async def test_a_waiting_claim_is_woken(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    for name in ("a", "b", "c"):
        waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
        await wait_until(lambda: datastore.claims.lines.waiting("jobs"))
        assert not waiting.done()
        await datastore.create("other", name, metadata=WAITING)
        await datastore.create("jobs", name, metadata=WAITING)
        assert [item.sort_field for item in (await within(5, waiting)).items] == [name]
    assert not datastore.wakes._listeners


async def test_waits_outlive_a_lost_subscription(
    datastore: Datastore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    monkeypatch.setattr("hookline.wake._RECONNECT", 0.05)

    async def subscribers() -> int:
        return int((await raw.pubsub_shardnumsub(f"{TAG}:wake"))[0][1])

    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(subscribers)
    clients = await raw.client_list("pubsub")
    await raw.client_kill_filter(_id=clients[0]["id"])
    await wait_until(lambda: _other_subscriber(raw, clients[0]["id"]))
    await datastore.create("jobs", "a", metadata=WAITING)
    assert (await within(5, waiting)).items[0].sort_field == "a"


async def _other_subscriber(raw: aioredis.Redis, than: str) -> bool:
    return any(client["id"] != than and client["ssub"] == "1" for client in await raw.client_list("pubsub"))


async def test_a_waiting_claim_looks_by_itself_too(
    datastore: Datastore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 0.05)
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60, where={"x": 1}))
    await wait_until(lambda: datastore.claims.lines.waiting("jobs"))
    await datastore.create("jobs", "a", metadata=WAITING)
    await datastore.update("jobs", "a", metadata={"x": 1})  # wakes nobody: it was ready before
    assert (await within(5, waiting)).items[0].sort_field == "a"


@pytest.mark.parametrize("what", ["due", "expired"])
async def test_a_waiting_claim_knows_when_to_look(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    if what == "due":
        await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+300ms"})
    else:
        await datastore.create("jobs", "a", metadata=WAITING)
        await claim_one(datastore, lock_for="300ms")
    started = time.monotonic()
    claimed = await within(10, datastore.claim("jobs", worker_id="w", wait=60))
    assert [item.sort_field for item in claimed.items] == ["a"]
    assert time.monotonic() - started > 0.1


async def test_a_claim_waits_no_longer_than_it_may(datastore: Datastore) -> None:
    assert (await within(10, datastore.claim("jobs", worker_id="w", wait=0.1))).items == []
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.lines.waiting("jobs"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not datastore.wakes._listeners


async def test_a_waiting_claim_learns_of_what_is_due_before_it_looks_again(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    await datastore.create("jobs", "later", metadata={**WAITING, "scheduled_at": "+1h"})
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.lines.waiting("jobs"))
    await asyncio.sleep(0.05)
    await datastore.create("jobs", "sooner", metadata={**WAITING, "scheduled_at": "+300ms"})
    assert [item.sort_field for item in (await within(10, waiting)).items] == ["sooner"]


async def test_a_thousand_who_wait_ask_the_store_as_one(datastore: Datastore, raw: aioredis.Redis) -> None:
    waiting = [asyncio.create_task(datastore.claim("jobs", worker_id=f"w{n}", wait=60)) for n in range(1000)]
    await wait_until(lambda: datastore.claims.lines.waiting("jobs") == 1000)
    await asyncio.sleep(0.5)
    await raw.config_resetstat()
    began = time.monotonic()
    await asyncio.sleep(3)
    commands = (await raw.info("stats"))["total_commands_processed"] + sum(
        row["calls"] for name, row in (await raw.info("commandstats")).items() if name != "cmdstat_evalsha"
    )
    assert commands / (time.monotonic() - began) < 50
    await datastore.run([datastore.calls.create("jobs", f"{n:04}", metadata=WAITING) for n in range(1000)])
    found = await within(20, asyncio.gather(*waiting))  # type: ignore[arg-type]
    assert len({item.sort_field for claimed in found for item in claimed.items}) == 1000  # type: ignore[attr-defined]


async def test_who_waits_with_other_filters_has_a_line_of_their_own(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    waiting = {
        kind: asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60, where={"kind": kind}))
        for kind in ("a", "b", "c")
    }
    await wait_until(lambda: datastore.claims.lines.waiting("jobs") == 3)
    for kind in ("c", "a", "b"):
        await datastore.create("jobs", kind, metadata={**WAITING, "kind": kind})
        assert [item.sort_field for item in (await within(5, waiting[kind])).items] == [kind]


async def test_when_the_first_in_line_leaves_the_next_looks(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    first = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.lines.waiting("jobs") == 1)
    second = asyncio.create_task(datastore.claim("jobs", worker_id="v", wait=60))
    await wait_until(lambda: datastore.claims.lines.waiting("jobs") == 2)
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+200ms"})
    assert [item.metadata["worker_id"] for item in (await within(5, second)).items] == ["v"]


async def test_waiting_claims_share_what_comes(datastore: Datastore) -> None:
    waiting = [asyncio.create_task(datastore.claim("jobs", worker_id=f"w{n}", wait=60)) for n in range(20)]
    await wait_until(lambda: datastore.claims.lines.waiting("jobs") == 20)
    await datastore.run([datastore.calls.create("jobs", f"{n:02}", metadata=WAITING) for n in range(20)])
    found = await within(20, asyncio.gather(*waiting))  # type: ignore[arg-type]
    assert sorted(item.sort_field for claimed in found for item in claimed.items) == [f"{n:02}" for n in range(20)]  # type: ignore[attr-defined]


# Waiting for an item


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_wait_for_the_end_of_an_item(datastore: Datastore, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr("hookline.datastore.CHANGE_POLL", 60.0)
    await datastore.create("jobs", "a", metadata=WAITING)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore._changes._subscribed.is_set())
    await datastore.create("jobs", "b", metadata={"status": end})
    await datastore.update("jobs", "a", metadata={"step": 1})
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await datastore.update("jobs", "a", metadata={"status": end, "result": {"rows": 3}})
    item = await asyncio.wait_for(waiting, 5)
    assert item == await datastore.get("jobs", "a")
    assert await datastore.wait_for("jobs", "a", timeout=60) == item
    assert datastore._changes._task is None


async def test_wait_for_a_change(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata={"step": 1})
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", until={"version": {"gt": 1}}, timeout=60))
    stepping = asyncio.create_task(datastore.wait_for("jobs", "a", until={"step": 3}, timeout=60))
    await wait_until(lambda: datastore._changes._subscribed.is_set())
    await datastore.update("jobs", "a", metadata={"step": 2})
    assert [item and item.version for item in (await asyncio.wait_for(waiting, 5),)] == [2]
    await datastore.update("jobs", "a", metadata={"step": 3})
    assert [item and item.version for item in (await asyncio.wait_for(stepping, 5),)] == [3]


async def test_wait_for_what_does_not_come(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    assert await datastore.wait_for("jobs", "a", timeout=0.05) is None
    assert await datastore.wait_for("jobs", "a", timeout=0) is None
    with pytest.raises(NotFound):
        await datastore.wait_for("jobs", "nobody", timeout=60)
    with pytest.raises(Invalid):
        await datastore.wait_for("jobs", "a", until={"x": {"about": 1}})
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore._changes._subscribed.is_set())
    await datastore.delete("jobs", "a")
    with pytest.raises(NotFound):
        await asyncio.wait_for(waiting, 5)


async def test_wait_for_what_a_sweep_ends(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    await datastore.create("jobs", "a", metadata={**WAITING, "max_attempts": 1})
    await claim_one(datastore, lock_for=1)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore._changes._subscribed.is_set())
    clock.advance(2)
    await datastore.sweep()
    item = await asyncio.wait_for(waiting, 5)
    assert item is not None
    assert item.status == "failed"


# Items by their names


async def test_get_many(datastore: Datastore) -> None:
    await datastore.run([datastore.calls.create("jobs", f"{n:03}", content=n) for n in range(0, 250, 2)])
    found = await datastore.get_many([("jobs", f"{n:03}") for n in range(250)] + [("jobs", "000"), ("other", "000")])
    assert [item and item.content for item in found] == [n if n % 2 == 0 else None for n in range(250)] + [0, None]
    assert await datastore.get_many([]) == []
    with pytest.raises(Invalid):
        await datastore.get_many([("jobs", "a"), ("no key", "a")])


async def test_get_many_large_ones(datastore: Datastore, raw: aioredis.Redis) -> None:
    """A call gives about 4 MiB, and the rest is asked for again."""
    text = "x" * 1_000_000
    await datastore.run([datastore.calls.create("jobs", f"{n}", content=text) for n in range(9)])
    await raw.config_resetstat()
    found = await datastore.get_many([("jobs", f"{n}") for n in range(10)])
    assert [item and len(item.content) for item in found] == [1_000_000] * 9 + [None]
    assert (await raw.info("commandstats"))["cmdstat_evalsha"]["calls"] == 2


# Queries


async def fill(datastore: Datastore, count: int, status: str = "not_started") -> list[str]:
    made = [f"{n:03}" for n in range(count)]
    await datastore.run(
        [datastore.calls.create("jobs", name, metadata={"status": status, "n": int(name) % 3}) for name in made]
    )
    return made


@pytest.mark.parametrize("limit", [1, 7, 50, 100, 1000])
async def test_pages(datastore: Datastore, limit: int) -> None:
    made = await fill(datastore, 50 if limit == 1 else 250)
    for query, wanted in (
        ({}, made),
        ({"order": "sortField"}, made),
        ({"order": "sortField:asc"}, made),
        ({"order": "sortField:desc"}, made[::-1]),
        ({"where": WAITING}, made),
        ({"where": {**WAITING, "n": 1}}, [name for name in made if int(name) % 3 == 1]),
        ({"where": {"n": {"in": [0, 2]}}, "order": "sortField:desc"}, [n for n in made if int(n) % 3 != 1][::-1]),
        ({"where": {**WAITING, "n": 1}, "order": "sortField:desc"}, [n for n in made if int(n) % 3 == 1][::-1]),
        ({"where": {"status": "started"}}, []),
        ({"where": {"n": 5}}, []),
    ):
        found = await pages(datastore, limit=limit, **query)
        assert [name for page in found for name in page] == wanted, query
        assert all(len(page) == limit for page in found[:-1])


async def test_order_is_by_bytes(datastore: Datastore) -> None:
    made = ["a", "B", "é", "z", "a/b", "😀", "\uffee", "a b", "10", "9"]
    for name in made:
        await datastore.create("jobs", name)
    assert await names(datastore) == sorted(made, key=str.encode)
    assert await names(datastore, order="sortField:desc") == sorted(made, key=str.encode, reverse=True)


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
    await datastore.claim("jobs", worker_id="w", limit=4, lock_for=10)
    clock.advance(5)
    await datastore.claim("jobs", worker_id="w", limit=4, lock_for=60)
    clock.advance(6)
    where = {"status": "started", "locked_until": {"lt": "CURRENT_TIMESTAMP"}}
    assert await pages(datastore, where=where, limit=3) == [["000", "001", "002"], ["003"]]


async def test_a_page_is_short_when_its_budget_is_spent(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.query.BUDGET", 10)
    monkeypatch.setattr("hookline.query._ROUNDS", 2)
    await fill(datastore, 95)
    page = await datastore.query("jobs", where={"n": 7})
    assert (page.items, page.explanation.examined, page.cursor is None) == ([], 20, False)
    found = await pages(datastore, where={"n": 1}, limit=50)
    assert [name for page in found for name in page] == [f"{n:03}" for n in range(1, 95, 3)]
    assert len(found) == 8


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
    await fill(datastore, 5)
    cursor = (await datastore.query("jobs", where=WAITING, limit=2)).cursor
    assert await names(datastore, where=WAITING, limit=9, cursor=cursor) == ["002", "003", "004"]
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


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ({"key": ""}, "/key"),
        ({"limit": 0}, "/limit"),
        ({"limit": QUERY_MAX + 1}, "/limit"),
        ({"limit": "5"}, "/limit"),
        ({"order": "created"}, "/order"),
        ({"order": "sortfield"}, "/order"),
        ({"order": 5}, "/order"),
        ({"where": []}, "/where"),
        ({"cursor": ""}, "/cursor"),
        ({"cursor": 5}, "/cursor"),
    ],
)
async def test_bad_queries(datastore: Datastore, query: dict[str, Any], at: str) -> None:
    with pytest.raises(Invalid) as invalid:
        await datastore.query(**{"key": "jobs", **query})
    assert [flaw.pointer for flaw in invalid.value.flaws] == [at]


# Settings, counts and wrong types


async def test_changed_settings_are_not_noticed(datastore: Datastore, raw: aioredis.Redis, clock: Clock) -> None:
    clock.ms = NOW_MS
    await datastore.create("jobs", "a", metadata=WAITING)
    for generation in (1, 2, 7):
        await raw.hset(f"{TAG}:cfg:jobs", mapping={"generation": generation, "lock_ms": generation * 1000})
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
    await raw.delete(f"{TAG}:cfg:jobs")
    assert (await claim_one(datastore)).locked_until_ms == NOW_MS + 600_000


async def test_order_holds_when_settings_change(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.create("jobs", "a", metadata={"n": 0})
    await raw.hset(f"{TAG}:cfg:jobs", mapping={"generation": 3})
    outcomes = await datastore.run(
        [datastore.calls.update("jobs", "a", metadata={"n": n}, version=n) for n in range(1, 251)]
    )
    assert [outcome.version for outcome in outcomes] == [*range(2, 252)]


async def test_what_a_claim_filters_for_may_stand_far_back(datastore: Datastore) -> None:
    calls = [
        datastore.calls.create("jobs", f"{n:04}", metadata={**WAITING, "n": n, "rare": n >= 3000}) for n in range(3150)
    ]
    await datastore.run(calls)
    claimed = await datastore.claim("jobs", worker_id="w", limit=120, where={"rare": True})
    assert [item.sort_field for item in claimed.items] == [f"{n:04}" for n in range(3000, 3120)]
    assert len((await datastore.claim("jobs", worker_id="w", limit=120, where={"rare": True})).items) == 30
    assert (await datastore.claim("jobs", worker_id="w", where={"rare": True})).items == []


@pytest.mark.parametrize("lock_for", [0, "0s"])
async def test_a_claim_holds_for_some_time(datastore: Datastore, lock_for: object) -> None:
    """Else one claim of many could be given an item twice."""
    with pytest.raises(Invalid, match="above 0"):
        await datastore.claim("jobs", worker_id="w", lock_for=lock_for)


async def test_many_who_claim_what_stands_far_back_at_once(datastore: Datastore) -> None:
    calls = [datastore.calls.create("jobs", f"{n:04}", metadata={**WAITING, "rare": n >= 3000}) for n in range(3050)]
    await datastore.run(calls)
    claims = [datastore.claim("jobs", worker_id=f"w{n}", where={"rare": True}) for n in range(50)]
    claimed = await asyncio.gather(*claims)
    assert sorted(item.sort_field for each in claimed for item in each.items) == [f"{n:04}" for n in range(3000, 3050)]


async def test_a_claim_of_many_goes_on_behind_those_it_got(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.FRUITLESS_MAX", 2600)
    calls = [datastore.calls.create("jobs", f"{n:04}", metadata={**WAITING, "rare": n >= 2500}) for n in range(3000)]
    await datastore.run(calls)
    claimed = await datastore.claim("jobs", worker_id="w", limit=500, where={"rare": True})
    assert len(claimed.items) == 500


async def test_a_claim_that_would_fire_into_a_full_outbox(store: EmbeddedStore, datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING, trigger_urls={"http://127.0.0.1:1/": ""})
    async with Datastore(store.url, replace(datastore.settings, outbox_max=0), datastore.secrets) as full:
        with pytest.raises(OutboxFull):
            await full.claim("jobs", worker_id="w", triggers="on")
        assert len((await full.claim("jobs", worker_id="w")).items) == 1


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


async def test_stats(datastore: Datastore) -> None:
    await fill(datastore, 7)
    await datastore.create("docs", "a")
    item = await claim_one(datastore)
    with pytest.raises(Locked):
        await datastore.update("jobs", item.sort_field, metadata={"status": "started"})
    stats = await datastore.stats()
    assert {(row.key, row.status): row.count for row in stats.rows} == {
        ("jobs", ""): 7, ("jobs", "not_started"): 6, ("jobs", "started"): 1, ("docs", ""): 1,
    }  # fmt: skip
    assert stats.counts["jobs"] == {"refused_claims": 1}
    assert stats.outbox == 0
    assert {row.key for row in (await datastore.stats("do")).rows} == {"docs"}


@pytest.mark.parametrize("index", ["i:jobs:a", "k:jobs", "s:jobs:not_started", "r"])
async def test_spoilt_keys(datastore: Datastore, raw: aioredis.Redis, index: str) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    await raw.delete(f"{TAG}:{index}")
    await raw.set(f"{TAG}:{index}", "spoilt")
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
