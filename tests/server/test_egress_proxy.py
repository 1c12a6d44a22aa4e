"""The way out through a forward proxy: what is still refused here, and what the proxy is left to decide."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from certificates import certificate
from hookline import Settings
from hookline_server.egress import Egress
from hookline_server.process import _egress
from server.test_egress import CANARY, HEADERS, Names, answers, receiver


@dataclass
class Proxy:
    """A forward proxy that leads every name to one port of this machine; with ``refuses``, it lets nothing pass."""

    to: int = 0
    refuses: bool = False
    url: str = ""
    asked: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            method, target, _ = head.decode().split(" ", 2)
            self.asked.append(target)
            if self.refuses:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.to)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                back.write(re.sub(rb" http://[^/]*", b" ", head, count=1))
            await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(to: int = 0, *, refuses: bool = False) -> AsyncIterator[Proxy]:
    proxy = Proxy(to, refuses)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://someone:{CANARY}-login@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield proxy
    server.close()


@asynccontextmanager
async def going_out(proxy: Proxy | str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Egress]:
    """A way out that looks up no name: it would get an address of nobody."""
    url = proxy if isinstance(proxy, str) else proxy.url
    egress = Egress(allow_loopback=True, proxy=url, tls=tls, resolver=Names(["0.0.0.0"]), deadline=20.0)
    yield egress
    await egress.close()


async def test_a_name_is_the_proxys_to_resolve() -> None:
    async with receiver(answers()) as it, proxying(it.port) as proxy, going_out(proxy) as egress:
        assert (await egress.post("http://hook.test/run?a=1", b"{}", HEADERS)).ok
    assert proxy.asked == ["http://hook.test/run?a=1"]
    assert it.requests[0].startswith(b"POST /run?a=1 HTTP/1.1\r\nHost: hook.test\r\n")
    assert it.requests[0].endswith(b"{}")


async def test_tls_goes_through_it_to_the_receiver(tmp_path: Path) -> None:
    context = certificate(tmp_path, "hook.test")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert"))
    async with receiver(answers(), tls=context) as it, proxying(it.port) as proxy, going_out(proxy, trusting) as egress:
        assert (await egress.post("https://hook.test/", b"{}", HEADERS)).ok
        assert (await egress.post("https://other.test/", b"{}", HEADERS)).error == "tls"
    assert proxy.asked == ["hook.test:443", "other.test:443"]
    assert not any(CANARY.encode() + b"\r\n" in head for head in proxy.heads), "the proxy sees no header of ours"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "168.63.129.16", "0.0.0.0", "224.0.0.1"),
        *("2130706433", "0x7f.1", "127.1", "0177.0.0.1", "①②⑦.0.0.1", "0xa9fea9fe", "10.0.0.1."),
        *("localhost", "LOCALHOST.", "a.localhost", "[::1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[fd00::1]"),
    ],
)
async def test_addresses_are_refused_here(host: str) -> None:
    async with proxying() as proxy, going_out(proxy) as egress:
        for scheme in ("http", "https"):
            answer = await egress.post(f"{scheme}://{host}/", b"{}", HEADERS)
            assert (answer.status, answer.error) == (None, "refused_address")
    assert proxy.heads == []


@pytest.mark.parametrize("url", ["http://93.184.216.34/", "http://hook.test/", "https://hook.test/"])
async def test_a_proxy_that_lets_nothing_pass(url: str) -> None:
    async with proxying(refuses=True) as proxy, going_out(proxy) as egress:
        answer = await egress.post(url, b"{}", HEADERS)
    assert (answer.ok, len(proxy.asked)) == (False, 1)
    assert answer.error == ("proxy" if url.startswith("https") else None)


async def test_a_proxy_that_is_not_there() -> None:
    async with proxying() as proxy:
        pass
    async with going_out(proxy) as egress:
        assert (await egress.post("http://hook.test/", b"{}", HEADERS)).error == "proxy"


async def test_its_login_is_in_no_answer() -> None:
    login = f"{CANARY}-login"
    said = answers("200 OK", f"someone {login}".encode())
    async with receiver(said) as it, proxying(it.port) as proxy, going_out(proxy) as egress:
        answer = await egress.post("http://hook.test/", b"{}", HEADERS)
    assert b"proxy-authorization: basic" in proxy.heads[0].lower()
    assert answer.excerpt == "*** ***"


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
async def test_a_server_posts_neither_to_its_store_nor_to_itself(proxy: str | None) -> None:
    allow = ("10.0.0.0/8", "127.0.0.0/8")
    async with receiver(answers()) as store, receiver(answers()) as other:
        urls = f"redis://u:p@localhost:{store.port}/0,redis://10.0.0.7,unix:///run/store"
        egress = _egress(Settings(egress_proxy=proxy, egress_allow=allow), None, urls)
        for url in (store.url, f"http://127.0.0.2:{store.port}/", "http://10.0.0.7:6379/"):
            assert (await egress.post(url, b"{}", HEADERS)).error == "refused_address", url
        if proxy is None:
            assert (await egress.post(other.url, b"{}", HEADERS)).ok
        await egress.close()
    assert store.connections == 0
