"""Ordered triggers: the events of an item arrive one after the other, whatever becomes of the first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Item
from hookline.clock import parse_time
from hookline_server import deliveries
from hookline_server.delivery import read
from hookline_server.endpoint import lane_of
from hookline_server.event import Delivery, endpoint_of
from hookline_server.turns import Turns
from jobs import outbox_length
from receiver import Receiver
from relays import create_job, relaying

pytestmark = pytest.mark.settings(call_timeout=5.0, tick=0.05, delivery_schedule=(0.2, 0.2), delivery_timeout=5.0)

EVENTS = ["created", "updated"]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells the next: it asks again soon."""
    monkeypatch.setattr("hookline_server.turns.SHORTEST", 0.1)


async def change(datastore: Datastore, receiver: Receiver, name: str = "a", count: int = 2, **more: Any) -> None:
    """An item with so many events that are ordered."""
    await create_job(datastore, receiver.url, name, events=EVENTS, ordered=True, **more)
    for number in range(count - 1):
        await datastore.update("jobs", name, metadata={"n": number})


def arrived(receiver: Receiver, name: str = "a") -> list[int]:
    """The versions of an item that arrived."""
    return [post.data["version"] for post in receiver.posts if post.data["newDataset"]["sortField"] == name]


async def kept(datastore: Datastore, receiver: Receiver, **where: Any) -> list[Item]:
    return (await datastore.query(lane_of(endpoint_of(receiver.url)), where=where)).items


async def lines(raw: aioredis.Redis) -> list[bytes]:
    return [name async for name in raw.scan_iter("*:turns:*")]


async def all_done(datastore: Datastore, raw: aioredis.Redis) -> None:
    async def done() -> bool:
        return not await lines(raw) and await outbox_length(datastore) == 0

    await wait_until(done)


async def test_the_next_waits_through_retries_and_other_items_do_not(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    async with relaying(datastore):
        await change(datastore, receiver, count=4)
        await receiver.wait_for(1)
        receiver.statuses = [500]
        await change(datastore, receiver, "b", count=3)
        await receiver.wait_for(9)
        await all_done(datastore, raw)
    assert [*dict.fromkeys(arrived(receiver))] == [1, 2, 3, 4]
    assert [*dict.fromkeys(arrived(receiver, "b"))] == [1, 2, 3]
    assert len(receiver.posts) == 9


async def test_what_waits_says_so_while_another_item_passes(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    async with relaying(datastore):
        receiver.hang = asyncio.Event()
        await change(datastore, receiver)
        await receiver.wait_for(1)
        (waits,) = await wait_until(lambda: kept(datastore, receiver))
        assert (waits.status, waits.metadata["attempts"]) == ("scheduled", 0)
        assert "ordered" in waits.metadata["last_error"]
        await change(datastore, receiver, "b", count=1)
        await receiver.wait_for(2)
        assert (arrived(receiver), arrived(receiver, "b")) == ([1], [1])
        receiver.hang.set()
        await receiver.wait_for(3)
        await all_done(datastore, raw)
    assert arrived(receiver) == [1, 2]
    assert not await kept(datastore, receiver, status="failed")


async def test_a_dead_letter_gives_way_and_comes_late_when_it_is_redriven(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    receiver.statuses = [500] * 3
    async with relaying(datastore):
        await change(datastore, receiver, count=3)
        await receiver.wait_for(5)
        await all_done(datastore, raw)
        assert arrived(receiver) == [1, 1, 1, 2, 3]
        (dead,) = await kept(datastore, receiver, status="failed")
        await deliveries.redrive(datastore, deliveries.id_of(dead))
        await receiver.wait_for(6)
    assert arrived(receiver)[5] == 1


async def test_one_that_waits_keeps_its_attempts_when_the_schedule_is_changed(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver, store: EmbeddedStore
) -> None:
    receiver.statuses = [500] * 3

    @contextlib.asynccontextmanager
    async def scheduled(*schedule: float) -> AsyncIterator[Datastore]:
        settings = replace(datastore.settings, delivery_schedule=schedule)
        async with Datastore(store.url, settings, datastore.secrets) as changed, relaying(changed):
            for first in await kept(changed, receiver, attempts={"gt": 0}):
                await Turns(changed).wake(read(first), first.sort_field)
            yield changed

    async def waits_long(attempts: int) -> None:
        (first,) = await wait_until(lambda: kept(datastore, receiver, status="scheduled", attempts=attempts))
        assert parse_time(first.metadata["scheduled_at"]) > await datastore.connection.now_ms() + 40_000

    async with scheduled(60.0, 60.0) as changed:
        await change(changed, receiver)
        await waits_long(1)
    async with scheduled(60.0):
        await waits_long(2)
    async with scheduled(*[60.0] * 9) as changed:
        await receiver.wait_for(4)
        await all_done(changed, raw)
    assert arrived(receiver) == [1, 1, 1, 2]


async def test_one_that_is_cancelled_gives_way(datastore: Datastore, raw: aioredis.Redis, receiver: Receiver) -> None:
    """At once, if it is the first; one behind it, when its turn comes."""
    receiver.statuses = [500]
    async with relaying(datastore):
        await change(datastore, receiver, count=4, retry=["1m"])

        async def four() -> list[Item]:
            found = await kept(datastore, receiver)
            return found if len(found) == 4 else []

        first, second, third, _ = await wait_until(four)
        for delivery in (third, second, first):
            await deliveries.cancel(datastore, deliveries.id_of(delivery))
        await receiver.wait_for(2)
        await all_done(datastore, raw)
    assert arrived(receiver) == [1, 4]


async def test_those_that_are_cancelled_together_give_way(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    async def cancel(count: int, **where: str) -> None:
        async def waiting() -> bool:
            return len(await kept(datastore, receiver, status="scheduled", **where)) == count

        await wait_until(waiting)
        (progress,) = [step async for step in deliveries.cancel_all(datastore, where, None, None)]
        assert progress.done == count

    receiver.statuses = [500]
    async with relaying(datastore):
        await change(datastore, receiver, retry=["1h"])
        await cancel(1, event="created")
        await receiver.wait_for(2)
        receiver.statuses = [500]
        await change(datastore, receiver, "b", count=3, retry=["1h"])
        await cancel(3)
        await all_done(datastore, raw)
    assert (arrived(receiver), arrived(receiver, "b")) == ([1, 2], [1])


async def test_a_list_outlasts_what_waits_and_not_for_ever(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    async with relaying(datastore):
        await change(datastore, receiver, count=1, retry=["100d"])
        await wait_until(lambda: kept(datastore, receiver, status="scheduled"))
        (line,) = await lines(raw)
        assert 120 * 86_400 < await raw.ttl(line) < 200 * 86_400


async def test_another_finds_that_the_first_has_ended(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its relay passes the turn on: the next begins nonetheless."""
    receiver.statuses = [500]
    pass_on = Turns.end

    async def three() -> list[Item]:
        found = await kept(datastore, receiver, status="scheduled")
        return found if len(found) == 3 else []

    async with relaying(datastore):
        await change(datastore, receiver, count=3, retry=["1h"])
        first, _, third = sorted(await wait_until(three), key=lambda item: item.sort_field)

        async def end(turns: Turns, ended: Delivery) -> None:
            if ended.webhook_id == first.sort_field:
                assert await turns.wait(read(third)) > 0
            await pass_on(turns, ended)

        monkeypatch.setattr(Turns, "end", end)
        await Turns(datastore).wake(read(first), first.sort_field)
        await receiver.wait_for(4)
        await all_done(datastore, raw)
    assert arrived(receiver) == [1, 1, 2, 3]


@pytest.mark.usefixtures("soon")
async def test_nobody_told_the_next(datastore: Datastore, raw: aioredis.Redis, receiver: Receiver) -> None:
    """A relay was killed after the first had ended, before its turn was passed on."""
    receiver.hang = asyncio.Event()
    async with relaying(datastore, grace=0):
        await change(datastore, receiver, count=3)
        await receiver.wait_for(1)

        async def the_first_is_left() -> bool:
            return len(await kept(datastore, receiver)) == 2 and await outbox_length(datastore) == 1

        await wait_until(the_first_is_left)
    receiver.hang.set()
    (stream_id,) = [stream_id for stream_id, _ in await raw.xrange("hl:{default/0}:outbox") or []]
    await datastore.connection.change("relay_done", 0, {"ids": [stream_id]})
    assert arrived(receiver) == [1]

    async def due() -> bool:
        now = await datastore.connection.now_ms()
        return all(parse_time(item.metadata["scheduled_at"]) <= now for item in await kept(datastore, receiver))

    await wait_until(due)
    async with relaying(datastore):
        await receiver.wait_for(3)
        await all_done(datastore, raw)
    assert arrived(receiver) == [1, 2, 3]


async def test_what_is_not_ordered_keeps_no_line(datastore: Datastore, raw: aioredis.Redis) -> None:
    await create_job(datastore, "http://h/", events=EVENTS)
    assert await lines(raw) == []
    await create_job(datastore, "http://h/", "b", events=EVENTS, ordered=True)
    assert len(await lines(raw)) == 1
