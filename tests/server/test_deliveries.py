"""``/v1/deliveries`` and ``/v1/endpoints`` over HTTP, beside a running relay and real receivers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio as aioredis

from api import Api
from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Settings
from hookline.connection import Connection
from hookline_server import deliveries
from hookline_server.endpoint import DELIVERIES, ENDPOINTS, Endpoints, lane_of, moment
from hookline_server.event import endpoint_of
from jobs import is_drained
from receiver import Receiver, receiving
from relays import relaying, start_job

pytestmark = pytest.mark.settings(
    call_timeout=5.0, tick=0.05, delivery_schedule=(0.05, 0.1), delivery_timeout=5.0, lane_concurrency=4
)


async def listed(api: Api, query: str = "") -> list[dict[str, Any]]:
    """All deliveries that match, over pages of two."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await api("GET", f"/v1/deliveries?limit=2{query}{cursor}")
        assert answer.status == 200, answer.body
        found += answer.data["items"]
        if answer.data["cursor"] is None:
            return found
        cursor = f"&cursor={answer.data['cursor']}"


async def fail(api: Api, datastore: Datastore, receiver: Receiver, *names: str) -> list[dict[str, Any]]:
    """Let the webhooks of these jobs become dead letters."""
    receiver.statuses = [500] * (3 * len(names))
    for name in names:
        await start_job(datastore, receiver.url, name)

    async def dead() -> list[dict[str, Any]]:
        found = await listed(api, "&status=failed")
        return found if len(found) == len(names) else []

    found: list[dict[str, Any]] = await wait_until(dead)
    return found


async def test_a_dead_letter_tells_of_its_attempts_and_is_redriven(
    api: Api, datastore: Datastore, receiver: Receiver
) -> None:
    async with relaying(datastore):
        (dead,) = await fail(api, datastore, receiver, "a")
        assert dead["id"] == f"{endpoint_of(receiver.url)}.{dead['webhookId']}"
        assert dead["item"] == {"key": "jobs", "sortField": "a"}
        assert (dead["event"], dead["attempts"], dead["maxAttempts"]) == ("updated", 3, 3)
        assert [attempt["status"] for attempt in dead["log"]] == [500] * 3
        for attempt in dead["log"]:
            assert attempt["ms"]["total"] >= attempt["ms"]["firstByte"] >= 0
        whole = (await api("GET", f"/v1/deliveries/{dead['id']}")).data
        assert whole["payload"] == {name: value for name, value in receiver.posts[0].data.items() if name != "token"}
        assert "api-key" not in repr(whole)
        assert receiver.posts[0].data["token"] not in repr(whole)
        redriven = await api("POST", f"/v1/deliveries/{dead['id']}/redrive")
        assert (redriven.status, redriven.data["status"]) == (200, "not_started")
        post = (await receiver.wait_for(4))[3]
        assert post.body == receiver.posts[0].body
        assert post.headers["webhook-id"] == dead["webhookId"]
        (done,) = await wait_until(lambda: listed(api, "&status=completed"))
        assert [attempt["status"] for attempt in done["log"]] == [500, 500, 500, 204]
    assert (await api("GET", f"/v1/deliveries/{dead['id']}")).data["payload"] is None
    for verb in ("redrive", "cancel"):
        refused = await api("POST", f"/v1/deliveries/{dead['id']}/{verb}")
        assert (refused.status, "hookline.deliveries" in str(refused.data)) == (412, False)


async def test_they_are_selected_over_all_endpoints(api: Api, datastore: Datastore, receiver: Receiver) -> None:
    async with receiving() as other, relaying(datastore):
        other.statuses = [500] * 3
        await start_job(datastore, other.url, "z")
        await wait_until(lambda: listed(api, "&status=failed"))
        await fail_beside(api, datastore, receiver, ["a", "b"])
    assert len(await listed(api)) == 3
    assert len(await listed(api, f"&endpoint={endpoint_of(receiver.url)}")) == 2
    assert [each["item"]["sortField"] for each in await listed(api, "&key=jobs&sortField=b")] == ["b"]
    times = sorted(each["occurredAt"] for each in await listed(api))
    assert len(await listed(api, f"&since={times[-1]}")) >= 1
    assert len(await listed(api, f"&until={times[0]}")) == 0
    assert await listed(api, "&event=deleted") == []
    assert (await api("GET", "/v1/deliveries?endpoint=x")).status == 422
    for name in ("since", "until", "event"):
        refused = await api("POST", "/v1/deliveries/redrive", {name: "soon"})
        assert (refused.status, refused.data["errors"][0]["pointer"]) == (422, f"/{name}")
        if name != "event":
            first = "0001-01-01T00:00:00+10:00"
            shown = await api("GET", f"/v1/deliveries?{name}={quote(first)}")
            refused = await api("POST", "/v1/deliveries/redrive", {name: first})
            assert (shown.status, refused.status) == (422, 422)
            assert "years 1 to 9999" in refused.data["errors"][0]["detail"]
    assert (await api("GET", "/v1/deliveries?cursor=x")).status == 422
    page = await api("GET", f"/v1/deliveries?limit=1&endpoint={endpoint_of(receiver.url)}")
    refused = await api("GET", f"/v1/deliveries?endpoint={endpoint_of(other.url)}&cursor={page.data['cursor']}")
    assert (refused.status, refused.data["errors"][0]["pointer"]) == (422, "/cursor")


async def fail_beside(api: Api, datastore: Datastore, receiver: Receiver, names: list[str]) -> None:
    receiver.statuses = [500] * (3 * len(names))
    for name in names:
        await start_job(datastore, receiver.url, name)

    async def dead() -> bool:
        return len(await listed(api, f"&status=failed&endpoint={endpoint_of(receiver.url)}")) == len(names)

    await wait_until(dead)


async def test_all_that_failed_since_a_time_are_redriven(api: Api, datastore: Datastore, receiver: Receiver) -> None:
    async with relaying(datastore):
        dead = await fail(api, datastore, receiver, *"ab")
        since = sorted(each["occurredAt"] for each in dead)[1]
        wanted = {each["webhookId"] for each in dead if each["occurredAt"] >= since}
        answer = await api("POST", "/v1/deliveries/redrive", {"since": since})
        assert answer.data == {"done": len(wanted), "passedOver": 0, "cursor": None}
        posts = (await receiver.wait_for(6 + len(wanted)))[6:]
        assert {post.headers["webhook-id"] for post in posts} == wanted


async def test_while_paused_deliveries_are_kept_and_can_be_cancelled(
    api: Api, datastore: Datastore, receiver: Receiver
) -> None:
    made = await api("POST", "/v1/endpoints", {"url": receiver.url})
    assert made.status == 201
    path = made.headers["location"]
    paused = await api("PUT", path, {"status": "paused", "reason": "maintenance"})
    assert (paused.data["status"], paused.data["reason"]) == ("paused", "maintenance")
    assert paused.data["since"] is not None
    async with relaying(datastore):
        for name in "abc":
            await start_job(datastore, receiver.url, name)

        async def three() -> bool:
            return bool((await api("GET", path)).data["deliveries"] == {"not_started": 3})

        await wait_until(three)
        (first, *_) = await listed(api)
        assert (await api("POST", f"/v1/deliveries/{first['id']}/cancel")).data["status"] == "cancelled"
        assert receiver.posts == []
        again = (await api("PUT", path, {"concurrency": 2, "rate": 50})).data
        assert (again["status"], again["reason"], again["since"]) == ("active", None, None)
        assert (again["concurrency"], again["rate"]) == (2, 50)
        await receiver.wait_for(2)
    assert first["webhookId"] not in {post.headers["webhook-id"] for post in receiver.posts}
    assert (await api("POST", "/v1/deliveries/cancel", {})).data["done"] == 0


async def test_gone_disables_the_endpoint_and_keeps_what_follows(
    api: Api, datastore: Datastore, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    path = f"/v1/endpoints/{endpoint_of(receiver.url)}"
    async with relaying(datastore):
        await start_job(datastore, receiver.url, "a")
        (dead,) = await wait_until(lambda: listed(api, "&status=failed"))
        assert dead["lastError"] == "HTTP 410"
        await start_job(datastore, receiver.url, "b")
        (waits,) = await wait_until(lambda: listed(api, "&status=not_started"))
        assert waits["attempts"] == 0
        disabled = (await api("GET", path)).data
        assert disabled["status"] == "disabled"
        assert "410" in disabled["reason"]
        (found,) = (await api("GET", "/v1/endpoints?status=disabled")).data["items"]
        assert found == disabled
        await api("PUT", path, {})
        await receiver.wait_for(2)
    assert receiver.posts[1].headers["webhook-id"] == waits["webhookId"]


async def test_made_active_again_it_begins_anew_at_once(
    api: Api, datastore: Datastore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its breaker had opened, or it had asked for an hour."""
    monkeypatch.setattr("hookline_server.breaker.FIRST_WAIT", 200.0)
    path = f"/v1/endpoints/{endpoint_of(receiver.url)}"
    receiver.statuses = [500] * 8
    async with relaying(datastore):
        for number in range(8):
            await start_job(datastore, receiver.url, f"{number}", retry=["1s"] * 20)

        async def is_open() -> bool:
            known = await api("GET", path)
            return known.status == 200 and known.data["breaker"] == "open"

        await wait_until(is_open)
        receiver.statuses = []
        tried = len(receiver.posts)
        assert (await api("PUT", path, {"status": "active"})).data["breaker"] == "closed"
        await receiver.wait_for(tried + 8)
    later = moment(time.time() + 3600)
    await Endpoints(datastore).note(endpoint_of(receiver.url), receiver.url, {"retry_at": later})
    async with relaying(datastore):
        await start_job(datastore, receiver.url, "held")
        await wait_until(lambda: listed(api, "&status=not_started"))
        await api("PUT", path, {"status": "active"})
        await receiver.wait_for(tried + 9)


async def test_a_retry_due_soon_after_a_relay_has_begun_is_made_on_time(
    datastore: Datastore, receiver: Receiver, store: EmbeddedStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first look of one that has not seen what was kept, as nothing tells of it again."""
    monkeypatch.setattr("hookline_server.relay.SCAN", 3600.0)
    patient = replace(settings, delivery_schedule=(3.0,))
    receiver.statuses = [500]
    async with Datastore(store.url, patient, datastore.secrets) as opened:
        async with relaying(opened):
            await start_job(opened, receiver.url, "a")
            await wait_until(lambda: _kept(opened))
        async with relaying(opened):
            await receiver.wait_for(2)


async def _kept(datastore: Datastore) -> bool:
    return any(row.status == "scheduled" for row in (await datastore.stats(DELIVERIES)).rows)


async def test_an_endpoint_is_known_anew_once_its_lane_was_forgotten(
    api: Api, datastore: Datastore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline_server.lane.FORGET", 0.0)
    async with relaying(datastore) as relay:
        await fail(api, datastore, receiver, "a")
        await wait_until(lambda: not list(relay.lanes))
        await datastore.delete(ENDPOINTS, endpoint_of(receiver.url), triggers=False, reserved=True)
        receiver.statuses = [500]
        await start_job(datastore, receiver.url, "b")
        await receiver.wait_for(5)
    assert [each["url"] for each in (await api("GET", "/v1/endpoints")).data["items"]] == [receiver.url]


async def test_a_page_asks_the_store_as_often_whatever_is_on_it(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each endpoint by itself, and never for the counts of all there are."""
    asked: list[str] = []
    read = Connection.read

    async def noting(connection: Connection, script: str, *args: Any) -> Any:
        asked.append(script)
        return await read(connection, script, *args)

    calls = datastore.calls
    for number in range(20):
        made = await api("POST", "/v1/endpoints", {"url": f"http://127.0.0.1:9/{number}"})
        waiting = [
            calls.create(lane_of(made.data["id"]), f"{each}", metadata={"status": status}, reserved=True)
            for each, status in enumerate(["failed", "failed", "not_started"][: number % 4])
        ]
        await datastore.run(waiting)
    monkeypatch.setattr(Connection, "read", noting)
    whole = (await api("GET", "/v1/endpoints")).data["items"]
    assert asked.count("depth") == 1
    assert "stats" not in asked
    counts = sorted((each["url"].rpartition("/")[2], each["deliveries"]) for each in whole)
    expected = [{}, {"failed": 1}, {"failed": 2}, {"failed": 2, "not_started": 1}]
    assert counts == sorted(((f"{number}", expected[number % 4]) for number in range(20)), key=lambda row: row[0])
    path = f"/v1/endpoints/{whole[0]['id']}"
    for method, body in (("GET", None), ("PUT", {"rate": 1.0})):
        asked.clear()
        assert (await api(method, path, body)).data["deliveries"] == whole[0]["deliveries"]
        assert (asked.count("depth"), asked.count("stats")) == (1, 0)
    asked.clear()
    await api("GET", "/v1/deliveries?status=completed")
    assert "stats" not in asked


async def test_a_page_is_short_when_its_budget_is_spent(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of a lane do not match: one request looks at so many of them."""
    monkeypatch.setattr("hookline.query.BUDGET", 3)
    monkeypatch.setattr("hookline.query._ROUNDS", 2)
    for number in range(20):
        known = {"status": "failed", "item_key": "jobs" if number == 19 else "other"}
        await datastore.create(lane_of("a" * 20), f"{number:02}", metadata=known, reserved=True)
    where, found = {"item_key": "jobs"}, []
    items, cursor = await deliveries.page(datastore, where, None, 10, None)
    assert (items, cursor is None) == ([], False)
    while cursor is not None:
        items, cursor = await deliveries.page(datastore, where, None, 10, cursor)
        found += items
    assert [item.sort_field for item in found] == ["19"]


async def test_all_lanes_are_found_however_many(datastore: Datastore, raw: aioredis.Redis) -> None:
    lanes = [lane_of(f"{number:020x}") for number in range(12_000)]
    await raw.sadd("hl:{default/0}:r:hookline", *(f"{lane}\0" for lane in lanes))
    assert await deliveries._lanes(datastore, None, None) == [(lane, None) for lane in lanes]


async def test_bad_settings_and_unknown_ids_are_told(api: Api, receiver: Receiver) -> None:
    path = (await api("POST", "/v1/endpoints", {"url": receiver.url})).headers["location"]
    for bad in ({"status": "asleep"}, {"concurrency": 0}, {"rate": -1}, {"reason": "x" * 201}, {"more": 1}):
        answer = await api("PUT", path, bad)
        assert answer.status == 422, bad
        assert [error["pointer"] for error in answer.data["errors"]] == [f"/{next(iter(bad))}"]
    for unknown in ("/v1/endpoints/none", f"/v1/deliveries/{'0' * 20}.x", "/v1/deliveries/x"):
        assert (await api("GET", unknown)).status == 404, unknown
    assert (await api("POST", "/v1/endpoints", {"url": "ftp://x"})).status == 422


async def test_what_succeeds_at_once_is_told_of_where_the_key_asks_for_it(
    api: Api, datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    settings = await api("PUT", "/v1/keys/jobs/settings", {"recordDeliveries": True})
    assert settings.data["recordDeliveries"] is True
    endpoint = (await api("POST", "/v1/endpoints", {"url": receiver.url})).data["id"]
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        (record,) = await wait_until(lambda: listed(api, "&status=completed"))
        assert (record["attempts"], record["event"], record["item"]["sortField"]) == (1, "updated", "a")
        assert [attempt["status"] for attempt in record["log"]] == [204]
    await api("PUT", f"/v1/endpoints/{endpoint}", {"status": "paused"})
    async with relaying(datastore):
        await start_job(datastore, receiver.url, "b")
        await wait_until(lambda: listed(api, "&status=not_started"))
        await api("PUT", f"/v1/endpoints/{endpoint}", {"status": "active"})
        await wait_until(lambda: _counts(api, "completed", 2))
    for kept in await listed(api):
        whole = (await api("GET", f"/v1/deliveries/{kept['id']}")).data
        assert (whole["status"], whole["payload"], len(whole["log"])) == ("completed", None, 1)
        assert "api-key" not in repr(whole)
    item = await datastore.get(lane_of(endpoint), record["webhookId"])
    assert (set(item.content), item.triggers) == ({"url", "webhookId", "source"}, ())
    kept_for = await raw.hget(f"hl:{{default/0}}:cfg:{lane_of(endpoint)}", "keep:completed")
    assert kept_for == b"86400000 "


async def _counts(api: Api, status: str, count: int) -> bool:
    return len(await listed(api, f"&status={status}")) == count


async def test_it_is_kept_nowhere_where_nobody_asks_for_it(api: Api, datastore: Datastore, receiver: Receiver) -> None:
    await api("PUT", "/v1/keys/jobs/settings", {"recordDeliveries": None})
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(1)
        await wait_until(lambda: is_drained(datastore))
    assert await listed(api) == []
