"""Receivers that misbehave: what becomes of their deliveries, and that another endpoint gets its own meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import wait_until
from hookline import Datastore
from hookline_server.endpoint import Endpoints, lane_of
from hookline_server.event import endpoint_of
from receiver import receiving
from relays import relaying, start_job
from server.test_egress import Reply, answers, hangs, receiver

pytestmark = pytest.mark.settings(call_timeout=5.0, tick=0.05, delivery_schedule=(0.05,), delivery_timeout=1.0)

BAD, GOOD = 3, 20
ANSWER_MAX = 65_536
CHUNK = b"1000\r\n" + b"x" * 4096 + b"\r\n"


@dataclass
class Endless:
    """Answers with chunks without end; ``sent`` is how many bytes it could get rid of."""

    sent: int = 0

    async def __call__(self, _request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Trouble\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(CHUNK)
            await writer.drain()
            self.sent += len(CHUNK)


async def resets(_request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


BOMB = gzip.compress(bytes(20 << 20), mtime=0)
MISBEHAVIOURS: dict[str, tuple[Reply, str]] = {
    "500": (answers("500 Trouble", b"why"), "HTTP 500: why"),
    "hangs": (hangs, "timeout"),
    "hangs after its head": (answers("500 Trouble", length=9), "timeout"),
    "endless body": (Endless(), "too_large"),
    "gzip bomb": (answers("500 Trouble", BOMB, "Content-Encoding: gzip"), "HTTP 500"),
    "redirect": (answers("302 Found", b"", "Location: http://169.254.169.254/latest/meta-data/"), "redirect"),
    "reset": (resets, "disconnected"),
    "no TLS": (answers(), "tls"),
}


async def _failed(datastore: Datastore, url: str) -> list[Any]:
    items = (await datastore.query(lane_of(endpoint_of(url)), where={"status": "failed"})).items
    return items if len(items) == BAD else []


@pytest.mark.parametrize("kind", MISBEHAVIOURS)
async def test_what_misbehaves_is_a_dead_letter_and_delays_nobody(datastore: Datastore, kind: str) -> None:
    reply, told = MISBEHAVIOURS[kind]
    async with receiver(reply) as bad, receiving() as good, relaying(datastore):
        url = good.url.replace("http:", "https:") if kind == "no TLS" else bad.url
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
        assert not isinstance(reply, Endless) or 0 < reply.sent < 2 * BAD * (ANSWER_MAX + (8 << 20))
    assert len({post.headers["webhook-id"] for post in good.posts}) == GOOD


async def test_too_many_requests_hold_the_endpoint_off_for_all(datastore: Datastore) -> None:
    """The first answer says when; what comes until then waits in the lane, without an attempt."""
    replies = [answers("429 Too Many", b"", "Retry-After: 2")]

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        await (replies.pop(0) if replies else answers("204 Taken"))(request, writer)

    async with receiver(reply) as busy, relaying(datastore):
        url = busy.url
        await start_job(datastore, url, "a")

        async def held() -> bool:
            known = await Endpoints(datastore).find([endpoint_of(url)])
            return bool(known) and known[endpoint_of(url)].retry_at > 0

        await wait_until(held)
        for name in "bc":
            await start_job(datastore, url, name)
        await wait_until(lambda: len(busy.requests) == 4)

        async def done() -> list[Any]:
            return (await datastore.query(lane_of(endpoint_of(url)), where={"status": "completed"})).items

        (first,) = await wait_until(done)
    told = first.metadata["attempt_log"]
    assert [attempt["status"] for attempt in told] == [429, 204], "b and c waited: no attempt of theirs failed"


async def test_slow_endpoints_together_do_not_use_up_the_relay(datastore: Datastore) -> None:
    """Each may hold as many slots as its lane is wide, and more endpoints than there are slots for."""
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(receiver(hangs)) for _ in range(6)]
        good = await stack.enter_async_context(receiving())
        await stack.enter_async_context(relaying(datastore))
        for place, it in enumerate(slow):
            for number in range(14):
                await start_job(datastore, it.url, f"{place}-{number}")
        await wait_until(lambda: sum(len(it.requests) for it in slow) >= 40)
        await start_job(datastore, good.url, "good")
        await good.wait_for(1)
