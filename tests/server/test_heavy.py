"""Large bodies: read, checked and encoded beside the loop, on every route that takes an item."""

from __future__ import annotations

import json
import threading
from typing import Any

import msgpack
import pytest

from api import Api
from hookline.item import check_value
from hookline_server import heavy

CONTENT = [{"n": number, "text": "x" * 50, "list": [1, 2.5, None, True]} for number in range(2000)]
ITEM = "/v1/items/jobs/a"
NEW = {"key": "jobs", "sortField": "a"}
LINES = {"Content-Type": "application/x-ndjson"}
MSGPACK = {"Content-Type": "application/vnd.msgpack"}
ROUTES: dict[str, tuple[str, str, Any, str, dict[str, str]]] = {
    "create": ("POST", "/v1/items", lambda fields: NEW | fields, "", {}),
    "create many": ("POST", "/v1/items", lambda fields: {"items": [NEW | fields]}, "/items/0", {}),
    "create a line": ("POST", "/v1/items", lambda fields: NEW | fields, "", LINES),
    "msgpack": ("POST", "/v1/items", lambda fields: NEW | fields, "", MSGPACK),
    "put": ("PUT", ITEM, lambda fields: fields, "", {}),
    "patch": ("PATCH", ITEM, lambda fields: fields, "", {}),
    "batch": (
        *("POST", "/v1/items:batch"),
        lambda fields: {"operations": [{"op": "get", **NEW}, {"op": "update", **NEW, **fields}]},
        "/operations/1",
        {},
    ),
}


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> tuple[str, str, Any, str, dict[str, str]]:
    return ROUTES[request.param]


def written(made: Any, headers: dict[str, str]) -> bytes:
    data: bytes = msgpack.packb(made) if headers is MSGPACK else json.dumps(made).encode()
    assert len(data) > heavy.HEAVY_FROM
    return data


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The threads that walk lists and objects."""
    threads: set[str] = set()

    def check(value: object, pointer: str) -> None:
        if isinstance(value, list | dict):
            threads.add(threading.current_thread().name.split("_")[0])
        check_value(value, pointer)

    for module in ("codec", "where"):
        monkeypatch.setattr(f"hookline.{module}.check_value", check)
    return threads


async def test_a_large_item_is_kept_as_it_was(api: Api, route: Any, walked: set[str]) -> None:
    method, path, make, _, headers = route
    if method == "PATCH" or "batch" in path:
        await api("POST", "/v1/items", NEW)
    trigger = {"url": "http://127.0.0.1:9/", "where": {"rows": {"ne": [1, [2]]}}}
    fields = {"content": CONTENT, "metadata": {"rows": CONTENT}, "triggerUrls": [trigger]}
    headers = {"Content-Type": "application/json"} | headers
    answer = await api(method, path, data=written(make(fields), route[4]), headers=headers)
    assert answer.status in (200, 201, 207), answer.body[:500]
    assert walked == {"heavy"}
    found = (await api("GET", ITEM)).data
    assert found["content"] == found["metadata"]["rows"] == CONTENT
    assert found["triggerUrls"][0]["where"] == trigger["where"]


async def test_what_is_wrong_with_a_large_item_is_named_at_its_place(api: Api, route: Any) -> None:
    method, path, make, place, headers = route
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    fields = {"metadata": {"rows": [*CONTENT, deep], "attempts": "x"}, "content": [deep], "triggerUrls": [1]}
    data = written(make(fields), headers)
    answer = await api(method, path, data=data, headers={"Content-Type": "application/json"} | headers)
    problem = answer.data["problem"] if headers is LINES else answer.data
    assert problem["code"] == "invalid"
    assert {error["pointer"].split("/0/0")[0] for error in problem["errors"]} == {
        *(f"{place}/metadata/rows/2000", f"{place}/metadata/attempts", f"{place}/content", f"{place}/triggerUrls/0")
    }
    assert (await api("GET", ITEM)).status == 404


async def test_what_is_settled_with_much_is_encoded_beside_the_loop(api: Api, walked: set[str]) -> None:
    await api("POST", "/v1/items", NEW | {"metadata": {"status": "not_started"}})
    claim = {"workerId": "w"}
    (job,) = (await api("POST", "/v1/jobs/jobs/claim", claim)).data["items"]
    done = {"sortField": "a", "token": job["token"], "metadata": {"rows": CONTENT}}
    wrong = done | {"metadata": {"rows": CONTENT, "attempts": 1, "started_at": None, "version": 1}}
    answer = await api("POST", "/v1/jobs/jobs/settle", {"fail": [wrong]})
    assert {error["pointer"] for error in answer.data["errors"]} == {
        *(f"/fail/0/metadata/{name}" for name in ("attempts", "started_at", "version"))
    }
    answer = await api("POST", "/v1/jobs/jobs/settle", {"complete": [done], "claim": claim})
    assert answer.data["complete"][0]["outcome"] == "ok"
    assert walked == {"heavy"}
    assert (await api("GET", ITEM)).data["metadata"]["rows"] == CONTENT


async def test_a_little_patch_of_a_large_item_is_merged_beside_the_loop(api: Api, walked: set[str]) -> None:
    await api("POST", "/v1/items", NEW | {"content": {"rows": CONTENT, "n": 1}, "metadata": {"m": {"rows": CONTENT}}})
    walked.clear()
    patch = json.dumps({"content": {"n": 2}, "metadata": {"m": {"n": 2}}})
    headers = {"Content-Type": "application/merge-patch+json"}
    found = (await api("PATCH", ITEM, data=patch.encode(), headers=headers)).data
    assert found["content"] == {"rows": CONTENT, "n": 2}
    assert found["metadata"]["m"] == {"rows": CONTENT, "n": 2}
    assert walked == {"heavy"}


async def test_conditions_and_triggers_of_a_large_body(api: Api, walked: set[str]) -> None:
    """What an update is on, and the triggers of a key: called for every event, as in a small one."""
    await api("POST", "/v1/items", NEW | {"metadata": {"n": [1]}})
    walked.clear()
    fields = {"content": "x" * heavy.HEAVY_FROM}
    for wanted, status in (([2], 412), ([1], 200)):
        answer = await api("PATCH", ITEM, fields | {"if": {"n": {"eq": wanted}}})
        assert answer.status == status
    operation = {"op": "delete", **NEW, "if": {"n": {"eq": [2]}}}
    operations = [operation, {"op": "create", "key": "jobs", **fields}]
    answer = await api("POST", "/v1/items:batch", {"operations": operations})
    assert [result["status"] for result in answer.data["results"]] == [412, 201]
    triggers = [{"url": f"http://127.0.0.1:9/{n}", "where": {"n": {"in": [["x" * 4000]]}}} for n in range(16)]
    where = {f"x{n}": ["x" * 4000] for n in range(16)}
    answer = await api(
        "PUT", "/v1/keys/jobs/settings", {"triggerUrls": [triggers[0] | {"where": where}, *triggers[1:]]}
    )
    assert answer.data["triggerUrls"][1]["events"] == ["created", "updated", "deleted"]
    assert walked == {"heavy"}
