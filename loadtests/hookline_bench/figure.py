"""Figures, and the file that they are kept in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hookline.errors import Invalid

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Floor:
    """What the same work comes to without Hookline."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Args:
        scenario: what was done.
        name: in which shape.
        way: ``store`` or ``http``.
        processes: of load, and of the server.
        unit: of the value and its floors; where it is a time or a size, less is better.
        value: the median of the turns.
        floors: by what it is held against.
        cost: microseconds of processor time for each unit, by who spent them; of the store also commands.
        latency: milliseconds by percentile.
        histogram: all latencies, as an HdrHistogram.
        rate: arrivals a second, where they are fixed.
    """

    scenario: str
    name: str
    way: str
    processes: int
    unit: str
    value: float
    floors: list[Floor] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    histogram: str = ""
    rate: float | None = None

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.unit.endswith("/s")

    @property
    def id(self) -> str:
        """What it is called in every run."""
        return f"{self.scenario} {self.name}, {self.way}, {self.processes}"

    def share(self, floor: Floor) -> float:
        """How much of its floor it reaches: 1 is as good as without Hookline, whatever the unit."""
        return self.value / floor.value if self.rises else floor.value / self.value


@dataclass(frozen=True, slots=True)
class Results:
    """One run: where and how it was made, and its figures."""

    made: dict[str, Any]
    figures: list[Figure]

    def write(self, path: Path) -> None:
        """As JSON."""
        whole = {"schema": SCHEMA, **self.made, "figures": [asdict(figure) for figure in self.figures]}
        path.write_text(json.dumps(whole, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """What was written.

        Raises:
            Invalid: it is no such file.
        """
        try:
            whole = json.loads(path.read_text())
            if whole.pop("schema") != SCHEMA:
                raise Invalid.at("/schema", f"expected {SCHEMA} in {path}")
            figures = [
                Figure(**{**kept, "floors": [Floor(**floor) for floor in kept["floors"]]})
                for kept in whole.pop("figures")
            ]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Invalid.at("/file", f"expected results of hookline bench in {path}: {error!r}") from error
        return cls(whole, figures)
