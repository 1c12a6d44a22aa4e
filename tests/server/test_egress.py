"""The guarded client against real servers on the loopback interface: what it sends, and what it does not reach."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import logging
import os
import socket
import ssl
import struct
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from certificates import certificate
from conftest import end, wait_until
from hookline.url import check_url
from hookline_server.egress import Answer, Egress

CANARY = "canary-5c1d-api-key"
HEADERS = {"Content-Type": "application/json", "X-API-KEY": CANARY, "webhook-id": "default-0-1-0"}
PUBLIC = "93.184.216.34"  # is never dialled: see the fixture ``dialled``

Reply = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server that counts its connections, keeps the requests and answers each by ``reply``."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.connections = 0
        self.open = 0
        self.open_max = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        """Set as soon as a connection has ended."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/run"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.open += 1
        self.open_max = max(self.open, self.open_max)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields.get(b"content-length", 0)))
                self.requests.append(head + body)
                await self.reply(head + body, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self.gone.set()
            writer.close()


@asynccontextmanager
async def receiver(
    reply: Reply, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    it = Receiver(reply)
    server = await asyncio.start_server(it.serve, host, port, ssl=tls)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for task in it.tasks:
            task.cancel()
        await asyncio.gather(*it.tasks, return_exceptions=True)
        await server.wait_closed()


def answers(
    status: str = "200 OK", body: bytes = b"", *fields: str, length: int | None = None, close: bool = False
) -> Reply:
    """Always the same answer; ``length`` lies about its body."""

    async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *fields]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()
        if close:
            writer.close()

    return reply


async def hangs(_request: bytes, _writer: asyncio.StreamWriter) -> None:
    """Leaves the client waiting, and the server waiting for what the client does next."""


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Egress]]:
    """Makes clients that may reach the loopback interface, and closes them."""
    made: list[Egress] = []

    def build(**options: Any) -> Egress:
        made.append(Egress(**{"allow_loopback": True, "deadline": 20.0} | options))
        return made[-1]

    yield build
    for egress in made:
        await egress.close()


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that passed the guard at the moment of dialling; the public one is then not dialled."""
    seen: list[str] = []
    guarded = Egress._socket

    def spy(self: Egress, info: aiohttp.AddrInfoType) -> socket.socket:
        sock = guarded(self, info)
        seen.append(info[4][0])
        if info[4][0] == PUBLIC:
            sock.close()
            raise ConnectionRefusedError
        return sock

    monkeypatch.setattr(Egress, "_socket", spy)
    return seen


class Names(AbstractResolver):
    """Answers each lookup with the next list of addresses; the last one for ever."""

    def __init__(self, *rounds: Sequence[str]) -> None:
        self.rounds = list(rounds)
        self.lookups: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.lookups.append(host)
        found = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in found
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
async def verbose(caplog: pytest.LogCaptureFixture) -> AsyncIterator[pytest.LogCaptureFixture]:
    """All that asyncio and aiohttp would ever log."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(True)
    yield caplog
    loop.set_debug(before)


class TestWhatIsSent:
    async def test_one_post(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers("200 OK", b"taken")) as it:
            answer = await make().post(it.url + "?a=1", b'{"a":1}', HEADERS)
        assert answer == Answer(200, None, None, answer.duration_ms, "taken", timing=answer.timing)
        assert answer.ok
        assert 0 <= answer.duration_ms < 20_000
        head, _, body = it.requests[0].partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        assert first == "POST /run?a=1 HTTP/1.1"
        assert {field.lower() for field in fields} == {
            f"host: 127.0.0.1:{it.port}",
            "accept: */*",
            "accept-encoding: identity",
            "content-length: 7",
            "content-type: application/json",
            "user-agent: hookline",
            f"x-api-key: {CANARY}",
            "webhook-id: default-0-1-0",
        }
        assert body == b'{"a":1}'

    async def test_large_body(self, make: Callable[..., Egress]) -> None:
        body = os.urandom(3 << 20)
        async with receiver(answers()) as it:
            assert (await make().post(it.url, body, HEADERS)).ok
        assert it.requests[0].endswith(b"\r\n\r\n" + body)

    async def test_connection_is_kept(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers("200 OK", b"taken")) as it:
            egress = make()
            for _ in range(5):
                assert (await egress.post(it.url, b"{}", HEADERS)).ok
        assert (it.connections, len(it.requests)) == (1, 5)

    async def test_cookies_are_dropped(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers("200 OK", b"", "Set-Cookie: session=1; Path=/", "Set-Cookie: \x01bad")) as it:
            egress = make()
            for _ in range(2):
                await egress.post(it.url, b"{}", HEADERS)
        assert len(it.requests) == 2
        assert b"session" not in b"".join(it.requests)

    async def test_environment_is_not_read(
        self, make: Callable[..., Egress], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password hunter2\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        async with receiver(answers()) as it, receiver(answers()) as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            assert (await make().post(it.url, b"{}", HEADERS)).ok
        assert proxy.connections == 0
        assert b"authorization" not in it.requests[0].lower()

    async def test_connections_per_host(self, make: Callable[..., Egress]) -> None:
        go = asyncio.Event()
        taken = asyncio.Semaphore(0)

        async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
            taken.release()
            await go.wait()
            await answers()(request, writer)

        async with receiver(reply) as it:
            egress = make(connections_per_host=2)
            posts = [asyncio.create_task(egress.post(it.url, b"{}", HEADERS)) for _ in range(8)]
            for _ in range(2):
                await taken.acquire()
            go.set()
            assert all(answer.ok for answer in await asyncio.gather(*posts))
        assert it.open_max == 2
        assert len(it.requests) == 8


class TestWhatComesBack:
    @pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content", "299 Fine"])
    async def test_success(self, status: str, make: Callable[..., Egress]) -> None:
        async with receiver(answers(status)) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error, answer.ok) == (int(status[:3]), None, True)

    @pytest.mark.parametrize("status", ["400 Bad", "401 No", "404 Not Found", "410 Gone", "500 Oops", "599 X"])
    async def test_failure(self, status: str, make: Callable[..., Egress]) -> None:
        async with receiver(answers(status, b"out of order\r\n\x1b[31m\x00!")) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error, answer.ok) == (int(status[:3]), None, False)
        assert answer.excerpt == "out of order   [31m !"

    async def test_another_protocol(self, make: Callable[..., Egress]) -> None:
        """What follows a 101 is no HTTP: such a connection must not be used again."""
        async with receiver(answers("101 Switching", b"", "Upgrade: x", "Connection: upgrade")) as it:
            egress = make()
            for _ in range(2):
                answer = await egress.post(it.url, b"{}", HEADERS)
                assert (answer.status, answer.ok) == (101, False)
        assert it.connections == 2

    @pytest.mark.parametrize("value", ["120", "Fri, 31 Dec 1999 23:59:59 GMT", "soon"])
    async def test_retry_after(self, value: str, make: Callable[..., Egress]) -> None:
        async with receiver(answers("429 Slow", b"", f"Retry-After: {value}")) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.retry_after, answer.ok) == (429, value, False)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
    async def test_redirect_is_a_failure(self, status: int, make: Callable[..., Egress]) -> None:
        async with receiver(answers()) as other, receiver(hangs) as it:
            it.reply = answers(f"{status} Over there", b"", f"Location: {other.url}")
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error, answer.ok) == (status, "redirect", False)
        assert (len(it.requests), other.connections) == (1, 0)

    async def test_endless_body(self, make: Callable[..., Egress]) -> None:
        async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()

        async with receiver(reply) as it:
            answer = await make(answer_max=10_000).post(it.url, b"{}", HEADERS)
            await it.gone.wait()  # the connection was closed, not left to run
        assert (answer.status, answer.error, answer.excerpt) == (200, "too_large", "x" * 200)
        assert answer.ok

    @pytest.mark.parametrize(("extra", "error"), [(0, None), (1, "too_large")])
    async def test_cap_is_exact(self, extra: int, error: str | None, make: Callable[..., Egress]) -> None:
        async with receiver(answers("500 Oops", b"x" * (1000 + extra))) as it:
            answer = await make(answer_max=1000).post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error, answer.ok) == (500, error, False)

    async def test_gzip_bomb_is_not_inflated(self, make: Callable[..., Egress]) -> None:
        bomb = gzip.compress(bytes(20 << 20), mtime=0)
        async with receiver(answers("200 OK", bomb, "Content-Encoding: gzip")) as it:
            answer = await make(answer_max=len(bomb)).post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error) == (200, None)

    @pytest.mark.parametrize(
        "reply",
        [
            answers("200 OK", b"{", length=2, close=True),
            answers("200 OK", b"zz\r\n", "Transfer-Encoding: chunked", length=0, close=True),
        ],
    )
    async def test_body_breaks_off(self, reply: Reply, make: Callable[..., Egress]) -> None:
        async with receiver(reply) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert answer.error in ("disconnected", "protocol")
        assert answer.excerpt == ""
        assert not answer.ok

    async def test_reset(self, make: Callable[..., Egress]) -> None:
        async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()  # with this option: RST instead of FIN

        async with receiver(reply) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error) == (None, "disconnected")
        assert len(it.requests) == 1

    async def test_closed_without_a_word(self, make: Callable[..., Egress]) -> None:
        async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with receiver(reply) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error, len(it.requests)) == (None, "disconnected", 1)

    @pytest.mark.parametrize(
        "noise",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ],
    )
    async def test_no_http(self, noise: bytes, make: Callable[..., Egress]) -> None:
        async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(noise)
            await writer.drain()

        async with receiver(reply) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert (answer.status, answer.error) == (None, "protocol")

    async def test_nobody_listens(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers()) as it:
            pass
        assert (await make().post(it.url, b"{}", HEADERS)).error == "connect"


class TestDeadline:
    """One deadline for all of a post, wherever the time goes."""

    async def post(self, egress: Egress, url: str, body: bytes = b"{}") -> Answer:
        answer = await egress.post(url, body, HEADERS)
        assert 250 <= answer.duration_ms < 2_500
        assert answer.error == "timeout"
        assert not answer.ok
        return answer

    async def test_no_answer(self, make: Callable[..., Egress]) -> None:
        async with receiver(hangs) as it:
            answer = await self.post(make(deadline=0.25), it.url)
        assert answer.status is None

    async def test_hang_after_the_head(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers("200 OK", b"half", length=8)) as it:
            answer = await self.post(make(deadline=0.25), it.url)
            await it.gone.wait()  # the connection is closed, not put back
        assert (answer.status, answer.excerpt) == (200, "")

    async def test_trickle(self, make: Callable[..., Egress]) -> None:
        """Each byte comes in time, all of them do not."""

        async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

        async with receiver(reply) as it:
            await self.post(make(deadline=0.25), it.url)
            await it.gone.wait()

    async def test_endless_interim_answers(self, make: Callable[..., Egress]) -> None:
        async def reply(_request: bytes, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

        async with receiver(reply) as it:
            answer = await self.post(make(deadline=0.25), it.url)
            await it.gone.wait()
        assert answer.status is None

    async def test_body_is_not_taken(self, make: Callable[..., Egress]) -> None:
        """The receiver answers at once, in part, and never reads: the writing end must not wait for ever."""
        gone = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            await gone.wait()
            writer.transport.abort()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            await self.post(make(deadline=0.25), url, bytes(32 << 20))
            gone.set()

    async def test_lookup(self, make: Callable[..., Egress]) -> None:
        class Silent(Names):
            async def resolve(self, *_: Any) -> list[ResolveResult]:
                await asyncio.Event().wait()
                raise AssertionError

        await self.post(make(deadline=0.25, resolver=Silent()), "http://hook.test/")

    async def test_lookups_of_one_payer_leave_threads_to_others(
        self, make: Callable[..., Egress], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lookup that hangs keeps its thread beyond the deadline, and its payer's share with it."""
        over = threading.Event()

        def look_up(name: str, *rest: Any) -> Any:
            over.wait(60 if name == "silent.test" else 0)
            return real("127.0.0.1", *rest)

        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        async with receiver(answers()) as it:
            egress = make(deadline=0.25)

            async def post(host: str, payer: str) -> Answer:
                return await egress.post(f"http://{host}:{it.port}/", b"{}", HEADERS, payer=payer)

            for _ in range(3):
                hung = await asyncio.gather(*(post("silent.test", "greedy") for _ in range(50)))
                assert {answer.error for answer in hung} == {"timeout"}
            assert (await post("hook.test", "other")).ok

            async def had_again() -> bool:
                return (await post("again.test", "greedy")).ok

            assert not await had_again()
            over.set()
            await wait_until(had_again)

    async def test_tls_handshake(self, make: Callable[..., Egress]) -> None:
        async with receiver(hangs) as it:
            await self.post(make(deadline=0.25), it.url.replace("http:", "https:"))
            await it.gone.wait()

    async def test_turn_for_a_connection(self, make: Callable[..., Egress]) -> None:
        async with receiver(hangs) as it:
            egress = make(deadline=0.25, connections_per_host=1)
            await asyncio.gather(*(self.post(egress, it.url) for _ in range(3)))
        assert it.open_max == 1

    async def test_next_post_is_well_again(self, make: Callable[..., Egress]) -> None:
        async with receiver(hangs) as it:
            egress = make(deadline=0.25)
            await self.post(egress, it.url)
            it.reply = answers()
            assert (await egress.post(it.url, b"{}", HEADERS)).ok

    async def test_cancelling_is_not_swallowed(self, make: Callable[..., Egress]) -> None:
        async with receiver(hangs) as it:
            post = asyncio.create_task(make().post(it.url, b"{}", HEADERS))
            while not it.requests:
                await asyncio.sleep(0)
            await end(post)
            await it.gone.wait()

    async def test_close_ends_what_is_under_way(self, make: Callable[..., Egress]) -> None:
        async with receiver(hangs) as it:
            egress = make(connections_per_host=1)
            posts = [asyncio.create_task(egress.post(it.url, b"{}", HEADERS)) for _ in range(2)]
            while not it.requests:
                await asyncio.sleep(0)
            await egress.close()
            assert [answer.error for answer in await asyncio.gather(*posts)] == ["disconnected"] * 2


class TestGuard:
    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001"),
            *("0x7f.0.0.0x1", "127.0.0.1.", "①②⑦.0.0.1", "127。0。0。1", "\uff11\uff12\uff17.0.0.1", "%31%32%37.0.0.1"),
            *("0", "0.0.0.0", "localhost", "LOCALHOST", "localhost."),
            *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
            *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[::1%25lo]", "[fe80::1%25lo]"),
        ],
    )
    async def test_no_way_to_write_loopback_gets_through(
        self, host: str, dialled: list[str], make: Callable[..., Egress], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def look_up(name: str, port: int, *_: object) -> list[Any]:
            """The system's parser for what it takes as an address, without asking a name server."""
            if name.lower().startswith("localhost"):
                name = "127.0.0.1"
            return real(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)

        real = socket.getaddrinfo
        async with receiver(answers()) as it, receiver(answers(), "::1", it.port) as it6:
            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            answer = await make(allow_loopback=False).post(f"http://{host}:{it.port}/", b"{}", HEADERS)
            monkeypatch.undo()
        assert answer.status is None
        assert answer.error in ("refused_address", "invalid_request", "dns")
        if host in ("127.0.0.1", "0x7f.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "localhost"):
            assert answer.error == "refused_address"
        assert (dialled, it.connections, it6.connections) == ([], 0, 0)

    @pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "hook.test"])
    async def test_loopback_when_it_is_allowed(
        self, host: str, dialled: list[str], make: Callable[..., Egress]
    ) -> None:
        resolver = Names(["127.0.0.1"])
        async with receiver(answers()) as it, receiver(answers(), "::1", it.port) as it6:
            answer = await make(resolver=resolver).post(f"http://{host}:{it.port}/", b"{}", HEADERS)
        assert answer.ok
        assert it.connections + it6.connections == len(dialled) == 1
        assert f"\r\nHost: {host}:{it.port}\r\n".encode() in b"".join(it.requests + it6.requests).replace(
            b"[::ffff:7f00:1]", b"[::ffff:127.0.0.1]"
        )

    async def test_other_private_addresses_stay_refused(self, dialled: list[str], make: Callable[..., Egress]) -> None:
        for host in ("10.0.0.1", "192.168.1.1", "169.254.169.254", "168.63.129.16", "[fd00::1]", "[fe80::1]"):
            answer = await make().post(f"http://{host}/", b"{}", HEADERS)
            assert (answer.status, answer.error) == (None, "refused_address"), host
        assert dialled == []

    async def test_allowed_network(self, dialled: list[str], make: Callable[..., Egress]) -> None:
        async with receiver(answers(), "127.0.0.2") as it:
            egress = make(allow_loopback=False, allow=[ipaddress.ip_network("127.0.0.2/32")])
            assert (await egress.post(f"http://127.0.0.2:{it.port}/", b"{}", HEADERS)).ok
            assert (await egress.post(f"http://127.0.0.1:{it.port}/", b"{}", HEADERS)).error == "refused_address"
        assert dialled == ["127.0.0.2"]

    async def test_name_that_turns_from_public_to_loopback(
        self, dialled: list[str], make: Callable[..., Egress]
    ) -> None:
        """DNS rebinding: what is dialled is the very address that was checked, and the next one is checked anew."""
        resolver = Names([PUBLIC], ["127.0.0.1"])
        async with receiver(answers()) as it:
            egress = make(allow_loopback=False, resolver=resolver)
            first = await egress.post(f"http://hook.test:{it.port}/", b"{}", HEADERS)
            assert (first.error, dialled, resolver.lookups) == ("connect", [PUBLIC], ["hook.test"])
            second = await egress.post(f"http://hook.test:{it.port}/", b"{}", HEADERS)
            assert (second.error, dialled, len(resolver.lookups)) == ("refused_address", [PUBLIC], 2)
        assert it.connections == 0

    async def test_name_that_turns_from_allowed_to_forbidden(self, make: Callable[..., Egress]) -> None:
        """The same with real connections only."""
        resolver = Names(["127.0.0.1"], ["127.0.0.2"])
        once = answers("200 OK", b"", "Connection: close")
        async with receiver(once) as it, receiver(answers(), "127.0.0.2", it.port) as other:
            egress = make(allow_loopback=False, allow=[ipaddress.ip_network("127.0.0.1")], resolver=resolver)
            assert (await egress.post(f"http://hook.test:{it.port}/", b"{}", HEADERS)).ok
            second = await egress.post(f"http://hook.test:{it.port}/", b"{}", HEADERS)
        assert second.error == "refused_address"
        assert (it.connections, other.connections) == (1, 0)

    @pytest.mark.parametrize("answer", [[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], [PUBLIC, "::1"], ["mars"]])
    async def test_one_bad_address_spoils_the_answer(
        self, answer: list[str], dialled: list[str], make: Callable[..., Egress]
    ) -> None:
        egress = make(allow_loopback=False, resolver=Names(answer))
        assert (await egress.post("http://hook.test/", b"{}", HEADERS)).error == "refused_address"
        assert dialled == []

    async def test_guard_holds_without_the_resolver(
        self, dialled: list[str], make: Callable[..., Egress], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The check at the moment of dialling stands on its own."""
        egress = make(allow_loopback=False, resolver=Names(["127.0.0.1"]))
        monkeypatch.setattr(egress._resolver, "_refuses", lambda *_: False)
        async with receiver(answers()) as it:
            answer = await egress.post(f"http://hook.test:{it.port}/", b"{}", HEADERS)
        assert (answer.error, dialled, it.connections) == ("refused_address", [], 0)

    async def test_second_address_when_the_first_is_down(self, dialled: list[str], make: Callable[..., Egress]) -> None:
        async with receiver(answers(), "127.0.0.2") as it:
            egress = make(resolver=Names(["127.0.0.3", "127.0.0.2"]))
            assert (await egress.post(f"http://hook.test:{it.port}/", b"{}", HEADERS)).ok
        assert dialled == ["127.0.0.3", "127.0.0.2"]

    async def test_own_ports_by_any_address_of_this_machine(
        self, make: Callable[..., Egress], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Here by one of which the guard has not known that it is: only the connection shows where it leads."""
        monkeypatch.setattr(Egress, "_refuses", lambda *_: False)
        async with receiver(answers()) as it:
            egress = make(forbidden=[("0.0.0.0", it.port)])
            assert (await egress.post(it.url, b"{}", HEADERS)).error == "refused_address"
        assert it.requests == []

    @pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0", "::"])
    async def test_own_ports(self, own: str, dialled: list[str], make: Callable[..., Egress]) -> None:
        everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
        async with receiver(answers()) as it, receiver(answers()) as other:
            egress = make(allow=everything, forbidden=[(own, it.port)], resolver=Names(["127.0.0.1"]))
            for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]", "hook.test", "0.0.0.0"):
                answer = await egress.post(f"http://{host}:{it.port}/", b"{}", HEADERS)
                assert answer.error == "refused_address", host
            assert dialled == []
            assert (await egress.post(other.url, b"{}", HEADERS)).ok
        assert it.connections == 0

    async def test_own_port_under_a_scope(self, dialled: list[str], make: Callable[..., Egress]) -> None:
        egress = make(forbidden=[("::1", 8080)], resolver=Names(["::1%lo"]))
        assert (await egress.post("http://hook.test:8080/", b"{}", HEADERS)).error == "refused_address"
        assert dialled == []

    async def test_own_ports_are_addresses(self) -> None:
        with pytest.raises(ValueError, match="localhost"):
            Egress(forbidden=[("localhost", 6379)])

    @pytest.mark.parametrize("name", ["a" * 64 + ".test", "a..test", "..."])
    async def test_name_that_no_server_needs_to_be_asked_for(self, name: str, make: Callable[..., Egress]) -> None:
        assert (await make().post(f"http://{name}/", b"{}", HEADERS)).error == "dns"

    async def test_unknown_name(self, make: Callable[..., Egress], monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        assert (await make().post("http://hook.test/", b"{}", HEADERS)).error == "dns"

    async def test_name_without_addresses(self, make: Callable[..., Egress]) -> None:
        assert (await make(resolver=Names([])).post("http://hook.test/", b"{}", HEADERS)).error == "dns"


class TestTls:
    async def test_name_goes_into_host_and_sni(self, make: Callable[..., Egress], tmp_path: Path) -> None:
        asked: list[str | None] = []
        context = certificate(tmp_path, "hook.test")
        context.sni_callback = lambda _socket, name, _context: asked.append(name)
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert"))
        async with receiver(answers(), tls=context) as it:
            egress = make(resolver=Names(["127.0.0.1"]), tls=trusting)
            assert (await egress.post(f"https://hook.test:{it.port}/", b"{}", HEADERS)).ok
        assert asked == ["hook.test"]
        assert f"\r\nHost: hook.test:{it.port}\r\n".encode() in it.requests[0]

    async def test_certificate_of_another_name(self, make: Callable[..., Egress], tmp_path: Path) -> None:
        context = certificate(tmp_path, "hook.test")
        trusting = ssl.create_default_context(cafile=str(tmp_path / "cert"))
        async with receiver(answers(), tls=context) as it:
            egress = make(resolver=Names(["127.0.0.1"]), tls=trusting)
            assert (await egress.post(f"https://other.test:{it.port}/", b"{}", HEADERS)).error == "tls"
            assert (await egress.post(f"https://127.0.0.1:{it.port}/", b"{}", HEADERS)).error == "tls"
        assert it.requests == []

    async def test_certificate_of_nobody(self, make: Callable[..., Egress], tmp_path: Path) -> None:
        async with receiver(answers(), tls=certificate(tmp_path, "hook.test")) as it:
            egress = make(resolver=Names(["127.0.0.1"]))
            assert (await egress.post(f"https://hook.test:{it.port}/", b"{}", HEADERS)).error == "tls"
        assert it.requests == []

    async def test_plain_server(self, make: Callable[..., Egress]) -> None:
        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert (await make().post(url, b"{}", HEADERS)).error == "tls"


class TestSecrets:
    SECRET_PATH = "hooks-a7c9f3"
    SECRET_QUERY = "q-51ce0bd9"

    def url(self, it: Receiver) -> str:
        return f"{it.url}/{self.SECRET_PATH}?sig={self.SECRET_QUERY}"

    def assert_clean(self, *texts: str) -> None:
        for secret in (CANARY, self.SECRET_PATH, self.SECRET_QUERY):
            assert all(secret not in text for text in texts)

    async def test_echoing_receiver(self, make: Callable[..., Egress], verbose: pytest.LogCaptureFixture) -> None:
        async def echo(request: bytes, writer: asyncio.StreamWriter) -> None:
            await answers("500 Oops", request, f"Retry-After: {CANARY}")(request, writer)

        async with receiver(echo) as it:
            answer = await make().post(self.url(it), b"{}", HEADERS)
        assert answer.excerpt.startswith("POST /run/***?sig=*** HTTP/1.1")
        self.assert_clean(repr(answer), verbose.text)

    @pytest.mark.parametrize("key", ['its "quoted" key', "key/with+signs=&%", "k", "žluťoučký", "Bearer abc.def"])
    async def test_key_as_receivers_write_it(self, key: str, make: Callable[..., Egress]) -> None:
        written = [key, json.dumps(key), quote(key, safe=""), key.split()[-1]]
        body = ("\n".join(written)).encode()
        async with receiver(answers("401 No", body)) as it:
            answer = await make().post(it.url, b"{}", {"X-API-KEY": key})
        assert answer.excerpt == '*** "***" *** ***'

    async def test_key_across_the_cut(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers("401 No", b"x" * 195 + CANARY.encode())) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert answer.excerpt == "x" * 195 + "***"

    async def test_excerpt_is_200_bytes_of_whole_characters(self, make: Callable[..., Egress]) -> None:
        async with receiver(answers("500 Oops", "x€".encode() * 1000)) as it:
            answer = await make().post(it.url, b"{}", HEADERS)
        assert answer.excerpt == "x€" * 50

    async def test_trouble_of_every_kind(self, make: Callable[..., Egress], verbose: pytest.LogCaptureFixture) -> None:
        texts = []
        for reply in (hangs, answers(length=9, close=True), answers("302 Over there", b"", "Location: //a")):
            async with receiver(reply) as it:
                texts.append(repr(await make(deadline=0.25).post(self.url(it), b"{}", HEADERS)))
        texts.append(repr(await make().post(self.url(it), b"{}", HEADERS)))
        texts.append(repr(await make(allow_loopback=False).post(self.url(it), b"{}", HEADERS)))
        texts.append(repr(await make().post(f"http://u:{CANARY}@127.0.0.1/", b"{}", HEADERS)))
        self.assert_clean(*texts, verbose.text)

    @pytest.mark.parametrize("value", [f"{CANARY}\r\nX: y", f"{CANARY}\n", f"{CANARY}\0"])
    async def test_header_that_would_become_two(self, value: str, make: Callable[..., Egress]) -> None:
        async with receiver(answers()) as it:
            answer = await make().post(it.url, b"{}", {"X-API-KEY": value})
        assert (answer.error, it.requests) == ("invalid_request", [])
        assert CANARY not in repr(answer)


class TestCheckUrl:
    @pytest.mark.parametrize(
        "url",
        [
            *("http://a", "https://hook.example/run?x=1&y=@", "HTTPS://Hook.Example:8443/a%2Fb", "http://a:1/"),
            *("http://a:65535/", "http://127.0.0.1:8000/", "http://[::1]:80/", "http://my_host.local/x@y"),
            *("https://háčky.example/žluť", "http://a/" + "x" * 2039),
        ],
    )
    def test_accepted(self, url: str) -> None:
        check_url(url)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            *(("", "http://"), ("a", "http://"), ("/run", "http://"), ("//a/", "http://"), ("ftp://a/", "http://")),
            *(("file:///etc/passwd", "http://"), ("gopher://a/", "http://"), ("javascript:x", "http://")),
            *(("http://", "host"), ("http:///run", "host"), ("http:run", "host"), ("http://:80/", "")),
            *(("http://[::1%25lo]/", "host"), ("http://a%00b/", "host"), ("http://a!b/", "host")),
            *(("http://[::1/", ""), ("http://[zz]/", "")),
            *(("http://u@a/", "user"), ("http://u:p@a/", "user"), ("http://@a/", "user"), ("http://:p@a/", "user")),
            *(("http://a/#", "fragment"), ("http://a/#x", "fragment")),
            *(("http://a:0/", "port"), ("http://a:65536/", "port"), ("http://a:-1/", "port"), ("http://a:x/", "port")),
            *(("http://a/ b", "spaces"), (" http://a/", "spaces"), ("http://a/\n", "spaces")),
            *(("http://a\tb/", "spaces"), ("http://a/\0", "control"), ("http://a/\u2028", "spaces")),
            *(("http://a\\@b/", ""), ("http://a\\b/", ""), ("http://a/" + "x" * 2040, "2048")),
        ],
    )
    def test_refused(self, url: str, expected: str) -> None:
        with pytest.raises(ValueError, match=r"^expected a ") as caught:
            check_url(url)
        assert expected in str(caught.value)

    @pytest.mark.parametrize(
        "url", [f"http://u:{CANARY}@a/", f"http://a:{CANARY}/", f"http://[{CANARY}]/", f"x://a/{CANARY}"]
    )
    def test_url_is_not_repeated(self, url: str) -> None:
        with pytest.raises(ValueError) as caught:
            check_url(url)
        assert CANARY not in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize("url", ["", "ftp://a/", "http://u:p@127.0.0.1/", "http://127.0.0.1:0/"])
    async def test_post_checks_too(self, url: str, dialled: list[str], make: Callable[..., Egress]) -> None:
        assert (await make().post(url, b"{}", HEADERS)).error == "invalid_request"
        assert dialled == []
