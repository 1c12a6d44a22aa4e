"""Searches of one namespace: few are at the store at once, and they hold up nothing but each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from api import Api
from conftest import wait_until
from hookline import Datastore
from hookline.errors import Overloaded, Unavailable
from hookline.searches import SEARCHES_MAX
from jobs import WAITING, fill
from rawhttp import dialled, request

pytestmark = pytest.mark.settings(call_timeout=3.0)

UNFOUND = {"n": {"lt": 0}}


async def be_at(datastore: Datastore) -> None:
    """Have a turn, for a moment."""
    async with datastore.connection.searches.turn(None):
        await asyncio.sleep(0.05)


@asynccontextmanager
async def taken(datastore: Datastore) -> AsyncIterator[None]:
    """As long as all turns of the searches are taken."""
    async with AsyncExitStack() as stack:
        for _ in range(SEARCHES_MAX):
            await stack.enter_async_context(datastore.connection.searches.turn(None))
        yield


def waiting(datastore: Datastore) -> int:
    """How many searches wait for a turn."""
    return sum(not each.done() for each in datastore.connection.searches._turns[None]._waiters or ())


async def test_few_are_at_the_store_whatever_else_is_asked_of_it(datastore: Datastore, raw: aioredis.Redis) -> None:
    await fill(datastore, 10)

    def in_use() -> int:
        return datastore.settings.connections - datastore.connection.nodes._first._free._value

    neighbour = replace(datastore.settings, namespace="neighbour")
    async with Datastore(datastore.connection.nodes, neighbour, datastore.secrets) as other:
        await other.create("jobs", "a")
        await raw.client_pause(1000)
        searches = [asyncio.create_task(datastore.query("jobs", where=UNFOUND)) for _ in range(40)]
        await wait_until(lambda: waiting(datastore) == 40 - SEARCHES_MAX)
        assert in_use() == SEARCHES_MAX
        # None of these waits for a link, as the store would have it.
        single = [*(asyncio.create_task(each.get("jobs", "0003")) for each in [datastore] * 3)]
        single += [asyncio.create_task(other.get("jobs", "a"))]
        await wait_until(lambda: in_use() == SEARCHES_MAX + len(single), seconds=0.9)
        assert [item.sort_field for item in await asyncio.gather(*single)] == ["0003", "0003", "0003", "a"]
        assert all(not page.items and page.cursor is None for page in await asyncio.gather(*searches))
    assert in_use() == 0


async def test_who_waits_too_long_is_told_why_and_all_else_goes_on(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 3)
    searches = datastore.connection.searches
    searches._patience = 0.1
    async with taken(datastore):
        with pytest.raises(Unavailable, match="answered no search") as silent:
            await datastore.query("jobs")
        assert type(silent.value) is Unavailable
        assert (await datastore.get("jobs", "0001")).status == "not_started"
        await datastore.create("jobs", metadata=WAITING)
        assert (await datastore.claim("jobs", worker_id="w")).items
    searches._patience = 60
    others = [asyncio.create_task(be_at(datastore)) for _ in range(300)]  # who is last waits for almost 4 s
    await wait_until(lambda: waiting(datastore) > 200)
    searches._patience = 0.2
    for search in (datastore.query("jobs"), datastore.count("jobs"), datastore.stats()):
        with pytest.raises(Overloaded, match="too many searches of this namespace"):
            await search
    answer = await api("POST", "/v1/items/jobs/query", {"where": UNFOUND})
    assert (answer.status, answer.data["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")
    assert "too many searches" in answer.data["detail"]
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert (await api("POST", "/v1/items/jobs/query", {"where": UNFOUND})).status == 200


@pytest.mark.parametrize(
    "asked",
    [
        request("GET", "/v1/items/jobs?limit=5"),
        request("POST", "/v1/items/jobs/query", {"where": UNFOUND}),
        request("POST", "/v1/items/jobs/query", {"where": UNFOUND, "count": True}),
    ],
)
async def test_one_that_waits_ends_with_its_client(api: Api, datastore: Datastore, asked: bytes) -> None:
    datastore.connection.searches._patience = 60
    async with taken(datastore):
        async with dialled(api.port) as line:
            await line.send(asked)
            await wait_until(lambda: waiting(datastore) == 1)
        await wait_until(lambda: waiting(datastore) == 0)
    async with AsyncExitStack() as stack, dialled(api.port) as line:
        await stack.enter_async_context(taken(datastore))
        await line.send(asked)
        await wait_until(lambda: waiting(datastore) == 1)
        await stack.aclose()
        assert (await line.answer()).status == 200
