"""The names of the package are what a checker of types is told they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hookline


def test_each_name_is_where_a_checker_of_types_looks_for_it() -> None:
    tree = ast.parse(Path(hookline.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hookline.")
        for alias in node.names
    }
    assert told == {name: f"hookline.{home}" for name, home in hookline._HOMES.items()}
    assert all(getattr(hookline, name) is not None for name in told)
    assert set(told) <= set(dir(hookline))


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Datastores'"):
        hookline.Datastores  # noqa: B018
