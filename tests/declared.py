"""What a declared index must hold, worked out from the items in plain Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from hookline.clock import parse_time
from hookline.codec import NATIVE, unpack
from hookline.keysettings import decode_indexes

OWN = {"createdAt": "ca", "updatedAt": "ua", "version": "v"}
Entries = dict[bytes, float]


def flaws(
    key: str,
    cfg: Mapping[bytes, bytes],
    sets: Mapping[str, Entries],
    builds: set[str],
    items: Mapping[str, dict[str, bytes]],
) -> Iterator[str]:
    """What is wrong with the declared indexes of a key. ``builds`` are the fields whose index is not complete."""
    declared = {index.name: index.kind for index in decode_indexes(cfg)}
    for name in (sets.keys() | builds) - declared.keys():
        yield f"{key}: has an index on {name} that nobody declared"
    for name, kind in declared.items():
        found, wanted = sets.get(name, {}), _entries(name, kind, items)
        wrong = found.items() - wanted.items() if name in builds else found.items() ^ wanted.items()
        if wrong:
            yield f"{key}: the index on {name} differs from the items in {sorted(wrong)}"


def _entries(name: str, kind: str, items: Mapping[str, dict[str, bytes]]) -> Entries:
    entries: Entries = {}
    for sort_field, fields in items.items():
        found = _value(name, fields)
        member = sort_field.encode()
        if kind == "string" and isinstance(found, str):
            start = found.encode()[:256].replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")
            entries[start + b"\0" + member] = 0.0
        elif kind == "time" and isinstance(found, str):
            with suppress(ValueError):
                entries[member] = float(parse_time(found))
        elif (kind == "time" and isinstance(found, bytes)) or (kind == "number" and type(found) in (int, float)):
            entries[member] = float(found)
    return entries


def _value(name: str, fields: dict[str, bytes]) -> Any:
    """The field's value: times of the engine's own as the bytes that are kept."""
    stored, field_kind = NATIVE.get(name, (OWN.get(name, ""), "time" if name != "version" else "number"))
    if stored:
        raw = fields.get(stored)
        if raw is None or field_kind in ("time", "later"):
            return raw
        return int(raw) if field_kind == "number" else raw.decode()
    first, *path = name.split(".")
    found = unpack(fields[f"m:{first}"]) if f"m:{first}" in fields else None
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found
