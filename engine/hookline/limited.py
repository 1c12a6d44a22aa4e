"""A datastore as one API key may use it: each verb asks its grant first, so whoever is given one needs no checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from hookline.call import Call
from hookline.calls import Calls
from hookline.datastore import Datastore
from hookline.grant import ADMIN, READ, WORK, WRITE, Grant
from hookline.item import Item
from hookline.outcome import Claimed, Outcome
from hookline.query import ANSWER_MAX
from hookline.stats import Stats, paced


@dataclass(frozen=True)
class LimitedCalls(Calls):
    """Makes calls that a grant allows; each verb raises MissingScope or KeyNotAllowed for others."""

    grant: Grant


class Limited(Datastore):
    """The view that a grant gives of an open datastore, which stays the caller's to close.

    Raises:
        MissingScope, KeyNotAllowed: from every verb, before anything is done.
    """

    def __init__(self, whole: Datastore, grant: Grant) -> None:
        # All else is that of the datastore: its batcher, its waiters, what it knows of settings.
        self.__dict__.update(whole.__dict__)
        self.grant = grant
        calls = whole.calls
        self.calls = LimitedCalls(calls.namespace, calls.partitions, calls.secrets, calls.spread, grant)

    async def exchange(self, calls: Sequence[Call], key: str, **options: Any) -> tuple[list[Outcome], Claimed]:
        """:meth:`Datastore.exchange`; its ``calls`` are this datastore's own."""
        self.grant.check(WORK, key)
        outcomes, claimed = await super().exchange(calls, key, **options)
        return self._shown(outcomes), claimed

    async def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """:meth:`Datastore.run`; who may not read is not shown the items that do not allow what was asked for."""
        return self._shown(await super().run(calls))

    def _shown(self, outcomes: list[Outcome]) -> list[Outcome]:
        if READ in self.grant.allowed:
            return outcomes
        return [structs.replace(outcome, item=None) if outcome.item else outcome for outcome in outcomes]

    async def change_settings(
        self, key: str, values: Mapping[str, str | bytes], gone: Sequence[str] = ()
    ) -> dict[bytes, bytes]:
        """:meth:`Datastore.change_settings`; without changes, settings are read."""
        self.grant.check(ADMIN if values or gone else READ, key)
        return await super().change_settings(key, values, gone)

    async def get_many(self, names: Sequence[tuple[str, str]]) -> list[Item | None]:
        """:meth:`Datastore.get_many`."""
        self._check_names(names)
        return await super().get_many(names)

    async def get_some(
        self, names: Sequence[tuple[str, str]], room: float = ANSWER_MAX
    ) -> dict[tuple[str, str], Item | None]:
        """:meth:`Datastore.get_some`."""
        self._check_names(names)
        return await super().get_some(names, room)

    def _check_names(self, names: Sequence[tuple[str, str]]) -> None:
        for key, _ in names:
            self.grant.check(READ, key)

    async def stats(self, prefix: str = "") -> Stats:
        """:meth:`Datastore.stats`, of the keys that the grant covers."""
        self.grant.check(READ)
        found = await super().stats(prefix)
        covers = self.grant.covers
        return replace(
            found,
            rows=[row async for row in paced(found.rows) if covers(row.key)],
            counts={key: counts async for key, counts in paced(found.counts.items()) if covers(key)},
        )


def _asking(verb: Callable[..., Any], scope: str) -> Callable[..., Any]:
    def asking(self: Any, key: Any, *args: Any, **options: Any) -> Any:
        self.grant.check(scope, key)
        return verb(self, key, *args, **options)

    asking.__doc__ = verb.__doc__
    return asking


CALLS = {
    **dict.fromkeys(("create", "update", "delete"), WRITE),
    **dict.fromkeys(("claim", "complete", "fail", "release", "extend"), WORK),
    "name": READ,
}
"""The scope of each call."""
READS = dict.fromkeys(("get", "query", "count", "builds", "wait_for"), READ)
VERBS = {**READS, "claim": WORK, "recall": WRITE}
"""The scope of each verb of the datastore that takes a key and is not one of the above."""

for _name, _scope in CALLS.items():
    setattr(LimitedCalls, _name, _asking(getattr(Calls, _name), _scope))
for _name, _scope in VERBS.items():
    setattr(Limited, _name, _asking(getattr(Datastore, _name), _scope))
