"""Filters as they are written -> conditions; what they match is tested in tests/lua/test_where.py."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hookline.codec import pack
from hookline.errors import Invalid
from hookline.item import check_value
from hookline.where import compile_where

DEEP: list[Any] = []
for _ in range(100_000):  # deeper than any release of Python measures
    DEEP = [DEEP]
T, T_MS = "2024-03-15T10:00:00Z", "1710496800000"


def user(name: str, test: str, **more: Any) -> dict[str, Any]:
    return {"test": test, "field": f"m:{name}", "native": False, "path": [], **more}


@pytest.mark.parametrize(
    ("where", "conditions"),
    [
        (None, []),
        ({}, []),
        ({"x": 1}, [user("x", "eq", operand={"packed": b"\x01", "value": 1})]),
        ({"x": {"eq": None}}, [user("x", "eq", operand={"packed": b"\xc0", "value": None})]),
        ({"x": [1]}, [user("x", "eq", operand={"packed": b"\x91\x01", "value": [1]})]),
        ({"x": T}, [user("x", "eq", operand={"packed": pack(T), "value": T, "time": T_MS})]),
        ({"x": "CURRENT_TIMESTAMP"}, [user("x", "eq", operand={"time": "+0"})]),
        ({"x": 2**63}, [user("x", "eq", operand={"packed": pack(2**63), "value": 2.0**63})]),
        ({"x": {"gt": 1, "lte": 2.5}}, [
            user("x", "gt", operand={"packed": b"\x01", "value": 1}),
            user("x", "lte", operand={"packed": pack(2.5), "value": 2.5}),
        ]),
        ({"x": {"in": [1, "a"]}}, [
            user("x", "in", operands=[{"packed": b"\x01", "value": 1}, {"packed": b"\xa1a", "value": "a"}]),
        ]),
        ({"x": {"exists": False}}, [user("x", "exists", wanted=False)]),
        ({"x": {"prefix": ""}}, [user("x", "prefix", operand={"value": ""})]),
        ({"a.metadata": 1}, [user("a", "eq", path=["metadata"], operand={"packed": b"\x01", "value": 1})]),
        ({"metadata": 1}, [user("metadata", "eq", operand={"packed": b"\x01", "value": 1})]),
        ({"a.b.c": 1}, [user("a", "eq", path=["b", "c"], operand={"packed": b"\x01", "value": 1})]),
        ({"version": {"gte": 2}}, [
            {"test": "gte", "field": "v", "native": "number", "path": [], "operand": {"value": 2}},
        ]),
        ({"priority": {"in": [1, 2.0]}}, [
            {"test": "in", "field": "p", "native": "number", "path": [], "operands": [{"value": 1}, {"value": 2.0}]},
        ]),
        ({"worker_id": {"prefix": "w-"}}, [
            {"test": "prefix", "field": "w", "native": "word", "path": [], "operand": {"value": "w-"}},
        ]),
        ({"started_at": {"lt": "+10m"}}, [
            {"test": "lt", "field": "sa", "native": "number", "path": [], "operand": {"time": "+600000"}},
        ]),
        ({"locked_until": T}, [
            {"test": "eq", "field": "lu", "native": "number", "path": [], "operand": {"time": T_MS}},
        ]),
    ],
)  # fmt: skip
def test_conditions(where: object, conditions: list[dict[str, Any]]) -> None:
    assert list(compile_where(where).conditions) == conditions


def test_integers_beyond_63_bits_are_compared_as_doubles() -> None:
    """The store's cmsgpack would read them as negative."""
    found = [compile_where({"x": value}).conditions[0]["operand"]["value"] for value in (2**63 - 1, 2**63)]
    assert [type(value) for value in found] == [int, float]


@pytest.mark.parametrize(
    ("where", "at"),
    [
        ([], ["/where"]),
        ("status = 1", ["/where"]),
        ({"": 1}, ["/where/"]),
        ({1: 1}, ["/where/1"]),
        ({"x": {}}, ["/where/x"]),
        ({"x": {"equals": 1}}, ["/where/x"]),
        ({"a/b": {"lt": 1, "y": 2}}, ["/where/a~1b"]),
        ({"x": {"lt": None}}, ["/where/x/lt"]),
        ({"x": {"gte": [1]}}, ["/where/x/gte"]),
        ({"x": {"gt": True}}, ["/where/x/gt"]),
        ({"x": {"in": []}}, ["/where/x/in"]),
        ({"x": {"in": "abc"}}, ["/where/x/in"]),
        ({"x": {"in": [*range(101)]}}, ["/where/x/in"]),
        ({"x": {"in": [1, math.nan]}}, ["/where/x/in/1"]),
        ({"x": {"exists": 1}}, ["/where/x/exists"]),
        ({"x": {"prefix": 1}}, ["/where/x/prefix"]),
        ({"x": {"prefix": "\ud800"}}, ["/where/x/prefix"]),
        ({"x": {"eq": {"a": 2**64}}}, ["/where/x/eq/a"]),
        ({"x": "\ud800"}, ["/where/x"]),
        ({"priority": {"prefix": "1"}}, ["/where/priority/prefix"]),
        ({"priority": "1"}, ["/where/priority"]),
        ({"version": True}, ["/where/version"]),
        ({"status": 1, "worker_id": None}, ["/where/status", "/where/worker_id"]),
        ({"locked_until": {"lt": "soon"}}, ["/where/locked_until/lt"]),
        ({"locked_until": 5}, ["/where/locked_until"]),
        ({"a.b": {"eq": {"c": 1}}}, ["/where/a.b/eq"]),
        ({f"f{n}": 1 for n in range(33)}, ["/where"]),
        ({"x": [10**6] * 512}, ["/where/x"]),
        ({"x": {"ne": [10**6] * 512, "eq": 1}, "y": 2}, ["/where/x/ne"]),
        ({"x": {"in": [[10**6] * 256, "z", [10**6] * 256]}}, ["/where/x/in"]),
        ({"x": {"eq": DEEP}}, ["/where/x/eq"]),
        ({"metadata.type": "a", "metadata.": 1}, ["/where/metadata.type", "/where/metadata."]),
    ],
)
def test_bad_filters(where: object, at: list[str]) -> None:
    with pytest.raises(Invalid) as invalid:
        compile_where(where)
    assert [flaw.pointer for flaw in invalid.value.flaws] == at


def test_the_longest_operands() -> None:
    (condition,) = compile_where({"x": [10**6] * 511 + [100]}).conditions
    assert len(condition["operand"]["value"]) == 512
    assert compile_where({"x": {"in": ["x" * 512] * 100}}).conditions


def test_a_large_operand_is_refused_before_it_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[object] = []
    monkeypatch.setattr("hookline.where.check_value", lambda value, _: walked.append(value))
    with pytest.raises(Invalid, match="at most 4096 bytes of JSON"):
        compile_where({"x": {"in": [1, [[0] * 5000]]}})
    assert walked == ["x"]


def test_too_many_filters_are_refused_before_any_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def check(value: object, pointer: str) -> None:
        read.append(value)
        check_value(value, pointer)

    monkeypatch.setattr("hookline.where.check_value", check)
    with pytest.raises(Invalid, match="expected at most 32 conditions"):
        compile_where({f"f{n}": 1 for n in range(33)})
    assert not read
    compile_where({"f": 1})
    assert read


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Invalid, match="surrogates"):
        compile_where({"\ud800": 1})
