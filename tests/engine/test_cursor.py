"""Cursors: nobody but us can make one, and each is of one query."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import cursor
from hookline.cursor import Position
from hookline.errors import Invalid

SECRET = bytes(32)
QUERY = ["jobs", {"status": "not_started"}, None]
MARKS = string.ascii_letters + string.digits + "-_"
positions = st.lists(st.none() | st.booleans() | st.tuples(st.text(), st.text()).map(list), max_size=16)


@given(positions, st.text())
def test_comes_back(there: list[Position], name: str) -> None:
    written = cursor.write(SECRET, [name], there)
    assert cursor.read(SECRET, [name], written) == there
    assert set(written) <= set(MARKS)


def refused(secret: bytes, query: object, written: object) -> bool:
    with pytest.raises(Invalid, match=r"^/cursor: expected the cursor of the page before") as invalid:
        cursor.read(secret, query, written)
    return len(invalid.value.flaws) == 1


@pytest.mark.parametrize(
    "query",
    [
        [],
        ["jobs", {"status": "not_started"}, "sortField"],
        ["jobs2", {"status": "not_started"}, None],
        ["jobs", {"status": "started"}, None],
        ["jobs", None, None],
    ],
)
def test_of_another_query(query: object) -> None:
    assert refused(SECRET, query, cursor.write(SECRET, QUERY, [None]))


def test_of_another_store() -> None:
    assert refused(bytes(31) + b"\1", QUERY, cursor.write(SECRET, QUERY, [None]))


@pytest.mark.parametrize("written", ["", "a", "====", "\ud800", "é", "A" * 100, 5, None, b"abc", ["a"], True])
def test_no_cursor(written: object) -> None:
    assert refused(SECRET, QUERY, written)


def test_every_bit_counts() -> None:
    written = cursor.write(SECRET, QUERY, [["1", "a"], False, None])
    raw = base64.urlsafe_b64decode(written + "=" * (-len(written) % 4))
    for place in range(len(raw)):
        altered = bytearray(raw)
        altered[place] ^= 1
        assert refused(SECRET, QUERY, base64.urlsafe_b64encode(altered).decode().rstrip("="))
        assert refused(SECRET, QUERY, base64.urlsafe_b64encode(raw[:place]).decode().rstrip("="))


def test_one_way_to_write_it() -> None:
    written = cursor.write(SECRET, QUERY, [None])
    for altered in (f"{written}=", f"{written}!", f" {written}", written[:5] + "\n" + written[5:], written[:-1] + "."):
        assert refused(SECRET, QUERY, altered)
