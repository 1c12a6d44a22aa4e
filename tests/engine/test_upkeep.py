"""Upkeep over several partitions: those in which there is nothing to do are asked together, and left alone."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock, wait_until
from hookline import Datastore
from hookline.upkeep import Outlook
from hookline.wake import Wakes
from jobs import WAITING
from receiver import receiving
from relays import create_job, relaying

PARTITIONS = 4
pytestmark = pytest.mark.settings(partitions=PARTITIONS)
NOTHING = Outlook(0, math.inf)


@pytest.fixture
def calls(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each script was called by a read."""
    counted: Counter[str] = Counter()
    read = datastore.connection.read

    async def counting(script: str, partition: int, request: object) -> Any:
        counted[script] += 1
        return await read(script, partition, request)

    monkeypatch.setattr(datastore.connection, "read", counting)
    return counted


async def test_partitions_in_which_nothing_is_due_are_not_swept(
    datastore: Datastore, clock: Clock, calls: Counter[str]
) -> None:
    clock.ms = NOW_MS
    place = await datastore.create("jobs", metadata={**WAITING, "scheduled_at": "+10s"})
    partition = datastore.calls.partition("jobs", place.sort_field)
    outlook = await datastore.upkeep.outlook()
    assert outlook.pop(partition) == Outlook(0, NOW_MS + 10_000)
    assert [*outlook.values()] == [NOTHING] * (PARTITIONS - 1)
    await datastore.sweep()
    assert calls == {"outlook": 2}
    clock.advance(11)
    await datastore.sweep()
    assert calls == {"outlook": 3, "sweep": 1}
    assert (await datastore.get("jobs", place.sort_field)).status == "not_started"


async def test_what_servers_have_to_do(datastore: Datastore, raw: aioredis.Redis) -> None:
    upkeep, tag = datastore.upkeep, datastore.connection.tag
    assert await upkeep.next_ms() == math.inf
    await create_job(datastore, "http://127.0.0.1:9/", "a", events=["created"])
    partition = datastore.calls.partition("jobs", "a")
    assert (await upkeep.outlook())[partition] == Outlook(1, math.inf)
    assert await upkeep.next_ms() == 0
    await raw.delete(f"{tag(partition)}:outbox")
    await raw.sadd(f"{tag(1)}:r:hookline", "hookline.schedules\0completed")
    assert await upkeep.next_ms() == math.inf
    await raw.sadd(f"{tag(1)}:r:hookline", "hookline.schedules\0not_started")
    assert (await upkeep.next_ms(), (await upkeep.outlook())[1]) == (0, NOTHING)
    await raw.delete(f"{tag(1)}:r:hookline")
    await raw.hset(f"{tag(2)}:builds", "jobs\0\0x", "")
    assert (await upkeep.outlook())[2] == Outlook(0, 0)
    await raw.delete(f"{tag(2)}:builds")
    for name, outlook in (("due", Outlook(0, 0)), ("outbox", Outlook(1, math.inf))):
        await raw.set(f"{tag(3)}:{name}", "of a wrong type: who works on it tells")
        assert (await upkeep.outlook())[3] == outlook
        await raw.delete(f"{tag(3)}:{name}")


async def test_an_outbox_of_which_nobody_was_told_is_looked_at(
    datastore: Datastore, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline_server.relay.POLL", 0.02)
    async with receiving() as receiver, relaying(datastore):
        await wait_until(lambda: calls["outlook"] > 2)
        begun = calls["relay_take"]
        await wait_until(lambda: calls["outlook"] > 10)
        assert calls["relay_take"] == begun
        monkeypatch.setattr(Wakes, "_hear", lambda *_: None)
        await create_job(datastore, receiver.url, events=["created"])
        await receiver.wait_for(1)
