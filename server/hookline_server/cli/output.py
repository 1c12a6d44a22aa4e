"""What a command says on standard output: JSON for programs, one document a line, or text for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer

from hookline_server.table import Table, harmless, of_item, pairs


def say_documents(values: Iterable[Any]) -> None:
    """Say values as JSON, each on a line."""
    for value in values:
        typer.echo(_document(value))


def say_one(value: dict[str, Any], *, as_json: bool) -> None:
    """Say an object: as JSON, or name by name."""
    typer.echo(_document(value) if as_json else pairs(value))


def say_items(
    pages: Iterable[Sequence[dict[str, Any]]],
    *,
    as_json: bool,
    row: Callable[[dict[str, Any]], dict[str, Any]] = of_item,
) -> int:
    """Say items, or others by their ``row``, page by page: each as a line of JSON, or in a table -> how many."""
    table, said = Table(), 0
    for page in pages:
        if page:
            typer.echo("\n".join(map(_document, page) if as_json else table.add([row(each) for each in page])))
            said += len(page)
    return said


def say_none(what: str = "none", *, as_json: bool) -> None:
    """Say to people, on standard error, why there is nothing on standard output."""
    if not as_json:
        typer.echo(what, err=True)


def columns(document: dict[str, Any], *names: str) -> dict[str, Any]:
    """These of a document as a row; what is null stays empty."""
    return {name: "" if document[name] is None else document[name] for name in names}


def say_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Say objects of one kind: each as a line of JSON, or as a row of a table; on standard error if there are none."""
    if as_json:
        say_documents(rows)
    elif not rows:
        say_none(as_json=as_json)
    else:
        for line in Table().add(rows):
            typer.echo(line)


def _document(value: Any) -> str:
    return harmless(json.dumps(value, ensure_ascii=False))
