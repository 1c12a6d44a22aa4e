"""What tests of the datastore do again and again, on any number of partitions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import redis.asyncio as aioredis

from hookline import Datastore, Item
from hookline.keys import partition_tag

WAITING = {"status": "not_started"}


async def fill(datastore: Datastore, count: int, **metadata: Any) -> list[str]:
    """Make so many items in one go, waiting if nothing else is said -> their sortFields; ``n`` is their number."""
    made = [f"{n:04}" for n in range(count)]
    given = metadata or WAITING
    outcomes = await datastore.run(
        [datastore.calls.create("jobs", name, metadata={"n": n, **given}) for n, name in enumerate(made)]
    )
    assert all(outcome.ok for outcome in outcomes)
    return made


async def claim_one(datastore: Datastore, **options: Any) -> Item:
    """Claim the one item that can be claimed."""
    (item,) = (await datastore.claim("jobs", worker_id="w", **options)).items
    return item


def names(items: Iterable[Item]) -> list[str]:
    """Their sortFields."""
    return [item.sort_field for item in items]


async def pages(datastore: Datastore, **query: Any) -> list[list[str]]:
    """The sortFields of each page, until no cursor is left."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await datastore.query("jobs", cursor=cursor, **query)
        found.append(names(page.items))
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(found) < 1000


def by_partition(datastore: Datastore, sort_fields: Iterable[str]) -> list[list[str]]:
    """The sortFields of each partition in their order, which is as far as the order of the line is promised."""
    found: list[list[str]] = [[] for _ in range(datastore.calls.partitions)]
    for name in sort_fields:
        found[datastore.calls.partition("jobs", name)].append(name)
    return found


async def spoil(raw: aioredis.Redis, name: str) -> None:
    """Put text where Hookline has something else."""
    await raw.delete(name)
    await raw.set(name, "spoilt")


async def token_of(datastore: Datastore, item: Item) -> str:
    """The token that the store holds for an item."""
    name = datastore.calls.item_name(item.key, item.sort_field)
    token: bytes = await datastore.connection.command_on(name, "HGET", name, "tk")
    return token.decode()


async def rotate(raw: aioredis.Redis, password: str) -> None:
    """Give the user ``guarded`` this password, and end its connections."""
    for words in (f"ACL SETUSER guarded on resetpass >{password} ~* &* +@all", "CLIENT KILL USER guarded"):
        await raw.execute_command(*words.split())  # type: ignore[no-untyped-call]


def tags(datastore: Datastore) -> list[str]:
    """The prefix of the keys of each partition."""
    count = datastore.calls.partitions
    return [partition_tag("default", partition, count) for partition in range(count)]


async def statuses(datastore: Datastore) -> dict[str, int]:
    """How many items are in each status; '' is all of them."""
    totals: Counter[str] = Counter()
    for row in (await datastore.stats()).rows:
        totals[row.status] += row.count
    return dict(totals)


async def outbox_length(datastore: Datastore) -> int:
    """How many events are in the outbox."""
    names = [f"{datastore.connection.tag(partition)}:outbox" for partition in range(datastore.calls.partitions)]
    return sum([await datastore.connection.command_on(name, "XLEN", name) for name in names])


async def is_drained(datastore: Datastore) -> bool:
    """Whether no event is left in the outbox."""
    return await outbox_length(datastore) == 0


def let_timers_come_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of uvloop do, which counts in whole milliseconds."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at  # by which call_later goes as well

    def call_earlier(when: float, *rest: Any, **options: Any) -> asyncio.TimerHandle:
        return call_at(when - 0.01, *rest, **options)

    monkeypatch.setattr(loop, "call_at", call_earlier)


async def script_calls(*nodes: aioredis.Redis) -> int:
    """How many calls of scripts that may write these nodes have answered."""
    told = [await node.info("commandstats") for node in nodes]
    return sum(each.get("cmdstat_fcall", {"calls": 0})["calls"] for each in told)
