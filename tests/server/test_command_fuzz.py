"""Fuzzing the command language: no text crashes the parser or makes it hang, and each error says where and what."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guide import CLAIM, COMPLETE, CREATE, QUERY_EXPIRED, QUERY_WAITING
from hookline.item import INTEGER_MAX, INTEGER_MIN
from hookline_server.command import TEXT_MAX, Command, CommandSyntaxError, Loop, Statement, parse
from hookline_server.command.placeholder import PATTERN, Placeholder, templates
from hookline_server.command.verbs import VERBS

pytestmark = pytest.mark.timeout(120)
"""No text of the greatest length takes more than a small part of this; a parser that hangs takes all of it."""

LIFE = f"{CREATE}\n{QUERY_WAITING}\n{CLAIM}\n{QUERY_EXPIRED}\n{COMPLETE}"
BEGIN = "create item with:\nkey: a\n"
LIST = "query items where:\nkey: a\n\n"


@pytest.mark.parametrize(
    ("repeated", "before"),
    [
        ("[", BEGIN + "content: "),
        ("[],", BEGIN + "content: ["),
        ('{"a":', BEGIN + "content: "),
        ('"', ""),
        ('"', BEGIN + "content: ["),
        ("'\\", BEGIN + "content: ["),
        ('\\"', BEGIN + 'content: "'),
        ("/*", BEGIN + "content: ["),
        ("1,", BEGIN + "content: ["),
        ("1", BEGIN + "content: [0."),
        ("create  ", BEGIN + "content: ["),
        ("'\n", BEGIN + "content: [1 1 "),
        ("and ", "get item with key: "),
        ("a  ", "get item with key: and "),
        (" ", "get item with key: a"),
        (" ", "create"),
        ("x", CREATE),
        ("a: 1\n", CREATE),
        ("get items with key: a\n", ""),
        ("\n", ""),
        ("#\n", ""),
        ("\u00a0\r", BEGIN + "content:"),
        ("[item]", LIST + BEGIN + "content: ["),
        ("[item],", LIST + BEGIN + "content: ["),
        ("[item] ", LIST + BEGIN + "content: "),
        ("[item.", LIST + BEGIN + "content: "),
        ("[item].", LIST + BEGIN + "content: '"),
        ("[a", ""),
        (".a", "create item with:\ncontent: [a"),
        ("for each job in [items]:\n", LIST),
        ("for each job in [items]:\nend\n", LIST),
        ("end\n", LIST + "for each job in [items]:\n"),
        ("show keys as a\n", ""),
        ("triggers off ", "update item with "),
        ("limit ", "get item with key: "),
        (", limit", "get item with key: a"),
        ("\u200b", BEGIN + "content: "),
        ("\t", BEGIN + "sortField: a\tb"),
        ("10 ", "query items where limit: "),
    ],
)
def test_a_long_text_ends_soon(repeated: str, before: str) -> None:
    space = TEXT_MAX - len(before)
    _read_or_refused(before + repeated * (space // len(repeated.encode())))
    # Twice as long a text is twice the work, and the work that any text is.
    count = 4096 // len(repeated)
    assert _work(before + repeated * 2 * count) < 2.5 * _work(before + repeated * count) + 2000


def _work(text: str) -> int:
    """The calls that reading a text makes."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        _read(text)
    finally:
        sys.setprofile(None)
    return calls


WORDS = st.sampled_from(
    [
        *re.findall(r"\S+|\s", LIFE),
        *re.findall(r"\S+", "create get item items with where and triggers off : limit: NaN 1e999 \\u // /* */"),
        *re.findall(r"\S+", "for each job in [items] as x end [job.sortField] [token] show keys settings of run"),
        *("\n", "\r\n", "\ufeff", "\u2028", "\x00", "\ud800", "\u200b", "\u201c", "`", ";", *"{}[],:'\"\\/# "),
    ]
)
PHRASES = st.lists(WORDS, max_size=40)


@given(st.one_of(st.text(), PHRASES.map("".join), PHRASES.map(" ".join)))
@settings(max_examples=500, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


@given(st.integers(0, len(LIFE)), st.integers(0, 20), st.one_of(st.text(max_size=5), WORDS))
@settings(max_examples=500, deadline=None)
def test_any_change_of_a_good_text_is_read_or_refused(at: int, removed: int, added: str) -> None:
    _read_or_refused(LIFE[:at] + added + LIFE[at + removed :])


def _read(text: str) -> list[Statement] | CommandSyntaxError:
    try:
        return parse(text)
    except CommandSyntaxError as error:
        return error


def _read_or_refused(text: str) -> None:
    found = _read(text)
    if isinstance(found, CommandSyntaxError):
        _check_error(text, found)
    else:
        _check_statements(found)


def _check_error(text: str, error: CommandSyntaxError) -> None:
    lines = text.split("\n")
    assert 1 <= error.line <= len(lines)
    assert 1 <= error.column <= len(lines[error.line - 1]) + 1
    assert error.expected
    assert error.found
    assert str(error).startswith(f"line {error.line}, column {error.column}: expected {error.expected}, found ")
    assert len(str(error)) < 700
    assert re.fullmatch(r"[^\n]{0,101}\n *\^", error.excerpt)


def _check_statements(statements: list[Statement]) -> None:
    for statement in statements:
        if isinstance(statement, Loop):
            _check_statements(statement.body)
            continue
        assert set(statement.fields) <= set(VERBS[statement.verb].fields)
        within = [part for template in templates(statement.fields) for part in template.parts]
        named = [part for part in within if isinstance(part, Placeholder)]
        assert sorted(map(str, named)) == sorted(map(str, statement.placeholders))
        if not named:
            json.dumps(statement.fields, allow_nan=False)


UTF8 = st.text(st.characters(exclude_categories=["Cs"]))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(INTEGER_MIN, INTEGER_MAX) | FLOATS | UTF8,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(UTF8, inner, max_size=5),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_json_reads_as_itself(value: Any, indent: int | None, ascii_only: bool) -> None:
    content = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    # A bracket in text is written as an escape where it would begin a placeholder.
    content = re.sub(PATTERN, lambda found: f"\\u005b{found[0][1:]}", content)
    (command,) = parse(f"{BEGIN}content: {content}\nsortField: b")
    assert isinstance(command, Command)
    assert command.fields == {"key": "a", "sortField": "b", "content": value}


# Texts made from the tables of the language: sound in themselves, and then spoilt at a place or two.

NAMES = st.sampled_from(["job", "item", "items", "token", "current_version", "result", "mine", "a"])
PLACEHOLDERS = st.builds(
    lambda root, path: f"[{'.'.join((root, *path))}]",
    NAMES,
    st.lists(st.sampled_from(["sortField", "metadata", "x", "0", "content"]), max_size=3),
)
BARE = st.sampled_from(
    ["jobs", "a b", "10", "10m", "true", "null", "on", "'q'", '"x [job] y"', "[1]", "{}", "{'a': [job]}"]
)
WRITTEN = st.one_of(BARE, PLACEHOLDERS, st.dictionaries(NAMES, NAMES, max_size=3).map(json.dumps), JSON.map(json.dumps))
HEADS = {
    "delete items": "delete items {name} where",
    "cancel items": "cancel items {name} where",
    "redrive items": "redrive items {name} where",
    **{verb: f"{verb} items {{name}} where" for verb in ("query", "count", "claim")},
    "wait": "wait for item {name} with",
    "pause": "pause",
    "resume": "resume",
    "show keys": "show keys {name} with",
    "show settings": "show settings {name} of",
    "change settings": "change settings {name} with",
    **{
        f"{word} {noun}": f"{word} {noun} {{name}} with"
        for word in ("create", "show", "delete", "run", "enable", "disable")
        for noun in ("orchestration", "schedule")
    },
    "show orchestrations": "show orchestrations {name} with",
    "show schedules": "show schedules {name} with",
}


@st.composite
def command_texts(draw: st.DrawFn) -> str:
    verb = draw(st.sampled_from(sorted(VERBS)))
    fields = list(VERBS[verb].required)
    fields += draw(st.lists(st.sampled_from(sorted(VERBS[verb].fields)), max_size=3))
    name = draw(st.sampled_from(["", "", "as mine", "as a"]))
    head = HEADS.get(verb, f"{verb} item {{name}} with").format(name=name)
    lines = [f"{field}: {draw(WRITTEN)}" for field in dict.fromkeys(fields)]
    if verb in ("pause", "resume") or draw(st.booleans()):
        colon = draw(st.sampled_from(["", ":"])) if " " in head else ""
        return f"{head}{colon} {' and '.join(lines)}"
    return "\n".join([f"{head}:", *lines])


TEXTS = st.recursive(
    command_texts(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("\n\n".join),
        st.builds(lambda name, over, body: f"for each {name} in {over}:\n{body}\nend", NAMES, PLACEHOLDERS, inner),
    ),
    max_leaves=6,
)


@given(
    TEXTS, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.one_of(WORDS, st.text(max_size=3))), max_size=2)
)
@settings(max_examples=700, deadline=None)
def test_any_text_of_the_language_is_read_or_refused(text: str, spoilt: list[tuple[float, int, str]]) -> None:
    for place, removed, added in spoilt:
        at = round(place * len(text))
        text = text[:at] + added + text[at + removed :]
    _read_or_refused(text)


@given(command_texts())
@settings(max_examples=300, deadline=None)
def test_a_sound_head_is_never_what_is_wrong(text: str) -> None:
    found = _read(text)
    assert "'/datastore'" not in getattr(found, "expected", "")
