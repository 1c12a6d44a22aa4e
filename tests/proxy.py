"""A proxy between the engine and the store that mistreats the calls it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOSE_CALL = b"lose call"
"""The connection ends before the store has seen the call."""
LOSE_REPLY = b"lose reply"
"""The store runs the call; its reply is lost with the connection."""
KEEP_REPLY = b"keep reply"
"""The store runs the call; its reply never comes and the connection stays open."""
CALL_LATE = b"call late"
"""The store gets the call only when :attr:`Proxy.late` is set; nobody is there for the reply."""
TWICE_FIRST = b"twice, first reply"
"""The store runs the call twice, as if it had been sent again blindly; the reply to the first is passed on."""
TWICE_LAST = b"twice, last reply"
"""The same; the reply to the second is passed on."""
LOSE_STORE = b"lose store"
"""The store runs the call; its reply is lost, and so is every connection from then on."""


@dataclass
class Proxy:
    """Passes commands on, one by one. ``url`` is where the engine finds it.

    ``faults`` are for the next FCALLs, one each: one of those above, or the raw answer to give in place of the
    store's. ``fault_at`` are for commands of any kind, by their place in ``commands``: the names of all that came,
    those included that begin a connection. ``answers`` are raw answers by command. ``calls`` are the arguments of each
    FCALL that came. ``lost`` are scripts whose calls the store does not see. ``pauses`` are seconds before the next
    CLIENTs, which begin a connection. ``links_max`` is the most connections that there were at once. ``store_lost`` is
    what LOSE_STORE sets.
    """

    socket: str
    url: str = ""
    faults: deque[bytes] = field(default_factory=deque)
    fault_at: dict[int, bytes] = field(default_factory=dict)
    commands: list[bytes] = field(default_factory=list)
    answers: dict[bytes, bytes] = field(default_factory=dict)
    pauses: deque[float] = field(default_factory=deque)
    calls: list[list[bytes]] = field(default_factory=list)
    lost: set[bytes] = field(default_factory=set)
    late: asyncio.Event = field(default_factory=asyncio.Event)
    links_max: int = 0
    store_lost: bool = False
    _server: asyncio.Server | None = None
    _links: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close every connection; from now on new ones are refused."""
        if self._server:
            self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Close every connection; new ones are accepted."""
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    def call_ids(self) -> list[bytes]:
        """The call id of every script call that came and writes."""
        return [arguments[5] for arguments in self.calls]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._serve(reader, writer))
        self._links.add(link)
        self.links_max = max(self.links_max, len(self._links))
        link.add_done_callback(self._links.discard)
        # Also where it is cancelled before it has begun, and so cannot do that itself.
        link.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_unix_connection(self.socket)
        try:
            # EOF and resets are how connections end here.
            with contextlib.suppress(EOFError, ConnectionError):
                while await self._pass_on(reader, writer, store_reader, store_writer):
                    pass
        finally:
            for end in (writer, store_writer):
                end.close()
            for end in (writer, store_writer):
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        store_reader: asyncio.StreamReader,
        store_writer: asyncio.StreamWriter,
    ) -> bool:
        """One command and its reply -> whether the connection goes on."""
        packed, arguments = await _read_command(reader)
        name = arguments[0].upper()
        fault = self._fault_of(name, arguments)
        if name == b"CLIENT" and self.pauses:
            await asyncio.sleep(self.pauses.popleft())
        answer = (fault[:1] in (b"-", b"$", b"+", b"*") and fault) or self.answers.get(name)
        if fault == LOSE_CALL or self.store_lost:
            return False
        if fault == CALL_LATE:
            await self.late.wait()
        if not answer:
            store_writer.write(packed)
            answer = await _read_reply(store_reader)
        if fault in (TWICE_FIRST, TWICE_LAST):
            store_writer.write(packed)
            again = await _read_reply(store_reader)
            answer = again if fault == TWICE_LAST else answer
        if fault == KEEP_REPLY:
            await reader.read()
        self.store_lost |= fault == LOSE_STORE
        if fault in (LOSE_REPLY, KEEP_REPLY, LOSE_STORE):
            return False
        writer.write(answer)
        await writer.drain()
        return True

    def _fault_of(self, name: bytes, arguments: list[bytes]) -> bytes:
        """Note a command -> what is to befall it."""
        fault = self.fault_at.pop(len(self.commands), b"")
        self.commands.append(name)
        if name == b"FCALL":
            self.calls.append(arguments)
            if any(arguments[1].endswith(script) for script in self.lost):
                return LOSE_CALL
            fault = fault or (self.faults.popleft() if self.faults else b"")
        return fault


async def _read_command(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    head = await reader.readuntil(b"\r\n")
    packed, arguments = [head], []
    for _ in range(int(head[1:])):
        size = await reader.readuntil(b"\r\n")
        argument = await reader.readexactly(int(size[1:]) + 2)
        packed += [size, argument]
        arguments.append(argument[:-2])
    return b"".join(packed), arguments


async def _read_reply(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n")
    size = int(head[1:]) if head[:1] in (b"$", b"*") else -1
    if head[:1] == b"$" and size >= 0:
        return head + await reader.readexactly(size + 2)
    if head[:1] == b"*":
        return head + b"".join([await _read_reply(reader) for _ in range(size)])
    return head


@contextlib.asynccontextmanager
async def proxied(store_url: str) -> AsyncIterator[Proxy]:
    """A proxy before the store at this ``unix://`` URL."""
    proxy = Proxy(urlsplit(store_url).path)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
