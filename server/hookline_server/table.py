"""Results of commands as text for people: a list of items as a table, one item line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

CELL_MAX = 40
"""Widest cell of a table, in columns of a terminal."""
COLUMNS_MAX = 12
"""Columns of a table; ``--output json`` has all."""
_LEADING = ("status", "priority", "worker_id", "attempts", "locked_until", "scheduled_at")
_HIDDEN = ("version",)
"""Metadata that has a column of its own."""


def render(results: Iterable[dict[str, Any]]) -> str:
    """Each result under the verb that it is of. What is stored cannot write outside its cell, nor to the terminal."""
    return "\n".join(_lines("".join(f"{line}\n" for line in _result(result)) for result in results))


def _lines(blocks: Iterable[str]) -> list[str]:
    return [block for block in blocks if block]


def _result(result: dict[str, Any]) -> list[str]:
    rest = {name: value for name, value in result.items() if name not in ("verb", "items", "item", "rounds", "keys")}
    lines = [plain(str(result["verb"]))]
    if "rounds" in result:
        lines = [f"{result['verb']} {plain(str(result['name']))}: {_count(len(result['rounds']), 'round')}"]
        for member in (member for members in result["rounds"] for member in members):
            lines += [f"  {line}" for line in _result(member)]
        return lines
    if "items" in result:
        lines[0] += f": {_count(len(result['items']), 'item')}"
        lines += _table([_row(item) for item in result["items"] if item is not None])
    elif "keys" in result:
        lines[0] += f": {_count(len(result['keys']), 'key')}"
        lines += _table([{"key": row["key"], "items": row["items"], **row["statuses"]} for row in result["keys"]])
    elif result.get("item") is not None:
        lines += _pairs(result["item"])
    elif "item" in result:
        lines[0] += ": no item"
    return lines + _pairs({name: value for name, value in rest.items() if value is not None})


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _row(item: dict[str, Any]) -> dict[str, Any]:
    metadata = item["metadata"]
    leading = {name: metadata[name] for name in _LEADING if name in metadata}
    others = {name: value for name, value in metadata.items() if name not in (*_LEADING, *_HIDDEN)}
    token = {"token": item["token"]} if "token" in item else {}
    return {"sortField": item["sortField"], "version": item["version"], **leading, **token, **others} | (
        {"content": item["content"]} if item.get("content") is not None else {}
    )


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows under their names, each column as wide as its widest cell. The first rows say in which order."""
    found = dict.fromkeys(name for row in rows for name in row)
    content = ["content"] if found.pop("content", 0) is None else []
    names = [*list(found)[: COLUMNS_MAX - len(content)], *content]
    if not names:
        return []
    # What a token is good for needs all of it.
    bounds = [CELL_MAX if name not in ("sortField", "token") else 200 for name in names]
    shown = [[_cell(row.get(name, ""), bound) for name, bound in zip(names, bounds, strict=True)] for row in rows]
    table = [[_cell(name, CELL_MAX) for name in names], *shown]
    widths = [max(cell_len(row[place]) for row in table) for place in range(len(names))]
    lines = ["  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)) for row in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return [line.rstrip() for line in lines]


def _cell(value: Any, width: int) -> str:
    text = plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def _pairs(fields: dict[str, Any]) -> list[str]:
    width = max((cell_len(plain(name)) for name in fields), default=0)
    lines: list[str] = []
    for name, value in fields.items():
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"{set_cell_size(plain(name), width)}  {plain(written)}".rstrip())
    return lines


def plain(text: str) -> str:
    """Text on one line, without what a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
