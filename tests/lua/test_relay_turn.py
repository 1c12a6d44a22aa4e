"""relay_turn: where an event stands among those of its item and URL, at little cost however many wait."""

from __future__ import annotations

import hashlib
from typing import Any

import redis.asyncio as aioredis

from hookline import Datastore
from scripts import KEY, TAG, URL

_NAME = f"{KEY}\0a\0{URL}".encode()
LINE = f"{TAG}:turns:{hashlib.sha1(_NAME, usedforsecurity=False).hexdigest()}"


async def ask(datastore: Datastore, stream_id: str, ended: str | None = None) -> list[Any]:
    request = {"keep": 60_000, "key": KEY, "sort": "a", "url": URL, "id": stream_id, "ended": ended}
    answer: list[Any] = await datastore.connection.change("relay_turn", 0, request)
    return answer


async def test_the_place_of_each(datastore: Datastore, raw: aioredis.Redis) -> None:
    """By their numbers: as text, 9 stands behind 10."""
    ids = ["999-0", "1000-0", *(f"1000-{n}" for n in range(1, 13)), "1001-0"]
    for waiting in range(1, len(ids) + 1):
        await raw.rpush(LINE, ids[waiting - 1])
        assert [(await ask(datastore, each))[0] for each in ids[:waiting]] == list(range(waiting))
    for absent in ("998-7", "1000-13", "1000-99", "2000-0"):
        assert await ask(datastore, absent) == [False, b"999-0", False, False]
    assert await ask(datastore, "1000-1", ended="999-0") == [1, b"1000-0", False, True]
    assert await ask(datastore, "1000-1", ended="999-0") == [1, b"1000-0", False, False]


async def test_ids_that_are_in_no_order_have_a_place_too(datastore: Datastore, raw: aioredis.Redis) -> None:
    """As where the outbox was made anew and the clock put back, or somebody has written something else."""
    ids = ["100-0", "100-1", "50-0", "x", "60-0", "100-2"]
    await raw.rpush(LINE, *ids)
    assert [(await ask(datastore, each))[0] for each in ids if each != "x"] == [0, 1, 2, 4, 5]
    assert await ask(datastore, "100-0", ended="100-0") == [False, b"100-1", False, True]


async def test_of_none(datastore: Datastore) -> None:
    assert await ask(datastore, "1-0") == [False, False, False, False]


async def test_among_many_few_are_looked_at(datastore: Datastore, raw: aioredis.Redis) -> None:
    """Wherever it stands."""
    await raw.rpush(LINE, *(f"17327000{n:05}-0" for n in range(10_000)))
    for stream_id in ("1732700000000-0", "1732700005001-0", "1732700009999-0"):
        await raw.config_resetstat()
        await ask(datastore, stream_id)
        done = await raw.info("commandstats")
        assert done["cmdstat_lindex"]["calls"] <= 16
        assert "cmdstat_lpos" not in done, "it looks at all"
