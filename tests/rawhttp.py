"""HTTP by the byte, for what no client would send: a connection, and answers read strictly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from api import Answer


@dataclass(frozen=True)
class Line:
    """One connection to a server of ours."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        """Send the pieces one by one; a server that has closed the connection is not an error."""
        for piece in pieces:
            with contextlib.suppress(ConnectionError):
                self.writer.write(piece)
                await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer, whatever its length is told by.

        Raises:
            EOFError: the connection ends before, or within it.
        """
        head = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status, _ = head[0].split(" ", 2)
        assert version == "HTTP/1.1", head[0]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        if status == "100":
            return Answer(100, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self._until(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self._until(b"\r\n")
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(status), headers, body)

    async def _until(self, end: bytes) -> bytes:
        try:
            return await self.reader.readuntil(end)
        except ConnectionError as error:
            raise EOFError from error

    async def rest(self, seconds: float = 10) -> list[Answer]:
        """All answers until the server ends the connection, which it has to do within so many seconds."""
        answers = []
        async with asyncio.timeout(seconds):
            with contextlib.suppress(EOFError):
                while True:
                    answers.append(await self.answer())
        return answers


@contextlib.asynccontextmanager
async def dialled(port: int, source: str = "127.0.0.1", room: int | None = None) -> AsyncIterator[Line]:
    """A connection from an address of loopback. ``room`` are the bytes that it holds before they are read."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.socket())
        if room:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.setblocking(False)
        connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        stack.pop_all()
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 20)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(method: str, path: str, body: object = None, *, close: bool = False, **headers: str) -> bytes:
    """A request as it should be; ``_`` in the names of headers stands for ``-``."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(content)}", "Content-Type: application/json"] if body is not None else []
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode() + content
