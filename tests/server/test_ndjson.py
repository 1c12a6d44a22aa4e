"""Streams of NDJSON, both ways: in order, as fast as the other side goes, in constant memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from api import Answer, Api
from hookline import Datastore, Settings
from hookline.errors import Unavailable
from hookline_server.ndjson import split
from hookline_server.routes import items
from process import Process, serving

LINES = "application/x-ndjson"
TAKES = {"Accept": LINES}
MANY = 40_000


@pytest.fixture(params=[1, 3])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return replace(Settings(), data=tmp_path, call_timeout=5.0, body_max=10_000, partitions=request.param)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged, by uvicorn too."""
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def read(answer: Answer) -> list[Any]:
    assert answer.headers["content-type"] == LINES
    assert answer.body.endswith(b"\n") or not answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


async def send(api: Api, data: Any, **headers: str) -> Answer:
    return await api("POST", "/v1/items", data=data, headers={"Content-Type": LINES} | headers)


async def fill(datastore: Datastore, count: int, size: int = 0) -> None:
    names = [f"{n:05}" for n in range(count)]
    fields: dict[str, Any] = {"content": "x" * size}
    for start in range(0, count, 500):
        calls = [
            datastore.calls.create("jobs", name, metadata={"odd": int(name) % 2}, **fields)
            for name in names[start : start + 500]
        ]
        await datastore.run(calls)


# Lines


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_lines_are_found_however_they_are_cut(size: int) -> None:
    raw = b'{"a":1}\n\n  \r\n{"b":2}\r\n' + b"x" * 50 + b"\nc\n" + b"y" * 50

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), size):
            yield raw[start : start + size]

    found = [line async for lines in split(pieces(), 20) for line in lines]
    assert found == [(1, b'{"a":1}'), (4, b'{"b":2}\r'), (5, None), (6, b"c"), (7, None)]


async def test_a_long_line_is_not_kept() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 65_536
        yield b"\nlast"

    assert [line async for lines in split(pieces(), 1000) for line in lines] == [(1, None), (2, b"last")]


# Creating


async def test_each_line_is_answered_in_order(api: Api) -> None:
    lines = [
        b'{"key":"jobs","sortField":"a","content":1}',
        b"",
        b'{"key":"jobs","sortField":"a"}',
        b'{"key":"jobs","sortField":"a","content":2,"upsert":true}',
        b'{"key":"jobs",',
        b'{"key":"jobs","sortfield":"b"}',
        b'{"key":"jobs","key":"more"}',
        b'{"key":"hookline.x","sortField":"b"}',
        b'{"key":"jobs","content":"' + b"x" * 10_000 + b'"}',
        b'{"key":"jobs","content":\xff}',
        b'{"key":"jobs","content":' + b"[" * 4000 + b"]" * 4000 + b"}",
        b'{"key":"other"}\r',
        b'{"key":"jobs","sortField":"last"}',
    ]
    answer = await send(api, b"\n".join(lines))
    assert answer.status == 207
    results = read(answer)
    assert [(result["line"], result["status"]) for result in results] == [
        *((1, 201), (3, 409), (4, 200), (5, 400), (6, 422), (7, 422), (8, 403)),
        *((9, 413), (10, 400), (11, 422), (12, 201), (13, 201)),
    ]
    assert results[1]["problem"]["code"] == "exists"
    assert results[2]["item"]["content"] == 2
    assert results[4]["problem"]["errors"][0]["pointer"] == "/sortfield"
    assert results[-2]["item"]["key"] == "other"
    assert {item["sortField"] for item in (await api("GET", "/v1/items/jobs")).data["items"]} == {"a", "last"}


async def test_a_compressed_stream_that_prefers_little(api: Api) -> None:
    raw = b"".join(b'{"key":"jobs","sortField":"%05d"}\n' % n for n in range(5000))
    answer = await send(api, gzip.compress(raw, mtime=0), **{"Content-Encoding": "gzip", "Prefer": "return=minimal"})
    assert answer.headers["preference-applied"] == "return=minimal"
    assert answer.headers["content-encoding"] == "gzip"
    expected = [
        {"line": n + 1, "status": 201, "key": "jobs", "sortField": f"{n:05}", "version": 1} for n in range(5000)
    ]
    assert read(answer) == expected


async def test_lines_that_are_all_refused_let_others_be_served(datastore: Datastore) -> None:
    nothing: Any = None
    served = asyncio.Event()
    asyncio.get_running_loop().call_soon(served.set)
    results = await items._create_some(nothing, datastore, [(n, b"[]") for n in range(500)], minimal=False)
    assert [result["status"] for result in results] == [422] * 500
    assert served.is_set()


async def test_nothing_to_create(api: Api) -> None:
    for data in (b"", b"\n\n"):
        answer = await send(api, data)
        assert (answer.status, read(answer)) == (207, [])


async def test_a_stream_of_another_charset_is_refused(api: Api) -> None:
    answer = await send(api, b"{}", **{"Content-Type": f"{LINES}; charset=utf-16"})
    assert (answer.status, answer.data["code"]) == (415, "unsupported_media_type")
    answer = await api("PUT", "/v1/items/jobs/a", data=b"{}", headers={"Content-Type": LINES})
    assert (answer.status, answer.data["code"]) == (415, "unsupported_media_type")


async def test_lines_are_answered_while_more_are_to_come(api: Api) -> None:
    ready = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        for name in (b"a", b"b", b"c"):
            yield b'{"key":"jobs","sortField":"%b"}\n' % name
            await ready.wait()
            ready.clear()

    url = f"http://127.0.0.1:{api.port}/v1/items"
    async with api.session.post(url, data=lines(), headers={"Content-Type": LINES}) as response:
        for name in ("a", "b", "c"):
            assert json.loads(await response.content.readline())["item"]["sortField"] == name
            ready.set()
        assert await response.content.read() == b""


async def test_a_stream_that_breaks_off_says_so(api: Api, logged: pytest.LogCaptureFixture) -> None:
    raw = gzip.compress(b"".join(b'{"key":"jobs","sortField":"%05d"}\n' % n for n in range(10_000)))
    status, lines = await broken_off(api, "POST", "/v1/items", data=raw[:-10], **{"Content-Encoding": "gzip"})
    assert status == 207
    assert [line["status"] for line in lines[:-1]] == [201] * len(lines[:-1])
    assert lines[-1]["problem"]["code"] == "invalid_gzip"
    assert logged.records == [], "what a client does wrong is no error of the server's"
    answer = await send(api, b"no gzip", **{"Content-Encoding": "gzip"})
    assert (answer.status, answer.data["code"]) == (400, "invalid_gzip")


async def broken_off(api: Api, method: str, path: str, **options: Any) -> tuple[int, list[Any]]:
    """The lines of an answer that must end before its end."""
    data = options.pop("data", None)
    headers = {"Content-Type": LINES} | options if data else TAKES
    lines: list[Any] = []
    url = f"http://127.0.0.1:{api.port}{path}"
    async with api.session.request(method, url, data=data, headers=headers) as response:
        try:
            async for line in response.content:
                lines += [json.loads(line)]
        except aiohttp.ClientPayloadError:
            return response.status, lines
    raise AssertionError("the answer should have been broken off")


async def test_a_store_that_is_away_is_told_line_by_line(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(calls: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(datastore, "run", away)
    answer = await send(api, b'{"key":"jobs"}\nno\n{"key":"jobs"}')
    assert [result["status"] for result in read(answer)] == [503, 400, 503]


# Reading


@pytest.mark.parametrize("accept", [LINES, f"application/json;q=0.5, {LINES}"])
async def test_all_items_are_streamed(api: Api, datastore: Datastore, accept: str) -> None:
    await fill(datastore, 1234)
    takes = {"Accept": accept}
    for answer in (
        await api("GET", "/v1/items/jobs", headers=takes),
        await api("POST", "/v1/items/jobs/query", {}, headers=takes),
    ):
        assert answer.status == 200
        assert [item["sortField"] for item in read(answer)] == [f"{n:05}" for n in range(1234)]
    (first,) = read(await api("GET", "/v1/items/jobs?limit=1", headers=takes))
    assert first == (await api("GET", "/v1/items/jobs/00000")).data
    odd = read(await api("GET", "/v1/items/jobs?metadata.odd=1&format=light&limit=600", headers=takes))
    assert [item["sortField"] for item in odd] == [f"{n:05}" for n in range(1, 1200, 2)]
    assert "content" not in odd[0]
    query = {"where": {"odd": 0}, "order": "sortField:desc", "limit": 3}
    even = read(await api("POST", "/v1/items/jobs/query", query, headers=takes))
    assert [item["sortField"] for item in even] == ["01232", "01230", "01228"]
    cursor = (await api("GET", "/v1/items/jobs?limit=1000")).data["cursor"]
    assert len(read(await api("GET", f"/v1/items/jobs?cursor={cursor}", headers=takes))) == 234


async def test_a_stream_of_nothing_and_of_a_head(api: Api, datastore: Datastore) -> None:
    answer = await api("GET", "/v1/items/none", headers=TAKES)
    assert (answer.status, read(answer)) == (200, [])
    await fill(datastore, 3)
    answer = await api("HEAD", "/v1/items/jobs", headers=TAKES)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, LINES, b"")


async def test_what_is_wrong_with_a_query_is_told_before_it_begins(api: Api) -> None:
    for answer in (
        await api("GET", "/v1/items/jobs?order=size", headers=TAKES),
        await api("GET", "/v1/items/jobs?limit=0", headers=TAKES),
        await api("GET", "/v1/items/jobs?cursor=x", headers=TAKES),
        await api("HEAD", "/v1/items/jobs?cursor=x", headers=TAKES),
        await api("POST", "/v1/items/jobs/query", {"where": 3}, headers=TAKES),
        await api("POST", "/v1/items/jobs/query", {"limit": 1001}, headers=TAKES),
    ):
        assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_one_value_is_a_stream_of_one_line(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 1)
    answer = await api("GET", "/v1/items/jobs/00000", headers=TAKES)
    assert (answer.status, answer.headers["content-type"]) == (200, LINES)
    assert answer.data["sortField"] == "00000"
    answer = await api("POST", "/v1/items/jobs/query", {"count": True}, headers=TAKES)
    assert answer.data == {"count": 1, "cursor": None}


async def test_a_failure_on_the_way_breaks_the_stream_off_and_tells_where(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    await fill(datastore, 1000)
    query, asked = datastore.query, 0

    async def failing(*args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Unavailable("away")
        return await query(*args, **options)

    monkeypatch.setattr(datastore, "query", failing)
    status, lines = await broken_off(api, "GET", "/v1/items/jobs")
    assert status == 200
    *items, last = lines
    assert last["problem"]["code"] == "unavailable"
    (record,) = logged.records
    assert (record.levelname, record.message.partition(":")[0]) == ("WARNING", "unavailable")
    rest = read(await api("GET", f"/v1/items/jobs?cursor={last['problem']['cursor']}", headers=TAKES))
    assert [item["sortField"] for item in items + rest] == [f"{n:05}" for n in range(1000)]


async def test_who_does_not_read_is_not_read_for(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(datastore, 3000, 9000)
    query, asked = datastore.query, 0

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        return await query(*args, **options)

    monkeypatch.setattr(datastore, "query", counted)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=4096)
    writer.write(b"GET /v1/items/jobs HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n")
    await reader.readline()
    before = -1
    while asked != before:
        before = asked
        await asyncio.sleep(0.3)
    whole = 3000 / 250
    assert asked < whole, "the buffers of the sockets should hold less than all that is there"
    assert (await api("GET", "/v1/items/jobs/00000")).status == 200
    writer.close()
    await asyncio.sleep(0.3)
    assert asked <= before + 1


# Memory


@pytest_asyncio.fixture(loop_scope="session")
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    async with serving(tmp_path / "data") as server:
        yield server


def resident(server: Process) -> int:
    """MiB of the server's memory that are in use (Linux)."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


async def create_and_read(server: Process, key: str, count: int) -> int:
    """Create so many items and read them all -> the MiB of memory at the worst moment."""
    most = done = 0

    async def lines() -> AsyncIterator[bytes]:
        for start in range(0, count, 500):
            yield b"".join(
                b'{"key":"%b","sortField":"%07d","content":"%b"}\n' % (key.encode(), n, b"x" * 100)
                for n in range(start, start + 500)
            )

    async def through(response: aiohttp.ClientResponse) -> None:
        nonlocal most, done
        async for line in response.content:
            done += 1
            assert b'"version":1' in line
            if done % 2000 == 0:
                most = max(most, resident(server))

    headers = {"Content-Type": LINES, "Prefer": "return=minimal"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session:
        async with session.post(f"{server.url}/v1/items", data=lines(), headers=headers) as response:
            await through(response)
        assert done == count
        async with session.get(f"{server.url}/v1/items/{key}", headers=TAKES) as response:
            await through(response)
        assert done == 2 * count
    return most


async def test_many_items_in_constant_memory(process: Process) -> None:
    few, many = await create_and_read(process, "few", 5000), await create_and_read(process, "many", MANY)
    # As a whole they are 20 MiB of JSON in each direction, and several times that as values.
    assert many < few + 20, f"{few} MiB with 5,000 items, {many} MiB with {MANY:,}"
