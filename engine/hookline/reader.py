"""What reads: single items, queries, counts, waiting for a change; over one store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from hookline import codec, keys
from hookline.calls import QUERY_MAX, Calls, check_limit
from hookline.connection import Connection
from hookline.errors import Corrupt, NotFound, Unavailable, check_loop
from hookline.item import TERMINAL, Item, check_key, check_sort_field
from hookline.nodes import Nodes
from hookline.query import ANSWER_MAX, Count, Page, Queries, Query, get_many
from hookline.secret import SecretBox
from hookline.settings import Settings
from hookline.sortfield import Spread
from hookline.stats import Stats, read_stats
from hookline.together import Together
from hookline.upkeep import Build, Upkeep
from hookline.wake import Wakes, pause
from hookline.where import compile_where

CHANGE_POLL = 10.0
"""Seconds after which who waits for an item looks by itself: it covers lost messages."""
ENDED = {"status": {"in": sorted(TERMINAL)}}


class Reader:
    """The reads of one namespace. ``calls`` and ``upkeep`` are there once it is open."""

    def __init__(
        self,
        url: str | Nodes,
        settings: Settings,
        secrets: SecretBox,
        *,
        now_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.secrets = secrets
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it was opened."""
        self.connection = Connection(url, settings, now_ms=now_ms)
        self.changes = Wakes(self.connection, keys.changed_channel, idle_ends=True)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What was not found: before :meth:`open` the parts that every verb needs are not there."""
            if name in ("calls", "together", "upkeep", "claims", "_queries"):
                raise AttributeError(
                    "the datastore is not open: 'async with Datastore(...)', or 'await datastore.open()'"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def open(self) -> None:
        """Check the store and open the namespace.

        Raises:
            Incompatible: the store cannot be used as it is.
            Unavailable: it cannot be reached.
        """
        self.loop = asyncio.get_running_loop()
        try:
            await self.connection.open()
        except BaseException:
            await self.close()
            raise
        self.calls = Calls(self.settings.namespace, self.connection.partitions, self.secrets, Spread())
        self.together = Together(self.connection)
        self.upkeep = Upkeep(self.connection, self.together, self.calls.partitions, self.settings.outbox_max)
        self._queries = Queries(self.connection, self.together, self.calls.partitions, {})

    async def close(self) -> None:
        """Close every connection to the store."""
        await self.changes.close()
        await self.connection.close()

    def _check_loop(self) -> None:
        """Refuse to wait here for what is answered elsewhere.

        Raises:
            RuntimeError: it was opened in another event loop.
        """
        check_loop("the datastore", self.loop, asyncio.get_running_loop())

    async def get(self, key: str, sort_field: str) -> Item:
        """One item.

        Raises:
            NotFound: there is no such item.
            Invalid, Corrupt, Unavailable
        """
        item = await self._get(key, sort_field, ())
        if item is None:
            raise TypeError("without filters an item that is there is shown")
        return item

    async def _get(self, key: str, sort_field: str, conditions: Sequence[dict[str, Any]]) -> Item | None:
        """One item, or None where it does not meet the conditions."""
        self._check_loop()
        check_key(key)
        check_sort_field(sort_field)
        request: dict[str, Any] = {"verb": "get", "key": key, "sort": sort_field}
        if conditions:
            request["where"] = list(conditions)
        partition = self.calls.partition(key, sort_field)
        ((word, fields, _),) = await self.connection.read("find", partition, [request])
        if word != b"ok":
            raise Corrupt if word == b"corrupt" else NotFound
        return codec.read_item(key, sort_field, fields) if fields else None

    async def get_many(self, names: Sequence[tuple[str, str]]) -> list[Item | None]:
        """Items by key and sortField, in order; None where there is none.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        self._check_loop()
        found = await get_many(self.connection, self.together, self.calls.partition, names, inf)
        return [found[name] for name in names]

    async def get_some(
        self, names: Sequence[tuple[str, str]], room: float = ANSWER_MAX
    ) -> dict[tuple[str, str], Item | None]:
        """The same by their names; of those that are large in all, some are left out: no more than ``room`` bytes.

        It may be passed by what one call of the store gives, which is below 4 MiB of a partition.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        self._check_loop()
        return await get_many(self.connection, self.together, self.calls.partition, names, room)

    async def wait_for(self, key: str, sort_field: str, *, until: object = None, timeout: float = 30) -> Item | None:
        """The item once it meets the filters ``until``, or has ended if there are none; None if that takes longer.

        None as well where all that wait are let go, for the process is about to stop.

        Raises:
            NotFound: there is no such item, or not any more.
            Invalid, Corrupt, Unavailable
        """
        self._check_loop()
        conditions = compile_where(ENDED if until is None else until, "/until").conditions
        deadline = time.monotonic() + timeout
        async with self.changes.listening(self.calls.item_name(key, sort_field)) as changed:
            while True:
                try:
                    item = await self._get(key, sort_field, conditions)
                except Unavailable:
                    if self.changes.released:  # it was closed meanwhile
                        return None
                    raise
                left = deadline - time.monotonic()
                if item or not left > 0:
                    return item
                if not self.changes.released:
                    await pause(changed, min(left, CHANGE_POLL))
                if self.changes.released:  # and soon there is no connection to look by
                    return None

    async def query(
        self,
        key: str,
        *,
        where: object = None,
        order: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        rounds: int | None = None,
    ) -> Page:
        """Items of a key that match.

        ``order`` is ``sortField``, a field that has an index (only items that have it are found then), or ``status``
        (the order within the one status asked for: for ``not_started`` that of claims), and ``:desc`` to reverse it.
        Without one, the items come in the order of the index that has the fewest entries within the filters: a declared
        one, that of a status asked for, or that of the sortFields.
        A page is shorter than ``limit`` only at the end, or when the budget of entries examined or that of bytes
        (:data:`ANSWER_MAX`) is spent; then it carries a cursor all the same. ``rounds`` is how many reads it may take,
        each below 4 MiB of a partition.

        Raises:
            Invalid: an argument has the wrong form, or the order has no index.
            Corrupt, Unavailable
        """
        self._check_loop()
        check_key(key)
        check_limit(limit, QUERY_MAX)
        query = Query(key, compile_where(where), order, [key, where, order])
        return await self._queries.page(query, limit, cursor, rounds)

    async def count(self, key: str, *, where: object = None, cursor: str | None = None) -> Count:
        """How many items of a key match: at once where an index knows, else as far as the budget reaches.

        With a ``cursor`` in it the count is to be gone on with there, and added up.

        Raises:
            Invalid: an argument has the wrong form.
            Corrupt, Unavailable
        """
        self._check_loop()
        check_key(key)
        return await self._queries.count(Query(key, compile_where(where), None, [key, where, "count"]), cursor)

    async def builds(self, key: str) -> dict[str, Build]:
        """How far the indexes of a key are that are not complete yet, by their fields.

        Raises:
            Invalid, Corrupt, Unavailable
        """
        return await self.upkeep.build(check_key(key), work=0)

    async def stats(self, prefix: str = "") -> Stats:
        """What the store holds of the keys that begin with ``prefix``; of the engine's own only if that names them.

        Raises:
            Unavailable
        """
        return await read_stats(self.connection, self.calls.partitions, prefix)
