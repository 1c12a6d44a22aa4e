"""Rows: creates that are alike go to their script as one, which says once what is the same of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import msgpack
import msgspec

from hookline.codec import pack_request

_LIST_OF_TWO = b"\x92"
_FEW = 16
"""Values from which on the head of a list has three bytes and not one (the msgpack format)."""


class Row(msgspec.Struct, frozen=True):
    """A create, packed: ``shared`` is what others may have the same, ``values`` are ``width``, its sortField first."""

    shared: bytes
    values: bytes
    width: int

    def __len__(self) -> int:
        """Its bytes, beside other rows."""
        return len(self.values)


def pack_row(shared: Mapping[str, Any], sort_field: str, fields: Sequence[Any]) -> Row:
    """A create whose fields are given one after the other, each name before its value."""
    width = len(fields) + 1
    values = pack_request([sort_field, *fields])
    return Row(pack_request({**shared, "width": width}), values[1 if width < _FEW else 3 :], width)


def pack_operations(operations: Sequence[bytes | Row]) -> bytes:
    """Packed operations -> the list of them as scripts read it: alike rows that follow each other are one entry."""
    entries: list[bytes] = []
    header = msgpack.Packer().pack_array_header
    for shared, alike in groupby(operations, _shared):
        if shared is None:
            entries += [each for each in alike if isinstance(each, bytes)]
        else:
            rows = [each for each in alike if isinstance(each, Row)]
            values = b"".join([row.values for row in rows])
            entries.append(b"".join((_LIST_OF_TWO, shared, header(len(rows) * rows[0].width), values)))
    packed: bytes = header(len(entries)) + b"".join(entries)
    return packed


def _shared(operation: bytes | Row) -> bytes | None:
    return operation.shared if isinstance(operation, Row) else None
