"""Which sets would answer filters, and between which ends."""

from __future__ import annotations

from typing import Any

import pytest

from hookline.errors import Invalid
from hookline.index import Index
from hookline.plan import Walk, ordered, walks
from hookline.where import compile_where

INDEXES = [
    *(Index("size", "number"), Index("customer.id", "string"), Index("due", "time"), Index("updatedAt", "time")),
    *(Index("worker_id", "string"), Index("attempts", "number")),
]
T, T_MS = "2027-01-15T08:00:00Z", "1800000000000"
LONG = "x" * 300
CUT = b"x" * 256


def plan(where: Any) -> dict[str, tuple[Any, Any, bool]]:
    """The walks for these filters by name: ranges that all must hold, those of which one must, and whether exact."""
    return {walk.name: (list(walk.all), walk.any and list(walk.any), walk.exact) for walk in walks(where, INDEXES)}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, {}),
        ({"other": 1}, {}),
        ({"size": 3}, {"size": ([("3.0", "3.0")], None, True)}),
        ({"size": {"gte": 3, "lt": 9.5}}, {"size": ([("3.0", "inf"), ("-inf", "(9.5")], None, True)}),
        ({"size": {"in": [1, 2]}}, {"size": ([], [("1.0", "1.0"), ("2.0", "2.0")], True)}),
        ({"size": {"in": [1]}}, {"size": ([("1.0", "1.0")], None, True)}),
        ({"size": 2**53}, {"size": ([("9007199254740992.0", "9007199254740992.0")], None, False)}),
        ({"size": {"gt": 2**60}}, {"size": ([("1.152921504606847e+18", "inf")], None, False)}),
        ({"size": {"in": [1, None]}}, {}),
        ({"size": "3"}, {}),
        ({"size": True}, {}),
        ({"size": {"ne": 3}}, {}),
        ({"size": {"exists": True}}, {}),
        ({"size": 3, "other": 1}, {"size": ([("3.0", "3.0")], None, False)}),
        ({"size.x": 3}, {}),
        ({"customer.id": "c\0\1"}, {"customer.id": ([(b"[c\1\1\1\2\0", b"(c\1\1\1\2\1")], None, True)}),
        ({"customer.id": {"lt": "c"}}, {"customer.id": ([(b"-", b"(c\0")], None, True)}),
        ({"customer.id": {"lte": "c"}}, {"customer.id": ([(b"-", b"(c\1")], None, True)}),
        ({"customer.id": {"gt": "c"}}, {"customer.id": ([(b"[c\1", b"+")], None, True)}),
        ({"customer.id": {"gte": "c"}}, {"customer.id": ([(b"[c", b"+")], None, True)}),
        ({"customer.id": {"prefix": "c"}}, {"customer.id": ([(b"[c", b"(c\xff")], None, True)}),
        ({"customer.id": LONG}, {"customer.id": ([(b"[" + CUT + b"\0", b"(" + CUT + b"\1")], None, False)}),
        ({"customer.id": {"prefix": LONG}}, {"customer.id": ([(b"[" + CUT + b"\0", b"(" + CUT + b"\1")], None, False)}),
        ({"customer.id": {"gt": LONG}}, {"customer.id": ([(b"[" + CUT, b"+")], None, False)}),
        ({"customer.id": {"lt": LONG}}, {"customer.id": ([(b"-", b"(" + CUT + b"\1")], None, False)}),
        ({"customer.id": T}, {}),  # equal to the same moment in other words, too
        ({"customer": "c"}, {}),
        ({"due": {"lt": T}}, {"due": ([("-inf", f"({T_MS}")], None, True)}),
        ({"due": {"lt": "CURRENT_TIMESTAMP"}}, {"due": ([("-inf", "(+0")], None, True)}),
        ({"due": {"lt": "soon"}}, {}),
        ({"worker_id": "w"}, {"worker_id": ([(b"[w\0", b"(w\1")], None, True)}),
        ({"attempts": {"gt": 1}}, {"attempts": ([("(1.0", "inf")], None, True)}),
        ({"sortField": {"prefix": "a"}}, {"sortField": ([(b"[a", b"(a\xff")], None, True)}),
        ({"sortField": {"gt": "a", "lte": "b"}}, {"sortField": ([(b"(a", b"+"), (b"-", b"[b")], None, True)}),
        ({"sortField": T}, {"sortField": ([(b"[" + T.encode(), b"[" + T.encode())], None, True)}),
        ({"status": "review"}, {"status": ([], None, True)}),
        ({"status": {"in": ["a", "b"]}}, {}),
        (
            {"status": "completed", "updatedAt": {"lt": T}},
            {"status": ([("-inf", f"({T_MS}")], None, True), "updatedAt": ([("-inf", f"({T_MS}")], None, False)},
        ),
        (
            {"status": "not_started", "updatedAt": {"lt": T}},
            {"status": ([], None, False), "updatedAt": ([("-inf", f"({T_MS}")], None, False)},
        ),
        (
            {"status": "started", "locked_until": {"lt": "CURRENT_TIMESTAMP"}},
            {"status": ([("-inf", "(+0")], None, True)},
        ),
        (
            {"status": "failed", "size": {"gt": 1}, "sortField": {"lt": "m"}},
            {
                "status": ([], None, False),
                "sortField": ([(b"-", b"(m")], None, False),
                "size": ([("(1.0", "inf")], None, False),
            },
        ),
    ],
)
def test_walks(where: Any, expected: Any) -> None:
    assert plan(compile_where(where)) == expected


@pytest.mark.parametrize(
    ("order", "name", "descending"),
    [
        ("sortField", "sortField", False),
        ("sortField:desc", "sortField", True),
        ("size:asc", "size", False),
        ("customer.id:desc", "customer.id", True),
        ("status:desc", "status", True),
    ],
)
def test_order(order: str, name: str, descending: bool) -> None:
    walk = ordered(compile_where({"size": {"lt": 3}, "status": "review"}), INDEXES, order)
    assert (walk.name, walk.descending) == (name, descending)
    assert walk.all == ((("-inf", "(3.0"),) if name == "size" else ())


@pytest.mark.parametrize("order", ["", "priority", "size:down", "customer", "sortField:desc:desc"])
def test_an_order_without_index_is_named(order: str) -> None:
    name = order.removesuffix(":desc")
    with pytest.raises(Invalid, match=f"^/order: .*; {name} has no index: declare it"):
        ordered(compile_where(None), INDEXES, order)


def test_the_order_of_a_status_needs_one() -> None:
    with pytest.raises(Invalid, match=r"^/order: expected filters that ask for one status"):
        ordered(compile_where({"status": {"ne": "review"}}), INDEXES, "status")


def test_the_whole_key() -> None:
    assert ordered(compile_where(None), (), "sortField") == Walk("sortField", "", True, exact=True)
