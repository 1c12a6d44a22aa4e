"""Which sorted set of a key a query walks, and between which ends. No store, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hookline.errors import Invalid
from hookline.index import Index, Range, Span, span
from hookline.item import NOT_STARTED, SCHEDULED, STARTED
from hookline.where import Where

SORT_FIELD, STATUS = "sortField", "status"
_SCORE_OF_STATUS = {NOT_STARTED: None, SCHEDULED: None, STARTED: "lu"}
"""The hash field that is the score of a status' set, where it can be filtered; of all others it is ``ua``."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk along one set. ``name`` is how users know it: sortField, status, or the field of a declared index.

    ``all`` are ranges that must all hold, ``any`` ranges of which one must. ``exact``: within them every item meets the
    filters.
    """

    name: str
    label: str
    lexical: bool
    all: tuple[Range, ...] = ()
    any: tuple[Range, ...] | None = None
    exact: bool = False
    descending: bool = False
    kind: str = ""

    def request(self) -> dict[str, Any]:
        """As the scripts read it."""
        shown = {
            "label": self.label,
            "lex": self.lexical or None,
            "all": self.all or None,
            "any": self.any,
            "descending": self.descending or None,
            "exact": self.exact or None,
            "kind": self.kind or None,
        }
        return {name: value for name, value in shown.items() if value is not None}


def walks(where: Where, indexes: Sequence[Index]) -> list[Walk]:
    """The walks that find all that match without looking at everything; none: only the whole key has them all."""
    found = [_by_status(where)] if where.status is not None else []
    if any(condition.get("sort") for condition in where.conditions):
        found.append(_by_sort_field(where))
    return [walk for walk in (*found, *declared(where, indexes)) if walk.all or walk.any or walk.name == STATUS]


def declared(where: Where, indexes: Sequence[Index]) -> list[Walk]:
    """Those of them along a declared index."""
    found = [_by_index(where, index) for index in indexes]
    return [walk for walk in found if walk.all or walk.any]


def ordered(where: Where, indexes: Sequence[Index], order: object) -> Walk:
    """The walk in the order asked for: ``sortField``, ``status`` or a declared field, and ``:desc`` to reverse it.

    ``status`` is the order within the one status that the filters ask for: for ``not_started`` that of claims.

    Raises:
        Invalid: no index has this order.
    """
    name, _, direction = str(order).rpartition(":")
    if direction not in ("asc", "desc"):
        name, direction = str(order), "asc"
    if name == SORT_FIELD:
        return _by_sort_field(where, descending=direction == "desc")
    if name == STATUS and where.status is not None:
        return _by_status(where, descending=direction == "desc")
    if name == STATUS:
        raise Invalid.at("/order", "expected filters that ask for one status, with the order status")
    for index in indexes:
        if index.name == name:
            return _by_index(where, index, descending=direction == "desc")
    raise Invalid.at(
        "/order",
        f"expected sortField, status or a field with an index, and :desc to reverse it; {name} has no index: declare it"
        " in the key's settings, as indexes",
    )


def _by_status(where: Where, *, descending: bool = False) -> Walk:
    status = where.status or ""
    score = _SCORE_OF_STATUS.get(status, "ua")
    spans: list[Span | None] = []
    for condition in where.conditions:
        if condition["field"] == "s" and condition["test"] == "eq" and condition["operand"]["value"] == status:
            spans.append(Span(()))
        else:
            spans.append(span(condition, "time") if condition["field"] == score else None)
    return _walk(STATUS, status, False, spans, descending)


def _by_sort_field(where: Where, *, descending: bool = False) -> Walk:
    spans = [span(condition, SORT_FIELD) if condition.get("sort") else None for condition in where.conditions]
    return _walk(SORT_FIELD, "", True, spans, descending)


def _by_index(where: Where, index: Index, *, descending: bool = False) -> Walk:
    spans = [span(condition, index.kind) if index.covers(condition) else None for condition in where.conditions]
    return replace(_walk(index.name, index.label, index.lexical, spans, descending), kind=index.kind)


def _walk(name: str, label: str, lexical: bool, spans: Sequence[Span | None], descending: bool) -> Walk:
    """A walk that keeps within these spans, one for each condition: None where the set knows nothing of it."""
    known = [each for each in spans if each]
    several = [each.ranges for each in known if len(each.ranges) > 1]
    one = tuple(each.ranges[0] for each in known if len(each.ranges) == 1)
    exact = len(known) == len(spans) and all(each.exact for each in known) and len(several) <= 1
    return Walk(name, label, lexical, one, several[0] if several else None, exact, descending)
