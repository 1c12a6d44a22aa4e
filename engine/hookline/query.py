"""Reads of many: a page of a key's items, merged over the partitions; how many match; items by their names."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hookline import codec, cursor
from hookline.cursor import Position
from hookline.errors import Corrupt, Invalid
from hookline.item import Item, check_key, check_sort_field
from hookline.keysettings import Known
from hookline.plan import SORT_FIELD, Walk, ordered, walks
from hookline.where import Where

if TYPE_CHECKING:  # what only reads the values that are defined here, a client, needs no store
    from hookline.connection import Connection

BUDGET = 1000
"""Work of one bounded read, in entries that are examined, unless 1.5 ms of the store end it (lib/clock.lua)."""
GET_MAX = 100
"""Items that one call reads by their names."""
ANSWER_MAX = 16 * 2**20
"""Bytes of items in one answer, as they are stored; the first is given whatever it has."""
_READ_MAX = 4 * 2**20
"""Bytes that one read gives at most, but for its last item."""
_ROUNDS = 50
"""Bounded reads of one query before it answers a short page with a cursor."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a query was answered.

    ``index`` is what was walked (sortField, status, or a declared field), ``examined`` how many of its entries were
    looked at; ``candidates`` is how many entries each index had within the filters, where there was a choice.
    """

    index: str
    examined: int
    candidates: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As it reads over HTTP."""
        return {"index": self.index, "examined": self.examined, "candidates": dict(self.candidates)}


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a query; ``cursor`` is None when nothing is left."""

    items: list[Item]
    cursor: str | None
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Count:
    """How many match; with a ``cursor`` only so far, and the count that goes on there is to be added."""

    count: int
    cursor: str | None
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Query:
    """A query of one key. ``identity`` tells it from others, for its cursors."""

    key: str
    where: Where
    order: str | None
    identity: list[Any]


class _ReplanError(Exception):
    """A partition can't walk as planned: it has newer settings of the key, or an index that is not complete."""

    def __init__(self, known: Known | None, unusable: str) -> None:
        self.known = known
        self.unusable = unusable
        super().__init__()


class _Entry(NamedTuple):
    """An item found, as its fields, and where it stands in the set that is walked."""

    partition: int
    sort: bytes
    fields: list[bytes]
    score: str
    member: bytes
    size: int


@dataclass(slots=True)
class _Plan:
    """What one request walks, from where on in each partition."""

    walk: Walk
    positions: list[Position]
    sizes: dict[str, int] = field(default_factory=dict)
    examined: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing is left in any partition."""
        return all(position is False for position in self.positions)

    def explain(self) -> Explanation:
        return Explanation(self.walk.name, self.examined, self.sizes)


class Queries:
    """Reads the pages of queries. ``known`` has what was learnt of each key's settings, the newest."""

    def __init__(self, connection: Connection, partitions: int, known: dict[str, Known]) -> None:
        self._connection = connection
        self._partitions = partitions
        self._known = known

    async def page(self, query: Query, limit: int, sealed: str | None, rounds: int | None = None) -> Page:
        """One page, from where the sealed cursor says on: every partition is read, and their entries are merged.

        Raises:
            Invalid: the cursor is not one of this query, or no index has its order.
            Corrupt, Unavailable
        """

        async def read(plan: _Plan) -> Page:
            items = await self._merge(query, plan, limit, rounds or _ROUNDS)
            return Page(items, self._seal(query, plan), plan.explain())

        return await self._planned(query, sealed, read)

    async def count(self, query: Query, sealed: str | None) -> Count:
        """How many match, in as many steps as a page may take.

        Raises:
            Invalid: the cursor is not one of this query.
            Corrupt, Unavailable
        """

        async def read(plan: _Plan) -> Count:
            count = 0
            for _ in range(_ROUNDS):
                for partition, extra in await self._round(query, plan, "count"):
                    count += extra[b"count"]
                    plan.positions[partition] = _end(extra)
                if plan.ended:
                    break
            return Count(count, self._seal(query, plan), plan.explain())

        return await self._planned(query, sealed, read)

    async def _planned(self, query: Query, sealed: str | None, read: Callable[[_Plan], Awaitable[T]]) -> T:
        """Plan and read; again where it turns out that the plan was made for other settings."""
        unusable: set[str] = set()
        while True:
            try:
                return await read(await self._plan(query, sealed, unusable))
            except _ReplanError as replan:
                if replan.known:
                    self._known[query.key] = replan.known
                elif sealed is None and query.order is None:
                    unusable.add(replan.unusable)
                else:
                    raise Invalid.at(
                        "/order" if sealed is None else "/cursor",
                        f"the index on {replan.unusable} is not complete: the settings of the key tell how far it is",
                    ) from None

    async def _plan(self, query: Query, sealed: str | None, unusable: set[str]) -> _Plan:
        whole = ordered(query.where, (), SORT_FIELD)
        try:
            candidates = self._candidates(query, whole)
            if sealed is not None:
                name, kind, positions = cursor.read(self._connection.meta.cursor_secret, query.identity, sealed)
                walk = candidates.get(name)
                return _Plan(walk if walk and walk.kind == kind else _dropped(name), positions)
        except Invalid:
            # Not before it is sure that the settings known here are the newest.
            await self._size(query, whole)
            raise
        begin: list[Position] = [None] * self._partitions
        usable = [walk for name, walk in candidates.items() if name not in unusable and walk is not whole]
        if len(usable) < 2:
            return _Plan(usable[0] if usable else whole, begin)
        found = await asyncio.gather(*(self._size(query, walk) for walk in usable))
        sizes = {walk.name: size for walk, size in zip(usable, found, strict=True)}
        return _Plan(min(usable, key=lambda walk: sizes[walk.name]), begin, sizes)

    def _candidates(self, query: Query, whole: Walk) -> dict[str, Walk]:
        """The walks that would do, by name; the last, of the whole key, always does."""
        indexes = self._known.get(query.key, Known()).indexes
        if query.order is not None:
            walk = ordered(query.where, indexes, query.order)
            return {walk.name: walk}
        return {walk.name: walk for walk in (whole, *walks(query.where, indexes))}

    async def _size(self, query: Query, walk: Walk) -> int:
        """How many entries a walk has before it."""
        answers = await self._round(query, _Plan(walk, [None] * self._partitions), "size")
        return sum(extra[b"size"] for _, extra in answers)

    async def _merge(self, query: Query, plan: _Plan, limit: int, rounds: int) -> list[Item]:
        """The next entries of all partitions, in order."""
        items: list[Item] = []
        size = 0
        for _ in range(rounds):
            left = limit - len(items)
            ends: dict[int, Position] = {}
            entries: list[_Entry] = []
            open_ones = sum(position is not False for position in plan.positions)
            for partition, extra in await self._round(query, plan, "query", _asked(left, max(1, open_ones))):
                ends[partition] = _end(extra)
                entries += [_entry(partition, *row) for row in extra[b"items"]]
            if len(ends) > 1:  # those of one are in order
                entries.sort(key=lambda entry: _place(entry.score, entry.member), reverse=plan.walk.descending)
                left = min(left, _reach(entries, ends, descending=plan.walk.descending))
            fitting = _fitting(entries, ANSWER_MAX - size)
            full, left = fitting < min(left, len(entries)), min(left, fitting)
            for entry in entries[:left]:
                size += entry.size
                items.append(codec.read_item(query.key, entry.sort.decode(), entry.fields))
                plan.positions[entry.partition] = [entry.score, entry.member]
            left_over = {entry.partition for entry in entries[left:]}
            for partition, end in ends.items():
                if partition not in left_over:
                    plan.positions[partition] = end
            if full or len(items) >= limit or plan.ended or size > ANSWER_MAX - _READ_MAX:
                break
        return items

    async def _round(self, query: Query, plan: _Plan, verb: str, limit: int | None = None) -> list[tuple[int, Any]]:
        """One bounded read of every partition that is not yet at its end -> what each answered."""
        asked = [partition for partition, position in enumerate(plan.positions) if position is not False]
        request: dict[str, Any] = {
            "verb": verb,
            "key": query.key,
            "where": list(query.where.conditions),
            "limit": limit,
            "budget": BUDGET,
            "generation": self._known.get(query.key, Known()).generation,
            **plan.walk.request(),
        }
        reads = [
            self._connection.search("find", partition, [request | {"after": plan.positions[partition] or None}])
            for partition in asked
        ]
        # A task for the only one would cost as much as five items.
        answers = [await reads[0]] if len(reads) == 1 else await asyncio.gather(*reads)
        found: list[tuple[int, Any]] = []
        for partition, ((word, _, extra),) in zip(asked, answers, strict=True):
            if word == b"corrupt":
                raise Corrupt
            if word == b"settings_changed":
                raise _ReplanError(Known.decode(dict(extra[b"settings"])), plan.walk.name)
            if extra.get(b"unusable"):
                raise _ReplanError(None, plan.walk.name)
            plan.examined += extra.get(b"examined", 0)
            found.append((partition, extra))
        return found

    def _seal(self, query: Query, plan: _Plan) -> str | None:
        """The cursor that goes on with this plan, or None at its end."""
        if plan.ended:
            return None
        return cursor.write(
            self._connection.meta.cursor_secret, query.identity, [plan.walk.name, plan.walk.kind, plan.positions]
        )


def _dropped(name: str) -> Walk:
    raise Invalid.at("/cursor", f"the index on {name}, along which the pages before were read, is gone: begin anew")


def _end(extra: Mapping[bytes, Any]) -> Position:
    after = extra.get(b"after")
    return list(after) if after else False


def _place(score: bytes | str, member: bytes) -> tuple[float, bytes]:
    """Where an entry stands among those of all partitions."""
    return float(score), member


def _reach(entries: Sequence[_Entry], ends: Mapping[int, Position], *, descending: bool) -> int:
    """How many of the sorted entries are in order whatever is still to come: those before every end that is open."""
    open_ends = [_place(*end) for end in ends.values() if isinstance(end, list)]
    if not open_ends:
        return len(entries)
    first = max(open_ends) if descending else min(open_ends)
    places = (_place(entry.score, entry.member) for entry in entries)
    return sum(place >= first if descending else place <= first for place in places)


def _fitting(entries: Sequence[_Entry], room: int) -> int:
    """How many of the entries there is room for: one at least, if that is all there is of the answer."""
    if sum(entry.size for entry in entries) <= room:
        return len(entries)
    sizes = accumulate(entry.size for entry in entries)
    return max(sum(size <= room for size in sizes), room == ANSWER_MAX)


def _asked(left: int, partitions: int) -> int:
    """How many entries each partition is asked for, of so many that are wanted of all.

    None is taken behind the end of another partition's, so too few lose nothing but cost another round. Items are
    spread by a hash: with three standard deviations more than its share, hardly ever one has too few.
    """
    share = left / partitions
    return min(left, math.ceil(share + 3 * math.sqrt(share)) + 3)


def _entry(partition: int, sort: bytes, fields: list[bytes], score: bytes, member: bytes | None, size: int) -> _Entry:
    return _Entry(partition, sort, fields, score.decode(), member or sort, size)


async def get_many(
    connection: Connection, partition_of: Callable[[str, str], int], names: Sequence[tuple[str, str]], room: float
) -> dict[tuple[str, str], Item | None]:
    """Items by their names, :data:`GET_MAX` a call; what a call had no room for is asked for again.

    Once they have more than ``room`` bytes, no more is asked for: the others are left out.

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
        nonlocal room
        while left and room > 0:
            asked, left = left[:GET_MAX], left[GET_MAX:]
            request = [{"verb": "get", "key": key, "sort": sort_field} for key, sort_field in asked]
            answers = await connection.read("find", partition, request)
            for (key, sort_field), (word, fields, extra) in zip(asked, answers, strict=True):
                if word == b"corrupt":
                    raise Corrupt
                if extra and extra.get(b"again"):
                    left.append((key, sort_field))
                else:
                    shown = codec.read_item(key, sort_field, fields) if fields else None
                    found[key, sort_field] = shown
                    room -= sum(map(len, fields)) if fields else 0

    await asyncio.gather(*(read(partition, asked) for partition, asked in waiting.items()))
    return found
