"""Roles, several processes on one port, and how they stop: real processes, real signals."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import resource
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as aioredis

from conftest import wait_until
from hookline import EmbeddedStore
from hookline.embedded import find_server
from process import Process, free_port, hookline, running_store, serving
from receiver import receiving


def siblings(server: Process) -> list[int]:
    """The processes that a server with several workers has started to serve."""
    return found("hookline_server.sibling", server.process.pid)


def found(words: str, parent: int | None = None) -> list[int]:
    """The processes whose command has these words, of all or of one parent."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            above = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if re.search(words, command) and parent in (None, above):
                pids.append(int(process.name))
    return sorted(pids)


def runs(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def back(server: Process) -> list[str]:
    """What it said of processes that were replaced."""
    return [line for line in server.said if "is back" in line]


def more_than(some: Sized, number: int) -> bool:
    return len(some) > number


def came_back_or_broke(server: Process, times: int, clients: list[asyncio.Task[None]]) -> bool:
    return len(back(server)) == times or any(client.done() for client in clients)


def socket_url(data: Path) -> str:
    return f"unix://{(data / 'store.socket').read_text().strip()}"


async def ask(url: str, body: Any = None) -> tuple[int, Any]:
    """One request on a connection of its own -> status and answer."""
    async with aiohttp.ClientSession() as session:
        method = "GET" if body is None else "POST"
        async with session.request(method, url, json=body) as response:
            return response.status, await response.json()


async def refuses(server: Process) -> bool:
    """Whether it takes no connection any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@contextlib.asynccontextmanager
async def half_a_request(server: Process) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]]:
    """A create of which the server has only the first half -> the connection, and the second half."""
    body = b'{"key": "jobs", "sortField": "late"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    head = "POST /v1/items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:9])
    await writer.drain()
    # What is served after it shows that it has been read.
    assert (await ask(f"{server.url}/livez"))[0] == 200
    try:
        yield reader, writer, body[9:]
    finally:
        writer.close()


async def test_each_role_runs_by_itself_on_a_store_that_another_process_owns(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with receiving() as receiver, serving(data, "--roles", "api") as api:
        item = {
            "key": "jobs",
            "sortField": "a",
            "metadata": {"status": "not_started"},
            "triggerUrls": {receiver.url: "k"},
        }
        assert (await ask(f"{api.url}/v1/items", item))[0] == 201
        rule = {"key": "jobs", "every": "1s"}
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"{api.url}/v1/orchestrations/all", json=rule) as response,
        ):
            assert response.status == 201
        code, said = await hookline("serve", "--port", "0", "--data", str(data))
        assert (code, f"--store {socket_url(data)}" in said) == (3, True), said
        joined = ("--store", socket_url(data))
        async with serving(data, *joined, "--roles", "orchestrator") as orchestrator:
            assert orchestrator.url == "no port"
            await wait_until(lambda: any("runs    orchestrator" in line for line in orchestrator.said))

            async def claimed() -> bool:
                _, found = await ask(f"{api.url}/v1/items/jobs/a")
                return bool(found["metadata"]["status"] == "started")

            await wait_until(claimed)
            assert receiver.posts == []
            assert await orchestrator.stop() == 0
        allowed = ("--egress-allow", "127.0.0.0/8")
        async with serving(data, *joined, "--roles", "relay", "--probe-port", "0", *allowed) as relay:
            (post,) = await receiver.wait_for(1)
            assert post.data["newDataset"]["sortField"] == "a"
            assert (await ask(f"{relay.url}/readyz"))[0] == 200
            assert (await ask(f"{relay.url}/v1/items/jobs/a"))[0] == 404
            async with aiohttp.ClientSession() as session, session.get(f"{relay.url}/metrics") as response:
                assert (
                    'hookline_delivery_attempts_total{namespace="default",outcome="2xx"} 1.0' in await response.text()
                )
            assert await relay.stop() == 0


async def test_a_process_that_dies_is_replaced_while_others_serve(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with serving(data, "--workers", "2", "--name", "web") as server:
        first, second = siblings(server)

        async def names() -> set[str]:
            async with aioredis.Redis.from_url(socket_url(data), protocol=2) as client:
                (outbox,) = [key async for key in client.scan_iter("*:outbox")]
                return {row["name"].decode() for row in await client.xinfo_consumers(outbox, "relay")}

        await wait_until(lambda: names_are(names, {"web/0", "web/1"}))
        os.kill(first, signal.SIGKILL)
        for _ in range(20):
            assert (await ask(f"{server.url}/v1/items", {"key": "jobs"}))[0] == 201
        await wait_until(lambda: back(server), seconds=30)
        assert any(f"({first}) has ended with -9" in line for line in server.said)
        assert second in siblings(server)
        assert first not in siblings(server)
        assert await names() == {"web/0", "web/1"}
        pids = siblings(server)
        assert await server.stop(signal.SIGINT) == 0
        assert not any(map(runs, pids))


async def test_one_that_cannot_start_while_the_first_serves_is_started_again(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def second() -> int | None:
        parents = found(f"hookline_server serve .*{data}")
        started = found("hookline_server.sibling", parents[0]) if parents else []
        return started[1] if len(started) == 2 else None

    async with contextlib.AsyncExitStack() as stack:
        starting = asyncio.create_task(stack.enter_async_context(serving(data, "--workers", "2")))
        lost = await wait_until(second, seconds=30)
        os.kill(lost, signal.SIGKILL)
        server = await starting
        assert any(f"({lost}) has ended with -9: started again" in line for line in server.said)
        assert len(siblings(server)) == 2


async def test_one_that_the_system_does_not_start_now_is_started_later(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", "--workers", "2") as server:
        first, second = siblings(server)
        pid = server.process.pid
        bounds = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, bounds[1]))
        os.kill(first, signal.SIGKILL)
        await wait_until(lambda: any("could not be started (" in line for line in server.said))
        assert (await ask(f"{server.url}/v1/items", {"key": "jobs"}))[0] == 201
        resource.prlimit(pid, resource.RLIMIT_NOFILE, bounds)
        await wait_until(lambda: back(server), seconds=30)
        assert second in siblings(server)
        assert not any("Traceback" in line for line in server.said)


async def names_are(names: Callable[[], Awaitable[set[str]]], expected: set[str]) -> bool:
    with contextlib.suppress(ValueError):  # there is no outbox yet
        return await names() == expected
    return False


async def test_a_parent_that_is_killed_leaves_nobody(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with serving(data, "--workers", "2") as server:
        pids = [*siblings(server), int((data / "lock").read_text())]
        assert len(pids) == 3
        await server.kill()
        await wait_until(lambda: not any(map(runs, pids)), seconds=30)


async def test_no_write_is_lost_and_no_answer_broken_where_one_of_two_stops_under_load(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    ended = asyncio.Event()

    async def load(server: Process, client: int) -> None:
        async with aiohttp.ClientSession() as session:
            for number in range(10_000):
                if ended.is_set():
                    return
                item = {"key": "jobs", "sortField": f"{client}-{number}"}
                with contextlib.suppress(aiohttp.ClientConnectorError):
                    async with session.post(f"{server.url}/v1/items", json=item) as response:
                        assert response.status == 201
                        acknowledged.append((await response.json())["sortField"])

    async with serving(tmp_path / "data", "--workers", "2") as server:
        clients = [asyncio.create_task(load(server, client)) for client in range(16)]
        for stops in (1, 2, 3):
            await wait_until(partial(more_than, acknowledged, len(acknowledged) + 50), seconds=30)
            os.kill(siblings(server)[0], signal.SIGTERM)
            await wait_until(partial(came_back_or_broke, server, stops, clients), seconds=30)
        ended.set()
        await asyncio.gather(*clients)
        assert sum("has ended with 0" in line for line in server.said) == 3
        kept: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            _, page = await ask(f"{server.url}/v1/items/jobs?limit=1000&cursor={cursor}")
            kept += [item["sortField"] for item in page["items"]]
            cursor = page.get("cursor")
    assert sorted(kept) == sorted(acknowledged)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_is_unready_first_and_goes_on_serving_for_the_drain(tmp_path: Path, workers: str) -> None:
    async with serving(tmp_path / "data", "--workers", workers, "--drain", "25s") as server:
        assert await ask(f"{server.url}/readyz") == (200, {"status": "ok", "checks": {"store": "ok"}})
        server.process.send_signal(signal.SIGTERM)

        async def unready() -> bool:
            answers = [await ask(f"{server.url}/readyz") for _ in range(4)]
            return all(status == 503 and told["checks"]["process"] == "stopping" for status, told in answers)

        await wait_until(unready)
        assert (await ask(f"{server.url}/v1/items", {"key": "jobs"}))[0] == 201
        # A second Ctrl-C cuts the drain short.
        assert await server.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_request_under_way_is_finished(tmp_path: Path, workers: str) -> None:
    async with (
        serving(tmp_path / "data", "--workers", workers) as server,
        half_a_request(server) as (reader, writer, rest),
    ):
        server.process.send_signal(signal.SIGTERM)
        await wait_until(partial(refuses, server))
        writer.write(rest)
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 201 "), answer
        assert await asyncio.wait_for(server.process.wait(), 20) == 0


async def test_a_webhook_under_way_is_waited_for_and_not_sent_again(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path / "own", fsync="no") as store, receiving() as receiver:
        receiver.hang = asyncio.Event()
        async with serving(tmp_path / "data", "--store", store.url) as server:
            item = {"key": "jobs", "sortField": "a", "triggerUrls": [{"url": receiver.url, "events": ["created"]}]}
            assert (await ask(f"{server.url}/v1/items", item))[0] == 201
            await receiver.wait_for(1)
            server.process.send_signal(signal.SIGTERM)
            await wait_until(lambda: any("Stopping" in line for line in server.said))
            receiver.hang.set()
            assert await asyncio.wait_for(server.process.wait(), 20) == 0
        async with aioredis.Redis.from_url(store.url, protocol=2) as client:
            (outbox,) = [key async for key in client.scan_iter("*:outbox")]
            assert await client.xlen(outbox) == 0
        assert len(receiver.posts) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_what_does_not_end_in_the_grace_is_cut_off(tmp_path: Path, workers: str) -> None:
    async with (
        serving(tmp_path / "data", "--workers", workers, "--grace", "2s") as server,
        half_a_request(server) as (reader, _, _),
    ):
        assert await server.stop() == 0
        head, _, told = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(told)["code"] == "unavailable", "nothing is done before the body is there"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_ctrl_c_cuts_off_what_is_under_way(tmp_path: Path, workers: str) -> None:
    async with receiving() as receiver, serving(tmp_path / "data", "--workers", workers) as server:
        receiver.hang = asyncio.Event()
        item = {"key": "jobs", "triggerUrls": [{"url": receiver.url, "events": ["created"]}]}
        assert (await ask(f"{server.url}/v1/items", item))[0] == 201
        await receiver.wait_for(1)
        idle, closing = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        async with half_a_request(server) as (reader, _, _):
            server.process.send_signal(signal.SIGINT)
            # What is idle is closed once all else is waited for.
            assert await asyncio.wait_for(idle.read(), 20) == b""
            begun = time.monotonic()
            assert await server.stop(signal.SIGINT) == 0
            assert time.monotonic() - begun < 5
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        closing.close()
        receiver.hang.set()
    assert not any("Exception" in line for line in server.said)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_store_that_hangs_prolongs_no_stop(tmp_path: Path, workers: str) -> None:
    """Whoever waits is told, in a document, what is known of the request."""
    item = {"key": "jobs", "sortField": "a", "metadata": {"status": "not_started"}}
    async with (
        running_store(str(find_server()), tmp_path / "own") as store,
        serving(
            tmp_path / "data", "--store", store.url, "--workers", workers, "--grace", "3s", HOOKLINE_CALL_TIMEOUT="20s"
        ) as server,
    ):
        assert (await ask(f"{server.url}/v1/items", item))[0] == 201
        store.process.send_signal(signal.SIGSTOP)
        asked = [
            asyncio.create_task(ask(f"{server.url}/v1/items", item)),
            asyncio.create_task(ask(f"{server.url}/v1/items/jobs/a")),
            asyncio.create_task(ask(f"{server.url}/v1/items/jobs/query", {"limit": 1})),
            asyncio.create_task(ask(f"{server.url}/v1/jobs/jobs/claim", {"workerId": "w", "wait": 20})),
        ]
        # What is served after them shows that they have been read.
        assert [(await ask(f"{server.url}/livez"))[0] for _ in range(20)] == [200] * 20
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answers = [(status, told["code"]) for status, told in await asyncio.gather(*asked)]
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
        assert time.monotonic() - begun < 4.5
    assert answers == [(503, code) for code in ("outcome_unknown", "unavailable", "unavailable", "outcome_unknown")]
    assert not any("Exception" in line for line in server.said)


async def stream(server: Process, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a stream of lines has been asked for, with its head read over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]), limit=65_536)
    writer.write(f"{request} HTTP/1.1\r\nHost: localhost\r\n".encode())
    writer.write(b"Accept: application/x-ndjson\r\nContent-Type: application/x-ndjson\r\n")
    return reader, writer


async def last_line(reader: asyncio.StreamReader) -> Any:
    """The last line of an answer in chunks that is broken off."""
    chunks = (await asyncio.wait_for(reader.read(), 20)).split(b"\r\n")
    assert chunks[-1] == b""
    assert chunks[-3] != b"0"
    return json.loads(chunks[-2].splitlines()[-1])


async def test_streams_that_a_stop_cuts_off_say_so(tmp_path: Path) -> None:
    """Both ways; who does not read is not waited for."""
    many = b"".join(b'{"key":"jobs","content":"%b"}\n' % (b"x" * 8000) for _ in range(1000))
    async with (
        running_store(str(find_server()), tmp_path / "own") as store,
        serving(tmp_path / "data", "--store", store.url, "--grace", "3s", HOOKLINE_CALL_TIMEOUT="20s") as server,
        aiohttp.ClientSession() as session,
    ):
        lines = {"Content-Type": "application/x-ndjson", "Prefer": "return=minimal"}
        async with session.post(f"{server.url}/v1/items", data=io.BytesIO(many), headers=lines) as response:
            assert (await response.read()).count(b'"status":201') == 1000
        down, up, unread = [
            await stream(server, request) for request in ("GET /v1/items/jobs", "POST /v1/items", "GET /v1/items/jobs")
        ]
        down[1].write(b"\r\n")
        unread[1].write(b"\r\n")
        line = b'{"key":"up"}\n'
        chunk = b"%x\r\n%b\r\n" % (len(line), line)
        up[1].write(b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        for reader, _ in (down, up, unread):
            await reader.readuntil(b"\r\n\r\n")
        assert b"201" in await up[0].readuntil(b"}\n\r\n")
        store.process.send_signal(signal.SIGSTOP)
        up[1].write(chunk)
        answers = [asyncio.create_task(last_line(reader)) for reader, _ in (down, up)]
        assert [(await ask(f"{server.url}/livez"))[0] for _ in range(20)] == [200] * 20
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        codes = [last["problem"]["code"] for last in await asyncio.gather(*answers)]
        assert await asyncio.wait_for(server.process.wait(), 20) == 0
        assert time.monotonic() - begun < 4.5
        for _, writer in (down, up, unread):
            writer.close()
    assert codes == ["unavailable", "outcome_unknown"]
    assert any("unavailable: the server has stopped" in line for line in server.said)
    assert not any("Exception" in line or "ASGI" in line for line in server.said)


async def test_where_the_first_cannot_start_none_is_and_it_is_said_once(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    code, said = await hookline(
        "serve", "--port", "0", "--data", str(tmp_path / "data"), "--store", url, "--workers", "3"
    )
    assert code == 1
    assert said.count("hookline: ") == 2, said
    assert "could not start" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--roles", "web"), "--roles: expected one or more of api, relay, orchestrator, separated by commas"),
        (("--roles", ","), "--roles: expected one or more of"),
        (("--workers", "0"), "--workers: expected a number from 1 to 256"),
        (("--name", "a b"), "--name: expected up to 128 letters"),
    ],
)
async def test_what_cannot_be_run_is_refused(tmp_path: Path, args: tuple[str, ...], sentence: str) -> None:
    code, said = await hookline("serve", "--port", "0", "--data", str(tmp_path / "data"), *args)
    assert (code, sentence in said) == (2, True), said
