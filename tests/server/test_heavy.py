"""Large bodies: read, checked and encoded beside the loop, on every route that takes an item."""

from __future__ import annotations

import json
import threading
from typing import Any

import msgpack
import pytest

from api import Api
from hookline.codec import encode_content
from hookline_server import heavy

CONTENT = [{"n": number, "text": "x" * 50, "list": [1, 2.5, None, True]} for number in range(2000)]
ITEM = "/v1/items/jobs/a"
NEW = {"key": "jobs", "sortField": "a"}
LINES = {"Content-Type": "application/x-ndjson"}
MSGPACK = {"Content-Type": "application/vnd.msgpack"}
ROUTES: dict[str, tuple[str, str, Any, str, dict[str, str]]] = {
    "create": ("POST", "/v1/items", lambda content: NEW | {"content": content}, "", {}),
    "create many": ("POST", "/v1/items", lambda content: {"items": [NEW | {"content": content}]}, "/items/0", {}),
    "create a line": ("POST", "/v1/items", lambda content: NEW | {"content": content}, "", LINES),
    "msgpack": ("POST", "/v1/items", lambda content: NEW | {"content": content}, "", MSGPACK),
    "put": ("PUT", ITEM, lambda content: {"content": content}, "", {}),
    "patch": ("PATCH", ITEM, lambda content: {"content": content}, "", {}),
    "batch": (
        *("POST", "/v1/items:batch"),
        lambda content: {"operations": [{"op": "get", **NEW}, {"op": "update", **NEW, "content": content}]},
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


async def test_a_large_content_is_kept_as_it_was(api: Api, route: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method, path, make, _, headers = route
    encoding: list[str] = []

    def encode(content: object) -> bytes:
        encoding.append(threading.current_thread().name)
        return encode_content(content)

    monkeypatch.setattr("hookline_server.body.encode_content", encode)
    if method == "PATCH" or "batch" in path:
        await api("POST", "/v1/items", NEW)
    headers = {"Content-Type": "application/json"} | headers
    answer = await api(method, path, data=written(make(CONTENT), route[4]), headers=headers)
    assert answer.status in (200, 201, 207), answer.body[:500]
    assert (await api("GET", ITEM)).data["content"] == CONTENT
    assert [name.split("_")[0] for name in encoding] == ["heavy"]


async def test_what_is_wrong_with_a_large_content_is_named_at_its_place(api: Api, route: Any) -> None:
    method, path, make, place, headers = route
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    data = written(make([*CONTENT, deep]), headers)
    answer = await api(method, path, data=data, headers={"Content-Type": "application/json"} | headers)
    problem = answer.data["problem"] if headers is LINES else answer.data
    assert problem["code"] == "invalid"
    assert problem["errors"][0]["pointer"].startswith(f"{place}/content/2000/")
    assert (await api("GET", ITEM)).status == 404
