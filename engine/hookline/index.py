"""Declared indexes: the metadata fields of a key that queries can be ordered by, and answered from.

Of each declared field the store keeps a sorted set of the items that have it with a value of the index's kind:
``number`` and ``time`` (RFC 3339 text) by the value, ``string`` by its bytes, of which the first 256 count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hookline.codec import WORD_MAX, pack_request
from hookline.errors import Flaw, Invalid, below
from hookline.item import check_value
from hookline.where import check_path, kind_of, locate

KINDS = ("number", "string", "time")
INDEXES_MAX = 8
STRING_MAX = 256
"""Bytes of a string by which it is ordered; ``lib/declared.lua`` says the same."""
EXACT = 2**53
"""From here on integers share their doubles."""
_KIND_OF_NATIVE = {"number": "number", "time": "time", "later": "time", "word": "string", "text": "string"}

Bound = str | bytes
Range = tuple[Bound, Bound]
"""Two bounds as ZRANGE takes them, of scores or of members; a score may be ``+<ms>``, from the store's now."""


@dataclass(frozen=True, slots=True)
class Index:
    """One declared index."""

    name: str
    kind: str

    @property
    def label(self) -> str:
        """What the scripts call its set."""
        return f"\0{self.name}"

    @property
    def lexical(self) -> bool:
        """Whether its members are ordered by their bytes, not by scores."""
        return self.kind == "string"

    def pack(self) -> bytes:
        """As the key's settings keep it: where the scripts find the value, and of which kind it must be."""
        return pack_request({**locate(self.name), "kind": self.kind})

    def covers(self, condition: Mapping[str, Any]) -> bool:
        """Whether a condition speaks of this field."""
        place = locate(self.name)
        return condition["field"] == place["field"] and condition["path"] == place["path"] and not condition.get("sort")


@dataclass(frozen=True, slots=True)
class Span:
    """The entries that a condition leaves of a set: those in one of ``ranges``. ``exact``: they all meet it."""

    ranges: tuple[Range, ...]
    exact: bool = True


def read_indexes(value: object, pointer: str) -> tuple[Index, ...]:
    """Declared indexes as users write them: ``{"customer.id": "string", "size": "number"}``.

    Raises:
        Invalid: a field that can't have an index, a kind that it can't have, or too many; every flaw is named.
    """
    if not isinstance(value, Mapping):
        raise Invalid.at(pointer, 'expected an object such as {"customer": "string", "createdAt": "time"}')
    if len(value) > INDEXES_MAX:
        raise Invalid.at(pointer, f"expected at most {INDEXES_MAX} indexes")
    flaws = [flaw for name, kind in value.items() for flaw in _flaws(name, kind, below(pointer, name))]
    if flaws:
        raise Invalid(*flaws)
    return tuple(Index(name, kind) for name, kind in value.items())


def _flaws(name: object, kind: object, pointer: str) -> list[Flaw]:
    if not isinstance(name, str) or not name or "\0" in name or len(name) > WORD_MAX:
        return [Flaw(pointer, f"expected the name of a metadata field, of 1 to {WORD_MAX} characters")]
    if name in ("sortField", "status"):
        return [Flaw(pointer, f"{name} has an index already")]
    try:
        check_value(name, pointer)
        check_path(name, pointer)
    except Invalid as invalid:
        return list(invalid.flaws)
    native = _KIND_OF_NATIVE.get(kind_of(name))
    if kind not in KINDS or (native and kind != native):
        return [Flaw(pointer, f"expected {native or ', '.join(KINDS)}")]
    return []


def span(condition: Mapping[str, Any], kind: str) -> Span | None:
    """What of an index of this kind a condition on its field leaves; None where the index does not know.

    ``kind`` may also be ``sortField``: the set of all sortFields, whose members are the text as it is.
    """
    test = condition["test"]
    if test == "in":
        each = [span({"test": "eq", "operand": operand}, kind) for operand in condition["operands"]]
        spans = [found for found in each if found]
        if len(spans) < len(each):
            return None
        return Span(tuple(found.ranges[0] for found in spans), all(found.exact for found in spans))
    if test not in ("eq", "lt", "lte", "gt", "gte", "prefix"):
        return None
    operand = condition["operand"]
    if kind == "time":
        return _score_span(test, str(operand["time"])) if "time" in operand else None
    value = operand.get("value")
    if kind == "number":
        if type(value) not in (int, float):
            return None
        if abs(value) < EXACT:
            return _score_span(test, repr(float(value)))
        found = _score_span(_WIDER.get(test, test), repr(float(value)))
        return found and Span(found.ranges, exact=False)
    if not isinstance(value, str) or "time" in operand:
        return None
    return _string_span(test, value.encode()) if kind == "string" else _member_span(test, value.encode())


def _score_span(test: str, score: str) -> Span | None:
    ranges = {
        "eq": (score, score),
        "lt": ("-inf", f"({score}"),
        "lte": ("-inf", score),
        "gt": (f"({score}", "inf"),
        "gte": (score, "inf"),
    }
    return Span((ranges[test],)) if test in ranges else None


_WIDER = {"prefix": "eq", "lt": "lte", "gt": "gte"}
"""The test for all entries that may meet another, where the index knows a value only nearly."""


def _string_span(test: str, value: bytes) -> Span:
    """Members are ``<value> NUL <sortField>``; a long operand takes in all that begin as it does."""
    start = b"[" + value[:STRING_MAX].replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")
    end = b"(" + start[1:]
    ranges: dict[str, Range] = {
        "eq": (start + b"\0", end + b"\1"),
        "lt": (b"-", end + b"\0"),
        "lte": (b"-", end + b"\1"),
        "gt": (start + b"\1", b"+"),
        "gte": (start, b"+"),
        "prefix": (start, end + b"\xff"),
    }
    if len(value) < STRING_MAX:
        return Span((ranges[test],))
    return Span((ranges[_WIDER.get(test, test)],), exact=False)


def _member_span(test: str, member: bytes) -> Span:
    start, end = b"[" + member, b"(" + member
    ranges: dict[str, Range] = {
        "eq": (start, start),
        "lt": (b"-", end),
        "lte": (b"-", start),
        "gt": (end, b"+"),
        "gte": (start, b"+"),
        "prefix": (start, end + b"\xff"),
    }
    return Span((ranges[test],))
