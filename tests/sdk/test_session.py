"""How clients talk to their server: what is sent once and what again, to whom, for how long, and what errors tell."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from certificates import certificate
from conftest import end, wait_until
from hookline import Client, Datastore, EmbeddedStore, Item, SecretBox, Settings, SyncClient
from hookline.errors import HooklineError, Invalid, NotFound, OutcomeUnknown, Unavailable
from hookline.flow import Request
from hookline.session import Session
from hookline.transport import TRIES
from jobs import fill


def test_the_api_key_is_not_shown() -> None:
    client = Client("http://user:pass@127.0.0.1:8080/", api_key="hush-hush")
    assert repr(client) == "Client('http://127.0.0.1:8080')"
    assert client.headers["Authorization"] == "Bearer hush-hush"
    for url in (
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "http://",
        "http://[",
        "http://a:b",
        "http://a/?b",
        "http://a/#b",
        "http://a\n",
    ):
        with pytest.raises(Invalid, match="/url"):
            Client(url)


@pytest.fixture
def silent() -> Any:
    """An address where connections are taken and never answered, and how many have come."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(20)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


Act = Callable[[Client], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda client: client.create("jobs", "a"), OutcomeUnknown),
        (lambda client: client.get("jobs", "a"), Unavailable),
        (lambda client: client.run([client.calls.create("jobs", "a")]), OutcomeUnknown),
    ],
)
async def test_a_server_that_does_not_answer(silent: str, act: Act, error: type[Exception]) -> None:
    async with Client(silent, timeout=0.1) as client:
        with pytest.raises(error):
            await act(client)


async def test_what_may_be_sent_again_and_what_not() -> None:
    """Reads are sent again until there is an answer, and writes only where they were not sent."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head.split(b" ")[0])
        if seen.count(b"GET") == 3:
            writer.write(
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 40\r\n\r\n" + b'{"code":"not_found","detail":"none yet"}'
            )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(url, timeout=5) as client:
        with pytest.raises(OutcomeUnknown):
            await client.create("jobs", "a")
        assert seen == [b"POST"]
        with pytest.raises(NotFound, match="none yet"):
            await client.get("jobs", "a")
        assert seen == [b"POST", b"GET", b"GET", b"GET"]
    async with Client(url) as client:
        with pytest.raises(Unavailable, match="no Hookline server answers"):
            await client.create("jobs", "a")


@pytest.mark.parametrize("kind", [Client, SyncClient])
async def test_a_write_that_could_not_be_sent_is_tried_again(
    kind: type[Client] | type[SyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server listens once it has been looked for in vain."""
    written: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            written.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 204 Gone\r\n\r\n")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = threading.Thread(target=serve, args=[listener])

        def listen(tries: int) -> float:
            assert tries == 1
            listener.listen()
            serving.start()
            return 0.0

        monkeypatch.setattr(f"{kind.__module__}.pause", listen)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind is Client:
            async with Client(url) as client:
                assert (await client.delete("jobs", "a")).ok
        else:
            with SyncClient(url) as blocking:
                assert (await asyncio.to_thread(blocking.delete, "jobs", "a")).ok
        serving.join()
    assert [head.split(b" ")[0] for head in written] == [b"DELETE"]


@pytest.mark.parametrize("kind", [Client, SyncClient])
async def test_a_write_that_was_taken_is_not_called_undone_as_the_server_goes(
    kind: type[Client] | type[SyncClient],
) -> None:
    """The server takes a write, and is gone before it answers; nobody listens when it is sent again."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(4096)

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = threading.Thread(target=serve, args=[listener])
    serving.start()
    if kind is Client:
        async with Client(url) as client:
            with pytest.raises(OutcomeUnknown):
                await client.once("a").create("jobs", "a")
    else:
        with SyncClient(url) as blocking, pytest.raises(OutcomeUnknown):
            await asyncio.to_thread(blocking.once("a").create, "jobs", "a")
    serving.join()


async def test_a_write_that_a_server_refuses_for_now_is_sent_once() -> None:
    problem = '{"code":"unavailable","detail":"the store is away"}'
    async with answering(503, problem) as (url, seen), Client(url) as client:
        with pytest.raises(Unavailable, match="the store is away"):
            await client.command("create item with key: a and sortField: b")
        assert seen == [b"POST"]


@pytest.mark.parametrize(
    ("method", "act"),
    [
        (b"POST", lambda client: client.claim("jobs", worker_id="w")),
        (b"PUT", lambda client: client.create("jobs", "a", upsert=True, match="*")),
        (b"PATCH", lambda client: client.update("jobs", "a", metadata={"n": 1})),
        (b"DELETE", lambda client: client.delete("jobs", "a")),
    ],
)
async def test_a_write_is_sent_once_also_over_a_connection_that_was_used(method: bytes, act: Act) -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            seen.append(head.split(b" ")[0])
            if seen[-1] != b"GET":
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n" + b'{"keys":[],"cursor":0}')
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=5) as client:
        await client._send(Request("GET", "/v1/keys"))
        with pytest.raises(OutcomeUnknown):
            await act(client)
    assert seen == [b"GET", method]


async def test_a_redirect_is_not_followed_nor_a_proxy_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either would give another host the API key."""
    elsewhere: list[object] = []
    other = await asyncio.start_server(lambda *streams: elsewhere.append(streams), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, address)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Elsewhere\r\ncontent-length: 0\r\nlocation: %s/\r\n\r\n" % address.encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, other, Client(url, api_key="hush") as client:
        with pytest.raises(HooklineError):
            await client.get("jobs", "a")
        with SyncClient(url, api_key="hush") as blocking, pytest.raises(HooklineError):
            await asyncio.to_thread(blocking.get, "jobs", "a")
    assert elsewhere == []


async def test_who_finds_no_connection_free_has_sent_nothing(silent: str) -> None:
    session = Session(Client(silent, timeout=0.2), 1)
    first = asyncio.create_task(session.send(Request("POST", "/v1/items", patience=5)))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match=r"^all 1 connections of this client are in use$"):
        await session.send(Request("POST", "/v1/items"))
    with pytest.raises(Unavailable, match=r"^all 1 connections for waits of this client are in use$"):
        await session.send(Request("POST", "/v1/jobs/a/claim", patience=9))
    await end(first)
    await session.close()


def few_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients have one connection for each kind of wait."""
    monkeypatch.setattr("hookline.client.WAITS_MAX", 1)
    monkeypatch.setattr("hookline.syncclient.WAITS_MAX", 1)


async def test_a_wait_that_finds_no_connection_free_looks_once_as_its_time_ends(
    url: str, client: Client, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_waits(monkeypatch)
    await fill(datastore, 2)
    async with Client(url, connections=1) as waiter:
        with SyncClient(url, connections=1) as blocking:

            async def both(name: str, timeout: float) -> list[Item | None]:
                asked = asyncio.to_thread(blocking.wait_for, "jobs", name, timeout=timeout)
                return [*await asyncio.gather(waiter.wait_for("jobs", name, timeout=timeout), asked)]

            long = asyncio.create_task(both("0000", 60))
            await wait_until(lambda: waiter._watches._free.locked() and blocking._watches._free._value == 0)
            began = time.monotonic()
            assert await both("0001", 0.5) == [None, None]
            short = asyncio.create_task(both("0001", 2))
            await client.update("jobs", "0001", metadata={"status": "completed"})
            ended = await client.get("jobs", "0001")
            assert await short == [ended, ended]
            assert time.monotonic() - began < 10
            assert not long.done()
            await client.update("jobs", "0000", metadata={"status": "completed"})
            assert all(await long)


async def test_waits_for_items_hold_up_no_claims_that_wait(
    url: str, client: Client, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_waits(monkeypatch)
    await client.create("docs", "a")
    async with Client(url, connections=1) as waiter:
        waits = [asyncio.create_task(waiter.wait_for("docs", "a", timeout=60)) for _ in range(3)]
        await wait_until(lambda: waiter._watches._free.locked() or waiter._waits._free.locked())
        claim = asyncio.create_task(waiter.claim("jobs", worker_id="w", wait=20))
        await wait_until(lambda: waiter._waits._free.locked())
        await fill(datastore, 1)
        async with asyncio.timeout(9):  # the time for which a claim waits for a connection is 10 s
            assert (await claim).items
        for wait in waits:
            wait.cancel()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>We are back soon</html>"),
        (200, "[]"),
        (201, ""),
        (408, ""),
        (500, "oops"),
        (500, '{"code":"internal","detail":"the log says more"}'),
        (502, "<html>Bad gateway</html>"),
        (503, "busy"),
        (504, ""),
        (524, "a timeout occurred"),
    ],
)
async def test_an_answer_that_does_not_tell_what_became_of_the_request(status: int, body: str) -> None:
    """As of a proxy between: a write may have been done, a read is asked for again."""
    async with answering(status, body) as (url, seen):
        async with Client(url) as client:
            with pytest.raises(OutcomeUnknown, match=f"status {status}"):
                await client.create("jobs", "a")
            assert seen == [b"POST"]
            with pytest.raises(Unavailable, match=f"status {status}"):
                await client.get("jobs", "a")
            assert seen[1:] == [b"GET"] * TRIES
        with SyncClient(url) as blocking, pytest.raises(OutcomeUnknown, match=f"status {status}"):
            await asyncio.to_thread(blocking.create, "jobs", "a")


@pytest.mark.parametrize(
    ("status", "error"),
    [(301, Unavailable), (403, Unavailable), (404, Unavailable), (429, Unavailable), (413, Invalid)],
)
async def test_what_a_proxy_refuses_was_not_done(status: int, error: type[HooklineError]) -> None:
    async with answering(status, "<html>") as (url, seen), Client(url) as client:
        with pytest.raises(error):
            await client.create("jobs", "a")
        assert seen == [b"POST"]


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers the same to all -> its address, and the methods that it was asked by."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                seen.append(head.split(b" ")[0])
                await reader.readexactly(int((re.findall(rb"(?i)content-length: (\d+)", head) or [b"0"])[0]))
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


def test_threads_share_the_numbers_of_an_idempotency_key() -> None:
    client, found = SyncClient("http://127.0.0.1:1").once("k"), list[str]()
    write, switch = Request("POST", "/v1/items"), sys.getswitchinterval()

    def mark() -> None:
        for _ in range(5000):
            found.append(client._mark(write, client._keys()).headers["Idempotency-Key"])

    threads = [threading.Thread(target=mark) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert sorted(found) == sorted(f"k.{number}" for number in range(1, 20_001))


@pytest.mark.parametrize("key", ["SECRET\n", "SECRET key", "SECRET\u00e9"])
def test_an_api_key_that_no_header_can_have(key: str) -> None:
    for kind in (Client, SyncClient):
        with pytest.raises(Invalid, match="/apiKey: expected visible characters") as refused:
            kind("http://127.0.0.1:1", api_key=key)
        assert "SECRET" not in repr(refused.value)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": -1}, {"timeout": math.inf}, {"connections": 0}])
def test_limits_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"/{next(iter(options))}: expected"):
        Client("http://127.0.0.1:1", **options)


@pytest.mark.parametrize("answer", [b"HTTP/9 garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b""])
async def test_no_error_holds_the_api_key(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Client(url, api_key="SECRETKEY") as client:
            with pytest.raises(OutcomeUnknown) as failed:
                await client.create("jobs", "a")
    chain: list[BaseException | None] = [failed.value]
    while error := chain[-1]:
        assert "SECRETKEY" not in f"{error} {error!r} {vars(error)}"
        chain.append(error.__cause__ or error.__context__)


async def test_to_close_ends_what_waits_and_what_would_be_sent_again(silent: str) -> None:
    client = Client(silent, timeout=5, connections=1)
    waiting = [asyncio.create_task(client.get("jobs", "a")), asyncio.create_task(client.create("jobs", "b"))]
    await asyncio.sleep(0.1)
    waiting.append(asyncio.create_task(client.create("jobs", "c")))
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(2):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [Unavailable, Unavailable, Unavailable]
    assert client._session._session is None


IN_TURN = """
import asyncio, sys
from hookline import Client

async def use():
    print(await client.count("jobs"))

client = Client(sys.argv[1])
asyncio.run(use())
asyncio.run(use())
"""


async def test_one_client_in_one_loop_after_the_other(url: str) -> None:
    """In a process of its own: what was left open there is complained of."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", IN_TURN, url, stdout=pipe, stderr=pipe)
    told, complaints = await process.communicate()
    assert told.count(b"Count(count=0") == 2, complaints
    assert b"Unclosed" in complaints


FORKED = """
import asyncio, multiprocessing, sys, threading
from concurrent.futures import ThreadPoolExecutor
from hookline import Client, SyncClient

NAMES = [f"{n}" for n in range(8)] * 25
blocking, client = SyncClient(sys.argv[1]), Client(sys.argv[1])

async def found(names, end=False):
    found = [(await client.get("jobs", name)).sort_field for name in names]
    if end:
        await client.close()
    return found

def read(name):
    return blocking.get("jobs", name).sort_field

def read_by_threads(names):
    begin = threading.Barrier(8)
    def read_some(place):
        begin.wait()
        return [read(name) for name in names[place::8]]
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(read_some, range(8)))

def read_all(names):
    return asyncio.run(found(names, end=True))

with asyncio.Runner() as loop:
    for name in NAMES[:8]:
        blocking.create("jobs", name)
    loop.run(found(NAMES[:2]))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        many = pool.map_async(read, NAMES, chunksize=1)
        own = [read(name) for name in NAMES]
        assert many.get(60) == own == NAMES
        assert pool.map(read_all, [NAMES] * 4, chunksize=1) == [NAMES] * 4
    for _ in range(5):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(read_by_threads, [NAMES] * 2, chunksize=1) == [[NAMES[n::8] for n in range(8)]] * 2
    assert loop.run(found(NAMES)) == NAMES
    blocking.close()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            pool.map(read, NAMES[:1])
        except Exception as error:
            print(error)
    loop.run(client.close())
"""


async def test_processes_that_are_forked_have_connections_of_their_own(url: str) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKED, url, stdout=pipe, stderr=pipe)
    told, complaints = await process.communicate()
    assert b"the client was closed" in told, complaints.decode()
    assert process.returncode == 0


async def test_a_datastore_that_is_closed_opens_again_on_another_loop(
    store: EmbeddedStore, settings: Settings, datastore: Datastore
) -> None:
    source = Datastore(store.url, settings, SecretBox(bytes(32)))

    async def use() -> None:
        async with source:
            assert (await source.claim("jobs", worker_id="w", wait=0.05)).items == []
            assert await source.wait_for("jobs", "a", timeout=0.05) is None
            assert source.connection.nodes._first._idle  # links are kept, as before

    await datastore.create("jobs", "a")
    for _ in range(2):
        await asyncio.to_thread(asyncio.run, use())


OTHER_LOOP: list[Callable[[Any], Coroutine[Any, Any, Any]]] = [
    lambda source: source.create("jobs", "b"),
    lambda source: source.run([source.calls.create("jobs", "b")]),
    lambda source: source.get("jobs", "a"),
    lambda source: source.get_many([("jobs", "a")]),
    lambda source: source.query("jobs"),
    lambda source: source.count("jobs"),
    lambda source: source.wait_for("jobs", "a"),
    lambda source: source.claim("jobs", worker_id="w", wait=5),
    lambda source: source.exchange([], "jobs", worker_id="w"),
    lambda source: source.configure("jobs", max_attempts=3),
]


@pytest.mark.parametrize("kind", [Client, Datastore])
async def test_what_is_open_in_another_loop_is_refused_before_anything_is_sent(
    kind: type[Client] | type[Datastore], url: str, store: EmbeddedStore, settings: Settings, datastore: Datastore
) -> None:
    source = Client(url) if kind is Client else Datastore(store.url, settings, SecretBox(bytes(32)))

    def use() -> None:
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(source.open())
            first.run(source.create("jobs", "a"))
            first.run(source.claim("jobs", worker_id="w", wait=0.01))
            for act in OTHER_LOOP:
                with pytest.raises(RuntimeError, match=f"{kind.__name__.lower()} belongs to another event loop"):
                    second.run(asyncio.wait_for(act(source), 5))
            assert first.run(source.get("jobs", "a")).version == 1
            first.run(source.close())
            if kind is Client:
                second.run(source.update("jobs", "a"))
                second.run(source.close())

    await asyncio.to_thread(use)
    assert [item.sort_field for item in (await datastore.query("jobs")).items] == ["a"]
    assert (await datastore.key_settings("jobs")).max_attempts == 10


async def test_a_connection_that_ended_while_the_loop_was_held_up() -> None:
    """What is sent over it would never come to an answer, and nobody would know whether it was taken."""
    written: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            written.append(connection.recv(4096))
            connection.sendall(b'HTTP/1.1 404 None\r\ncontent-length: 37\r\n\r\n{"code":"not_found","detail":"gone."}')
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(serve, listener))
        async with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            for _ in range(2):
                with pytest.raises(NotFound):
                    await client.update("jobs", "a", metadata={"n": 1})
                time.sleep(0.3)
        await serving
    assert len(written) == 2


@pytest.mark.parametrize("names", ["localhost", "another.test"])
async def test_tls_by_what_the_system_trusts(names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 404 None\r\ncontent-length: 37\r\n\r\n{"code":"not_found","detail":"gone."}')
        writer.close()

    context = certificate(tmp_path, names)
    error = NotFound if names == "localhost" else Unavailable
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with Client(url) as client:
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await client.create("jobs", "a")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        async with Client(url) as client:
            with pytest.raises(error):
                await client.get("jobs", "a")
        with SyncClient(url) as blocking, pytest.raises(error):
            await asyncio.to_thread(blocking.get, "jobs", "a")


def test_a_closed_client_without_a_loop_says_so() -> None:
    client = SyncClient("http://127.0.0.1:1")
    client.close()
    with pytest.raises(Unavailable, match="the client was closed"):
        client.create("jobs", "a")


async def test_a_closed_client_opens_anew(client: Client) -> None:
    again = client.once("a")
    await client.create("jobs", "a")
    await client.close()
    assert (await client.get("jobs", "a")).sort_field == "a"
    await again.create("jobs", "b")
    assert (await again.get("jobs", "b")).sort_field == "b"
