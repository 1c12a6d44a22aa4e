"""outlook: when a key can be claimed from. What servers have to do is in tests/engine/test_upkeep.py."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import NOW_MS
from hookline import Datastore
from jobs import WAITING
from scripts import KEY, Scripts, at, snapshot, unchanged

NEVER, NOW = None, 0


async def outlook(datastore: Datastore) -> Any:
    """Of the key that tests use."""
    request = {"tags": [datastore.connection.tag(0)] * 2, "key": KEY}
    first, again = await datastore.connection.read("outlook", 0, request)
    assert first == again
    return NEVER if first is False else first


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, NEVER),
        ({"status": "completed"}, NEVER),
        (WAITING, NOW),
        ({**WAITING, "scheduled_at": at(20)}, NOW_MS + 20_000),
        ({"status": "started", "locked_until": at(30)}, NOW_MS + 30_000),
    ],
)
async def test_when_an_item_can_be_claimed(
    scripts: Scripts, datastore: Datastore, metadata: dict[str, Any], expected: object
) -> None:
    assert await outlook(datastore) is NEVER
    await scripts.create(metadata=metadata)
    async with unchanged(scripts.raw):
        assert await outlook(datastore) == expected
    scripts.clock.advance(31)
    assert await outlook(datastore) == (NEVER if expected is NEVER else NOW)


async def test_the_first_of_several(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create("a", metadata={**WAITING, "scheduled_at": at(20)})
    await scripts.create("b", metadata={"status": "started", "locked_until": at(10)})
    assert await outlook(datastore) == NOW_MS + 10_000


async def test_a_key_that_is_paused(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata=WAITING)
    await datastore.pause(KEY)
    assert await outlook(datastore) is True


@pytest.mark.parametrize("family", ["s:jobs:not_started", "s:jobs:scheduled", "s:jobs:started", "cfg:jobs"])
@pytest.mark.spoils
async def test_corrupt(scripts: Scripts, datastore: Datastore, family: str) -> None:
    await scripts.spoil(family)
    before = await snapshot(scripts.raw)
    assert await outlook(datastore) == NOW
    assert await snapshot(scripts.raw) == before
