"""Idempotency-Key on a stream of lines: each line that had an effect has it once, whatever became of the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api import Api
from hookline import Datastore, SecretBox, Settings
from hookline_server import heavy
from proxy import LOSE_CALL, LOSE_REPLY, Proxy

LINES = {"Idempotency-Key": "k", "Content-Type": "application/x-ndjson"}


@pytest.fixture(params=[1, 3, 16])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return replace(Settings(), data=tmp_path, call_timeout=1.0, body_max=200_000, partitions=request.param)


def upserts(names: str, content: Any = 100) -> list[bytes]:
    return [
        json.dumps({"key": "jobs", "sortField": name, "content": content, "upsert": True}).encode() for name in names
    ]


def shown(lines: Iterable[dict[str, Any]]) -> list[Any]:
    return [line.get("problem", {}).get("code") or (line["status"], line["item"]["version"]) for line in lines]


async def stream(api: Api, lines: Iterable[bytes]) -> list[dict[str, Any]]:
    answer = await api("POST", "/v1/items", data=b"\n".join(lines), headers=LINES)
    assert answer.status == 207
    return [json.loads(line) for line in answer.body.splitlines()]


async def overwrite(api: Api, names: str) -> None:
    """Another writer comes, whose contents are to stay."""
    for name in names:
        assert (await api("PUT", f"/v1/items/jobs/{name}", {"content": 7})).status == 200


async def contents(api: Api) -> dict[str, Any]:
    return {item["sortField"]: item["content"] for item in (await api("GET", "/v1/items/jobs")).data["items"]}


async def test_lines_behind_one_that_was_refused_for_a_while_are_not_done_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heavy, "REST", 1e6)
    large = {"content": [1] * 40_000}
    broken = json.dumps(large).encode()[:-1]
    assert (await api("POST", "/v1/items", data=broken, headers={"Content-Type": "application/json"})).status == 400
    lines = upserts("x", large) + upserts("abcde")
    first = await stream(api, lines)
    assert shown(first) == ["rate_limited"] + [(201, 1)] * 5
    await overwrite(api, "abcde")
    heavy._rests.clear()
    again = await stream(api, lines)
    assert (shown(again[:1]), again[1:]) == ([(201, 1)], first[1:])
    assert await contents(api) == {"x": large} | dict.fromkeys("abcde", 7)
    assert await stream(api, lines) == again


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"{bad", "invalid_json"),
        (b'{"key": "jobs", "nonsense": 1}', "invalid"),
        (b'{"key": "hookline.x"}', "reserved_key"),
        (b'"' + b"x" * 200_000 + b'"', "body_too_large"),
    ],
)
async def test_a_line_that_is_mended_leaves_the_others_their_answers(api: Api, bad: bytes, code: str) -> None:
    a, b, c, d = upserts("abcd")
    first = await stream(api, [a, b"", bad, c, bad, d])
    assert shown(first) == [(201, 1), code, (201, 1), code, (201, 1)]
    await overwrite(api, "acd")
    again = await stream(api, [a, b"", b, c, bad, d])
    assert shown(again) == [(201, 1), (201, 1), (201, 1), code, (201, 1)]
    assert [again[place] for place in (0, 2, 4)] == [first[place] for place in (0, 2, 4)]
    assert await contents(api) == {"a": 7, "b": 100, "c": 7, "d": 7}


async def test_names_that_are_given_behind_a_bad_line_are_given_again(api: Api, datastore: Datastore) -> None:
    lines = [b"{bad", *[json.dumps({"key": "jobs", "content": n}).encode() for n in range(20)]]
    first = await stream(api, lines)
    assert await stream(api, lines) == first
    again = await stream(api, [b'{"key": "jobs"}', *lines[1:]])
    assert (again[0]["status"], again[1:]) == (201, first[1:])
    assert (await datastore.count("jobs")).count == 21


@pytest.mark.parametrize("fault", [LOSE_CALL, LOSE_REPLY])
async def test_lines_behind_those_that_the_store_did_not_answer_are_not_done_again(
    api: Api, proxy: Proxy, settings: Settings, fault: bytes
) -> None:
    done = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"\n".join(upserts("abc")) + b"\n"
        await done.wait()
        yield b"\n".join(upserts("def"))

    async with Datastore(proxy.url, settings, SecretBox(bytes(range(32)))) as datastore:
        api.app.state.datastore = datastore
        proxy.faults += [fault] * 10_000
        url = f"http://127.0.0.1:{api.port}/v1/items"
        async with api.session.post(url, data=parts(), headers=LINES) as response:
            first = [json.loads(await response.content.readline()) for _ in range(3)]
            proxy.faults.clear()
            done.set()
            first += [json.loads(line) async for line in response.content]
        assert [line["status"] for line in first] == [503] * 3 + [201] * 3
        await overwrite(api, "def")
        again = await stream(api, upserts("abcdef"))
        assert shown(again) == [(201, 1)] * 6
        assert again[3:] == first[3:]
        assert await contents(api) == dict.fromkeys("abc", 100) | dict.fromkeys("def", 7)
