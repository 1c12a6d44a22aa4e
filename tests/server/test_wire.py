"""The wire, byte by byte: what is no clear request, comes too slowly or is too much, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from api import Api, asking
from conftest import wait_until
from hookline import Datastore
from hookline_server.app import create_app
from hookline_server.limits import Pace, network_of
from rawhttp import Line, dialled, request
from smuggling import CASES, PRIZE, Case

HASTY: dict[str, Any] = {"head_timeout": 0.4, "stall_timeout": 0.4, "keep_alive": 0.4, "transfer_rate": 1000}
PROBE = request("GET", "/livez", close=True)


@pytest_asyncio.fixture(loop_scope="session")
async def hasty(datastore: Datastore) -> AsyncIterator[Api]:
    """A server that waits for nobody."""
    async with asking(create_app(datastore), replace(datastore.settings, **HASTY)) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def narrow(datastore: Datastore) -> AsyncIterator[Api]:
    """A server that has room for little."""
    limits: dict[str, Any] = {"requests_max": 2, "clients_max": 5, "clients_per_address": 3}
    async with asking(create_app(datastore), replace(datastore.settings, **limits)) as api:
        yield api


# What is ambiguous


@pytest.mark.parametrize("cut", [None, 1, 7], ids=["whole", "by the byte", "by seven"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_no_request_is_taken_for_two(case: Case, cut: int | None, api: Api, raw: aioredis.Redis) -> None:
    data = case.data if case.closes else case.data + PROBE
    pieces = [data[place : place + cut] for place in range(0, len(data), cut)] if cut else [data]
    async with dialled(api.port) as line:
        await line.send(*pieces)
        answers = await line.rest()
    statuses = case.statuses if case.closes else (*case.statuses, 200)
    assert [answer.status for answer in answers] == [*statuses]
    if answers[-1].status == 400:
        assert answers[-1].headers["content-type"] == "application/problem+json"
        assert answers[-1].headers["connection"] == "close"
        assert answers[-1].data["code"] == "malformed_request"
    assert [name async for name in raw.scan_iter(f"*:i:{PRIZE}:*")] == []


async def test_trailers_are_no_headers() -> None:
    async def names(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        told = b" ".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
        await send({"type": "http.response.body", "body": told})

    app: Any = names
    async with asking(app) as api, dialled(api.port) as line:
        head = request("POST", "/", close=True, Transfer_Encoding="chunked")
        await line.send(head + b"1\r\nx\r\n0\r\nAuthorization: me\r\n\r\n")
        (answer,) = await line.rest()
    assert answer.body == b"host transfer-encoding connection"


async def test_a_body_that_breaks_off_or_is_broken_is_none(api: Api, raw: aioredis.Redis) -> None:
    head = request("POST", "/v1/items", Transfer_Encoding="chunked")
    async with dialled(api.port) as line:
        await line.send(head + b'e\r\n{"key":"jobs"}\r\n')
        await asyncio.sleep(0.05)
        await line.send(b"?\r\n")
        (answer,) = await line.rest()
    assert (answer.status, answer.data["code"]) == (400, "malformed_request")

    def is_there(client: object) -> bool:
        return any(wire.client == client for wire in api.limits._connections)  # type: ignore[attr-defined]

    def is_gone(client: object) -> bool:
        return not is_there(client)

    for broken in (
        head + b'e\r\n{"key":"jobs"}\r\n',
        request("POST", "/v1/items", Content_Length="15") + b'{"key":"jobs"}',
    ):
        async with dialled(api.port) as line:
            await line.send(broken)
            ours = line.writer.get_extra_info("sockname")
            await wait_until(partial(is_there, ours))
        await wait_until(partial(is_gone, ours))
    assert [name async for name in raw.scan_iter("*:i:*")] == []


async def test_answers_keep_the_order_of_pipelined_requests(api: Api) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "sortField": "a"})
    waits = request("GET", "/v1/items/jobs/a?wait=300ms", If_None_Match='"1.0"')
    async with dialled(api.port) as line:
        await line.send(waits + request("GET", "/livez") + request("GET", "/nowhere", close=True))
        assert [answer.status for answer in await line.rest()] == [304, 200, 404]


async def test_only_so_many_requests_run_ahead_of_their_answers(api: Api) -> None:
    async with dialled(api.port) as line:
        await line.send(request("GET", "/livez") * 500)
        answers = await line.rest()
    assert [answer.status for answer in answers] == [200] * 33 + [400]


# How much


async def test_a_target_has_a_bound(api: Api) -> None:
    fits = "/" + "x" * (api.limits.settings.target_max - 1)
    for path, status, code in ((fits, 404, "unknown_path"), (fits + "x", 414, "target_too_long")):
        async with dialled(api.port) as line:
            await line.send(request("GET", path))
            answer = await line.answer()
            assert (answer.status, answer.data["code"]) == (status, code)


async def test_headers_have_a_bound_in_number_and_in_all(api: Api) -> None:
    most = api.limits.settings.headers_max - 2  # besides Host and Connection
    rows: list[tuple[dict[str, Any], int]] = [
        ({f"X-{number}": "y" for number in range(most)}, 200),
        ({f"X-{number}": "y" for number in range(most + 1)}, 431),
        ({"X": "y" * 30_000}, 200),
        ({"X": "y" * 33_000}, 431),
        ({"X" * 33_000: "y"}, 431),
        ({f"X-{number}": "y" * 1000 for number in range(40)}, 431),
    ]
    for headers, status in rows:
        head = request("GET", "/livez", close=True, **headers)
        for pieces in ([head], [head[place : place + 4000] for place in range(0, len(head), 4000)]):
            async with dialled(api.port) as line:
                await line.send(*pieces)
                (answer,) = await line.rest()
                assert answer.status == status, (len(headers), len(pieces))
                assert status == 200 or answer.data["code"] == "headers_too_large"


async def test_a_head_without_end_is_cut_off(api: Api) -> None:
    sent = 0
    async with dialled(api.port) as line:
        await line.send(b"GET /livez HTTP/1.1\r\nX: ")
        while sent < 1_000_000 and not line.reader.at_eof():
            await line.send(b"y" * 10_000)
            sent += 10_000
            await asyncio.sleep(0)
        assert [answer.status for answer in await line.rest()] == [431]


async def test_a_large_body_before_the_next_head_is_not_counted_with_it(api: Api) -> None:
    item = request("POST", "/v1/items", {"key": "jobs", "content": "x" * 200_000})
    async with dialled(api.port) as line:
        await line.send(item + PROBE[:30])
        assert (await line.answer()).status == 201
        await line.send(PROBE[30:])
        assert [answer.status for answer in await line.rest()] == [200]


@pytest.mark.parametrize("around", [b"1;%b\r\nx\r\n" % (b"e" * 60_000), b"1\r\nx\r\n0\r\nX: %b" % (b"t" * 60_000)])
async def test_what_is_around_the_chunks_has_a_bound(around: bytes, api: Api) -> None:
    async with dialled(api.port) as line:
        await line.send(request("POST", "/v1/items", Transfer_Encoding="chunked"))
        for place in range(0, len(around), 5000):
            await line.send(around[place : place + 5000])
            await asyncio.sleep(0.01)
        (answer,) = await line.rest()
    assert (answer.status, "chunks" in answer.data["detail"]) == (400, True)


async def test_an_answer_before_the_end_of_the_body_is_read_and_ends_the_connection(api: Api) -> None:
    size = 8 * api.limits.settings.body_max
    async with dialled(api.port) as line:
        await line.send(request("POST", "/v1/items", Content_Length=str(size)))
        sending = asyncio.create_task(line.send(*[b"x" * 65_536] * (size // 65_536)))
        (answer,) = await line.rest()
        await sending
    assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_who_expects_to_continue_and_is_refused_is_not_left_in_doubt(api: Api) -> None:
    async with dialled(api.port) as line:
        await line.send(request("POST", "/v1/items", Expect="100-continue", Content_Length="99999999"))
        answer = await line.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        await line.send(request("PUT", f"/v1/items/{PRIZE}/x", {}))
        assert await line.rest() == []
    assert (await api("GET", f"/v1/items/{PRIZE}/x")).status == 404


# How fast


async def test_a_head_has_a_time(hasty: Api) -> None:
    async with dialled(hasty.port) as line:
        trickle = asyncio.create_task(trickle_on(line, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "))
        (answer,) = await line.rest()
        trickle.cancel()
    assert (answer.status, answer.data["code"]) == (408, "request_timeout")
    async with dialled(hasty.port) as silent:
        assert await silent.rest() == []


async def trickle_on(line: Line, data: bytes) -> None:
    await line.send(data)
    while True:
        await asyncio.sleep(0.05)
        await line.send(b"y")


@pytest.mark.parametrize("framing", [{"Content_Length": "100000"}, {"Transfer_Encoding": "chunked"}], ids=str)
async def test_a_body_has_a_pace(framing: dict[str, Any], hasty: Api, raw: aioredis.Redis) -> None:
    async with dialled(hasty.port) as line:
        start = request("POST", "/v1/items", **framing) + (b"ffff\r\n" if "Transfer_Encoding" in framing else b"")
        trickle = asyncio.create_task(trickle_on(line, start + b'{"key":"jobs","content":"' + b"x" * 5000))
        (answer,) = await line.rest()
        trickle.cancel()
    assert (answer.status, answer.data["code"]) == (408, "request_timeout")
    assert [name async for name in raw.scan_iter("*:i:*")] == []


async def test_a_slow_body_that_keeps_its_pace_is_taken(hasty: Api) -> None:
    item = request("POST", "/v1/items", {"key": "jobs", "content": "x" * 3000}, close=True)
    async with dialled(hasty.port) as line:
        for place in range(0, len(item), 150):
            await line.send(item[place : place + 150])
            await asyncio.sleep(0.05)
        assert [answer.status for answer in await line.rest()] == [201]


async def test_an_idle_connection_ends_and_a_busy_one_does_not(hasty: Api) -> None:
    async with dialled(hasty.port) as line:
        await line.send(request("POST", "/v1/jobs/jobs/claim", {"workerId": "w", "wait": 1.5}))
        answer = await line.answer()
        assert (answer.status, answer.data["items"]) == (200, [])
        assert await line.rest() == []


async def test_an_answer_that_nobody_reads_is_given_up(hasty: Api, datastore: Datastore) -> None:
    calls = [datastore.calls.create("big", str(number), content="x" * 500_000) for number in range(40)]
    for call in calls:
        await datastore.run([call])
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=1024)
    accepts: list[dict[str, Any]] = [{}, {"Accept": "application/x-ndjson"}]
    for headers in accepts:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("GET", "/v1/items/big", **headers))
        await wait_until(lambda: hasty.limits.refused["stalled"])
        hasty.limits.refused.clear()
        await wait_until(lambda: not hasty.limits._connections)
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=1024)
    writer.close()
    assert reader


async def test_an_answer_that_is_read_slowly_but_surely_is_whole(hasty: Api, datastore: Datastore) -> None:
    for number in range(40):
        await datastore.run([datastore.calls.create("big", str(number), content="x" * 500_000)])
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=65_536)
    writer.write(request("GET", "/v1/items/big", close=True, Accept="application/x-ndjson"))
    got = 0
    while piece := await reader.read(400_000):
        got += len(piece)
        await asyncio.sleep(0.01)
    writer.close()
    assert got > 20_000_000


def test_a_burst_buys_no_rest() -> None:
    pace = Pace(0.0, 0, 100, 10)
    assert pace.holds(1.0, 1_000_000)
    assert pace.holds(11.0, 1_000_000)
    assert not pace.holds(11.1, 1_000_000)
    steady = Pace(0.0, 0, 100, 10)
    assert all(steady.holds(float(now), 100 * now) for now in range(1000))
    late = Pace(0.0, 0, 100, 10)
    assert [late.holds(float(now), 50 * now) for now in (10, 20, 21)] == [True, True, False]


# How many


async def test_only_so_many_requests_at_once(narrow: Api, raw: aioredis.Redis) -> None:
    waiting = [
        asyncio.create_task(narrow("POST", "/v1/jobs/jobs/claim", {"workerId": "w", "wait": 20})) for _ in range(2)
    ]
    await wait_until(lambda: narrow.app.state.datastore.wakes.listeners() == 1)
    async with dialled(narrow.port, "127.0.0.2") as line:
        # Its body never comes, and nobody waits for it.
        await line.send(request("PUT", "/v1/items/jobs/a", Content_Length="10"))
        answer = await line.answer()
        assert (answer.status, answer.data["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
        assert await line.rest() == []
    async with dialled(narrow.port, "127.0.0.2") as line:
        await line.send(request("GET", "/livez"), request("GET", "/readyz", close=True))
        assert [answer.status for answer in await line.rest()] == [200, 200]
    assert [name async for name in raw.scan_iter("*:i:*")] == []
    await narrow.app.state.datastore.create("jobs", metadata={"status": "not_started"})
    await narrow.app.state.datastore.create("jobs", metadata={"status": "not_started"})
    assert [len((await task).data["items"]) for task in waiting] == [1, 1]


async def test_only_so_many_connections_of_one_address_and_in_all(
    narrow: Api, caplog: pytest.LogCaptureFixture
) -> None:
    async with dialled(narrow.port) as one, dialled(narrow.port) as two, dialled(narrow.port) as three:
        for _ in range(2):
            async with dialled(narrow.port) as fourth:
                (answer,) = await fourth.rest()
            assert (answer.status, answer.data["code"], answer.headers["retry-after"]) == (429, "rate_limited", "1")
            assert "HOOKLINE_CLIENTS_PER_ADDRESS" in answer.data["detail"]
        # Word for word the same, so that all but the first in a minute are held back.
        assert [(record.levelname, record.message) for record in caplog.records] == 2 * [
            (
                "WARNING",
                "127.0.0.1 has 3 connections, and gets no more: raise HOOKLINE_CLIENTS_PER_ADDRESS if it is a proxy",
            )
        ]
        async with dialled(narrow.port, "127.0.0.2") as other, dialled(narrow.port, "127.0.0.3") as another:
            async with dialled(narrow.port, "127.0.0.4") as sixth:
                (answer,) = await sixth.rest()
                assert (answer.status, answer.data["code"]) == (503, "overloaded")
            assert "there are 5 connections, and no more are taken: see HOOKLINE_CLIENTS_MAX" in caplog.messages
            for line in (one, two, three, other, another):
                await line.send(PROBE)
                assert [answer.status for answer in await line.rest()] == [200]
    await wait_until(lambda: not narrow.limits._connections)
    assert not narrow.limits._addresses


def test_what_an_address_counts_as() -> None:
    assert network_of("192.0.2.7") == network_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert network_of("2001:db8::1") == network_of("2001:db8::2%eth0") == "2001:db8::"
    assert network_of("2001:db8:0:1::1") == "2001:db8:0:1::"


async def test_answers_that_nobody_reads_have_a_bound_in_all(datastore: Datastore) -> None:
    for number in range(20):
        await datastore.create("big", str(number), content="x" * 500_000)
    settings = replace(datastore.settings, unread_max=9_000_000)
    async with asking(create_app(datastore), settings) as api, contextlib.AsyncExitStack() as stack:
        lines = []
        for limit in (2, 20, 2):
            lines.append(await stack.enter_async_context(dialled(api.port, room=8192)))
            lines[-1].writer.transport.pause_reading()  # type: ignore[attr-defined]
            await lines[-1].send(request("GET", f"/v1/items/big?limit={limit}", close=True))
        assert not api.limits.refused
        async with dialled(api.port, room=8192) as line:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await line.send(request("GET", "/v1/items/big?limit=20", close=True))
            await wait_until(lambda: api.limits.refused["stalled"])
        assert api.limits.refused["stalled"] == 1
        # Whoever holds the least is left alone.
        for place in (0, 2):
            lines[place].writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert [answer.status for answer in await lines[place].rest()] == [200]
