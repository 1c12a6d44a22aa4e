"""The doctor: holds every index against every item, in bounded steps beside running traffic; puts right what differs.

Each step looks at some names within one script call, so a writer can't come between what belongs together; names are
gathered before that, and what has gone meanwhile is passed over. The hash of an item is the truth: what can be no item
is told of, never changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from hookline import agreement
from hookline.connection import Connection
from hookline.errors import Corrupt
from hookline.item import is_key
from hookline.keys import partition_of

STEP = 50
"""Names that one script call looks at, at most."""
WORK = 600
"""Work of one script call, about 3 us each."""
UNDER_WAY = 0.2
"""Seconds after which settings that differ are looked at again: the first partition has a change before the others."""
_ROOTS = (b"r", b"r:hookline", b"due", b"builds", b"outbox")
_NO_ITEMS, _ITEMS = "[^io]*", "i:*"
"""Patterns of names: all but items and the outcomes of calls (and the outbox, which is among the roots); items."""
_SETTINGS = b"cfg:"
_STRAY = b"belongs into another partition"
_ELSEWHERE = "keys begin so, which is no partition of the namespace: nobody looks there"
_APART = "has not the same settings in all partitions"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not fit. ``sort_field`` is empty where a whole key is meant, ``key`` where not even that."""

    key: str
    sort_field: str
    what: str
    repaired: bool

    def __str__(self) -> str:
        subject = "/".join(name for name in (self.key, self.sort_field) if name)
        return f"{subject}: {self.what}" if subject else self.what

    def to_dict(self) -> dict[str, Any]:
        """As it reads outside."""
        return {"key": self.key, "sortField": self.sort_field, "what": self.what, "repaired": self.repaired}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an examination is: so many items and entries of indexes, of about ``total``; what the last step found.

    ``flaws`` counts all findings so far, ``repaired`` those that were put right.
    """

    examined: int
    total: int
    flaws: int
    repaired: int
    findings: tuple[Finding, ...]


async def names(connection: Connection, partition: int, **request: str | bytes) -> AsyncIterator[list[bytes]]:
    """Pages of the names in a partition: of its keys ``like`` a pattern, or of what a ``set`` holds.

    Raises:
        Unavailable
    """
    cursor: bytes | None = b"0"
    while cursor:
        cursor, page = await connection.read("names", partition, request | {"cursor": cursor})
        yield page
        cursor = None if cursor == b"0" else cursor


async def examine(connection: Connection, partitions: int, *, repair: bool = False) -> AsyncIterator[Progress]:
    """Examine a namespace, and with ``repair`` put right what can be.

    Raises:
        Unavailable: the store gave no answer; what was repaired stays so.
        OutcomeUnknown: no answer came to a step of a repair, also when it was asked for again.
    """
    examination = _Examination(connection, partitions, repair)
    for walk in (examination.keys, examination.entries, examination.items):
        for partition in range(partitions):
            async for progress in walk(partition):
                yield progress
        if walk == examination.keys:
            async for progress in examination.settings():
                yield progress
    async for progress in examination.elsewhere():
        yield progress


class _Examination:
    """First all keys but the items, for what is of a wrong type must be out of the way; then entries; then items."""

    def __init__(self, connection: Connection, partitions: int, repair: bool) -> None:
        self._connection = connection
        self._partitions = partitions
        self._repair = repair
        self._ask = connection.change if repair else connection.read
        self._sets: list[list[tuple[bytes, bytes, bytes]]] = [[] for _ in range(partitions)]
        self._configured: set[str] = set()
        self._told: set[tuple[int, str, str]] = set()
        self._examined = self._total = self._flaws = self._repaired = 0

    async def keys(self, partition: int) -> AsyncIterator[Progress]:
        """Types, and what the sets of a partition are; and the registry, which lists them."""
        async for progress in self._inspect("keys", partition, _ROOTS):
            yield progress
        async for page in names(self._connection, partition, like=_NO_ITEMS):
            page = [name for name in page if name not in _ROOTS]
            self._sets[partition] += filter(None, map(_set_of, page))
            named = (name.removeprefix(_SETTINGS) for name in page if name.startswith(_SETTINGS))
            self._configured |= set(filter(is_key, (name.decode(errors="replace") for name in named)))
            async for progress in self._inspect("keys", partition, page):
                yield progress
        for verb, name in (("registry", "r"), ("registry", "r:hookline"), ("builds", "builds")):
            async for page in names(self._connection, partition, set=name):
                async for progress in self._inspect(verb, partition, page, set=name):
                    yield progress

    async def settings(self) -> AsyncIterator[Progress]:
        """Whether each key has the same settings in all partitions."""
        for key in sorted(self._configured) if self._partitions > 1 else ():
            found = await self._settings_of(key)
            if not _differ(found):
                continue
            await asyncio.sleep(UNDER_WAY)
            if await self._settings_of(key) == found:
                if self._repair:
                    with contextlib.suppress(Corrupt):  # it has become of a wrong type since
                        await agreement.change(self._connection, self._partitions, key, {}, ())
                repaired = self._repair and not _differ(await self._settings_of(key))
                yield self._note([Finding(key, "", _APART, repaired)], 0)

    async def _settings_of(self, key: str) -> list[agreement.Stored]:
        """The settings of a key in each partition; none where one of them is of a wrong type, which is told of."""
        try:
            return await agreement.held(self._connection, self._partitions, key)
        except Corrupt:
            return []

    async def entries(self, partition: int) -> AsyncIterator[Progress]:
        """Whether each entry of each index belongs there."""
        for name, key, label in dict.fromkeys(self._sets[partition]):
            async for page in names(self._connection, partition, set=name):
                async for progress in self._inspect("entries", partition, page, key=key, label=label):
                    yield progress

    async def items(self, partition: int) -> AsyncIterator[Progress]:
        """Whether each item is in every set in which it belongs."""
        async for page in names(self._connection, partition, like=_ITEMS):
            found = [name[2:] for name in page]
            strays = {name for name in found if self._is_stray(partition, name)}
            if strays:
                yield self._note([_finding([*_split(name), _STRAY, False]) for name in strays], len(strays))
            async for progress in self._inspect("items", partition, [name for name in found if name not in strays]):
                yield progress

    async def elsewhere(self) -> AsyncIterator[Progress]:
        """What was written while the namespace had other partitions, before its store was emptied."""
        for tag in sorted(await self._connection.tags_elsewhere()):
            yield self._note([Finding("", "", f"{tag}: {_ELSEWHERE}", False)], 0)

    def _is_stray(self, partition: int, name: bytes) -> bool:
        """Whether an item belongs into another partition: where it is, nobody looks for it."""
        key, sort_field = (text.decode(errors="replace") for text in _split(name))
        return partition_of(key, sort_field, self._partitions) != partition

    async def _inspect(
        self, verb: str, partition: int, found: Iterable[bytes], **more: str | bytes
    ) -> AsyncIterator[Progress]:
        left = list(found)
        while left:
            request = {"verb": verb, "repair": self._repair, "work": WORK, "names": left[:STEP], **more}
            done, sizes, rows = await self._ask("inspect", partition, request)
            left = left[done:]
            self._total += sizes
            findings = [finding for row in rows if self._is_new(partition, finding := _finding(row))]
            yield self._note(findings, done if verb in ("entries", "items") else 0)

    def _note(self, findings: list[Finding], examined: int) -> Progress:
        self._examined += examined
        self._flaws += len(findings)
        self._repaired += sum(finding.repaired for finding in findings)
        total = max(self._total, self._examined)
        return Progress(self._examined, total, self._flaws, self._repaired, tuple(findings))

    def _is_new(self, partition: int, finding: Finding) -> bool:
        """What is said of a whole key comes again with each of its items."""
        mark = (partition, finding.key, finding.what)
        if finding.sort_field or mark not in self._told:
            self._told |= set() if finding.sort_field else {mark}
            return True
        return False


def _differ(settings: list[agreement.Stored]) -> bool:
    return any(each != settings[0] for each in settings)


def _set_of(name: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The name of an index in its partition -> that, its key and its label; None for any other name."""
    family, _, rest = name.partition(b":")
    key, _, label = rest.partition(b":")
    if family not in (b"k", b"s", b"x"):
        return None
    return name, key, b"\0" + label if family == b"x" else label


def _split(name: bytes) -> tuple[bytes, bytes]:
    """The name of an item in its partition, without its family -> key and sortField."""
    key, _, sort_field = name.partition(b":")
    return key, sort_field


def _finding(row: list[Any]) -> Finding:
    key, sort_field, what = (text.decode(errors="backslashreplace") for text in row[:3])
    return Finding(key, sort_field, what, row[3])
