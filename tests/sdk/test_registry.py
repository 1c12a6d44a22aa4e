"""Who works now: workers are listed while they live, and do what is asked of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Api
from conftest import Clock, wait_until
from hookline import Client, Datastore, Job, SyncClient, Worker
from hookline.errors import Invalid, NotFound
from hookline.query import Page
from hookline.registry import WORKERS, Presence
from jobs import WAITING, fill

SOMEBODY = Presence("jobs", "w", "h", 1, ("f",), 1, 0)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.registry.EVERY", 0.1)


async def nothing(_: Job) -> None:
    await asyncio.sleep(0.2)


def _named(name: str) -> Callable[[Job], Awaitable[None]]:
    async def handler(job: Job) -> None:
        await nothing(job)

    handler.__name__ = handler.__qualname__ = name
    return handler


async def test_a_worker_is_listed_while_it_lives(
    source: Datastore | Client, datastore: Datastore, client: Client, served: Api
) -> None:
    worker = Worker(source, "jobs", concurrency=3)
    worker.handles()(nothing)
    running = asyncio.create_task(worker.run())
    (found,) = await wait_until(datastore.workers)
    assert [each.worker_id for each in await client.workers()] == [worker.worker_id]
    assert (found.key, found.worker_id, found.pid) == ("jobs", worker.worker_id, os.getpid())
    assert (found.handlers, found.concurrency, found.in_flight, found.signal) == (("nothing",), 3, 0, None)
    await fill(datastore, 2)
    await wait_until(lambda: _in_flight(client, 2))
    (shown,) = (await served("GET", "/v1/workers")).data["workers"]
    assert shown["workerId"] == worker.worker_id
    worker.stop()
    await running
    assert await datastore.workers() == []


async def test_a_worker_tells_of_itself_within_bounds(datastore: Datastore, client: Client, served: Api) -> None:
    many = tuple(f"handler_{number:03}" for number in range(200))
    for source in (datastore, client):
        with pytest.raises(Invalid, match="/handlers: expected at most 2000 characters"):
            await source.heartbeat(replace(SOMEBODY, handlers=many))
    worker = Worker(client, "jobs")
    for name in many:
        worker.handles(where={"type": name})(_named(name))
    running = asyncio.create_task(worker.run())
    (found,) = await wait_until(datastore.workers)
    worker.stop()
    await running
    assert len(set(found.handlers) & set(many)) == len(found.handlers) == 1000 // len("handler_000,")


@pytest.mark.parametrize(("live", "least", "most"), [(4, 0, 0), (5, 1, 1), (9, 1, 5)])
async def test_what_is_not_listed_is_told_of(
    live: int, least: int, most: int, datastore: Datastore, client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.registry.LIVE_MAX", 4)
    monkeypatch.setattr("hookline.registry.PAGE", 2)
    for number in range(live):
        await datastore.heartbeat(replace(SOMEBODY, worker_id=str(number)))
    with SyncClient(url) as sync:
        for found in (await datastore.workers(), await client.workers(), await asyncio.to_thread(sync.workers)):
            assert [each.worker_id for each in found] == ["0", "1", "2", "3"]
            assert least <= found.left_out <= most


async def _in_flight(client: Client, count: int) -> bool:
    return [each.in_flight for each in await client.workers()] == [count]


async def test_signals(source: Datastore | Client, datastore: Datastore, client: Client, raw: aioredis.Redis) -> None:
    worker = Worker(source, "jobs")
    worker.handles()(nothing)
    running = asyncio.create_task(worker.run())
    (presence,) = await wait_until(datastore.workers)
    await client.signal_worker(presence, "quiet")
    await wait_until(lambda: not worker.claiming)

    async def nothing_waits() -> bool:
        """Whether the claim that it broke off waits no more: over HTTP its server learns of that later."""
        return bool((await raw.info("clients"))["blocked_clients"] == 0)

    await wait_until(nothing_waits)
    await datastore.create("jobs", "a", metadata=WAITING)
    await datastore.signal_worker(presence, "stop")
    await asyncio.wait_for(running, 20)
    assert (await datastore.get("jobs", "a")).status == "not_started"


async def test_a_signal_is_for_one_worker_not_for_the_next_of_its_name(
    source: Datastore | Client, datastore: Datastore
) -> None:
    presence = SOMEBODY
    await datastore.heartbeat(presence)
    await datastore.signal_worker(presence, "quiet")
    worker = Worker(source, "jobs", worker_id=presence.worker_id)
    worker.handles()(nothing)
    running = asyncio.create_task(worker.run())
    await wait_until(lambda: _told_by(datastore, os.getpid()))
    await datastore.create("jobs", "a", metadata=WAITING)
    assert await datastore.wait_for("jobs", "a", timeout=20)
    worker.stop()
    await running


async def _told_by(datastore: Datastore, pid: int) -> bool:
    return [(each.pid, each.signal) for each in await datastore.workers()] == [(pid, None)]


@pytest.mark.parametrize("over", ["store", "http"])
async def test_what_can_not_be(over: str, datastore: Datastore, client: Client) -> None:
    source = datastore if over == "store" else client
    with pytest.raises(NotFound):
        await source.signal_worker(SOMEBODY, "stop")
    with pytest.raises(Invalid, match="quiet or stop"):
        await source.signal_worker(SOMEBODY, "sleep")
    await source.leave(SOMEBODY)


async def test_the_dead_are_not_listed_and_then_forgotten(datastore: Datastore, clock: Clock) -> None:
    clock.advance(0)
    await datastore.heartbeat(SOMEBODY)
    clock.advance(19)
    assert [each.worker_id for each in await datastore.workers()] == ["w"]
    clock.advance(2)
    assert await datastore.workers() == []
    assert len((await datastore.query(WORKERS)).items) == 1
    clock.advance(3600)
    await datastore.heartbeat(Presence("jobs", "v", "h", 1, (), 1, 0))
    assert [item.sort_field for item in (await datastore.query(WORKERS)).items] == ["jobs/v"]


async def test_the_dead_are_forgotten_also_where_no_new_worker_comes(
    datastore: Datastore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.registry.FORGET_MAX", 3)
    clock.advance(0)
    lasting = replace(SOMEBODY, worker_id="v")
    for each in (SOMEBODY, lasting):
        await datastore.heartbeat(each)
    clock.advance(3601)
    for _ in range(3):
        await datastore.heartbeat(lasting)
    assert [item.sort_field for item in (await datastore.query(WORKERS)).items] == ["jobs/v"]


async def test_a_new_worker_costs_the_same_however_many_live(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        await datastore.heartbeat(replace(SOMEBODY, worker_id=str(number)))
    examined: list[int] = []
    query = Datastore.query

    async def counted(self: Datastore, *named: Any, **given: Any) -> Page:
        page = await query(self, *named, **given)
        examined.append(page.explanation.examined)
        return page

    monkeypatch.setattr(Datastore, "query", counted)
    await datastore.heartbeat(SOMEBODY)
    assert examined == [0]
