"""A namespace out into the lines of an archive, and back in: in bounded steps and memory, beside running traffic."""

from __future__ import annotations

import secrets as nonces
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hookline import archive, codec
from hookline.archive import PLACES, End, Entry, Header
from hookline.call import Call
from hookline.clock import format_time
from hookline.datastore import Datastore
from hookline.doctor import names
from hookline.errors import Corrupt, Invalid
from hookline.item import STARTED
from hookline.secret import Unopenable

PAGE = 100
"""Items of one step."""
BUDGET = 1000
BYTES_MAX = 1_048_576
"""Bytes of the lines that one step writes; a longer line goes alone."""
_GZIP = b"\x1f\x8b"
"""How a file of gzip begins."""
_NEWEST = 2**53 - 1
"""A generation above all: the walk along the sortFields depends on no settings."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Some lines of an archive, and how far it is: so many items of about ``total``; ``failed`` can be none."""

    lines: bytes
    done: int
    total: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """How far an import is: so many lines of about ``total`` (with the header). ``skipped`` were there already.

    ``notes`` say what was wrong with the lines of this step; ``whole`` that the end has been read, with all before it.
    """

    lines: int
    total: int
    written: int
    skipped: int
    failed: int
    notes: tuple[str, ...] = ()
    whole: bool = False


# Out


async def export(datastore: Datastore, *, api_keys: bool = True) -> AsyncIterator[Exported]:
    """The lines of all items and settings of a namespace, the engine's own included, by key and partition.

    Each item is as it stood at one moment, all together are not. What waits in the outbox is not among it.

    Raises:
        Corrupt: a set that is walked is of a wrong type: the doctor can put it right.
        Unavailable, OutcomeUnknown
    """
    walk = _Export(datastore, api_keys)
    begun = format_time(await datastore.connection.now_ms())
    keys, configured = await walk.keys()
    total = sum(keys.values())
    mark = archive.mark(datastore.secrets, datastore.settings.namespace) if api_keys else None
    yield Exported(Header(datastore.settings.namespace, begun, total, mark).line(), 0, total)
    entries = done = 0
    for key in configured:
        shown, failed = await walk.settings(key)
        entries += bool(shown)
        if shown or failed:
            yield Exported(shown, done, total, failed)
    for key, partition in keys:
        async for lines, flaws in walk.items(key, partition):
            entries, done = entries + len(lines), done + len(lines)
            yield Exported(b"".join(lines), done, max(done, total), tuple(flaws))
    yield Exported(End(entries).line(), done, max(done, total))


def _told(invalid: Invalid) -> str:
    """What is wrong with a line, and where in it, if that is not all of it."""
    return str(invalid).removeprefix("/: ")


class _Export:
    def __init__(self, datastore: Datastore, api_keys: bool) -> None:
        self._datastore = datastore
        self._connection = datastore.connection
        self._partitions = datastore.calls.partitions
        self._api_keys = api_keys

    async def keys(self) -> tuple[dict[tuple[str, int], int], list[str]]:
        """How many items each key has in each partition; and the keys with settings."""
        sizes: dict[tuple[str, int], int] = {}
        configured: set[str] = set()
        for partition in range(self._partitions):
            async for page in names(self._connection, partition, like="[kc]*"):
                for family, _, key in (name.decode().partition(":") for name in page):
                    if family == "k":
                        sizes[key, partition] = (await self._find(partition, "count", key, exact=True))[b"count"]
                    elif family == "cfg" and partition == 0:
                        configured.add(key)
        return {name: sizes[name] for name in sorted(sizes)}, sorted(configured)

    async def settings(self, key: str) -> tuple[bytes, tuple[str, ...]]:
        """The line of a key's settings, if it has any; and why they can be none."""
        fields = await self._datastore.change_settings(key, {})
        try:
            return archive.settings_line(key, fields, self._partitions, api_keys=self._api_keys), ()
        except codec.UNREADABLE as error:
            return b"", (f"{key}: its settings can be none: {error!r}",)

    async def items(self, key: str, partition: int) -> AsyncIterator[tuple[list[bytes], list[str]]]:
        """Pages of a key's lines; and what could not be one."""
        after: list[bytes] | None = None
        while True:
            extra = await self._find(partition, "query", key, limit=PAGE, after=after)
            lines: list[bytes] = []
            failed: list[str] = []
            places = await self._places(key, partition, [sort for sort, *_ in extra[b"items"]])
            for sort, fields, *_ in extra[b"items"]:
                sort_field = sort.decode()
                try:
                    shown = codec.decode_fields(fields)
                    lines.append(
                        archive.item_line(key, sort_field, shown, places.get(sort, 0), api_keys=self._api_keys)
                    )
                except codec.UNREADABLE as error:
                    failed.append(f"{key}/{sort_field}: its hash can be no item: {error!r}")
            yield lines, failed
            after = extra[b"after"] or None
            if after is None:
                return

    async def _places(self, key: str, partition: int, sorts: list[bytes]) -> dict[bytes, int]:
        """The places of those items that stand in line: the last digits of their scores."""
        if not sorts:
            return {}
        request = {"set": f"s:{key}:not_started", "members": sorts}
        scores = await self._connection.read("names", partition, request)
        return {sort: int(float(score)) % PLACES for sort, score in zip(sorts, scores, strict=False) if score}

    async def _find(self, partition: int, verb: str, key: str, **more: Any) -> dict[bytes, Any]:
        request = {"verb": verb, "key": key, "label": "", "lex": True, "where": [], "budget": BUDGET} | more
        ((word, _, extra),) = await self._connection.read("find", partition, [request | {"generation": _NEWEST}])
        if word != b"ok":
            raise Corrupt
        return dict(extra)


# In


async def restore(
    datastore: Datastore, lines: Iterable[bytes], *, replace: bool = False, api_keys: bool = True, strict: bool = False
) -> AsyncIterator[Imported]:
    """Write what an archive has into a namespace, without events; what is there stays.

    A repeat goes on where an import was interrupted. Started items keep worker and lock, and can be claimed once the
    lock has passed: no token of before is valid.

    Args:
        datastore: where to write.
        lines: those of the archive, header first.
        replace: replace items and settings that are there and differ; the version of an item goes up in any case.
        api_keys: restore them, which must have been sealed under the same secret; else triggers are without.
        strict: end at the first line that can't be taken, with those before it written.

    Raises:
        Invalid: there is no header; or ``strict``, and a line can't be taken.
        Unopenable: the API keys were sealed under another secret or in another namespace.
        Unavailable, StoreFull, OutcomeUnknown: run it again.
    """
    numbered = enumerate(lines, 1)
    try:
        _, first = next(numbered)
        header = archive.read_header(first)
    except StopIteration:
        raise Invalid.at("line 1", "expected a header: the archive is empty") from None
    except Invalid as invalid:
        packed = "expected JSON lines, not gzip: gunzip -c FILE | hookline import -"
        raise Invalid.at("line 1", packed if first.startswith(_GZIP) else _told(invalid)) from None
    own = archive.mark(datastore.secrets, datastore.settings.namespace)
    if api_keys and header.secret not in (None, own):
        raise Unopenable(
            f"the API keys in this archive of namespace {header.namespace} were sealed under another secret, or in"
            " another namespace, and would not open here: give HOOKLINE_SECRET_KEY (or the file secret in --data) and"
            " HOOKLINE_NAMESPACE the values of where it was exported, or import it --without-api-keys"
        )
    work = _Restore(datastore, header, replace, api_keys, strict)
    async for step in work.run(numbered):
        yield step


class _Restore:
    def __init__(self, datastore: Datastore, header: Header, replace: bool, api_keys: bool, strict: bool) -> None:
        self._datastore = datastore
        self._header = header
        self._replace = replace
        self._api_keys = api_keys
        self._strict = strict
        self._lines = 1
        self._written = self._skipped = self._failed = 0
        self._entries = 0
        self._told: int | None = None

    async def run(self, numbered: Iterator[tuple[int, bytes]]) -> AsyncIterator[Imported]:
        """All lines behind the header."""
        for step in _steps(numbered):
            entries, notes = self._read(step)
            for _, entry in entries:
                if entry.sort_field is None:
                    await self._configure(entry)
            notes += await self._write([(number, entry) for number, entry in entries if entry.sort_field is not None])
            self._lines = step[-1][0]
            if notes and self._strict:
                number, _, detail = notes[0].partition(": ")
                raise Invalid.at(number, detail)
            yield self._state(notes)
        if self._told is None:
            yield self._state(["the archive has no end: its export, or its copy, was cut off"])
        elif self._told != self._entries:
            yield self._state([f"the archive has {self._entries} entries, its end says {self._told}: it was changed"])

    def _state(self, notes: list[str]) -> Imported:
        total = max(self._header.items + 2, self._lines)
        whole = self._told == self._entries
        return Imported(self._lines, total, self._written, self._skipped, self._failed, tuple(notes), whole)

    def _read(self, step: list[tuple[int, bytes]]) -> tuple[list[tuple[int, Entry]], list[str]]:
        """Lines -> what they mean, and what is wrong with them; with ``strict`` only up to the first that is."""
        entries: list[tuple[int, Entry]] = []
        notes: list[str] = []
        for number, raw in step:
            self._entries += 1
            try:
                entry = archive.read_line(raw, self._datastore.calls.partitions, api_keys=self._api_keys)
            except Invalid as invalid:
                self._failed += 1
                notes.append(f"line {number}: {_told(invalid)}")
                if self._strict:
                    break
                continue
            if isinstance(entry, Entry):
                entries.append((number, entry))
            else:
                self._told, self._entries = entry.entries, self._entries - 1
        return entries, notes

    async def _configure(self, entry: Entry) -> None:
        known = found = await self._datastore.change_settings(entry.key, {})
        if self._replace or not known.keys() - {b"generation"}:  # which stays where all was brought back
            found = await self._datastore.change_settings(entry.key, entry.fields, entry.gone)
        self._written += found != known
        self._skipped += found == known

    async def _write(self, entries: list[tuple[int, Entry]]) -> list[str]:
        """Write items -> what was wrong with those that could not be."""
        notes: list[str] = []
        outcomes = await self._datastore.run([self._call(entry) for _, entry in entries]) if entries else []
        for (number, entry), outcome in zip(entries, outcomes, strict=True):
            if outcome.failure:
                raise outcome.failure
            self._written += outcome.ok
            if outcome.word == "exists":
                self._skipped += 1
            elif not outcome.ok:
                self._failed += 1
                notes.append(f"line {number}: {entry.key}/{entry.sort_field}: {outcome.error()}")
        return notes

    def _call(self, entry: Entry) -> Call:
        sort_field = entry.sort_field or ""
        request: dict[str, Any] = {"key": entry.key, "sort": sort_field, "set": entry.fields}
        if entry.place:
            request["place"] = entry.place
        if self._replace:
            request["replace"] = True
        if entry.fields.get("s") == STARTED:
            request["nonce"] = nonces.token_hex(8)
        return Call("restore", self._datastore.calls.partition(entry.key, sort_field), entry.key, sort_field, request)


def _steps(numbered: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Lines, as many together as one step takes; empty ones are passed over."""
    step: list[tuple[int, bytes]] = []
    size = 0
    for number, raw in numbered:
        if not raw.strip():
            continue
        if step and (len(step) == PAGE or size + len(raw) > BYTES_MAX):
            yield step
            step, size = [], 0
        step.append((number, raw))
        size += len(raw)
    if step:
        yield step
