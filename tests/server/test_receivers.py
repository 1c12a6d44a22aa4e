"""Receivers that misbehave: what becomes of their deliveries, and that another endpoint gets its own meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from conftest import wait_until
from hookline import Datastore
from hookline_server.endpoint import Endpoints, lane_of
from hookline_server.event import endpoint_of
from receiver import receiving
from relays import relaying, start_job

pytestmark = pytest.mark.settings(call_timeout=5.0, tick=0.05, delivery_schedule=(0.05,), delivery_timeout=1.0)

BAD, GOOD = 3, 20
ANSWER_MAX = 65_536


@dataclass
class Wild:
    """A server of raw bytes. ``sent`` is how many bytes it could get rid of."""

    answer: Callable[[Wild, asyncio.StreamWriter], Awaitable[None]]
    requests: int = 0
    sent: int = 0
    port: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests and answer each in its own way."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        ended = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*ended):
            while first := await reader.readexactly(1):
                if first == b"\x16":  # a TLS handshake, which is not understood here
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                self.requests += 1
                await self.answer(self, writer)

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send, and count what went."""
        writer.write(data)
        await writer.drain()
        self.sent += len(data)


@contextlib.asynccontextmanager
async def wild(answer: Callable[[Wild, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Wild]:
    it = Wild(answer)
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for task in it.tasks:
            task.cancel()
        await asyncio.gather(*it.tasks, return_exceptions=True)
        await server.wait_closed()


def says(head: str, body: bytes = b"") -> Callable[[Wild, asyncio.StreamWriter], Awaitable[None]]:
    """Always the same answer."""

    async def answer(it: Wild, writer: asyncio.StreamWriter) -> None:
        await it.send(writer, f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return answer


async def hangs(_it: Wild, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(100)


async def hangs_after_its_head(it: Wild, writer: asyncio.StreamWriter) -> None:
    await it.send(writer, b"HTTP/1.1 500 Trouble\r\nContent-Length: 9\r\n\r\n")
    await asyncio.sleep(100)


async def never_ends(it: Wild, writer: asyncio.StreamWriter) -> None:
    await it.send(writer, b"HTTP/1.1 500 Trouble\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await it.send(writer, b"1000\r\n" + b"x" * 4096 + b"\r\n")


async def resets(_it: Wild, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


BOMB = gzip.compress(bytes(20 << 20), mtime=0)
MISBEHAVIOURS = {
    "500": (says("500 Trouble", b"why"), "HTTP 500: why"),
    "hangs": (hangs, "timeout"),
    "hangs after its head": (hangs_after_its_head, "timeout"),
    "endless body": (never_ends, "too_large"),
    "gzip bomb": (says("500 Trouble\r\nContent-Encoding: gzip", BOMB), "HTTP 500"),
    "redirect": (says("302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/"), "redirect"),
    "reset": (resets, "disconnected"),
    "no TLS": (says("200 OK"), "tls"),
}


async def _failed(datastore: Datastore, url: str) -> list[Any]:
    items = (await datastore.query(lane_of(endpoint_of(url)), where={"status": "failed"})).items
    return items if len(items) == BAD else []


@pytest.mark.parametrize("kind", MISBEHAVIOURS)
async def test_what_misbehaves_is_a_dead_letter_and_delays_nobody(datastore: Datastore, kind: str) -> None:
    answer, told = MISBEHAVIOURS[kind]
    async with wild(answer) as bad, receiving() as good, relaying(datastore):
        url = f"http{'s' if kind == 'no TLS' else ''}://127.0.0.1:{bad.port}/run"
        for number in range(BAD):
            await start_job(datastore, url, f"bad-{number}")
        for number in range(GOOD):
            await start_job(datastore, good.url, f"good-{number}")
        await good.wait_for(GOOD)
        for item in await wait_until(lambda: _failed(datastore, url)):
            assert item.metadata["last_error"].startswith(told)
            assert [attempt["error"] or f"HTTP {attempt['status']}" for attempt in item.metadata["attempt_log"]] == [
                told.split(":")[0]
            ] * 2
            assert len(item.metadata["last_error"]) < 300
        # What one sends without end is not taken: as much as our limit, and what the sockets hold, for each attempt.
        assert bad.sent < 2 * BAD * (ANSWER_MAX + (8 << 20))
    assert len({post.headers["webhook-id"] for post in good.posts}) == GOOD


async def test_too_many_requests_hold_the_endpoint_off_for_all(datastore: Datastore) -> None:
    """The first answer says when; what comes until then waits in the lane, without an attempt."""
    answers = [says("429 Too Many\r\nRetry-After: 2")]

    async def answer(it: Wild, writer: asyncio.StreamWriter) -> None:
        await (answers.pop(0) if answers else says("204 Taken"))(it, writer)

    async with wild(answer) as busy, relaying(datastore):
        url = f"http://127.0.0.1:{busy.port}/run"
        await start_job(datastore, url, "a")

        async def held() -> bool:
            known = await Endpoints(datastore).find([endpoint_of(url)])
            return bool(known) and known[endpoint_of(url)].retry_at > 0

        await wait_until(held)
        for name in "bc":
            await start_job(datastore, url, name)
        await wait_until(lambda: busy.requests == 4)

        async def done() -> list[Any]:
            return (await datastore.query(lane_of(endpoint_of(url)), where={"status": "completed"})).items

        (first,) = await wait_until(done)
    told = first.metadata["attempt_log"]
    assert [attempt["status"] for attempt in told] == [429, 204], "b and c waited: no attempt of theirs failed"


async def test_slow_endpoints_together_do_not_use_up_the_relay(datastore: Datastore) -> None:
    """Each may hold as many slots as its lane is wide, and more endpoints than there are slots for."""
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(wild(hangs)) for _ in range(6)]
        good = await stack.enter_async_context(receiving())
        await stack.enter_async_context(relaying(datastore))
        for place, it in enumerate(slow):
            for number in range(14):
                await start_job(datastore, f"http://127.0.0.1:{it.port}/run", f"{place}-{number}")
        await wait_until(lambda: sum(it.requests for it in slow) >= 40)
        await start_job(datastore, good.url, "good")
        await good.wait_for(1)
