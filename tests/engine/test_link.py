"""Links: commands that are begun without a task, and the links and turns that they take."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis
import uvloop
from redis.asyncio.connection import parse_url

from conftest import wait_until
from hookline import EmbeddedStore, Settings
from hookline.link import LOST, Links, LostError
from hookline.nodes import Nodes, NotSentError

MOST = 2
EAGER: Any = getattr(asyncio, "eager_task_factory", None)


@pytest.fixture
async def links(store: EmbeddedStore) -> AsyncIterator[Links]:
    """Of a store, and one of them made."""
    links = Links({**parse_url(store.url), "protocol": 2}, MOST, 1.0)
    links.give(await links.take("a"), "a")
    yield links
    links.close()


def echo(links: Links, text: str, told: list[Any], lane: str = "a") -> bool:
    return links.begin(lane, told.append, lambda: ("ECHO", text))


async def test_answers_come_in_order_over_one_link(links: Links) -> None:
    told: list[Any] = []
    assert all(echo(links, str(number), told) for number in range(5))
    await wait_until(lambda: len(told) == 5)
    assert told == [b"0", b"1", b"2", b"3", b"4"]
    assert echo(links, "again", told)


async def test_retired_they_end_what_is_under_way_and_keep_none(links: Links, raw: aioredis.Redis) -> None:
    taken, ready = await links.take("a"), asyncio.Event()
    assert links.holders.hold(ready.set, 1.0, "none yet") is None
    await wait_until(ready.is_set)
    hold = links.holders.hold(ready.set, 1.0, "held", "BZPOPMIN", "bell", "0.3")
    assert hold
    links.give(await links.take("b"), "b")
    links.retire()
    assert not links._idle
    assert [await each.call("ECHO", "it") for each in (taken, hold)] == [b"it"] * 2
    links.give(taken, "a")
    late = await links.take("c")
    assert await late.call("ECHO", "late") == b"late"
    links.give(late, "c")
    assert all(link.closed for link in (taken, hold._link, late))
    assert links.holders.hold(ready.set, 1.0, "no more") is None
    assert (links._idle, links._taken, links.holders._links) == ([], set(), set())
    assert links._free._value == MOST


async def test_no_link_is_idle_and_none_is_waited_for(links: Links) -> None:
    told: list[Any] = []
    assert echo(links, "a", told)
    assert not echo(links, "b", told, lane="b")
    taken = [await links.take(lane) for lane in ("b", "c")]
    assert not echo(links, "d", told, lane="d")
    links.give(taken[0], "b")
    assert echo(links, "d", told, lane="d")
    await wait_until(lambda: told == [b"a", b"d"])


@pytest.mark.skipif(EAGER is None, reason="tasks that begin at once come with Python 3.12")
async def test_links_to_hold_back_by_are_made_again_where_tasks_begin_at_once(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    links, ready = Links({**parse_url(f"unix://{tmp_path}/store"), "protocol": 2}, MOST, 1.0), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(EAGER)
    try:
        assert links.holders.hold(ready.set, 1.0, "a", "PING") is None
        (tmp_path / "store").symlink_to(parse_url(store.url)["path"])
        assert links.holders.hold(ready.set, 1.0, "b", "PING") is None
        async with asyncio.timeout(10):
            await ready.wait()
    finally:
        loop.set_task_factory(None)
        links.close()


async def test_a_connection_that_ends_as_it_is_made_is_no_link(
    store: EmbeddedStore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end has been told by then, and a command over it would wait for its time to pass."""
    links = Links({**parse_url(store.url), "protocol": 2}, MOST, 5.0)
    make = links._maker.make_connection

    def make_dying() -> Any:
        connection = make()  # type: ignore[no-untyped-call]
        connect = connection.connect

        async def connect_to_the_end() -> None:
            await connect()
            await connection.send_command("CLIENT", "ID")
            await raw.client_kill_filter(_id=await connection.read_response())
            await wait_until(connection._reader.at_eof)

        connection.connect = connect_to_the_end
        return connection

    monkeypatch.setattr(links._maker, "make_connection", make_dying)
    for _ in range(2 * MOST):
        with pytest.raises(LOST):
            await links.take()
    monkeypatch.undo()
    assert await (await links.take()).call("ECHO", "x") == b"x"
    links.close()


async def test_what_is_told_may_begin_the_next(links: Links) -> None:
    told: list[Any] = []

    def go_on(answer: Any) -> None:
        told.append(answer)
        if len(told) < 2000:
            assert links.begin("a", go_on, lambda: ("ECHO", str(len(told))))

    go_on(b"0")
    await wait_until(lambda: len(told) == 2000)
    assert told[-1] == b"1999"


async def test_a_command_that_cannot_be_written_takes_no_link(links: Links) -> None:
    told: list[Any] = []
    for _ in range(2 * MOST):
        with pytest.raises(TypeError):
            links.begin("a", told.append, lambda: ("ECHO", object()))
    taken = [await links.take() for _ in range(MOST)]
    assert [await link.call("ECHO", "x") for link in taken] == [b"x"] * MOST
    await asyncio.sleep(1.1)  # no timer is left that would end them
    assert not any(link.closed for link in taken)
    assert told == []


async def test_a_link_that_is_lost_is_told(links: Links) -> None:
    told: list[Any] = []
    assert links.begin("a", told.append, lambda: ("QUIT",))
    assert links.begin("a", told.append, lambda: ("ECHO", "x"))
    await wait_until(lambda: len(told) == 2)
    assert type(told[1]) is LostError
    assert not echo(links, "x", told)
    for _ in range(MOST):
        await links.take()


async def test_a_lane_that_found_nobody_begins_again(tmp_path: Path) -> None:
    """Also while somebody keeps the error, and with it the frames of who asked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    links = Links({"host": "127.0.0.1", "port": port, "protocol": 2}, MOST, 1.0)
    with pytest.raises(LOST) as kept:
        await links.take("a")
    async with EmbeddedStore(tmp_path, extra_config=[f"port {port}", "bind 127.0.0.1"]):
        links.give(await links.take("a"), "a")
        assert kept.value
        assert echo(links, "x", [])
        links.close()


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.strip() in (b"SETINFO", b"ECHO"):
                writer.write(b"+OK\r\n" + b"+stray\r\n" * (line.strip() == b"ECHO"))
        writer.close()

    told: list[Any] = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        links = Links({"host": host, "port": port, "protocol": 2}, MOST, 1.0)
        links.give(await links.take("a"), "a")

        def go_on(answer: Any) -> None:
            told.append(answer)
            links.begin("a", told.append, lambda: ("PING",))

        assert links.begin("a", go_on, lambda: ("ECHO", "x"))
        await wait_until(lambda: len(told) == 2)
        links.close()
    assert (told[0], type(told[1])) == (b"OK", LostError)


def test_a_connection_that_is_reset_as_it_is_made_is_lost() -> None:
    """At whichever moment: uvloop says so in a way of its own."""

    def reset(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                time.sleep(random.random() * 0.0005)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()

    async def connect(port: int) -> set[type]:
        nodes = Nodes(f"redis://127.0.0.1:{port}", Settings(connections=8))
        tried = (nodes.run(None, "PING") for _ in range(1000))
        return {type(error) for error in await asyncio.gather(*tried, return_exceptions=True)}

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=reset, args=[listener], daemon=True).start()
        assert uvloop.run(connect(listener.getsockname()[1])) == {NotSentError}
        listener.shutdown(socket.SHUT_RDWR)
