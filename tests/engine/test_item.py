"""Names, values and triggers as they are written: what is taken, and what is refused where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from hookline.errors import Flaw, Invalid
from hookline.item import (
    DEPTH_MAX,
    Item,
    Trigger,
    TriggerChange,
    check_key,
    check_namespace,
    check_sort_field,
    check_value,
)
from hookline.trigger import OPERANDS_MAX, read_triggers
from hookline.where import count_operands
from values import nested

URL = "https://worker.example/run"


def pointers(invalid: pytest.ExceptionInfo[Invalid]) -> list[str]:
    return [flaw.pointer for flaw in invalid.value.flaws]


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_namespace, ["a", "a-b_9", "x" * 64], ["", "A", "a.b", "{a}", "a:b", "a\n", "x" * 65, "é", None, 1]),
        (
            check_key,
            ["a", "jobs", "A.b_c-9", ".", "x" * 128, "hookline.deliveries.1"],
            ["", "a b", "a:b", "{a}", "a/b", "a\0", "jobs\n", "x" * 129, "é", "٣", None, 1, b"a"],
        ),
        (
            check_sort_field,
            ["a", "a/b:c {d}", " ", "\n", "é" * 256, "x" * 512, "😀", "\x7f"],
            ["", "a\0", "\0", "é" * 257, "x" * 513, "\ud800", None, 1, b"a"],
        ),
    ],
)
def test_names(check: Any, good: list[object], bad: list[object]) -> None:
    for name in good:
        assert check(name) == name
    for name in bad:
        with pytest.raises(Invalid):
            check(name)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 2**64 - 1, -(2**63), 1.5, -0.0, 5e-324, "", "\0", "é😀", [], {}, {"": {"": []}},
        nested(DEPTH_MAX), {"a": nested(DEPTH_MAX - 1)}, [[]] * 1000,
    ],
)  # fmt: skip
def test_values(value: object) -> None:
    check_value(value, "/content")


@pytest.mark.parametrize(
    ("value", "flaws"),
    [
        (float("nan"), {"/v": "finite"}),
        (float("-inf"), {"/v": "finite"}),
        (2**64, {"/v": "64 bits"}),
        (-(2**63) - 1, {"/v": "64 bits"}),
        ("\ud800", {"/v": "surrogates"}),
        (nested(DEPTH_MAX + 1), {"/v" + "/0" * DEPTH_MAX: "64 levels"}),
        (nested(DEPTH_MAX, {}), {"/v" + "/0" * DEPTH_MAX: "64 levels"}),
        (nested(100_000), {"/v" + "/0" * DEPTH_MAX: "64 levels"}),
        ({"a": {"b": [1, 2**64, {"c/d": float("nan")}]}}, {"/v/a/b/1": "64 bits", "/v/a/b/2/c~1d": "finite"}),
        ({"a": "\udfff", "\udfff": 1}, {"/v/a": "surrogates", "/v": "surrogates"}),
        ({1: 2}, {"/v": "names of an object"}),
        ([b"a"], {"/v/0": "not bytes"}),
        ((1, 2), {"/v": "not tuple"}),
        ({"a": {1}}, {"/v/a": "not set"}),
        ([object()], {"/v/0": "not object"}),
    ],
)
def test_bad_values(value: object, flaws: dict[str, str]) -> None:
    with pytest.raises(Invalid) as invalid:
        check_value(value, "/v")
    assert pointers(invalid) == list(flaws)
    for flaw, (pointer, words) in zip(invalid.value.flaws, flaws.items(), strict=True):
        assert flaw.pointer == pointer
        assert words in flaw.detail


@limits(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        max_leaves=8,
    )
)
def test_what_is_taken_is_what_strict_json_can_write(value: object) -> None:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        fits = all(-(2**63) <= n < 2**64 for n in integers(value))
    except (ValueError, UnicodeEncodeError):
        fits = False
    if fits:
        check_value(value, "")
    else:
        with pytest.raises(Invalid):
            check_value(value, "")


def integers(value: object) -> list[int]:
    match value:
        case bool():
            return []
        case int():
            return [value]
        case list():
            return [n for member in value for n in integers(member)]
        case dict():
            return [n for member in value.values() for n in integers(member)]
    return []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, []),
        ({}, []),
        ([], []),
        ({URL: "key"}, [TriggerChange(URL, "key", ("updated",))]),
        ({URL: None, "http://[::1]:9000/?a=b": ""}, [
            TriggerChange(URL, None, ("updated",)), TriggerChange("http://[::1]:9000/?a=b", "", ("updated",)),
        ]),
        ([{"url": URL}], [TriggerChange(URL, None, ("updated",))]),
        ([{"url": URL, "apiKey": "k", "events": ["deleted", "created", "deleted"], "hasApiKey": True}], [
            TriggerChange(URL, "k", ("deleted", "created")),
        ]),
        ([{"url": "HTTP://a"}], [TriggerChange("HTTP://a", None, ("updated",))]),
        ([{"url": f"http://a/{n}"} for n in range(16)], [
            TriggerChange(f"http://a/{n}", None, ("updated",)) for n in range(16)
        ]),
    ],
)  # fmt: skip
def test_triggers(written: object, read: list[TriggerChange]) -> None:
    assert read_triggers(written) == read


def test_the_filters_of_all_triggers_have_so_many_operands() -> None:
    filters = [{"x": {"in": [*range(100)]}}, {"x": {"in": [*range(92)], "lt": 5}}, {f"f{n}": n for n in range(31)}]
    filters += [{f"f{n}": {"exists": True} for n in range(32)}]
    read = read_triggers([{"url": f"http://a/{n}", "where": where} for n, where in enumerate(filters)])
    assert sum(count_operands(change.options.conditions) for change in read) == OPERANDS_MAX


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("http://a", ["/triggerUrls"]),
        (5, ["/triggerUrls"]),
        ({"ftp://a": "k"}, ["/triggerUrls/ftp:~1~1a"]),
        ({"http://u:p@a": "k"}, ["/triggerUrls/http:~1~1u:p@a"]),
        ({"http://a#b": "k"}, ["/triggerUrls/http:~1~1a#b"]),
        ({"http://a b": "k"}, ["/triggerUrls/http:~1~1a b"]),
        ({"http://": "k"}, ["/triggerUrls/http:~1~1"]),
        ({"http://a/" + "b" * 2040: "k"}, [("/triggerUrls/http:~1~1a~1" + "b" * 2040)[:1000] + "..."]),
        ({"http://a/\n": "k"}, ["/triggerUrls/http:~1~1a~1\n"]),
        ({URL: 5}, ["/triggerUrls/https:~1~1worker.example~1run"]),
        ({URL: "a\r\nX: y"}, ["/triggerUrls/https:~1~1worker.example~1run"]),
        ({URL: "é"}, ["/triggerUrls/https:~1~1worker.example~1run"]),
        ({URL: "k" * 4097}, ["/triggerUrls/https:~1~1worker.example~1run"]),
        ({1: "k"}, ["/triggerUrls/1/url"]),
        ([URL], ["/triggerUrls/0"]),
        ([{"url": URL}, {"uri": URL}], ["/triggerUrls/1/uri"]),
        ([{"b": 1, 1: 2}], ["/triggerUrls/0/1"]),
        ([{"url": None}, {"url": URL, "events": []}], ["/triggerUrls/0/url", "/triggerUrls/1/events"]),
        ([{"url": URL, "events": ["changed"]}], ["/triggerUrls/0/events"]),
        ([{"url": URL, "events": "updated"}], ["/triggerUrls/0/events"]),
        ([{"url": URL, "events": [[]]}], ["/triggerUrls/0/events"]),
        ([{"url": URL, "events": ["updated"] * 33}], ["/triggerUrls/0/events"]),
        ([{"url": URL}, {"url": URL}], ["/triggerUrls"]),
        ([{"url": f"http://a/{n}"} for n in range(17)], ["/triggerUrls"]),
        ([{"url": f"http://a/{n}", "where": {"x": {"in": [*range(86)]}}} for n in range(4)], ["/triggerUrls/2/where"]),
        (
            [{"url": f"http://a/{n}", "where": {f"f{m}": m for m in range(17)}} for n in range(16)],
            [
                "/triggerUrls/15/where",
            ],
        ),
    ],
)
def test_bad_triggers(written: object, at: list[str]) -> None:
    with pytest.raises(Invalid) as invalid:
        read_triggers(written)
    assert pointers(invalid) == at
    assert "k" * 10 not in str(invalid.value)


def test_how_an_item_reads() -> None:
    item = Item(
        "jobs", "a", {"x": 1}, {"status": "started", "version": 3}, (Trigger(URL, ("updated",), True),), 3,
        "2024-03-15T10:00:00Z", "2024-03-15T10:00:01Z", 1_710_496_860_000, "3.abc", b"sealed",
    )  # fmt: skip
    assert item.status == "started"
    assert item.etag == '"3.1710496860000"'
    assert item.to_dict() == {
        "key": "jobs", "sortField": "a", "content": {"x": 1}, "metadata": {"status": "started", "version": 3},
        "triggerUrls": [{"url": URL, "events": ["updated"], "hasApiKey": True}], "version": 3,
        "createdAt": "2024-03-15T10:00:00Z", "updatedAt": "2024-03-15T10:00:01Z", "token": "3.abc",
    }  # fmt: skip
    assert "3.abc" not in repr(item)
    assert "sealed" not in repr(item).replace("sealed_triggers", "")
    plain = Item("jobs", "a", None, {}, (), 1, "", "")
    assert (plain.status, plain.etag, "token" in plain.to_dict()) == (None, '"1.0"', False)


def test_flaws_are_values() -> None:
    assert Flaw("/a", "b") == Flaw("/a", "b")
