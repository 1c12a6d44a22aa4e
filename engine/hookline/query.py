"""Reads of many: a page of a key's items, merged over the partitions; how many match; items by their names."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
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
    from hookline.together import Part, Together

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
_RANGES_MAX = 10
"""Ranges of a walk at most where several partitions are read in one call: to look for each is work, and not counted."""
_SPARSE = 4
"""Of so many that were looked at fewer than one was wanted: then each partition is read by itself."""
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
    sparse: bool = False
    """Whether little of what was looked at was wanted: then each partition is read by itself, with its own budget."""

    @property
    def ended(self) -> bool:
        """Whether nothing is left in any partition."""
        return all(position is False for position in self.positions)

    def go_on(self, ends: Mapping[int, Position]) -> None:
        """Go on behind where these partitions were read to."""
        for partition, end in ends.items():
            self.positions[partition] = end

    def explain(self) -> Explanation:
        return Explanation(self.walk.name, self.examined, self.sizes)


class Queries:
    """Reads the pages of queries. ``known`` has what was learnt of each key's settings, the newest."""

    def __init__(self, connection: Connection, together: Together, partitions: int, known: dict[str, Known]) -> None:
        self._connection = connection
        self._together = together
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
                for part, extra in await self._round(query, plan, "count"):
                    count += extra[b"count"]
                    plan.go_on(_ends(plan, part, extra))
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
            bounds: list[Position] = []
            entries: list[_Entry] = []
            for part, extra in await self._round(query, plan, "query", left):
                ends |= _ends(plan, part, extra)
                bounds.append(extra[b"after"])
                entries += [_entry(part, *row) for row in extra[b"items"]]
            if len(bounds) > 1:  # those of one are in order
                entries.sort(key=lambda entry: _place(entry.score, entry.member), reverse=plan.walk.descending)
                left = min(left, _reach(entries, bounds, descending=plan.walk.descending))
            fitting = _fitting(entries, ANSWER_MAX - size)
            full, left = fitting < min(left, len(entries)), min(left, fitting)
            for entry in entries[:left]:
                size += entry.size
                items.append(codec.read_item(query.key, entry.sort.decode(), entry.fields))
                plan.positions[entry.partition] = [entry.score, entry.member]
            left_over = {entry.partition for entry in entries[left:]}
            plan.go_on({partition: end for partition, end in ends.items() if partition not in left_over})
            if full or len(items) >= limit or plan.ended or size > ANSWER_MAX - _READ_MAX:
                break
        return items

    async def _round(
        self, query: Query, plan: _Plan, verb: str, limit: int | None = None
    ) -> list[tuple[Part, dict[bytes, Any]]]:
        """One bounded read of every partition that is not yet at its end -> what each call answered."""
        open_ones = [partition for partition, position in enumerate(plan.positions) if position is not False]
        shared: dict[str, Any] = {
            "verb": verb,
            "key": query.key,
            "where": list(query.where.conditions),
            "budget": BUDGET,
            "generation": self._known.get(query.key, Known()).generation,
            **plan.walk.request(),
        }

        def request(part: Part) -> object:
            places = [(self._connection.tag(partition), plan.positions[partition] or False) for partition in part]
            return [shared | {"places": places, "limit": limit and _asked(limit, len(part), len(open_ones))}]

        apart = plan.sparse or len(plan.walk.any or ()) > _RANGES_MAX
        answers = await self._together.search("find", open_ones, request, apart=apart)
        found: list[tuple[Part, dict[bytes, Any]]] = []
        for part, ((word, _, extra),) in answers:
            if word == b"corrupt":
                raise Corrupt
            if word == b"settings_changed":
                raise _ReplanError(Known.decode(dict(extra[b"settings"])), plan.walk.name)
            if extra.get(b"unusable"):
                raise _ReplanError(None, plan.walk.name)
            examined = extra.get(b"examined", 0)
            plan.examined += examined
            plan.sparse |= bool(extra.get(b"after")) and _SPARSE * len(extra.get(b"items", ())) < examined
            found.append((part, extra))
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


def _ends(plan: _Plan, part: Part, extra: Mapping[bytes, Any]) -> dict[int, Position]:
    """Where a read of these partitions ended: what was counted by its ends alone, at the end of each."""
    ends = extra.get(b"ends", [False] * len(part))
    return {
        partition: plan.positions[partition] if end is True else end for partition, end in zip(part, ends, strict=True)
    }


def _place(score: bytes | str, member: bytes) -> tuple[float, bytes]:
    """Where an entry stands among those of all partitions."""
    return float(score), member


def _reach(entries: Sequence[_Entry], bounds: Sequence[Position], *, descending: bool) -> int:
    """How many of the sorted entries are in order whatever is still to come: those before every bound that is open."""
    open_ones = [_place(*bound) for bound in bounds if isinstance(bound, list)]
    if not open_ones:
        return len(entries)
    first = max(open_ones) if descending else min(open_ones)
    places = (_place(entry.score, entry.member) for entry in entries)
    return sum(place >= first if descending else place <= first for place in places)


def _fitting(entries: Sequence[_Entry], room: int) -> int:
    """How many of the entries there is room for: one at least, if that is all there is of the answer."""
    if sum(entry.size for entry in entries) <= room:
        return len(entries)
    sizes = accumulate(entry.size for entry in entries)
    return max(sum(size <= room for size in sizes), room == ANSWER_MAX)


def _asked(left: int, partitions: int, of: int) -> int:
    """How many entries a call is asked for that reads so many partitions, of so many that are wanted of all.

    None is taken behind the end of another call's, so too few lose nothing but cost another round. Items are spread by
    a hash: with three standard deviations more than its share, hardly ever one has too few.
    """
    share = left * partitions / of
    return min(left, math.ceil(share + 3 * math.sqrt(share)) + 3)


def _entry(
    part: Part, sort: bytes, fields: list[bytes], score: bytes, member: bytes | None, size: int, place: int
) -> _Entry:
    return _Entry(part[place - 1], sort, fields, score.decode(), member or sort, size)


async def get_many(
    connection: Connection,
    together: Together,
    partition_of: Callable[[str, str], int],
    names: Sequence[tuple[str, str]],
    room: float,
) -> dict[tuple[str, str], Item | None]:
    """Items by their names, :data:`GET_MAX` a call; what a call had no room for is asked for again.

    Once they have more than ``room`` bytes, no more is asked for: the others are left out.

    Raises:
        Invalid, Corrupt, Unavailable
    """
    found: dict[tuple[str, str], Item | None] = {}
    waiting: dict[tuple[str, str], int] = {}
    for key, sort_field in names:
        check_key(key)
        check_sort_field(sort_field)
        waiting[key, sort_field] = partition_of(key, sort_field)

    by_partition: dict[int, list[tuple[int, tuple[str, str]]]] = {}

    def asked(part: Part) -> list[tuple[str, str]]:
        lines = (by_partition[partition] for partition in part)
        return [name for _, name in islice(heapq.merge(*lines), GET_MAX)]

    def request(part: Part) -> object:
        return [
            {"verb": "get", "tag": connection.tag(waiting[name]), "key": name[0], "sort": name[1]}
            for name in asked(part)
        ]

    while waiting and room > 0:
        by_partition.clear()
        for place, (name, partition) in enumerate(waiting.items()):
            by_partition.setdefault(partition, []).append((place, name))
        for part, answers in await together.read("find", sorted(by_partition), request):
            for name, (word, fields, extra) in zip(asked(part), answers, strict=True):
                if word == b"corrupt":
                    raise Corrupt
                if not (extra and extra.get(b"again")):
                    del waiting[name]
                    found[name] = codec.read_item(*name, fields) if fields else None
                    room -= sum(map(len, fields)) if fields else 0
    return found
