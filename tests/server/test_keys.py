"""Settings of a key, pause and resume, and conditional updates, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from api import Api

SETTINGS = "/v1/keys/jobs/settings"
DEFAULTS = {
    "maxAttempts": 10,
    "lockFor": "10m",
    "backoff": {"first": "5s", "longest": "1h"},
    "paused": False,
    "maxLength": None,
    "indexes": {},
    "retention": {},
    "recordDeliveries": False,
    "triggerUrls": [],
}


async def create(api: Api, name: str = "a", **metadata: Any) -> None:
    item = {"key": "jobs", "sortField": name, "metadata": {"status": "not_started", **metadata}}
    assert (await api("POST", "/v1/items", item)).status == 201


async def test_settings_are_replaced_whole(api: Api) -> None:
    assert (await api("GET", SETTINGS)).data == {**DEFAULTS, "generation": 0}
    answer = await api("PUT", SETTINGS, {"maxAttempts": 3, "backoff": ["1s", "5m"]})
    expected = {**DEFAULTS, "maxAttempts": 3, "backoff": ["1s", "5m"], "generation": 1}
    assert (answer.status, answer.data) == (200, expected)
    assert (await api("GET", SETTINGS)).data == expected
    answer = await api("PUT", SETTINGS, {"lockFor": "30s"})
    assert answer.data == {**DEFAULTS, "lockFor": "30s", "generation": 2}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_what_was_read_can_be_written_back(api: Api, method: str) -> None:
    await create(api, size=1)
    wanted = {"maxLength": 5, "indexes": {"size": "number"}, "retention": {"completed": {"age": "7d"}}}
    await api("PUT", SETTINGS, {**wanted, "triggerUrls": {"https://worker.example/": "its-api-key"}})
    shown = (await api("GET", SETTINGS)).data
    assert shown["building"] == {"size": {"done": 0, "total": 1}}
    answer = await api(method, SETTINGS, shown)
    assert (answer.status, {**answer.data, "generation": 1}) == (200, shown)
    refused = await api(method, SETTINGS, {**shown, "size": 1})
    assert [error["pointer"] for error in refused.data["errors"]] == ["/size"]
    assert "generation" not in refused.data["detail"]


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [({"maxAttempts": "3"}, "/maxAttempts"), ({"backoff": {}}, "/backoff"), ({"lockfor": 1}, "/lockfor"), ([], "")],
)
async def test_bad_settings(api: Api, wanted: Any, pointer: str) -> None:
    answer = await api("PUT", SETTINGS, wanted)
    assert answer.status == 422
    assert [error["pointer"] for error in answer.data["errors"]] == [pointer]
    assert "expected" in answer.data["detail"]
    assert (await api("GET", SETTINGS)).data["generation"] == 0


async def test_indexes_are_declared_and_built(api: Api) -> None:
    for name, size in (("a", 2), ("b", 1), ("c", 3)):
        await create(api, name, size=size)
    path = "/v1/items/jobs/query"
    answer = await api("POST", path, {"order": "size"})
    assert (answer.status, answer.data["errors"][0]["pointer"]) == (422, "/order")
    assert "size has no index: declare it" in answer.data["errors"][0]["detail"]
    settings = (await api("PUT", SETTINGS, {"indexes": {"size": "number", "createdAt": "time"}})).data
    assert settings["indexes"] == {"createdAt": "time", "size": "number"}
    assert settings["building"] == {name: {"done": 0, "total": 3} for name in ("createdAt", "size")}
    assert (await api("POST", path, {"order": "size"})).status == 422
    await api.app.state.datastore.sweep()
    assert "building" not in (await api("GET", SETTINGS)).data
    answer = await api("POST", path, {"order": "size:desc", "where": {"size": {"gt": 1}}, "explain": True})
    assert [item["sortField"] for item in answer.data["items"]] == ["c", "a"]
    assert answer.data["explain"] == {"index": "size", "examined": 2, "candidates": {}}
    listed = await api("GET", "/v1/items/jobs?order=size&limit=2")
    assert [item["sortField"] for item in listed.data["items"]] == ["b", "a"]


async def test_counting(api: Api) -> None:
    for name in "abc":
        await create(api, name, size=1 if name == "b" else 2)
    path = "/v1/items/jobs/query"
    assert (await api("POST", path, {"count": True})).data == {"count": 3, "cursor": None}
    answer = await api("POST", path, {"count": True, "explain": True, "where": {"size": 2}})
    assert (answer.data["count"], answer.data["explain"]["examined"]) == (2, 3)
    answer = await api("POST", path, {"count": True, "order": "sortField", "limit": 5})
    assert (answer.status, [error["pointer"] for error in answer.data["errors"]]) == (422, ["/order", "/limit"])


async def test_triggers_of_a_key_never_show_their_api_keys(api: Api) -> None:
    answer = await api("PUT", SETTINGS, {"triggerUrls": {"https://worker.example/": "its-api-key"}})
    events = ["created", "updated", "deleted"]
    shown = [{"url": "https://worker.example/", "events": events, "hasApiKey": True}]
    assert answer.data["triggerUrls"] == shown
    assert b"its-api-key" not in (await api("GET", SETTINGS)).body
    again = await api("PUT", SETTINGS, {"triggerUrls": shown})
    assert again.data["generation"] == 1


async def test_pause_and_resume(api: Api) -> None:
    await create(api)
    assert (await api("POST", "/v1/jobs/jobs/pause")).data["paused"] is True
    assert (await api("POST", "/v1/jobs/jobs/claim", {"workerId": "w"})).data["items"] == []
    answer = await api("PATCH", "/v1/items/jobs/a", {"metadata": {"status": "started"}})
    assert (answer.status, answer.data["code"]) == (409, "paused")
    assert (await api("POST", "/v1/jobs/jobs/resume")).data["paused"] is False
    assert len((await api("POST", "/v1/jobs/jobs/claim", {"workerId": "w"})).data["items"]) == 1


async def test_a_full_key(api: Api) -> None:
    await api("PUT", SETTINGS, {"maxLength": 1})
    await create(api)
    answer = await api("POST", "/v1/items", {"key": "jobs", "sortField": "b"})
    assert (answer.status, answer.data["code"], answer.headers["retry-after"]) == (503, "key_full", "1")


async def test_an_update_with_a_condition(api: Api) -> None:
    await create(api, size=3)
    answer = await api("PATCH", "/v1/items/jobs/a", {"metadata": {"n": 1}, "if": {"size": {"lt": 3}}})
    assert (answer.status, answer.data["code"], answer.data["item"]["version"]) == (412, "precondition_failed", 1)
    assert (await api("PATCH", "/v1/items/jobs/a", {"metadata": {"n": 1}, "if": {"size": 3}})).status == 200
    answer = await api("PATCH", "/v1/items/jobs/a", {"metadata": {"n": 1}, "if": {"size": {"about": 3}}})
    assert (answer.status, answer.data["errors"][0]["pointer"]) == (422, "/if/size")


async def test_a_failure_with_a_backoff_of_its_own(api: Api) -> None:
    await create(api)
    (item,) = (await api("POST", "/v1/jobs/jobs/claim", {"workerId": "w"})).data["items"]
    failed = {"sortField": "a", "token": item["token"], "error": "no", "backoff": ["1h"]}
    answer = await api("POST", "/v1/jobs/jobs/settle", {"fail": [failed]})
    assert answer.data["fail"][0]["status"] == "scheduled"
    metadata = (await api("GET", "/v1/items/jobs/a")).data["metadata"]
    assert (metadata["failed_attempts"], metadata["attempts"]) == (1, 1)


async def test_the_engines_own_keys(api: Api) -> None:
    answer = await api("PUT", "/v1/keys/hookline.orchestrations/settings", {"paused": True})
    assert (answer.status, answer.data["code"]) == (403, "reserved_key")
