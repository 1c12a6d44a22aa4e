"""Rows: creates that are alike go to their script as one, which says once what is the same of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgpack
import msgspec

from hookline.codec import pack_request

_LIST_OF_TWO = b"\x92"
_FEW = 16
"""Fields from which on the head of a map has three bytes and not one (the msgpack format)."""


class Row(msgspec.Struct, frozen=True):
    """A create, packed: ``shared`` is what others may have the same, ``values`` are ``width``, its sortField first."""

    shared: bytes
    values: bytes
    width: int

    def __len__(self) -> int:
        """Its bytes, beside other rows."""
        return len(self.values)


def pack_row(request: dict[str, Any]) -> Row:
    """A create of the short way, whose request this uses up: its values are the name and the value of each field."""
    sort_field, fields = pack_request(request.pop("sort")), request.pop("new")
    pairs = pack_request(fields)[1 if len(fields) < _FEW else 3 :]
    width = request["width"] = 1 + 2 * len(fields)
    return Row(pack_request(request), sort_field + pairs, width)


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
