"""Placeholders: ``[job.sortField]`` stands for a value of a result that came before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NO_NAMES = ("true", "false", "null", "nan", "inf", "infinity")
"""Words that between brackets are a list of one value, in any case."""

PATTERN = rf"\[(?!(?i:{'|'.join(NO_NAMES)})\])[A-Za-z_]\w*(?:\.[\w-]+)*\]"
"""A placeholder, as a regular expression. JSON has nothing of this form."""

ITEM = ("item", "job", "current_version", "token")
"""What a result with an item binds: the item under two names, its version, and the token of its claim if it has one."""
ITEMS = ("items", *ITEM)
"""What a result with a list of items binds: the list, and of its first item all of :data:`ITEM`."""
OWN = ("result", *ITEMS)
"""The names that results bind by themselves."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A name, the path from its value on, and where it stands."""

    root: str
    path: tuple[str, ...]
    line: int
    column: int

    def __str__(self) -> str:
        """As it is written."""
        return f"[{'.'.join((self.root, *self.path))}]"


@dataclass(frozen=True, slots=True)
class Template:
    """Text with placeholders; of one placeholder alone, it stands for that value, with its type."""

    parts: tuple[str | Placeholder, ...]

    @property
    def whole(self) -> Placeholder | None:
        """The one placeholder that this is, if it is nothing else."""
        (first, *rest) = self.parts
        return first if isinstance(first, Placeholder) and not rest else None


def templates(value: Any) -> Iterator[Template]:
    """The templates in a value."""
    if isinstance(value, Template):
        yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from templates(member)
