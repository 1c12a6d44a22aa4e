"""The table of settings as the options of ``serve``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from hookline.clock import format_duration
from hookline.configuration import flag
from hookline.settings import Settings

_METAVARS = {"int": "number", "float": "duration", "Path": "path", "str": "text"}


def sections() -> Iterator[tuple[str, list[Field[Any]]]]:
    """The rows of the table under their headings."""
    rows: list[Field[Any]] = []
    heading = ""
    for row in fields(Settings):
        if row.metadata["section"]:
            if rows:
                yield heading, rows
            heading, rows = row.metadata["section"], []
        rows.append(row)
    yield heading, rows


def default_of(row: Field[Any]) -> str:
    """The default of a setting as people write it; empty where there is none."""
    default = row.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return format_duration(round(default * 1000)) if default else "0"
    if isinstance(default, tuple):
        return ",".join(part if isinstance(part, str) else format_duration(round(part * 1000)) for part in default)
    return "" if default is None else str(default)


def signature() -> Signature:
    """The parameters of ``serve``: one option for each setting that has a flag, its text not yet read."""
    options = (_option(row, heading) for heading, rows in sections() for row in rows if flag(row))
    return Signature(list(options), return_annotation=None)


def _option(row: Field[Any], heading: str) -> Parameter:
    default = default_of(row)
    text = row.metadata["help"] + (f"  [default: {default}]" if default else "")
    # Without the backslash it would be markup.
    text = text.replace("[", "\\[")
    kind = bool if row.type == "bool" else str
    metavar = None if kind is bool else _METAVARS.get(str(row.type).removesuffix(" | None"), "list")
    option = typer.Option(flag(row), help=text, rich_help_panel=heading, show_default=False, metavar=metavar)
    return Parameter(row.name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option])
