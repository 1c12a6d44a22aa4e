"""Results of commands as text for people: a list of items as a table, one item line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

CELL_MAX = 40
"""Widest cell of a table, in columns of a terminal."""
_WHOLE = ("sortField", "token", "id", "workerId")
"""Columns of which all is needed, for the next command."""
COLUMNS_MAX = 12
"""Columns of a table; ``--output json`` has all."""
_LEADING = ("status", "priority", "worker_id", "attempts", "locked_until", "scheduled_at")
_HIDDEN = ("version",)
"""Metadata that has a column of its own."""
_SHOWN = ("verb", "items", "item", "rounds", "keys", "rules", "rule", "next", "runs")
"""What of a result is shown in a way of its own."""
_RULE = ("name", "key", "every", "cron", "timeZone", "enabled", "nextRun")
"""Columns of rules."""


class Table:
    """Rows under their names, added page by page. The first page says which columns there are, and in which order.

    Each column is as wide as the widest cell so far. What is stored cannot write outside its cell.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._widths: list[int] = []

    def add(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """The lines of some rows, under the names if they are the first."""
        first = not self._names
        if first:
            self._names = _columns(rows)
            self._widths = [cell_len(_cell(name, CELL_MAX)) for name in self._names]
        bounds = [CELL_MAX if name not in _WHOLE else 200 for name in self._names]
        shown = [
            [_cell(row.get(name, ""), bound) for name, bound in zip(self._names, bounds, strict=True)] for row in rows
        ]
        for row in shown:
            self._widths = [max(width, cell_len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        if first and self._names:
            shown = [[_cell(name, CELL_MAX) for name in self._names], ["-" * width for width in self._widths], *shown]
        lines = [
            "  ".join(set_cell_size(cell, width) for cell, width in zip(row, self._widths, strict=True))
            for row in shown
        ]
        return [line.rstrip() for line in lines]


def pairs(fields: dict[str, Any]) -> str:
    """One value after the other, each behind its name."""
    return "\n".join(_pairs({name: value for name, value in fields.items() if value is not None}))


def harmless(text: str) -> str:
    """JSON, or text of some lines, without what a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def render(results: Iterable[dict[str, Any]]) -> str:
    """Each result under the verb that it is of. What is stored cannot write outside its cell, nor to the terminal."""
    return "\n".join(_lines("".join(f"{line}\n" for line in _result(result)) for result in results))


def _lines(blocks: Iterable[str]) -> list[str]:
    return [block for block in blocks if block]


def _result(result: dict[str, Any]) -> list[str]:
    rest = {name: value for name, value in result.items() if name not in _SHOWN}
    lines = [plain(str(result["verb"]))]
    if "rounds" in result:
        lines = [f"{result['verb']} {plain(str(result['name']))}: {_count(len(result['rounds']), 'round')}"]
        for member in (member for members in result["rounds"] for member in members):
            lines += [f"  {line}" for line in _result(member)]
        return lines
    if "items" in result:
        lines[0] += f": {_count(len(result['items']), 'item')}"
        lines += _table([of_item(item) for item in result["items"] if item is not None])
    elif "keys" in result:
        lines[0] += f": {_count(len(result['keys']), 'key')}"
        lines += _table([{"key": row["key"], "items": row["items"], **row["statuses"]} for row in result["keys"]])
    elif "rules" in result:
        lines[0] += f": {_count(len(result['rules']), 'rule')}"
        lines += _table([of_rule(rule) for rule in result["rules"]])
    elif "rule" in result:
        lines += _pairs(result["rule"])
    elif result.get("item") is not None:
        lines += _pairs(result["item"])
    elif "item" in result:
        # A wait that ends has none to show, though the item is there.
        lines[0] += ": not ended yet, or not as 'until' says" if result["verb"] == "wait" else ": no item"
    lines += _table(result.get("next", ()))
    lines += _table([of_run(run) for run in result.get("runs", ())])
    return lines + _pairs({name: value for name, value in rest.items() if value is not None})


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def of_item(item: dict[str, Any]) -> dict[str, Any]:
    """An item as a row."""
    metadata = item["metadata"]
    leading = {name: metadata[name] for name in _LEADING if name in metadata}
    others = {name: value for name, value in metadata.items() if name not in (*_LEADING, *_HIDDEN)}
    token = {"token": item["token"]} if "token" in item else {}
    return {"sortField": item["sortField"], "version": item["version"], **leading, **token, **others} | (
        {"content": item["content"]} if item.get("content") is not None else {}
    )


def of_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """What of an orchestration or a schedule is shown as a row."""
    return {name: rule[name] for name in _RULE if rule[name] is not None}


def of_run(run: dict[str, Any]) -> dict[str, Any]:
    """A run of a rule as a row; one by hand has no tick."""
    return {**run, "tick": run["tick"] or ""}


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    return Table().add(rows)


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    found = dict.fromkeys(name for row in rows for name in row)
    content = ["content"] if found.pop("content", 0) is None else []
    return [*list(found)[: COLUMNS_MAX - len(content)], *content]


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
