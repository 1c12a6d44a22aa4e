"""What a process counts: plain numbers, cheap where they are counted, added up over processes where they are read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "reading"]
"""A reading is a counter that is kept elsewhere: it is set, never added up."""
Labels = tuple[str, ...]
Row = list[float]
"""A value; of a histogram the sum of all, then how many were in each bucket, of which the last has no bound."""
Dump = dict[str, list[tuple[Labels, Row]]]
"""Rows by the name of their family: what one process tells of itself."""

ROWS_MAX = 1000
"""Of one family in one process. What would be more is counted at :data:`OTHER`, so that no label can do harm."""
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of durations: from a call of the store to a request that waits."""

FAMILIES: dict[str, Family] = {}
"""Every family of this process, by its name."""


class Family:
    """Figures of one name, told apart by labels. Who makes one sees to it that a label has few values.

    Args:
        kind: what its rows are.
        name: with its unit; a counter's without ``_total``.
        text: what it says, for people.
        labels: their names.
        bounds: of a histogram's buckets, each the largest value that is in it.
    """

    __slots__ = ("bounds", "kind", "labels", "name", "rows", "text")

    def __init__(
        self, kind: Kind, name: str, text: str, labels: Labels = (), bounds: tuple[float, ...] = SECONDS
    ) -> None:
        self.kind, self.name, self.text, self.labels, self.bounds = kind, name, text, labels, bounds
        self.rows: dict[Labels, Row] = {}
        FAMILIES[name] = self

    def row(self, *labels: str) -> Row:
        """The numbers at these labels, to be changed in place."""
        row = self.rows.get(labels)
        if row is None:
            if len(self.rows) >= ROWS_MAX:
                labels = (OTHER,) * len(self.labels)
            row = self.rows[labels] = self.rows.get(labels) or [0.0] * (
                len(self.bounds) + 2 if self.kind == "histogram" else 1
            )
        return row

    def add(self, *labels: str, amount: float = 1) -> None:
        """Count what has happened, or what there is more (or less) of."""
        self.row(*labels)[0] += amount

    def observe(self, value: float, *labels: str) -> None:
        """Note one value of a histogram."""
        row = self.row(*labels)
        row[0] += value
        row[1 + bisect_left(self.bounds, value)] += 1


def dump() -> Dump:
    """All that this process has counted."""
    return {name: [(labels, list(row)) for labels, row in family.rows.items()] for name, family in FAMILIES.items()}


def total(dumps: Iterable[Dump]) -> dict[str, dict[Labels, Row]]:
    """What several processes have counted together, by family."""
    sums: dict[str, dict[Labels, Row]] = {name: {} for name in FAMILIES}
    for each in dumps:
        for name, rows in each.items():
            family = sums.setdefault(name, {})
            for labels, row in rows:
                known = family.get(labels)
                family[labels] = list(map(sum, zip(known, row, strict=True))) if known else list(row)
    return sums
