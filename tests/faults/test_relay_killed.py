"""Servers killed between taking an event and acknowledging it: it is delivered again, under the same id."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from pathlib import Path
from random import Random

import aiohttp
import pytest

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.secret import load_key
from hookline_server.endpoint import lane_of
from hookline_server.event import endpoint_of
from jobs import outbox_length
from process import free_port, serving
from receiver import Receiver, receiving


async def test_redelivery_has_the_same_id_and_body(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    async with receiving() as receiver, aiohttp.ClientSession() as session:
        receiver.hang = asyncio.Event()
        item = {"key": "jobs", "sortField": "a", "metadata": {"status": "not_started"}}
        async with serving(data, port=port) as server:
            await session.post(f"{server.url}/v1/items", json={**item, "triggerUrls": {receiver.url: "k"}})
            await session.patch(f"{server.url}/v1/items/jobs/a", json={"metadata": {"status": "started"}})
            await receiver.wait_for(1)
            await server.kill()
        receiver.hang.set()
        async with serving(data, port=port):
            first, second = await receiver.wait_for(2, seconds=30)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body


EVENTS, KILLS = int(os.environ.get("HOOKLINE_TEST_KILL_EVENTS", "400")), 6


@pytest.mark.timeout(120 + EVENTS / 10)
async def test_of_many_events_none_is_lost_and_each_stays_the_same(tmp_path: Path) -> None:
    """Killed at any moment, also under another name; a tenth of the answers sends deliveries through their lane."""
    random = Random(5)
    data = tmp_path / "data"
    environ = {"HOOKLINE_DELIVERY_TIMEOUT": "2", "HOOKLINE_DELIVERY_SCHEDULE": ",".join(["0.1"] * 30)}
    async with receiving() as receiver, EmbeddedStore(tmp_path / "store", fsync="no") as store:
        receiver.statuses = [random.choice([204] * 9 + [500]) for _ in range(3 * EVENTS)]
        box = SecretBox(load_key(None, data))
        async with Datastore(store.url, Settings(data=data), box) as datastore:
            trigger = [{"url": receiver.url, "apiKey": "k", "events": ["created"]}]
            for begin in range(0, EVENTS, 500):
                names = range(begin, min(EVENTS, begin + 500))
                await datastore.run([datastore.calls.create("docs", f"{n}", trigger_urls=trigger) for n in names])
            port = free_port()
            for kill in range(KILLS):
                async with serving(data, "--store", store.url, port=port if kill % 2 else 0, **environ) as server:
                    await receiver.wait_for(len(receiver.posts) + random.randint(1, EVENTS // 10), seconds=60)
                    await server.kill()
            lane = lane_of(endpoint_of(receiver.url))

            async def done() -> bool:
                waiting = {"status": {"in": ["not_started", "scheduled", "started"]}}
                return await outbox_length(datastore) == 0 and not (await datastore.query(lane, where=waiting)).items

            async with serving(data, "--store", store.url, port=port, **environ):
                await wait_until(done, seconds=60 + EVENTS / 50)
            assert (await datastore.query(lane, where={"status": "failed"})).items == []
    _check(receiver, EVENTS)
    assert {post.data["newDataset"]["sortField"] for post in receiver.posts} == {f"{n}" for n in range(EVENTS)}


async def test_ordered_events_stay_in_order(tmp_path: Path) -> None:
    """Those of each item, by their first arrival, while relays are killed and a third of the answers is a failure."""
    random, items, each = Random(7), 20, 5
    data = tmp_path / "data"
    environ = {"HOOKLINE_DELIVERY_TIMEOUT": "2", "HOOKLINE_DELIVERY_SCHEDULE": ",".join(["0.1"] * 30)}
    async with receiving() as receiver, EmbeddedStore(tmp_path / "store", fsync="no") as store:
        receiver.statuses = [random.choice([204, 204, 500]) for _ in range(items * each)]
        async with Datastore(store.url, Settings(data=data), SecretBox(load_key(None, data))) as datastore:
            trigger = [{"url": receiver.url, "events": ["created", "updated"], "ordered": True}]
            create, update = datastore.calls.create, datastore.calls.update
            await datastore.run([create("docs", f"{n}", trigger_urls=trigger) for n in range(items)])
            for change in range(each - 1):
                await datastore.run([update("docs", f"{n}", metadata={"n": change}) for n in range(items)])
            port = free_port()
            for kill in range(2):
                async with serving(data, "--store", store.url, port=port if kill % 2 else 0, **environ) as server:
                    await receiver.wait_for(len(receiver.posts) + random.randint(1, 20), seconds=60)
                    await server.kill()

            async def done() -> bool:
                return len({post.headers["webhook-id"] for post in receiver.posts}) == items * each

            async with serving(data, "--store", store.url, port=port, **environ):
                await wait_until(done, seconds=90)
    _check(receiver, items * each)
    versions = defaultdict(list)
    for post in receiver.posts:
        versions[post.data["newDataset"]["sortField"]].append(post.data["version"])
    assert [[*dict.fromkeys(seen)] for seen in versions.values()] == [[*range(1, each + 1)]] * items


def _check(receiver: Receiver, events: int) -> None:
    bodies = defaultdict(set)
    for post in receiver.posts:
        bodies[post.headers["webhook-id"]].add(post.body)
    assert len(bodies) == events
    assert all(len(same) == 1 for same in bodies.values())
