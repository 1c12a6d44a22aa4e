"""Operations on one item go in the same call, or one after the other; all others at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hookline.call import Call
from hookline.calls import Calls
from hookline.group import BYTES_MAX, Group, Placed, grouped, share
from hookline.outcome import Outcome
from hookline.secret import SecretBox
from hookline.sortfield import Spread


def called(*words: str) -> list[tuple[int, Call]]:
    """Operations written as ``script/item``; claims as ``script:limit``."""
    calls = []
    for word in words:
        script, _, item = word.partition("/")
        script, _, limit = script.partition(":")
        request = {"limit": int(limit)} if limit else {}
        calls.append(Call(script, 0, "jobs", item, request))
    return list(enumerate(calls))


def places(groups: Sequence[Group]) -> list[list[int]]:
    return [[place for place, _ in group.members] for group in groups]


def grouping(placed: Sequence[Placed], pack: Callable[[Call, str], bytes]) -> tuple[list[list[int]], list[Placed]]:
    """The places of those that go together, and what waits."""
    later: list[Placed] = []
    return places(list(grouped(placed, pack, read, later))), later


@pytest.fixture
def calls() -> Calls:
    return Calls("default", 1, SecretBox(bytes(32)), Spread())


def read(call: Call, answer: list[Any]) -> Outcome:
    return Outcome(answer[0].decode(), call.key, call.sort_field)


def small(_: Call, parent: str) -> bytes:
    return b"x"


@pytest.mark.parametrize(
    ("words", "together", "waiting"),
    [
        ("create/a create/b create/c", [[0, 1, 2]], []),
        ("create/a patch/b create/c", [[0, 2], [1]], []),
        ("patch/a patch/a patch/a", [[0, 1, 2]], []),
        ("create/a patch/a create/b", [[0, 2]], [1]),
        ("patch/a delete/a patch/a patch/b", [[0, 3]], [1, 2]),
        ("patch/a delete/a delete/a", [[0]], [1, 2]),
        ("settle/a settle:99 settle/b", [[0, 1], [2]], []),
        ("settle/a settle:100 settle/b settle/a", [[0], [1], [2]], [3]),
    ],
)
def test_what_goes_together(words: str, together: list[list[int]], waiting: list[int]) -> None:
    groups, later = grouping(called(*words.split()), small)
    assert groups == together
    assert [place for place, _ in later] == waiting


@pytest.mark.parametrize(
    ("values", "conditions", "most", "claimed"),
    [(100, 32, 1, 1), (99, 1, 25, 7), (24, 1, 100, 10), (1, 24, 100, 10), (1, 25, 50, 9)],
)
def test_filters_count_by_their_operands(calls: Calls, values: int, conditions: int, most: int, claimed: int) -> None:
    where = {f"f{n}": {"in": [*range(values)]} for n in range(conditions)}
    updates = [calls.update("jobs", f"a{n}", metadata={"x": 1}, only_if=where) for n in range(101)]
    deletes = [calls.delete("jobs", f"a{n}", only_if=where) for n in range(101)]
    for changes in (updates, deletes):
        assert max(map(len, grouping([*enumerate(changes)], small)[0])) == most
    claims = [calls.claim("jobs", worker_id="w", where=where) for _ in range(101)]
    assert max(map(len, grouping([*enumerate(claims)], small)[0])) == claimed


def test_an_item_again_in_another_call_waits() -> None:
    words = [f"patch/{n % 90}" for n in range(180)]
    groups, later = grouping(called(*words), small)
    assert groups == [[*range(100)]]
    assert [place for place, _ in later] == [*range(100, 180)]
    assert grouping(later, small)[0] == [[*range(100, 180)]]


def test_large_operations_go_alone() -> None:
    sizes = [1, BYTES_MAX - 1, 1, BYTES_MAX * 2, 1]
    words = (f"create/{n}" for n in range(5))
    assert grouping(called(*words), lambda call, _: bytes(sizes[int(call.sort_field)])) == ([[0, 1], [2], [3], [4]], [])


def test_each_operation_is_packed_once() -> None:
    taken: list[str] = []

    def pack(call: Call, parent: str) -> bytes:
        taken.append(call.sort_field)
        return bytes(BYTES_MAX // 2 + 1)

    assert len(list(grouped(called(*(f"create/{n}" for n in range(5))), pack, read, []))) == 5
    assert taken == ["0", "1", "2", "3", "4"]


def test_a_group_is_given_when_it_is_full() -> None:
    packed: list[str] = []

    def pack(call: Call, parent: str) -> bytes:
        packed.append(call.sort_field)
        return b"x"

    groups = grouped(called("patch/a", *(f"create/{n}" for n in range(250))), pack, read, [])
    assert places([next(groups)]) == [[*range(1, 101)]]
    assert len(packed) == 102
    assert places(list(groups)) == [[*range(101, 201)], [0], [*range(201, 251)]]


@pytest.mark.parametrize(
    ("operations", "one_call"),
    [(1, 100), (63, 100), (64, 32), (65, 33), (100, 50), (199, 100), (200, 100), (5000, 100)],
)
def test_a_share_is_half_where_that_is_enough(operations: int, one_call: int) -> None:
    assert share(operations) == one_call
