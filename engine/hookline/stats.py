"""What the store holds: counts per key and status, read in bounded pages of each partition's registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hookline.connection import Connection
from hookline.item import is_key

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """How many items of a key a partition has in a status ('' counts all of the key), and the lowest score there."""

    key: str
    status: str
    count: int
    first: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """What the store holds. ``counts`` has refused_claims, lost_locks and expired_locks per key."""

    now_ms: int
    rows: list[Row]
    counts: dict[str, dict[str, int]]


async def read_stats(connection: Connection, partitions: int, prefix: str) -> Stats:
    """Read all pages of all partitions.

    Raises:
        Unavailable
    """
    read = await asyncio.gather(*(_pages(connection, partition, prefix) for partition in range(partitions)))
    rows: list[Row] = []
    counts: dict[str, dict[str, int]] = {}
    for pages in read:
        found: dict[tuple[bytes, bytes], list[Any]] = {}
        async for page in paced(pages, 2):
            found.update(((key, status), facts) for key, status, *facts in page[1])
        async for (key, status), (count, first) in paced(found.items()):
            name = key.decode(errors="replace")
            if is_key(name):  # of what else stands in the registry hookline doctor tells
                status_name = status.decode(errors="replace")
                rows.append(Row(name, status_name, count, float(first) if first else None))
        flats = {key: flat for page in pages for key, flat in dict(page[2]).items()}
        async for key, flat in paced(flats.items()):
            total = counts.setdefault(key.decode(errors="replace"), {})
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                total[name.decode()] = total.get(name.decode(), 0) + int(count)
    return Stats(int(read[0][0][0]), rows, counts)


async def by_key(stats: Stats) -> dict[str, dict[str, int]]:
    """Key -> status -> how many items of all partitions ('' counts all of the key); in order of the keys' names."""
    counted: dict[str, dict[str, int]] = {}
    async for row in paced(stats.rows):
        statuses = counted.setdefault(row.key, {})
        statuses[row.status] = statuses.get(row.status, 0) + row.count
    return {key: counted[key] for key in sorted(counted)}


async def paced(values: Iterable[T], step: int = 500) -> AsyncIterator[T]:
    """The values; after every few the event loop has a turn."""
    for place, value in enumerate(values, 1):
        if place % step == 0:
            await asyncio.sleep(0)
        yield value


async def _pages(connection: Connection, partition: int, prefix: str) -> list[Any]:
    """The pages of one partition; an entry may come twice."""
    pages: list[Any] = []
    while not pages or pages[-1][3] != b"0":
        cursor = pages[-1][3] if pages else b"0"
        pages.append(await connection.search("stats", partition, {"prefix": prefix, "cursor": cursor}))
    return pages


_WEIGHED, _SAMPLES = 100, 5
"""Keys of one call, and items of a key that are looked at in each partition: about a millisecond of the store."""


async def weigh(connection: Connection, partitions: int, keys: Sequence[str]) -> list[int]:
    """About how many bytes of the store's memory the items of each key take: an estimate from a few of them.

    Raises:
        Unavailable
    """
    totals: list[int] = []
    for start in range(0, len(keys), _WEIGHED):
        request = {"weigh": keys[start : start + _WEIGHED], "samples": _SAMPLES}
        read = await asyncio.gather(
            *(connection.search("stats", partition, request) for partition in range(partitions))
        )
        totals += map(sum, zip(*read, strict=True))
    return totals
