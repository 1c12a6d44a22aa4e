"""Wake messages: who hears of which."""

from __future__ import annotations

import asyncio
import time

import pytest

from hookline import Datastore
from jobs import WAITING

TOPIC, PARTITIONS = "ready:jobs", 4


@pytest.mark.settings(partitions=PARTITIONS)
async def test_who_listens_to_one_partition_hears_of_no_other(datastore: Datastore) -> None:
    wakes, there = datastore.wakes, datastore.calls.partition("jobs", "a")
    elsewhere = (there + 1) % PARTITIONS
    async with (
        wakes.listening(TOPIC, partition=there) as woken,
        wakes.listening(TOPIC, partition=elsewhere) as other,
        wakes.listening(TOPIC) as every,
    ):
        before = time.monotonic()
        await datastore.create("jobs", "a", metadata=WAITING)
        async with asyncio.timeout(5):
            await woken.wait()
            await every.wait()
        assert not other.is_set()
        assert wakes.heard(TOPIC, there) > before > wakes.heard(TOPIC, elsewhere)
    assert not wakes._listeners
