"""How much waits: per key what can be claimed and since when, and the outbox, at a cost that has a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hookline.connection import Connection
from hookline.item import is_key

STATUSES = ("scheduled", "not_started", "started", "completed", "failed", "cancelled")
COUNTS = ("refused_claims", "lost_locks", "expired_locks")
PAGES_MAX = 20
"""Pages of 500 names of a partition's registry that are read, at most: about 3 ms of the store."""
_CHUNK = 25
"""Keys of one call: below a millisecond of the store."""


@dataclass(frozen=True, slots=True)
class Depth:
    """One key: how many items, by status and in all; how many can be claimed, and since when the oldest waits.

    Of a paused key none can be claimed. ``counts`` are those of :data:`COUNTS`, of all time.
    """

    key: str
    items: int
    statuses: dict[str, int]
    counts: dict[str, int]
    claimable: int
    oldest_ms: int | None
    paused: bool


@dataclass(frozen=True, slots=True)
class Depths:
    """What :func:`read_depths` found, by the store's clock."""

    now_ms: int
    keys: list[Depth]
    outbox: int
    outbox_since_ms: int | None


async def key_names(
    connection: Connection, partitions: int, registry: str, *, pages: int = PAGES_MAX
) -> tuple[list[str], bool]:
    """The keys that a registry (``r`` or ``r:hookline``) lists, in order -> and whether these are all.

    Of each partition it reads so many pages at most.

    Raises:
        Unavailable
    """
    read = await asyncio.gather(*(_names(connection, partition, registry, pages) for partition in range(partitions)))
    return sorted(set().union(*(names for names, _ in read))), all(whole for _, whole in read)


async def _names(connection: Connection, partition: int, registry: str, pages: int) -> tuple[set[str], bool]:
    names: set[str] = set()
    cursor = b"0"
    for _ in range(pages):
        cursor, members = await connection.read("names", partition, {"set": registry, "cursor": cursor})
        # Of what else stands in the registry hookline doctor tells.
        names |= set(filter(is_key, (member.partition(b"\0")[0].decode(errors="replace") for member in members)))
        if cursor == b"0":
            return names, True
    return names, False


async def read_depths(connection: Connection, partitions: int, keys: Sequence[str]) -> Depths:
    """How deep these keys are, and the outbox of the namespace.

    Raises:
        Unavailable
    """
    now_ms, outbox, since_ms = 0, 0, None
    found: list[Depth] = []
    for start in range(0, max(1, len(keys)), _CHUNK):
        some = keys[start : start + _CHUNK]
        parts = await asyncio.gather(
            *(connection.read("depth", partition, {"keys": some}) for partition in range(partitions))
        )
        now_ms, outbox = parts[0][0], sum(part[2] for part in parts)
        since_ms = min((part[3] for part in parts if part[3]), default=None)
        found += [_together(key, [part[1][place] for part in parts]) for place, key in enumerate(some)]
    return Depths(now_ms, found, outbox, since_ms)


def _together(key: str, rows: Sequence[Any]) -> Depth:
    """One key over all partitions."""
    items, statuses, counts, claimable, oldest, paused = zip(*rows, strict=True)
    return Depth(
        key,
        sum(items),
        dict(zip(STATUSES, map(sum, zip(*statuses, strict=True)), strict=True)),
        dict(zip(COUNTS, map(sum, zip(*counts, strict=True)), strict=True)),
        sum(claimable),
        min((since for since in oldest if since), default=None),
        any(paused),
    )
