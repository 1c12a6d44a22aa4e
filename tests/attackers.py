"""Clients that mean no good, as many as are asked for, each over and over until the time is up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import cycle, repeat

from rawhttp import Line, dialled, request
from smuggling import CASES

ADDRESS = "127.0.0.66"
"""Where they come from."""
BIG = "big"
"""The key whose items they ask for and do not read."""
MIB = 1 << 20
_PAUSE = 0.5
"""Seconds between two bytes of who is slow."""
Attack = Callable[[Line], Awaitable[str]]
"""One connection's worth -> how it ended."""


def _post(body: bytes, kind: str = "application/json") -> bytes:
    return request("POST", "/v1/items", close=True, Content_Type=kind, Content_Length=str(len(body))) + body


def _filled(start: bytes, part: bytes, end: bytes = b"1]") -> bytes:
    return start + part * ((MIB - len(start) - len(end)) // len(part)) + end


def bombs() -> Iterable[bytes]:
    """Bodies within the limit of size that are as much work as they can be."""
    item = b'{"key":"jobs","sortField":"bomb","content":['
    for body in (
        b"[" * MIB,
        b'{"a":' * (MIB // 5),
        _filled(item, b"9" * 50_000 + b",", b"1]}"),
        _filled(item, b"1e999,", b"1]}"),
        _filled(item, b'{"a":1,"a":1},', b"1]}"),
        _filled(item, b'{"a":1},', b"x"),
        _filled(item, b"18446744073709551616,", b"1]}"),
    ):
        yield _post(body)
    mappings = b"\xdd" + (MIB - 5).to_bytes(4, "big") + b"\x80" * (MIB - 5)
    for body in (b"\x91" * MIB, b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x0f\xff\xff" * (MIB // 5), mappings):
        yield _post(body, "application/vnd.msgpack")


async def _trickled(line: Line, start: bytes) -> str:
    await line.send(start)
    answering = asyncio.create_task(line.rest(60))
    while not answering.done() and not line.writer.is_closing():
        await asyncio.sleep(_PAUSE)
        await line.send(b"y")
    with contextlib.suppress(TimeoutError):
        return " ".join(str(answer.status) for answer in await answering) or "closed"
    return "kept"


async def slow_head(line: Line) -> str:
    """A head that never ends, byte by byte."""
    return await _trickled(line, b"POST /v1/items HTTP/1.1\r\nHost: localhost\r\nX: ")


async def slow_body(line: Line) -> str:
    """A body that never ends, byte by byte."""
    return await _trickled(line, request("POST", "/v1/items", Content_Length="1000000") + b'{"key":"')


async def slow_reader(line: Line) -> str:
    """A large answer that nobody reads, asked for more than once."""
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await line.send(request("GET", f"/v1/items/{BIG}?limit=1000"))
    while not line.writer.is_closing():
        await asyncio.sleep(_PAUSE)
        # A line end between requests is no request: it only finds out whether the connection is still there.
        line.writer.write(b"\r\n")
    return "closed"


async def large_head(line: Line) -> str:
    """A head beyond the limit."""
    await line.send(request("GET", "/livez", X="y" * 60_000))
    return " ".join(str(answer.status) for answer in await line.rest(60))


@contextlib.asynccontextmanager
async def attacked(port: int, slow: int) -> AsyncIterator[Counter[str]]:
    """Attack a server with so many slow clients, and beside them large heads, bombs and the corpus, in turns.

    Gives a count of how connections ended, which grows meanwhile.
    """
    ends: Counter[str] = Counter()

    async def go_on(name: str, attacks: Iterable[Attack]) -> None:
        for attack in attacks:
            room = 8192 if attack is slow_reader else None
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async with dialled(port, ADDRESS, room) as line:
                    ends[f"{name}: {await attack(line)}"] += 1
            await asyncio.sleep(0.02)

    def sending(data: bytes) -> Attack:
        async def attack(line: Line) -> str:
            await line.send(data)
            return " ".join(str(answer.status) for answer in await line.rest(60))

        return attack

    corpus = [sending(case.data) for case in CASES if case.closes]
    kinds = [("slow head", slow_head)] * (slow // 2) + [("slow body", slow_body)] * (slow * 3 // 10)
    kinds += [("slow reader", slow_reader)] * (slow - len(kinds))
    clients = [asyncio.create_task(go_on(name, repeat(attack))) for name, attack in kinds]
    for name, attacks in (
        ("large head", repeat(large_head)),
        ("bomb", cycle(map(sending, bombs()))),
        ("corpus", cycle(corpus)),
    ):
        clients.append(asyncio.create_task(go_on(name, attacks)))
    try:
        yield ends
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def large_items(count: int) -> Iterable[bytes]:
    """Requests that make what the slow readers ask for."""
    for number in range(count):
        item = {"key": BIG, "sortField": str(number), "content": "x" * 900_000}
        yield request("POST", "/v1/items", item)
