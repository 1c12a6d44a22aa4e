"""Many items at once over HTTP: batches of operations, changes to all that match, and what the namespace holds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import redis.asyncio as aioredis

from api import Answer, Api
from conftest import NOW_MS, Clock
from hookline import Datastore, Settings
from hookline.errors import OutcomeUnknown, Unavailable
from hookline.stats import Stats
from hookline_server import fresh
from hookline_server.routes import keys
from invariants import check_invariants
from jobs import outbox_length

BATCH = "/v1/items:batch"
Op = dict[str, Any]


@pytest.fixture(params=[1, 3])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return replace(Settings(), data=tmp_path, call_timeout=2.0, partitions=request.param)


async def fill(datastore: Datastore, count: int, key: str = "jobs", **metadata: Any) -> None:
    for start in range(0, count, 500):
        names = [f"{n:05}" for n in range(start, min(start + 500, count))]
        await datastore.run([datastore.calls.create(key, name, metadata={"n": 1, **metadata}) for name in names])


def op(verb: str, name: str = "a", **fields: Any) -> Op:
    return {"op": verb, "key": "jobs", "sortField": name, **fields}


async def batch(api: Api, *operations: Op, path: str = BATCH, **headers: str) -> list[Any]:
    answer = await api("POST", path, {"operations": operations}, headers=headers)
    assert answer.status == 207, answer.data
    results: list[Any] = answer.data["results"]
    assert len(results) == len(operations)
    return results


# Batches


async def test_operations_on_an_item_run_in_order(api: Api) -> None:
    results = await batch(
        api,
        op("get"),
        op("create", content=1),
        op("get"),
        op("update", metadata={"x": 1}),
        op("get"),
        op("update", content=2, version=1),
        op("update", content=3) | {"if": {"x": 1}},
        op("get"),
        op("get", "b"),
        op("create", "b"),
        op("delete", version=1),
        op("delete", version=3),
        op("get"),
        op("create"),
        op("create", "b", upsert=True),
    )
    assert [result["status"] for result in results] == [
        *(404, 201, 200, 200, 200, 409, 200, 200, 404, 201, 409, 204, 404, 201, 200)
    ]
    contents = [result.get("item", {}).get("content") for result in results]
    assert contents[:8] == [None, 1, 1, 1, 1, None, 3, 3]
    assert results[5]["problem"]["code"] == "version_conflict"
    assert results[5]["problem"]["item"]["version"] == 2
    assert results[4]["item"]["metadata"]["x"] == 1
    assert results[11] == {"status": 204}
    assert (await api("GET", "/v1/items/jobs/b")).data["version"] == 2


async def test_a_create_without_a_name_gets_one(api: Api) -> None:
    (result,) = await batch(api, {"op": "create", "key": "jobs"})
    assert (await api("GET", f"/v1/items/jobs/{result['item']['sortField']}")).status == 200


async def test_a_batch_of_500_operations(api: Api) -> None:
    await batch(api, *(op("create", f"{n:03}", content=n) for n in range(500)))
    results = await batch(api, *(op("get" if n % 2 else "delete", f"{n:03}") for n in range(500)))
    assert [result["status"] for result in results] == [204, 200] * 250
    assert [result["item"]["content"] for result in results[1::2]] == [*range(1, 500, 2)]


async def test_a_batch_that_prefers_little(api: Api) -> None:
    results = await batch(api, op("create"), op("get"), op("create"), Prefer="return=minimal")
    assert results[0] == {"status": 201, "key": "jobs", "sortField": "a", "version": 1}
    assert (results[1]["item"]["version"], results[2]["status"]) == (1, 409)


async def test_a_lock_that_a_batch_extends_is_no_new_item(api: Api) -> None:
    """Also where it is that of an item which was started as it was created, and so is at version 1 still."""
    (made,) = await batch(api, op("create", metadata={"status": "started", "worker_id": "w"}))
    (extended,) = await batch(api, op("update", token=made["item"]["token"], metadata={"status": "started"}))
    assert (extended["item"]["version"], extended["status"]) == (1, 200)


async def test_triggers_of_a_batch(api: Api, datastore: Datastore) -> None:
    triggers = [{"url": "https://worker.example/run", "apiKey": "k", "events": ["created", "deleted"]}]
    await batch(api, op("create", triggerUrls=triggers), op("delete"), path=f"{BATCH}?triggers=off")
    assert await outbox_length(datastore) == 0
    await batch(api, op("create", triggerUrls=triggers), op("delete"))
    assert await outbox_length(datastore) == 2


@pytest.mark.parametrize(
    ("operations", "pointer"),
    [
        ([], "/operations"),
        ([op("get")] * 501, "/operations"),
        ([op("create"), op("replace")], "/operations/1/op"),
        ([op("create"), {"key": "jobs"}], "/operations/1/op"),
        ([op("create"), {"op": "get", "key": "jobs"}], "/operations/1/sortField"),
        ([op("create"), op("get", version=1)], "/operations/1/version"),
        ([op("create"), op("update", upsert=True)], "/operations/1/upsert"),
        ([op("create"), op("delete") | {"if": 3}], "/operations/1/if"),
        (
            [op("create"), op("create", content=float(2**53), metadata={"priority": 10})],
            "/operations/1/metadata/priority",
        ),
        ([op("create"), op("get", "")], "/operations/1/sortField"),
    ],
)
async def test_a_malformed_operation_refuses_them_all(api: Api, operations: list[Op], pointer: str) -> None:
    answer = await api("POST", BATCH, {"operations": operations})
    assert (answer.status, [error["pointer"] for error in answer.data["errors"]]) == (422, [pointer]), answer.data
    assert (await api("GET", "/v1/items/jobs/a")).status == 404


async def test_the_operations_that_there_are_are_named(api: Api) -> None:
    answer = await api("POST", BATCH, {"operations": [op("replace")]})
    assert answer.data["errors"] == [
        {"pointer": "/operations/0/op", "detail": "expected one of create, update, delete, get"}
    ]


async def test_a_failure_of_the_store_is_told_where_it_struck(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(names: list[tuple[str, str]], _: float) -> Any:
        if names:
            raise Unavailable("gone")
        return {}

    monkeypatch.setattr(datastore, "get_some", fail)
    results = await batch(api, op("create"), op("get"), op("delete"))
    assert [result["status"] for result in results] == [201, 503, 503]
    answer = await api("POST", BATCH, {"operations": [op("get"), op("get", "b")]})
    assert (answer.status, answer.data["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
    monkeypatch.undo()
    assert (await api("GET", "/v1/items/jobs/a")).status == 200


async def test_a_spoilt_item_spoils_only_its_own_read(api: Api, raw: aioredis.Redis) -> None:
    await batch(api, op("create"), op("create", "b"))
    (name,) = await raw.keys("*:i:jobs:b")
    await raw.delete(name)
    await raw.set(name, "spoilt")
    results = await batch(api, op("get"), op("get", "b"), op("get", "c"))
    assert [result["status"] for result in results] == [200, 500, 404]
    assert results[1]["problem"]["code"] == "corrupt"


# Changes to all that match


async def all_of_it(api: Api, path: str, **body: Any) -> tuple[int, int, int]:
    """Go on until nothing is left -> done, passed over, requests."""
    done = passed_over = requests = 0
    cursor: str | None = None
    while cursor or not requests:
        answer = await api("POST", path, body | ({"cursor": cursor} if cursor else {}))
        assert answer.status == 200, answer.data
        done, passed_over, requests = done + answer.data["done"], passed_over + answer.data["passedOver"], requests + 1
        cursor = answer.data["cursor"]
    return done, passed_over, requests


async def counts(api: Api) -> dict[str, int]:
    (key,) = (await api("GET", "/v1/keys")).data["keys"]
    statuses: dict[str, int] = key["statuses"]
    return statuses


async def test_cancel_redrive_and_delete(api: Api, datastore: Datastore, raw: aioredis.Redis) -> None:
    await fill(datastore, 2500, status="not_started")
    await datastore.claim("jobs", worker_id="w")
    done, passed_over, requests = await all_of_it(api, "/v1/jobs/jobs/cancel", where={"n": 1})
    assert (done, passed_over) == (2499, 0)
    assert requests >= 3
    assert await counts(api) == {"cancelled": 2499, "started": 1}
    assert (await all_of_it(api, "/v1/jobs/jobs/cancel", where={"status": "started"}))[0] == 1
    await fill(datastore, 30, "dead", status="failed")
    assert (await all_of_it(api, "/v1/jobs/dead/redrive"))[0] == 30
    assert (await all_of_it(api, "/v1/items/jobs/delete", where={"sortField": {"lt": "00100"}}))[0] == 100
    assert (await all_of_it(api, "/v1/items/jobs/delete", where={}))[0] == 2400
    (key,) = (await api("GET", "/v1/keys")).data["keys"]
    assert (key["key"], key["statuses"]) == ("dead", {"not_started": 30})
    await check_invariants(raw)


async def test_what_is_cancelled_anew_does_not_go_round_for_ever(api: Api, datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    await fill(datastore, 1100, status="cancelled")
    answer = await api("POST", "/v1/jobs/jobs/cancel", {"where": {"status": "cancelled"}})
    assert (answer.status, answer.data["done"] >= 100) == (200, True)
    done, seen = answer.data["done"], 0
    while cursor := answer.data["cursor"]:
        clock.advance(1)
        answer = await api("POST", "/v1/jobs/jobs/cancel", {"where": {"status": "cancelled"}, "cursor": cursor})
        done, seen = done + answer.data["done"], seen + 1
        assert seen < 30
    assert done == 1100


async def test_deletes_of_many_may_leave_triggers_off(api: Api, datastore: Datastore) -> None:
    for name in ("a", "b"):
        triggers = [{"url": "https://worker.example/run", "apiKey": "k", "events": ["deleted"]}]
        await datastore.create("jobs", name, trigger_urls=triggers)
    assert (await api("POST", "/v1/items/jobs/delete?triggers=off", {"where": {"sortField": "a"}})).data["done"] == 1
    assert await outbox_length(datastore) == 0
    assert (await api("POST", "/v1/items/jobs/delete", {"where": {}})).data["done"] == 1
    assert await outbox_length(datastore) == 1


@pytest.mark.parametrize(
    ("path", "body", "status", "pointer"),
    [
        ("/v1/items/jobs/delete", {}, 422, "/where"),
        ("/v1/items/jobs/delete", {"where": None}, 422, "/where"),
        ("/v1/items/jobs/delete", {"where": {"n": {"near": 1}}}, 422, "/where/n"),
        ("/v1/items/jobs/delete", {"where": {}, "cursor": "1-x"}, 422, "/cursor"),
        ("/v1/items/jobs/delete", {"where": {}, "cursor": "x"}, 422, "/cursor"),
        ("/v1/items/jobs/delete", {"where": {}, "limit": 3}, 422, "/limit"),
        ("/v1/jobs/jobs/cancel", {"where": 3}, 422, "/where"),
        ("/v1/jobs/jobs/cancel?triggers=off", {}, 422, "/triggers"),
        ("/v1/jobs/jobs/redrive", {"wher": {}}, 422, "/wher"),
        ("/v1/jobs/a%20b/redrive", {}, 422, "/key"),
        ("/v1/jobs/hookline.x/cancel", {}, 403, None),
        ("/v1/items/hookline.deliveries.dead/delete", {"where": {}}, 403, None),
    ],
)
async def test_bad_changes_of_many(
    api: Api, datastore: Datastore, path: str, body: Any, status: int, pointer: str | None
) -> None:
    await fill(datastore, 3, status="not_started")
    answer = await api("POST", path, body)
    assert answer.status == status, answer.data
    assert pointer is None or [error["pointer"] for error in answer.data["errors"]] == [pointer]
    assert await counts(api) == {"not_started": 3}


async def test_what_was_done_before_a_failure_is_told(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(datastore, 300)
    run, runs = datastore.run, 0

    async def failing(calls: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs > 1:
            raise OutcomeUnknown("no answer")
        return await run(calls)

    monkeypatch.setattr(datastore, "run", failing)
    answer = await api("POST", "/v1/items/jobs/delete", {"where": {}})
    assert (answer.status, answer.data["done"]) == (200, 100)
    again = await api("POST", "/v1/items/jobs/delete", {"where": {}, "cursor": answer.data["cursor"]})
    assert (again.status, again.data["code"]) == (503, "outcome_unknown")
    monkeypatch.undo()
    again = await api("POST", "/v1/items/jobs/delete", {"where": {}, "cursor": answer.data["cursor"]})
    assert (again.data["done"], again.data["cursor"]) == (200, None)


# What the namespace holds


async def test_keys_and_what_they_hold(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 200, "big", status="not_started", filler="x" * 2000)
    await fill(datastore, 200, "big.plain")
    await fill(datastore, 2, "small", status="failed")
    answer = await api("GET", "/v1/keys")
    assert answer.status == 200
    big, plain, small = answer.data["keys"]
    assert answer.data["cursor"] is None
    assert (big["key"], big["items"], big["statuses"]) == ("big", 200, {"not_started": 200})
    assert (plain["key"], plain["items"], plain["statuses"]) == ("big.plain", 200, {})
    assert (small["key"], small["items"], small["statuses"]) == ("small", 2, {"failed": 2})
    assert 200 * 2000 < big["bytes"] < 200 * 4000
    assert 200 * 50 < plain["bytes"] < 200 * 600
    assert 0 < small["bytes"] < plain["bytes"]


async def test_refusals_are_counted(api: Api) -> None:
    await batch(api, op("create", metadata={"status": "not_started"}))
    assert (await api("POST", "/v1/jobs/jobs/claim", {"workerId": "w"})).data["items"]
    claim = await api("PATCH", "/v1/items/jobs/a", {"metadata": {"status": "started", "worker_id": "x"}})
    assert (claim.status, claim.data["code"]) == (409, "locked")
    (key,) = (await api("GET", "/v1/keys")).data["keys"]
    assert (key["refusedClaims"], key["lostLocks"], key["expiredLocks"]) == (1, 0, 0)


async def test_pages_of_keys(api: Api, datastore: Datastore) -> None:
    names = [f"k{n}" for n in range(7)]
    for name in (*names, "other"):
        await fill(datastore, 1, name)
    seen: list[str] = []
    path: str | None = "/v1/keys?prefix=k&limit=3"
    while path:
        answer = await api("GET", path)
        seen += [key["key"] for key in answer.data["keys"]]
        link = answer.headers.get("link")
        assert (link is None) is (answer.data["cursor"] is None)
        path = urljoin(path, link[1:].split(">")[0]) if link else None
    assert seen == names
    for query, pointer in (("limit=0", "/limit"), ("limit=x", "/limit"), ("after=a", "/after")):
        bad: Answer = await api("GET", f"/v1/keys?{query}")
        assert (bad.status, bad.data["errors"][0]["pointer"]) == (422, pointer)


async def test_who_lists_keys_at_one_time_shares_one_reading(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "ab", "b"):
        await fill(datastore, 1, name)
    read, prefixes = datastore.stats, list[str]()

    async def stats(prefix: str = "") -> Stats:
        prefixes.append(prefix)
        return await read(prefix)

    monkeypatch.setattr(datastore, "stats", stats)
    monkeypatch.setattr(fresh, "FRESH_S", 60.0)
    monkeypatch.setattr(keys, "_MANY", -1)
    asked = ["", "?prefix=a", "?prefix=ab&limit=1", "?cursor=a", "?prefix=hookline.workers"] * 4
    answers = await asyncio.gather(*(api("GET", f"/v1/keys{query}") for query in asked))
    listed = [[key["key"] for key in answer.data["keys"]] for answer in answers]
    assert listed == [["a", "ab", "b"], ["a", "ab"], ["ab"], ["ab", "b"], []] * 4
    assert sorted(prefixes) == ["", "hookline."]
