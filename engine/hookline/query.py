"""Reads of many: a page of a key's items, merged over the partitions, and items by their names; in bounded steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hookline import codec, cursor
from hookline.connection import Connection
from hookline.cursor import Position
from hookline.errors import Corrupt
from hookline.item import Item, check_key, check_sort_field
from hookline.where import Where

BUDGET = 1000
"""Work of one bounded read, in entries that are examined: about 3 ms of the store."""
GET_MAX = 100
"""Items that one call reads by their names."""
_ROUNDS = 50
"""Bounded reads of one query before it answers a short page with a cursor."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a query; ``cursor`` is None when nothing is left."""

    items: list[Item]
    cursor: str | None
    examined: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item found, and where it stands in the index."""

    partition: int
    score: str
    item: Item


@dataclass(frozen=True, slots=True)
class Query:
    """A query of one key, ready to be asked of each partition."""

    key: str
    where: Where
    order: str | None
    identity: list[Any]

    @property
    def descending(self) -> bool:
        """Whether the order is reversed."""
        return self.order == "sortField:desc"

    def order_of(self, entry: _Entry) -> tuple[float, bytes]:
        """Where an entry stands among those of all partitions."""
        return (float(entry.score), entry.item.sort_field.encode())

    def request(self, limit: int, position: Position) -> dict[str, Any]:
        """What the find script is asked."""
        by_status = self.where.status if self.order is None else None
        request = {
            "verb": "query",
            "key": self.key,
            "status": by_status,
            "max": self.where.locked_before if by_status else None,
            "after": position or None,
            "descending": self.descending or None,
            "where": list(self.where.conditions),
            "limit": limit,
            "budget": BUDGET,
        }
        return {name: value for name, value in request.items() if value is not None}


async def read_page(connection: Connection, partitions: int, query: Query, limit: int, sealed: str | None) -> Page:
    """One page, from where the sealed cursor says on: every partition is read, and their entries are merged.

    Raises:
        Invalid: the cursor is not one of this query.
        Corrupt, Unavailable
    """
    secret = connection.cursor_secret
    positions: list[Position] = (
        cursor.read(secret, query.identity, sealed) if sealed is not None else [None] * partitions
    )
    items: list[Item] = []
    examined = 0
    for _ in range(_ROUNDS):
        found, ends, spent = await _round(connection, query, limit - len(items), positions)
        examined += spent
        taken = found[: limit - len(items)]
        items += [entry.item for entry in taken]
        for entry in taken:
            positions[entry.partition] = [entry.score, entry.item.sort_field]
        left_over = {entry.partition for entry in found[len(taken) :]}
        for partition, end in ends.items():
            if partition not in left_over:
                positions[partition] = end
        if len(items) >= limit or all(position is False for position in positions):
            break
    open_end = any(position is not False for position in positions)
    return Page(items, cursor.write(secret, query.identity, positions) if open_end else None, examined)


async def _round(
    connection: Connection, query: Query, limit: int, positions: list[Position]
) -> tuple[list[_Entry], dict[int, Position], int]:
    """One bounded read of every partition not yet at its end -> entries in order, where each ended, examined."""
    asked = [partition for partition, position in enumerate(positions) if position is not False]
    answers = await asyncio.gather(
        *(connection.read("find", partition, [query.request(limit, positions[partition])]) for partition in asked)
    )
    entries: list[_Entry] = []
    ends: dict[int, Position] = {}
    examined = 0
    for partition, ((word, _, extra),) in zip(asked, answers, strict=True):
        if word == b"corrupt":
            raise Corrupt
        examined += extra[b"examined"]
        after = extra.get(b"after")
        ends[partition] = [part.decode() for part in after] if after else False
        for sort, fields, score in extra[b"items"]:
            item = codec.decode_item(query.key, sort.decode(), codec.decode_fields(fields))
            entries.append(_Entry(partition, score.decode(), item))
    entries.sort(key=query.order_of, reverse=query.descending)
    return entries, ends, examined


async def get_many(
    connection: Connection, partition_of: Callable[[str, str], int], names: Sequence[tuple[str, str]]
) -> list[Item | None]:
    """Items by their names, :data:`GET_MAX` a call; what a call had no room for is asked for again.

    Raises:
        Invalid, Corrupt, Unavailable
    """
    found: dict[tuple[str, str], Item | None] = {}
    waiting: dict[int, list[tuple[str, str]]] = {}
    for key, sort_field in dict.fromkeys(names):
        check_key(key)
        check_sort_field(sort_field)
        waiting.setdefault(partition_of(key, sort_field), []).append((key, sort_field))

    async def read(partition: int, left: list[tuple[str, str]]) -> None:
        while left:
            asked, left = left[:GET_MAX], left[GET_MAX:]
            request = [{"verb": "get", "key": key, "sort": sort_field} for key, sort_field in asked]
            answers = await connection.read("find", partition, request)
            for (key, sort_field), (word, fields, extra) in zip(asked, answers, strict=True):
                if word == b"corrupt":
                    raise Corrupt
                if extra and extra.get(b"again"):
                    left.append((key, sort_field))
                else:
                    shown = codec.decode_item(key, sort_field, codec.decode_fields(fields)) if fields else None
                    found[key, sort_field] = shown

    await asyncio.gather(*(read(partition, asked) for partition, asked in waiting.items()))
    return [found[name] for name in names]
