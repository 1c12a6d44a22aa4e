"""The connections that posts share: how answers end, what is used again, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conftest import end, wait_until
from hookline import url as urls
from hookline_server import pool
from hookline_server.egress import Answer, Egress
from hookline_server.pool import Pool
from server.test_egress import HEADERS, Receiver, Reply, answers, hangs, receiver

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"


@pytest.fixture
async def egress(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Egress]:
    """May reach loopback; reads up to 1000 bytes of an answer, and keeps connections for as long as a test takes."""
    monkeypatch.setattr(pool, "KEEP_ALIVE", 60.0)
    made = Egress(allow_loopback=True, deadline=20.0, answer_max=1000)
    yield made
    await made.close()


def pool_of(egress: Egress) -> Pool:
    assert isinstance(egress._client, Pool)
    return egress._client


def writes(*parts: bytes, close: bool = False) -> Reply:
    """The same bytes to every request, in so many writes."""

    async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        if close:
            writer.close()

    return reply


async def post_twice(egress: Egress, it: Receiver) -> tuple[Answer, Answer]:
    return await egress.post(it.url, b"1", HEADERS), await egress.post(it.url, b"2", HEADERS)


@pytest.mark.parametrize(
    ("parts", "excerpt"),
    [
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"1;x=y\r\nc\r\n0\r\nT: x\r\n\r\n"],
            "abc",
        ),
        ([b"HTTP/1.1 103 Early\r\nRetry-After: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"], "x"),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"], ""),
        ([b"HTTP/1.1 200", b" OK\r\ncontent-le", b"ngth: 4\r\n\r", b"\nab", b"cd"], "abcd"),
    ],
)
async def test_an_answer_is_whole_and_its_connection_used_again(
    parts: list[bytes], excerpt: str, egress: Egress
) -> None:
    async with receiver(writes(*parts)) as it:
        for answer in await post_twice(egress, it):
            assert (answer.error, answer.excerpt, answer.retry_after) == (None, excerpt, None)
    assert (it.connections, len(it.requests)) == (1, 2)


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfirst"],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" + SECOND],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst", b"HTTP/1.1 200", SECOND],
    ],
)
async def test_a_connection_that_says_more_than_it_was_asked_for_is_not_used_again(
    parts: list[bytes], egress: Egress
) -> None:
    async with receiver(writes(*parts)) as it:
        first = await egress.post(it.url, b"1", HEADERS)
        await wait_until(lambda: not pool_of(egress)._open)
        second = await egress.post(it.url, b"2", HEADERS)
    assert [answer.excerpt for answer in (first, second)] == ["first", "first"]
    assert it.connections == 2


async def test_without_a_length_an_answer_ends_with_its_connection(egress: Egress) -> None:
    async with receiver(writes(b"HTTP/1.1 200 OK\r\n\r\nuntil", b" the end", close=True)) as it:
        for answer in await post_twice(egress, it):
            assert (answer.status, answer.error, answer.excerpt) == (200, None, "until the end")
    assert it.connections == 2


@pytest.mark.parametrize(
    ("head", "more", "error"),
    [
        (b"HTTP/1.1 103 Early\r\n\r\n", b"HTTP/1.1 103 Early\r\nX: x\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", "protocol"),
        (CHUNKED + b"1;", b"x", "protocol"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: x\r\n", "protocol"),
        (CHUNKED, b"1\r\nx\r\n", "too_large"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x", "too_large"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", b"x", "protocol"),
    ],
)
async def test_endless_answers_are_cut_off(head: bytes, more: bytes, error: str, egress: Egress) -> None:
    """Whatever part of it is endless, long before the deadline."""

    async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(more * 1000)
            await writer.drain()

    async with receiver(reply) as it:
        answer = await egress.post(it.url, b"{}", HEADERS)
        await it.gone.wait()
    assert answer.error == error


async def test_idle_connections_are_closed(egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_of(egress)._resting, "_seconds", 0.05)
    async with receiver(answers()) as it:
        assert (await egress.post(it.url, b"{}", HEADERS)).ok
        await it.gone.wait()
        assert (await egress.post(it.url, b"{}", HEADERS)).ok
        await wait_until(lambda: not pool_of(egress)._places and not pool_of(egress)._open)  # nothing stays of them
    assert it.connections == 2


async def test_what_the_receiver_closes_is_not_used_again(egress: Egress) -> None:
    async with receiver(answers(close=True)) as it:
        for _ in range(3):
            assert (await egress.post(it.url, b"{}", HEADERS)).ok
            await wait_until(lambda: not pool_of(egress)._open)
    assert it.connections == 3


async def test_what_the_receiver_closes_just_then_is_sent_once_more(egress: Egress) -> None:
    """But not what it has begun to answer, nor over a new connection that ends."""
    ends: dict[bytes, bytes | None] = {b"kept": b"", b"half": b"HTTP/1.1 2", b"new": None}
    times: Counter[bytes] = Counter()

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        times[body] += 1
        if times[body] == 1 and (begun := ends.get(body)) is not None:
            writer.write(begun)
            writer.close()
        elif body == b"new":
            writer.close()
        else:
            await answers()(request, writer)

    async with receiver(reply) as it:
        errors = [(await egress.post(it.url, body, HEADERS)).error for body in (b"1", b"kept", b"half", b"new")]
    assert errors == [None, None, "disconnected", "disconnected"]
    assert times == {b"1": 1, b"kept": 2, b"half": 1, b"new": 1}


async def test_of_many_that_were_closed_just_then_one_is_tried(egress: Egress) -> None:
    """The post goes on over a new connection then: it arrives twice at most."""
    bodies: list[bytes] = []
    ends = False
    go = asyncio.Event()

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        bodies.append(request.partition(b"\r\n\r\n")[2])
        if ends and bodies.count(b"late") < 3:
            writer.close()
            return
        await go.wait()
        await answers()(request, writer)

    async with receiver(reply) as it:
        first = [asyncio.create_task(egress.post(it.url, b"early", HEADERS)) for _ in range(3)]
        await wait_until(lambda: len(bodies) == 3)
        go.set()
        await asyncio.gather(*first)
        ends = True
        assert (await egress.post(it.url, b"late", HEADERS)).error == "disconnected"
    assert bodies.count(b"late") == 2


async def test_an_answer_to_half_a_request_ends_its_connection(egress: Egress) -> None:
    """What is left of it is read by nobody, and what came next would wait behind that."""

    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    large = await egress.post(url, b"x" * 30_000_000, HEADERS)
    small = await asyncio.wait_for(egress.post(url, b"{}", HEADERS), 10)
    assert (large.status, small.status) == (413, 413)
    ends.set()
    server.close()
    await server.wait_closed()


async def test_one_that_keeps_its_connections_leaves_some_to_others() -> None:
    async with receiver(hangs) as deaf, receiver(answers()) as it:
        egress = Egress(allow_loopback=True, connections=6)
        kept = [asyncio.create_task(egress.post(deaf.url, b"{}", HEADERS, payer="one")) for _ in range(20)]
        await wait_until(lambda: len(deaf.requests) == 4)
        for _ in range(3):
            assert (await egress.post(it.url, b"{}", HEADERS, payer="other")).ok
        assert len(deaf.requests) == 4
        await egress.close()
        for task in kept:
            task.cancel()
        await asyncio.gather(*kept, return_exceptions=True)


async def test_a_kept_connection_has_a_deadline_too() -> None:
    async with contextlib.AsyncExitStack() as stack:
        egress = Egress(allow_loopback=True, deadline=0.25)
        stack.push_async_callback(egress.close)
        it = await stack.enter_async_context(receiver(answers()))
        assert (await egress.post(it.url, b"{}", HEADERS)).ok
        it.reply = hangs
        answer = await egress.post(it.url, b"{}", HEADERS)
        assert (answer.error, it.connections) == ("timeout", 1)
        assert 250 <= answer.duration_ms < 2500
        await it.gone.wait()


async def test_cancelled_a_post_closes_its_connection(egress: Egress) -> None:
    async with receiver(hangs) as it:
        task = asyncio.create_task(egress.post(it.url, b"{}", HEADERS))
        await wait_until(lambda: it.requests)
        await end(task)
        await it.gone.wait()
        it.reply = answers()
        assert (await egress.post(it.url, b"{}", HEADERS)).ok
    assert it.connections == 2


async def test_closed_the_pool_ends_what_is_under_way_and_takes_no_more(egress: Egress) -> None:
    async with receiver(hangs) as it:
        task = asyncio.create_task(egress.post(it.url, b"{}", HEADERS))
        await wait_until(lambda: it.requests)
        await egress.close()
        assert (await task).error == "disconnected"
        with pytest.raises(RuntimeError):
            await egress.post(it.url, b"{}", HEADERS)


@pytest.mark.parametrize("limit", ["connections", "connections_per_host"])
async def test_who_waits_gives_its_place_back_when_cancelled(limit: str) -> None:
    go = asyncio.Event()

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await answers()(request, writer)

    options: dict[str, Any] = {limit: 1}
    egress = Egress(allow_loopback=True, **options)
    async with receiver(reply) as it:
        tasks = [asyncio.create_task(egress.post(it.url, b"{}", HEADERS)) for _ in range(4)]
        await wait_until(lambda: it.requests)
        tasks[1].cancel()
        go.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(each, Answer) and each.ok for each in ended] == [True, False, True, True]
    assert it.connections == 1
    await egress.close()


async def test_a_url_is_parsed_once(egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the address is checked all the same: at each connection."""
    parsed: list[str] = []
    check = urls.check_url

    def checked(url: str) -> None:
        parsed.append(url)
        check(url)

    monkeypatch.setattr(urls, "check_url", checked)
    async with receiver(answers()) as it:
        assert all(answer.ok for answer in await post_twice(egress, it))
        assert parsed == [it.url]
        monkeypatch.setattr(egress, "_allow_loopback", False)
        assert (await egress.post(it.url, b"{}", HEADERS)).ok, "the connection stands, to an address that was allowed"
        it.reply = answers(close=True)
        await egress.post(it.url, b"{}", HEADERS)
        await wait_until(lambda: not pool_of(egress)._open)
        assert (await egress.post(it.url, b"{}", HEADERS)).error == "refused_address"
