"""Shares: what is short is had by many, whatever one of them keeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest_asyncio

from api import Api, asking
from conftest import wait_until
from hookline import Datastore
from hookline.keyring import Keyring
from hookline_server.app import create_app
from hookline_server.gate import Gate
from hookline_server.namespaces import Namespaces
from hookline_server.router import Application
from hookline_server.shares import Shares
from rawhttp import dialled, request
from server.conftest import MakeKey


async def taken(shares: Shares, who: str, count: int) -> list[asyncio.Task[None]]:
    """Who asks for so many; those that have them are done."""
    tasks = [asyncio.create_task(shares.take(who)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def had(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() and not task.cancelled() for task in tasks)


async def test_who_keeps_all_leaves_some_to_others() -> None:
    shares = Shares(100)
    greedy = [await taken(shares, f"greedy {n}", 200) for n in range(3)]
    assert [had(tasks) for tasks in greedy] == [67, 22, 8]
    modest = await taken(shares, "modest", 2)
    assert had(modest) == 2
    for task in (each for tasks in greedy for each in tasks):
        task.cancel()


async def test_what_is_given_back_goes_to_who_has_the_fewest() -> None:
    shares = Shares(4)
    many, few = await taken(shares, "many", 6), await taken(shares, "few", 3)
    assert (had(many), had(few)) == (3, 1)
    shares.give_back("many")
    await asyncio.sleep(0)
    assert (had(many), had(few)) == (3, 2)
    for _ in range(2):
        shares.give_back("many")
        shares.give_back("few")
    await asyncio.sleep(0)
    assert (had(many), had(few)) == (5, 3)


async def test_who_gives_up_waiting_keeps_nothing() -> None:
    shares = Shares(1)
    first, waiting = await taken(shares, "a", 1), await taken(shares, "a", 3)
    waiting[0].cancel()
    await asyncio.sleep(0)
    shares.give_back("a")
    waiting[1].cancel()  # just as it is given one
    await asyncio.wait(waiting[1:])
    assert (had(first), had(waiting)) == (1, 1)
    shares.give_back("a")
    assert had(await taken(shares, "b", 1)) == 1


def test_who_does_not_wait_has_the_same_share() -> None:
    shares = Shares(6)
    assert [shares.take_now("a") for _ in range(5)] == [True] * 4 + [False]
    assert [shares.take_now("b") for _ in range(3)] == [True, True, False]
    shares.give_back("b")
    assert [shares.take_now(who) for who in "ac"] == [False, True]
    for count in (1, 2):
        alone = Shares(count)
        assert [alone.take_now("a") for _ in range(count + 1)] == [True] * count + [False]


# The requests of one caller


@pytest_asyncio.fixture(loop_scope="session")
async def shared(datastore: Datastore, keyring: Keyring, namespaces: Namespaces) -> AsyncIterator[Api]:
    """A server that takes six requests at once."""
    gate = Gate(keyring, namespaces.open)
    async with asking(
        create_app(datastore, gate, requests=Shares(6)), replace(datastore.settings, requests_max=6)
    ) as api:
        yield api
    await gate.close()


def requests_of(api: Api) -> Shares:
    """Its requests under way."""
    assert isinstance(api.app, Application)
    assert api.app.requests
    return api.app.requests


def waits(header: dict[str, Any]) -> bytes:
    """A claim that waits."""
    return request("POST", "/v1/jobs/none/claim", {"workerId": "w", "wait": 20}, **header)


async def test_one_caller_leaves_requests_to_others(shared: Api, make_key: MakeKey) -> None:
    one, other = await make_key("one"), await make_key("other")
    held = requests_of(shared)._held
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(dialled(shared.port)) for _ in range(4)]
        for line in lines:
            await line.send(waits(one))
        await wait_until(lambda: [*held.values()] == [4])
        refused = await shared("GET", "/v1/items/jobs/x", headers=one)
        assert (refused.status, refused.data["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert "your other requests" in refused.data["detail"]
        assert (await shared("GET", "/v1/items/jobs", headers=other)).status == 200
    # What has gone is counted no more, nor what was refused.
    await wait_until(lambda: not held)
    assert (await shared("GET", "/v1/items/jobs/x", headers=one)).status == 404
    assert (await shared("GET", "/v1/items/jobs", headers=one)).status == 200
    assert not held


async def test_without_keys_an_address_is_a_caller(shared: Api) -> None:
    shared.app.state.gate = None
    asked = request("GET", "/v1/items/jobs", close=True)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await (await stack.enter_async_context(dialled(shared.port))).send(waits({}))
        await wait_until(lambda: [*requests_of(shared)._held.values()] == [4])
        for address, status in (("127.0.0.1", 503), ("127.0.0.2", 200)):
            line = await stack.enter_async_context(dialled(shared.port, address))
            await line.send(asked)
            assert [answer.status for answer in await line.rest()] == [status]


async def test_a_stream_is_under_way_until_its_end(shared: Api, datastore: Datastore, make_key: MakeKey) -> None:
    for number in range(20):
        await datastore.create("big", str(number), content="x" * 500_000)
    key, held = await make_key("default"), requests_of(shared)._held
    for goes in (True, False):
        async with dialled(shared.port, room=8192) as line:
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await line.send(request("GET", "/v1/items/big", close=True, Accept="application/x-ndjson", **key))
            await asyncio.sleep(0.3)
            assert [*held.values()] == [1]
            if not goes:
                line.writer.transport.resume_reading()  # type: ignore[attr-defined]
                assert [answer.status for answer in await line.rest()] == [200]
        await wait_until(lambda: not held)
