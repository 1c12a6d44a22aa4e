"""NDJSON, a JSON value a line: read and written piece by piece, never as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hookline.errors import HooklineError
from hookline_server.answer import FIELDS, GZIP, THREAD_FROM, VARY, content_type
from hookline_server.negotiate import LINES, takes_gzip
from hookline_server.problem import Problem, cut_off, problem_of


async def split(
    pieces: AsyncIterator[bytes], most: int, hold: Callable[[int], None] = lambda _: None
) -> AsyncGenerator[list[tuple[int, bytes | None]], None]:
    """The lines that each piece completes, with their numbers from 1 on; None for one of more bytes than ``most``.

    Blank lines count and are left out. Each piece is asked for when its forerunner's lines have been dealt with.
    ``hold`` is told, piece by piece, how many bytes of a line that has no end yet are kept.

    Raises:
        Exception: what ``hold`` raises.
    """
    held, number, oversize = bytearray(), 0, False
    async for piece in pieces:
        found: list[tuple[int, bytes | None]] = []
        *ends, rest = piece.split(b"\n")
        for end in ends:
            number += 1
            line = bytes(held) + end if held else end
            held.clear()
            if oversize or len(line) > most:
                found.append((number, None))
            elif line.strip():
                found.append((number, line))
            oversize = False
        if not oversize:
            held += rest
        if len(held) > most:
            oversize = True
            held.clear()
        hold(len(held))
        if found:
            yield found
    if oversize or held.strip():
        yield [(number + 1, None if oversize else bytes(held))]


def join(values: Iterable[Any]) -> bytes:
    """Values -> their lines."""
    return b"".join([msgspec.json.encode(value) + b"\n" for value in values])


async def while_read(request: Request, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The parts, as long as the client is there. The body must have been read.

    Raises:
        ClientDisconnect: it went.
    """
    # With the body read, the next message is that of the end of the connection.
    gone = asyncio.ensure_future(request.receive())
    try:
        async with aclosing(parts):
            async for part in parts:
                if gone.done():
                    raise ClientDisconnect
                yield part
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


class Stream(Response):
    """An answer of lines, sent as they come and as fast as the client reads.

    ``parts`` are bytes of whole lines, of which no more than one is made before the client has taken the one before.
    Where making them fails before the first, the answer is the problem document. Later the status has been told, so the
    last line is ``{"problem": ...}`` and the answer is broken off: a client cannot take it for the whole. Where the
    server stops, who does not read at that moment gets no last line.
    """

    def __init__(
        self, parts: AsyncGenerator[bytes, None], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._parts = parts
        self.status_code = status
        self.background = None
        self._more = headers or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send; with HEAD only the head."""
        encodings = scope[FIELDS].get(b"accept-encoding")
        packer = zlib.compressobj(1, wbits=GZIP) if encodings and takes_gzip(encodings) else None
        headers = [VARY, content_type(LINES)]
        headers += [(name.lower().encode(), text.encode("latin-1")) for name, text in self._more.items()]
        if packer:
            headers.append((b"content-encoding", b"gzip"))
        start = {"type": "http.response.start", "status": self.status_code, "headers": headers}
        async with aclosing(self._parts):
            first = await anext(self._parts, b"")
            await send(start)
            if scope["method"] != "HEAD":
                await self._send(first, packer, scope, send)
        await send({"type": "http.response.body", "body": packer.flush() if packer else b""})

    async def _send(self, first: bytes, packer: Any, scope: Scope, send: Send) -> None:
        """Send all parts.

        Raises:
            Problem, HooklineError: that was not the whole; the last line has told why.
        """

        def pack(part: bytes) -> bytes:
            packed: bytes = packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
            return packed

        async def put(part: bytes) -> None:
            if packer and part:
                part = pack(part) if len(part) < THREAD_FROM else await asyncio.to_thread(pack, part)
            await send({"type": "http.response.body", "body": part, "more_body": True})

        try:
            await put(first)
            async for part in self._parts:
                await put(part)
        except (Problem, HooklineError) as error:
            await put(join([{"problem": problem_of(error).document()}]))
            raise
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await put(join([{"problem": cut_off(scope).document()}]))
            raise
