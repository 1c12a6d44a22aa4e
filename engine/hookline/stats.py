"""What the store holds: counts per key and status, read in bounded pages of each partition's registry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hookline.connection import Connection


@dataclass(frozen=True, slots=True)
class Row:
    """How many items of a key are in a status ('' counts all of the key), and the lowest score there."""

    partition: int
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
    outbox: int


async def read_stats(connection: Connection, partitions: int, prefix: str) -> Stats:
    """Read all pages of all partitions.

    Raises:
        Unavailable
    """
    read = await asyncio.gather(*(_pages(connection, partition, prefix) for partition in range(partitions)))
    rows: list[Row] = []
    counts: dict[str, dict[str, int]] = {}
    for partition, pages in enumerate(read):
        found = {(key, status): facts for page in pages for key, status, *facts in page[1]}
        rows += [
            Row(partition, key.decode(), status.decode(), count, float(first) if first else None)
            for (key, status), (count, first) in found.items()
        ]
        flats = {key: flat for page in pages for key, flat in dict(page[2]).items()}
        for key, flat in flats.items():
            total = counts.setdefault(key.decode(), {})
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                total[name.decode()] = total.get(name.decode(), 0) + int(count)
    return Stats(int(read[0][0][0]), rows, counts, sum(pages[-1][3] for pages in read))


async def _pages(connection: Connection, partition: int, prefix: str) -> list[Any]:
    """The pages of one partition; an entry may come twice."""
    pages: list[Any] = []
    while not pages or pages[-1][4] != b"0":
        cursor = pages[-1][4] if pages else b"0"
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
