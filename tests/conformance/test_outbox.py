"""The outbox: what a change fires is taken by one relay, until it is done."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from conftest import wait_until
from hookline import Datastore
from hookline_server.event import Delivery, from_outbox
from hookline_server.turns import SHORTEST, Turns
from jobs import outbox_length

URLS = {"http://worker.example/run": "its-key"}


async def take(datastore: Datastore, consumer: str, **request: Any) -> dict[bytes, tuple[int, bytes]]:
    """What a relay gets of every partition: sortField -> partition and id of the event."""
    asked = {"consumer": consumer, "limit": 100, "idle_ms": 60_000, "dead_ms": 60_000, "look": True, "own": False}
    asked |= request
    found: dict[bytes, tuple[int, bytes]] = {}
    for partition in range(datastore.calls.partitions):
        answer = await datastore.connection.read("relay_take", partition, asked)
        assert not answer[b"corrupt"]
        for stream_id, flat in answer[b"events"]:
            entry = dict(zip(flat[::2], flat[1::2], strict=True))
            found[entry[b"sort"]] = (partition, stream_id)
    return found


async def done(datastore: Datastore, events: dict[bytes, tuple[int, bytes]]) -> None:
    for partition, stream_id in events.values():
        await datastore.connection.read("relay_done", partition, {"ids": [stream_id]})


async def test_each_event_is_taken_by_one_relay(datastore: Datastore) -> None:
    made = [f"{n:02}" for n in range(40)]
    await datastore.run([datastore.calls.create("jobs", name, trigger_urls=URLS) for name in made])
    await datastore.run([datastore.calls.update("jobs", name, metadata={"x": 1}) for name in made])
    assert await outbox_length(datastore) == 40
    taken = await take(datastore, "r1")
    assert {name.decode(): partition for name, (partition, _) in taken.items()} == {
        name: datastore.calls.partition("jobs", name) for name in made
    }
    assert await take(datastore, "r2") == {}
    assert await take(datastore, "r1", own=b"0") == taken
    await done(datastore, taken)
    assert await take(datastore, "r1", own=b"0") == {}
    assert await outbox_length(datastore) == 0


async def test_what_a_relay_left_is_taken_over(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", trigger_urls=URLS)
    await datastore.update("jobs", "a", metadata={"x": 1})
    taken = await take(datastore, "r1")
    assert await take(datastore, "r2", idle_ms=0) == taken
    await done(datastore, taken)
    assert await take(datastore, "r1", idle_ms=0) == {}


async def test_nothing_fires_where_triggers_are_off(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", trigger_urls=URLS)
    await datastore.update("jobs", "a", metadata={"x": 1}, triggers=False)
    await datastore.update("jobs", "a", metadata={"x": 1})
    assert await take(datastore, "r1") == {}


async def events(datastore: Datastore) -> AsyncIterator[Delivery]:
    """The deliveries of what a relay gets, in the order of each partition."""
    for partition in range(datastore.calls.partitions):
        request = {"consumer": "r1", "limit": 100, "idle_ms": 60_000, "own": False}
        answer = await datastore.connection.read("relay_take", partition, request)
        for stream_id, flat in answer[b"events"]:
            entry = dict(zip(flat[::2], flat[1::2], strict=True))
            for delivery in from_outbox("default", partition, stream_id.decode(), entry):
                yield delivery


async def test_ordered_events_of_an_item_have_their_turns(datastore: Datastore) -> None:
    """Also those of one call; each item and each URL is on its own."""
    triggers = [{"url": f"http://{host}.example/", "events": ["created", "updated"], "ordered": True} for host in "ab"]
    calls, names = datastore.calls, [f"{n}" for n in range(8)]
    await datastore.run(
        [
            call
            for name in names
            for call in (
                calls.create("jobs", name, trigger_urls=triggers),
                calls.update("jobs", name, metadata={"x": 1}),
                calls.update("jobs", name, metadata={"x": 2}),
            )
        ]
    )
    turns, lines = Turns(datastore), defaultdict[tuple[str, str], list[Delivery]](list)
    async for delivery in events(datastore):
        lines[delivery.source_sort_field, delivery.target.url].append(delivery)
    assert len(lines) == 2 * len(names)
    for first, second, third in lines.values():
        assert [each.payload["version"] for each in (first, second, third)] == [1, 2, 3]
        assert [await turns.wait(each) for each in (first, second, third)] == [0, SHORTEST, 2 * SHORTEST]
        await turns.end(second)
        assert await turns.wait(second) == SHORTEST, "it was not its turn"
        await turns.end(first)
        assert [await turns.wait(each) for each in (second, third)] == [0, SHORTEST]
        await turns.end(second)
        await turns.end(third)


async def test_a_relay_that_finds_nothing_lives(datastore: Datastore) -> None:
    """What it holds is not taken over, however long it is quiet; once it does not ask any more, it is."""
    await datastore.create("jobs", "a", trigger_urls=URLS)
    await datastore.update("jobs", "a", metadata={"x": 1})
    taken = await take(datastore, "r1")
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        assert await take(datastore, "r1") == {}
        assert await take(datastore, "r2", dead_ms=1000) == {}
        await asyncio.sleep(0.05)
    await wait_until(lambda: take(datastore, "r2", dead_ms=1000))
    await done(datastore, taken)
