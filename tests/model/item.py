"""The parts of the reference: an item in plain Python, what is asked of it, and what that answers. Times are ms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hookline.calls import UNSET
from hookline.clock import CURRENT_TIMESTAMP, format_time, parse_duration, parse_time

TIMES = ("started_at", "completed_at", "locked_until", "scheduled_at")
Metadata = dict[str, Any]
Filters = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """An item as it reads outside."""

    version: int
    metadata: Metadata
    content: Any
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Answer:
    """What became of one operation: its word, the item after it or as it stood, and whether that gave a token."""

    word: str
    shown: Shown | None = None
    status: str | None = None
    locked_until: int | None = None
    claims: bool = False


@dataclass(frozen=True)
class Change:
    """What a write asks for. ``metadata`` is as users write it; ``replace`` is an upsert."""

    metadata: Metadata = field(default_factory=dict)
    content: Any = UNSET
    version: int | None = None
    match: int | None = None
    token: str | None = None
    only_if: Filters | None = None
    replace: bool = False


@dataclass(frozen=True)
class Settle:
    """The end, or the prolonging, of one claim: ``verb`` is complete, fail, release or extend."""

    verb: str
    key: str
    sort_field: str
    token: str
    metadata: Metadata = field(default_factory=dict)
    wait: str | None = None
    """retry_after, delay or lock_for."""
    jitter: float = 1.0


@dataclass
class Item:
    """One item. ``metadata`` has just the fields that are there; ``ready`` and ``place`` are its place in line."""

    key: str
    sort_field: str
    version: int
    created: int
    updated: int
    content: Any = None
    metadata: Metadata = field(default_factory=dict)
    token: str | None = None
    ready: int = 0
    place: int = 0
    waited: int | None = None
    """The place that it got in the running call, if any."""
    before: tuple[Any, ...] | None = None
    """Where it stood in line when the running call began to change it."""

    @property
    def status(self) -> str | None:
        found: str | None = self.metadata.get("status")
        return found

    def put(self, name: str, value: Any) -> None:
        """Set a field; None removes it."""
        if value is None:
            self.metadata.pop(name, None)
        else:
            self.metadata[name] = value

    def tally(self, name: str, by: int = 1) -> None:
        self.metadata[name] = self.metadata.get(name, 0) + by

    def line(self) -> tuple[Any, ...]:
        """What a change of moves the item within the line."""
        return (self.status, self.ready, self.metadata.get("priority"))

    def order(self) -> tuple[Any, ...]:
        """Where it stands among the items of its status."""
        match self.status:
            case "not_started":
                score: tuple[int, ...] = (9 - self.metadata.get("priority", 5), self.ready, self.place)
            case "scheduled":
                score = (self.ready,)
            case "started":
                score = (self.metadata.get("locked_until", 0),)
            case _:
                score = (self.updated,)
        return (*score, self.sort_field.encode())

    def show(self) -> Shown:
        metadata = {name: format_time(value) if name in TIMES else value for name, value in self.metadata.items()}
        metadata["version"] = self.version
        return Shown(self.version, metadata, self.content, format_time(self.created), format_time(self.updated))


def resolve(text: str, now: int) -> int:
    """A time as users write it -> milliseconds."""
    if text == CURRENT_TIMESTAMP:
        return now
    return now + parse_duration(text[1:]) if text.startswith("+") else parse_time(text)


def matches(metadata: Metadata, filters: Filters | None, now: int) -> bool:
    """Whether an item with this metadata (times in ms) meets the filters."""
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "eq": lambda value, wanted: value == wanted,
        "ne": lambda value, wanted: value != wanted,
        "in": lambda value, wanted: value in wanted,
        "gte": lambda value, wanted: value is not None and value >= wanted,
        "lt": lambda value, wanted: value is not None and value < wanted,
        "exists": lambda value, wanted: (value is not None) == wanted,
    }
    for name, wanted in (filters or {}).items():
        for test, operand in (wanted if isinstance(wanted, Mapping) else {"eq": wanted}).items():
            sought = resolve(operand, now) if name in TIMES and test != "exists" else operand
            if not tests[test](metadata.get(name), sought):
                return False
    return True
