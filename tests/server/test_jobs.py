"""Jobs over HTTP: claim and settle."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Answer, Api
from conftest import Clock, wait_until
from hookline import Call, Datastore
from hookline.calls import Calls
from jobs import outbox_length

CLAIM = "/v1/jobs/jobs/claim"
SETTLE = "/v1/jobs/jobs/settle"


async def create(api: Api, *names: str, **metadata: Any) -> None:
    items = [{"key": "jobs", "sortField": name, "metadata": {"status": "not_started"} | metadata} for name in names]
    answer = await api("POST", "/v1/items", {"items": items})
    assert all(result["status"] == 201 for result in answer.data["results"])


async def claim(api: Api, limit: int = 1, **fields: Any) -> list[dict[str, Any]]:
    answer = await api("POST", CLAIM, {"workerId": "w", "limit": limit} | fields)
    assert answer.status == 200, answer.data
    items: list[dict[str, Any]] = answer.data["items"]
    return items


def shown(item: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"sortField": item["sortField"], "token": item["token"]} | fields


async def status_of(api: Api, name: str) -> str:
    return str((await api("GET", f"/v1/items/jobs/{name}")).data["metadata"]["status"])


async def test_a_claimed_item_carries_its_token(api: Api) -> None:
    await create(api, "a", "b")
    first, second = await claim(api, 5, lockFor="1m", where={"status": "not_started"})
    assert (first["sortField"], second["sortField"]) == ("a", "b")
    assert first["token"].startswith("2.")
    assert first["metadata"]["worker_id"] == "w"
    assert "token" not in (await api("GET", "/v1/items/jobs/a")).data


async def test_none_left_tells_when_there_may_be_more(api: Api, clock: Clock) -> None:
    clock.advance(0)
    await create(api, "a")
    await claim(api, lockFor=60)
    answer = await api("POST", CLAIM, {"workerId": "w"})
    assert answer.data == {"items": [], "nextAt": "2027-01-15T08:01:00Z"}
    assert (await api("POST", "/v1/jobs/none/claim", {"workerId": "w"})).data == {"items": [], "nextAt": None}


async def test_a_claim_can_wait(api: Api, datastore: Datastore) -> None:
    waiting = asyncio.create_task(claim(api, wait="20s"))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    await create(api, "late")
    (item,) = await asyncio.wait_for(waiting, 10)
    assert item["sortField"] == "late"
    assert await claim(api, wait="50ms") == []


async def test_a_claim_waits_at_most_25_seconds(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    at_once = datastore.claim

    async def noted(key: str, *, wait: float = 0, **options: Any) -> Any:
        waits.append(wait)
        return await at_once(key, **options)

    monkeypatch.setattr(datastore, "claim", noted)
    for wait in ("1h", 0.5, "500ms", 0):
        await claim(api, wait=wait)
    assert waits == [25.0, 0.5, 0.5, 0.0]


async def test_who_goes_away_while_waiting_takes_nothing(api: Api, datastore: Datastore) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    body = b'{"workerId":"gone","wait":"20s"}'
    writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (CLAIM.encode(), len(body), body))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    writer.close()
    await writer.wait_closed()
    await wait_until(lambda: not datastore.claims.waiters.waiting("jobs"))
    await create(api, "a")
    assert await status_of(api, "a") == "not_started"
    assert len(await claim(api)) == 1


async def test_settling_answers_in_the_order_of_the_lists(api: Api) -> None:
    await create(api, "a", "b", "c", "d", "e")
    a, b, c, d, e = await claim(api, 5)
    body = {
        "extend": [shown(e, lockFor="1h")],
        "complete": [
            shown(a, metadata={"result": {"rows": 3}}),
            shown(b, token="2.other"),
            {"sortField": "z", "token": "x"},
        ],
        "fail": [shown(c, error="no rows", retryAfter="1h")],
        "release": [shown(d)],
    }
    answer = await api("POST", SETTLE, body)
    assert answer.status == 200
    done = answer.data
    assert set(done) == {"complete", "fail", "release", "extend"}
    assert done["complete"][0] == {"sortField": "a", "outcome": "ok", "version": 3, "status": "completed"}
    assert [outcome["outcome"] for outcome in done["complete"]] == ["ok", "stale_token", "not_found"]
    assert done["complete"][1]["problem"]["status"] == 409
    assert done["complete"][1]["problem"]["item"]["metadata"]["status"] == "started"
    assert "token" not in done["complete"][1]["problem"]["item"]
    assert done["complete"][2]["problem"]["status"] == 404
    assert done["fail"] == [{"sortField": "c", "outcome": "ok", "version": 3, "status": "scheduled"}]
    assert done["release"] == [{"sortField": "d", "outcome": "ok", "version": 3, "status": "not_started"}]
    (extended,) = done["extend"]
    assert (extended["outcome"], extended["version"], extended["status"]) == ("ok", 2, "started")
    found = (await api("GET", "/v1/items/jobs/e")).data["metadata"]
    assert extended["lockedUntil"] == found["locked_until"] > e["metadata"]["locked_until"]
    assert (await api("GET", "/v1/items/jobs/a")).data["metadata"]["result"] == {"rows": 3}
    assert (await api("GET", "/v1/items/jobs/c")).data["metadata"]["last_error"] == "no rows"


async def test_too_many_operations_are_refused_before_any_is_made(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def complete(calls: Calls, key: str, sort_field: str, token: str) -> Call:
        made.append(sort_field)
        return real(calls, key, sort_field, token)

    real = Calls.complete
    monkeypatch.setattr(Calls, "complete", complete)
    operations = [{"sortField": "a", "token": "1.0"}, {"sortField": "", "token": "1.0"}] * 250
    answer = await api("POST", SETTLE, {"complete": operations, "extend": [{"sortField": "b", "token": "1.0"}]})
    assert answer.data["errors"] == [{"pointer": "", "detail": "expected at most 500 operations"}]
    assert not made
    answer = await api("POST", SETTLE, {"complete": operations})
    assert answer.data["errors"][0]["pointer"] == "/complete/1/sortField"
    assert len(made) == 500


async def test_an_exchange_settles_and_claims(api: Api) -> None:
    await create(api, "a", "b", "c")
    (a,) = await claim(api)
    answer = await api(
        "POST", SETTLE, {"workerId": "w", "complete": [shown(a)], "claim": {"limit": 2, "lockFor": "1m"}}
    )
    assert answer.data["complete"][0]["outcome"] == "ok"
    assert [item["sortField"] for item in answer.data["claimed"]["items"]] == ["b", "c"]
    assert {item["metadata"]["worker_id"] for item in answer.data["claimed"]["items"]} == {"w"}
    last = {"complete": [shown(item) for item in answer.data["claimed"]["items"]]}
    answer = await api("POST", SETTLE, last | {"workerId": "w", "claim": {"workerId": "x"}})
    assert answer.data["claimed"] == {"items": [], "nextAt": None}


async def test_an_exchange_that_cannot_claim_tells_what_it_settled(api: Api, raw: aioredis.Redis) -> None:
    await create(api, "a")
    (a,) = await claim(api)
    await raw.set("hl:{default/0}:s:jobs:not_started", "spoilt")
    answer = await api("POST", SETTLE, {"workerId": "w", "complete": [shown(a)], "claim": {}})
    assert answer.status == 200
    assert answer.data["complete"][0]["outcome"] == "ok"
    assert answer.data["claimed"]["items"] == []
    assert answer.data["claimed"]["problem"]["code"] == "corrupt"


async def test_a_claim_tells_of_an_item_that_is_corrupt_beside_the_others(api: Api, raw: aioredis.Redis) -> None:
    await create(api, "a", "b", "c", "d")
    for name in "bd":
        await raw.hset(f"hl:{{default/0}}:i:jobs:{name}", "c", b"\xc1")
    answer = await api("POST", SETTLE, {"workerId": "w", "claim": {"limit": 3}})
    assert [item["sortField"] for item in answer.data["claimed"]["items"]] == ["a", "c"]
    problem = answer.data["claimed"]["problem"]
    assert (problem["code"], "jobs/b" in problem["detail"]) == ("corrupt", True)
    answer = await api("POST", CLAIM, {"workerId": "w", "limit": 3})
    assert (answer.status, answer.data["code"]) == (500, "corrupt")
    answer = await api("PATCH", "/v1/items/jobs/d", {"metadata": {"x": 1}})
    assert (answer.status, answer.data["code"]) == (500, "corrupt")
    answer = await api("POST", CLAIM, {"workerId": "w", "limit": 3})
    assert (answer.status, answer.data["items"]) == (200, [])


async def test_what_is_released_can_be_claimed_in_the_same_exchange(api: Api) -> None:
    await create(api, "a")
    (a,) = await claim(api)
    answer = await api("POST", SETTLE, {"release": [shown(a)], "claim": {"workerId": "x"}})
    (item,) = answer.data["claimed"]["items"]
    assert (item["sortField"], item["metadata"]["worker_id"]) == ("a", "x")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"claim": {}}, "/claim/workerId"),
        ({"claim": {"workerId": ""}, "workerId": "w"}, "/claim/workerId"),
        ({"claim": {}, "workerId": ""}, "/workerId"),
    ],
)
async def test_a_bad_worker_is_named_where_it_stands(api: Api, body: dict[str, Any], pointer: str) -> None:
    answer = await api("POST", SETTLE, body)
    assert (answer.status, [flaw["pointer"] for flaw in answer.data["errors"]]) == (422, [pointer])


async def test_a_job_for_later_and_a_time_that_makes_no_job(api: Api, clock: Clock) -> None:
    clock.advance(0)
    for name, metadata in (("a", {"status": "scheduled"}), ("b", {"status": "not_started"}), ("c", {})):
        item = {"key": "jobs", "sortField": name, "metadata": {"scheduled_at": "+1h"} | metadata}
        answer = await api("POST", "/v1/items", item)
        assert answer.data["metadata"]["scheduled_at"] == "2027-01-15T09:00:00Z"
        assert answer.data["metadata"].get("status") == (None if name == "c" else "scheduled")
        assert ("warnings" in answer.data) == (name == "c")
    assert await claim(api, 5) == []
    earlier = await api("PATCH", "/v1/items/jobs/b", {"metadata": {"scheduled_at": "+1m"}})
    assert earlier.data["metadata"]["status"] == "scheduled"
    clock.advance(60)
    assert [item["sortField"] for item in await claim(api, 5)] == ["b"]
    clock.advance(3540)
    assert "a" in [item["sortField"] for item in await claim(api, 5)]
    assert await claim(api, 5, where={"sortField": "c"}) == []


@pytest.mark.parametrize("verb", ["PUT", "POST"])
async def test_to_replace_a_job_ends_its_claim(api: Api, verb: str) -> None:
    await create(api, "a")
    (held,) = await claim(api)
    again: dict[str, Any] = {"metadata": {"status": "not_started"}}
    named = {"key": "jobs", "sortField": "a", **again}
    assert (await api("POST", "/v1/items", named)).data["code"] == "exists"
    condition = {"if": {"status": {"in": ["completed", "failed"]}}}
    assert (await api("PATCH", "/v1/items/jobs/a", again | condition)).status == 412
    if verb == "PUT":
        assert (await api("PUT", "/v1/items/jobs/a", again)).status == 200
    else:
        assert (await api("POST", "/v1/items", {**named, "upsert": True})).status == 200
    (other,) = await claim(api, workerId="v")
    answer = await api("POST", SETTLE, {"workerId": "w", "complete": [shown(held)]})
    assert answer.data["complete"][0]["problem"]["code"] == "stale_token"
    answer = await api("POST", SETTLE, {"workerId": "v", "complete": [shown(other)]})
    assert answer.data["complete"][0]["status"] == "completed"
    answer = await api("PATCH", "/v1/items/jobs/a", again | condition)
    assert (answer.status, answer.data["metadata"]["status"]) == (200, "not_started")


async def test_nothing_to_settle_is_nothing_settled(api: Api) -> None:
    assert (await api("POST", SETTLE, {})).data == {"complete": [], "fail": [], "release": [], "extend": []}


async def test_twenty_claimers_get_disjoint_sets(api: Api) -> None:
    await create(api, *(f"{place:03d}" for place in range(200)))
    taken = await asyncio.gather(*(claim(api, 10, workerId=f"w{place}") for place in range(20)))
    names = [item["sortField"] for items in taken for item in items]
    assert len(names) == len(set(names)) == 200


async def test_a_claim_fires_only_the_triggers_that_it_names(api: Api, datastore: Datastore) -> None:
    for name in ("a", "b"):
        item = {"key": "jobs", "sortField": name, "metadata": {"status": "not_started"}}
        await api("POST", "/v1/items", item | {"triggerUrls": {"http://x.example": "k"}})
    await claim(api)
    assert await outbox_length(datastore) == 0
    await claim(api, triggers="on")
    assert await outbox_length(datastore) == 1


async def test_half_a_request_does_no_harm(api: Api) -> None:
    await create(api, "a")
    for part in (b"POST /v1/items HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", b"POST ", b"\x00\xff\r\n\r\n"):
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(part)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    answer: Answer = await api("GET", "/v1/items/jobs")
    assert len(answer.data["items"]) == 1
