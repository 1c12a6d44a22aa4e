"""Filters: each operator over each kind of value, as `find` and `claim` test them."""

from __future__ import annotations

from typing import Any

import pytest

from hookline import Datastore
from hookline.errors import Invalid
from scripts import KEY, Scripts, at

BIG = 2**53
UTC, SAME, LATER = "2027-01-15T08:00:00Z", "2027-01-15T10:00:00+02:00", "2027-01-15T08:00:00.001Z"


async def matches(datastore: Datastore, where: dict[str, Any]) -> list[str]:
    """The sortFields of the items for which the filters hold."""
    return [item.sort_field for item in (await datastore.query(KEY, where=where)).items]


@pytest.mark.parametrize(
    ("value", "test", "operand", "holds"),
    [
        # text
        ("b", "eq", "b", True), ("b", "eq", "B", False), ("", "eq", "", True), ("1", "eq", 1, False),
        ("b", "ne", "b", False), ("b", "ne", "c", True), ("b", "ne", 1, True),
        ("b", "lt", "c", True), ("b", "lt", "b", False), ("b", "lte", "b", True), ("b", "gt", "B", True),
        ("b", "gt", "b", False), ("b", "gte", "b", True), ("10", "lt", "9", True), ("é", "gt", "z", True),
        ("b", "lt", 5, False), ("b", "gt", 5, False), ("b", "gte", 5, False),
        ("b", "in", ["a", "b"], True), ("b", "in", ["a", 1, None], False),
        ("report-1", "prefix", "report-", True), ("report", "prefix", "report-", False), ("x", "prefix", "", True),
        ("é1", "prefix", "é", True), (5, "prefix", "5", False), (["a"], "prefix", "a", False),
        # numbers
        (5, "eq", 5, True), (5, "eq", 5.0, True), (5.0, "eq", 5, True), (0, "eq", -0.0, True), (5, "eq", "5", False),
        (5, "ne", 5, False), (5, "ne", 6, True), (5, "lt", 5.5, True), (5, "lte", 5, True), (5, "gt", 4, True),
        (-5, "lt", 0, True), (5, "gte", 6, False), (5, "lt", "6", False), (0.1, "in", [0.1, 0.2], True),
        (1e300, "gt", 5, True), (5, "in", ["5", 6], False), (5, "in", [5.0], True),
        # integers that doubles cannot tell apart
        (BIG, "eq", BIG, True), (BIG + 1, "eq", BIG + 1, True), (BIG + 1, "eq", BIG, False),
        (BIG, "eq", BIG + 1, False), (BIG - 1, "eq", BIG - 1, True), (BIG + 1, "ne", BIG, True),
        (BIG + 1, "in", [BIG, BIG + 2], False), (BIG + 1, "in", [BIG, BIG + 1], True),
        (BIG + 1, "gt", BIG, True), (BIG, "gt", BIG + 1, False), (BIG, "lt", BIG + 1, True),
        (BIG, "gte", BIG + 1, False), (BIG + 1, "lte", BIG, False), (BIG + 1, "gte", BIG + 1, True),
        (BIG + 1, "gt", BIG + 1, False),
        (-BIG - 1, "lt", -BIG, True), (-BIG, "lte", -BIG - 1, False), (2**63, "gt", 2**63 - 1, True),
        (BIG, "gte", float(BIG), True), (float(BIG), "lte", BIG, True), ({"a": BIG + 1}, "gt", 5, False),
        (BIG + 2, "gt", BIG, True), (BIG - 1, "lt", BIG, True), (-BIG - 1, "eq", -BIG - 1, True),
        (-BIG - 1, "eq", -BIG, False), (2**64 - 1, "eq", 2**64 - 1, True), (2**64 - 1, "eq", -1, False),
        (2**64 - 1, "gt", 5, True), (5, "lt", 2**64 - 1, True), (2**63, "gte", 2**63 - 1, True),
        (-1, "lt", 2**63, True),
        # true, false
        (True, "eq", True, True), (True, "eq", False, False), (False, "eq", False, True), (True, "eq", 1, False),
        (1, "eq", True, False), (False, "eq", None, False), (True, "ne", False, True),
        (True, "in", [False, True], True),
        (0, "eq", False, False), (False, "in", [0, ""], False),
        # null, which is the same as absent
        (None, "eq", None, True), (None, "ne", None, False), (5, "eq", None, False), (5, "ne", None, True),
        (None, "eq", 5, False), (None, "ne", 5, True), (None, "in", [5, None], True), (None, "in", [5], False),
        (None, "lt", 5, False), (None, "lte", 5, False), (None, "gt", 5, False), (None, "gte", 5, False),
        (None, "prefix", "", False), (None, "exists", False, True), (None, "exists", True, False),
        (5, "exists", True, True), (5, "exists", False, False), (False, "exists", True, True),
        ("", "exists", True, True),
        # whole values
        ([1, 2], "eq", [1, 2], True), ([1, 2], "eq", [2, 1], False), ([], "ne", [1], True), ([], "eq", [], True),
        ([1], "in", [[1]], True), ([1], "lt", 5, False), ([1], "gte", 5, False),
        # times are instants if both are times, else text
        (UTC, "eq", UTC, True), (UTC, "eq", SAME, True), (SAME, "ne", UTC, False), (SAME, "in", [UTC], True),
        (UTC, "lt", LATER, True), (SAME, "lt", LATER, True), (LATER, "gt", SAME, True), (SAME, "lte", UTC, True),
        (UTC, "eq", "2027-01-15t08:00:00z", True), (UTC, "eq", "2027-01-15 08:00:00.000000Z", True),
        (UTC, "prefix", "2027-01", True), (UTC, "gt", "2027", True),
            ("2027", "lt", UTC, False), ("x", "gt", UTC, False),
        ("x", "eq", UTC, False), ("x", "ne", UTC, True), (5, "lt", UTC, False), (5, "gt", UTC, False),
        (5, "ne", UTC, True),
        # the clock stands at 2027-01-15T08:00:00Z
        (UTC, "eq", "CURRENT_TIMESTAMP", True), (LATER, "gt", "CURRENT_TIMESTAMP", True),
        (SAME, "lte", "CURRENT_TIMESTAMP", True), (LATER, "lt", "CURRENT_TIMESTAMP", False),
        ("x", "gt", "CURRENT_TIMESTAMP", False), ("x", "ne", "CURRENT_TIMESTAMP", True),
        (5, "lt", "CURRENT_TIMESTAMP", False), (None, "lt", "CURRENT_TIMESTAMP", False),
        (UTC, "in", ["x", "CURRENT_TIMESTAMP"], True), ("CURRENT", "prefix", "CURRENT_TIMESTAMP", False),
    ],
)  # fmt: skip
async def test_operators(
    scripts: Scripts, datastore: Datastore, value: object, test: str, operand: object, holds: bool
) -> None:
    await scripts.create("flat", metadata={"x": value})
    await scripts.create("deep", metadata={"a": {"b": {"x": value}}})
    assert await matches(datastore, {"x": {test: operand}, "a": {"exists": False}}) == ["flat"] * holds
    nested = not isinstance(value, list) and _fits_a_double(value) and _fits_a_double(operand)
    if nested and not isinstance(operand, list):
        assert await matches(datastore, {"a.b.x": {test: operand}, "a": {"exists": True}}) == ["deep"] * holds
    if test == "eq" and not isinstance(operand, dict):
        assert await matches(datastore, {"x": operand, "a": {"exists": False}}) == ["flat"] * holds


@pytest.mark.parametrize("value", [BIG, 1_234_567_890_123_456_789, -1_234_567_890_123_456_789, 2**62, 1e16, 1e300])
async def test_large_numbers_within_an_object_are_compared_as_doubles(
    scripts: Scripts, datastore: Datastore, value: float
) -> None:
    await scripts.create("deep", metadata={"a": {"x": value}})
    for where in ({"eq": value}, {"in": [1, value]}, {"gte": value, "lte": value}):
        assert await matches(datastore, {"a.x": where}) == ["deep"]
    assert await matches(datastore, {"a.x": {"ne": value}}) == []
    assert await matches(datastore, {"a.x": value * 2}) == []


def _fits_a_double(value: object) -> bool:
    return type(value) is not int or abs(value) < BIG


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"a.b.c": 1}, ["deep"]),
        ({"a.b.d": 1}, []),
        ({"a.b.d": None}, ["deep", "flat", "none"]),
        ({"a.b": {"exists": True}}, ["deep"]),
        ({"a.b.c.d": {"exists": True}}, []),
        ({"a.c": {"exists": True}}, []),
        ({"a": {"exists": True}}, ["deep", "flat"]),
        ({"a.b.c": {"ne": 1}}, ["flat", "none"]),
        ({"list.0": {"exists": True}}, []),
    ],
)
async def test_paths(scripts: Scripts, datastore: Datastore, where: dict[str, Any], found: list[str]) -> None:
    await scripts.create("deep", metadata={"a": {"b": {"c": 1}}, "list": [1]})
    await scripts.create("flat", metadata={"a": 5})
    await scripts.create("none")
    assert await matches(datastore, where) == found


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"status": "started"}, ["s"]),
        ({"status": {"ne": "started"}}, ["n", "p"]),
        ({"status": {"in": ["started", "not_started"]}}, ["n", "s"]),
        ({"status": {"exists": False}}, ["p"]),
        ({"status": {"prefix": "not"}}, ["n"]),
        ({"status": {"gt": "o"}}, ["s"]),
        ({"version": 1}, ["n", "p"]),
        ({"version": {"gt": 1}}, ["s"]),
        ({"attempts": {"gte": 1}}, ["s"]),
        ({"attempts": {"lt": 1}}, ["n"]),
        ({"attempts": 0}, ["n"]),
        ({"attempts": {"ne": 0}}, ["p", "s"]),
        ({"priority": {"in": [1, 7]}}, ["n"]),
        ({"worker_id": "w"}, ["s"]),
        ({"worker_id": {"exists": True}}, ["s"]),
        ({"locked_until": {"gt": "CURRENT_TIMESTAMP"}}, ["s"]),
        ({"locked_until": {"lt": "CURRENT_TIMESTAMP"}}, []),
        ({"locked_until": {"lte": "+60s"}}, ["s"]),
        ({"locked_until": {"lt": "+60s"}}, []),
        ({"locked_until": at(60)}, ["s"]),
        ({"status": "started", "locked_until": {"lte": at(60)}}, ["s"]),
        ({"status": "started", "locked_until": {"lt": at(60)}}, []),
        ({"started_at": {"eq": "2027-01-15T09:00:00+01:00"}}, ["s"]),
        ({"last_error": {"prefix": "no"}}, ["n"]),
        ({"type": "r", "priority": 7, "version": 1}, ["n"]),
        ({"priority": {"gt": 6, "lt": 8}}, ["n"]),
        ({"priority": {"gt": 7, "lt": 8}}, []),
        ({}, ["n", "p", "s"]),
    ],
)
async def test_native_fields(scripts: Scripts, datastore: Datastore, where: dict[str, Any], found: list[str]) -> None:
    waits = {"status": "not_started", "priority": 7, "last_error": "no way", "type": "r"}
    await scripts.create("n", metadata=waits)
    await scripts.create("s", metadata={"status": "started", "worker_id": "w", "locked_until": at(60)})
    await scripts.update("s", metadata={"progress": 1})
    await scripts.create("p")
    assert await matches(datastore, where) == found


@pytest.mark.parametrize(
    "where",
    [
        {"attempts": {"prefix": "1"}}, {"locked_until": {"prefix": at(0)}}, {"x": {"prefix": 5}}, {"status": None},
        {"attempts": "1"}, {"locked_until": "soon"}, {"x": {"lt": None}}, {"x": {"gt": True}}, {"x": {"in": []}},
    ],
)  # fmt: skip
async def test_what_can_never_hold_is_refused(datastore: Datastore, where: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await datastore.query(KEY, where=where)
