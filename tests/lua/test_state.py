"""Nothing of a call outlives it: what functions assign outside of themselves, its beginning assigns as well."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources

import pytest

ROOT = resources.files("hookline_lua")
LIB = ROOT.joinpath("lib")
REMEMBERED = {"known", "processor_time"}
"""What the clock has found out of the store: it is the same for every call."""

_TOKEN = re.compile(r"--[^\n]*|'(?:[^'\\\n]|\\.)*'|[A-Za-z_]\w*|\d[\w.]*|==|~=|<=|>=|\.\.\.?|\S")
_NAME = re.compile(r"[A-Za-z_]\w*")
_BEGINNING = re.compile(r"function \w+\.reset\(\)|return function\(\)")
_TOP = re.compile(r"local (?!function)([\w, ]+)")
_OPEN = {"[": "]", "(": ")", "{": "}"}
_TOUCHING = {"insert", "remove", "sort"}
"""Of Lua's ``table``, what changes its first argument."""


@dataclass
class Kept:
    """What the functions of a file keep outside of themselves, as ``name`` or ``name.field``; and what is made anew."""

    outside: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    anew: set[str] = field(default_factory=set)

    def left(self, helpers: dict[str, Kept]) -> set[str]:
        """What is kept, and not made anew where a call begins: by the file itself, or by the helper that it is of."""
        left = set()
        for place in self.touched:
            root = place.split(".")[0]
            anew = self.anew if root in self.outside else helpers[root].anew if root in self.used else {root}
            if not {root, place} & anew:
                left.add(place)
        return left - REMEMBERED


def _closed(tokens: list[str], start: int) -> int:
    """Behind the bracket that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place] in _OPEN) - (tokens[place] in _OPEN.values())
        if depth == 0:
            return place + 1
    return len(tokens)


def _target(tokens: list[str], place: int) -> tuple[str, int]:
    """The variable or field that begins there -> that, and where it ends."""
    name, place = tokens[place], place + 1
    while place < len(tokens) and tokens[place] in (".", "["):
        if tokens[place] == ".":
            name += f".{tokens[place + 1]}"
            place += 2
        else:
            name, place = f"{name}.[]", _closed(tokens, place)
    return ".".join(name.split(".")[:2]).removesuffix(".[]"), place


def assigned(code: str) -> set[str]:
    """Variables, and fields of variables, that code assigns or changes; not those that it declares."""
    tokens = [token for token in _TOKEN.findall(code) if not token.startswith("--")]
    found: set[str] = set()
    braces = 0
    for start, token in enumerate(tokens):
        before = tokens[start - 1] if start else ""
        braces += (token == "{") - (token == "}")
        # Within braces a table is made, and `name = value` is no assignment.
        if braces or not _NAME.fullmatch(token) or before in (".", "local", ",", "for", "function"):
            continue
        if token == "table" and tokens[start + 2] in _TOUCHING:
            found.add(_target(tokens, start + 4)[0])
            continue
        target, place = _target(tokens, start)
        targets = [target]
        while tokens[place : place + 1] == [","] and _NAME.fullmatch(tokens[place + 1]):
            target, place = _target(tokens, place + 1)
            targets.append(target)
        if tokens[place : place + 1] == ["="]:
            found.update(targets)
    return found


def kept(text: str) -> Kept:
    """What a file keeps."""
    made = Kept()
    elsewhere: list[str] = []
    beginning: list[str] = []
    into = elsewhere
    for line in text.splitlines():
        if line.startswith("-- use: "):
            made.used = set(line.split()[2:])
        elif match := _TOP.match(line):
            made.outside |= {name.strip() for name in match[1].split(",")}
        elif _BEGINNING.fullmatch(line):
            into = beginning
        elif line.startswith("end"):
            into = elsewhere
        elif line.startswith(" "):
            into.append(line)
    made.touched = assigned("\n".join(elsewhere))
    # What stands under a condition, or keeps what was there, makes nothing anew.
    for line in beginning:
        if re.match(r"  \S", line):
            made.anew |= {place for place in assigned(line) if f"{place} or " not in line}
    # Of the variables of functions, those that hide one of the file are not told apart; others are no concern.
    made.touched = {place for place in made.touched if place.split(".")[0] in made.outside or "." in place}
    return made


HELPERS = {file.name.removesuffix(".lua"): kept(file.read_text()) for file in LIB.iterdir()}
SCRIPTS = {file.name: kept(file.read_text()) for file in ROOT.iterdir() if file.name.endswith(".lua")}


@pytest.mark.parametrize("name", [*HELPERS, *SCRIPTS])
def test_what_a_call_keeps_is_made_anew(name: str) -> None:
    assert (HELPERS.get(name) or SCRIPTS[name]).left(HELPERS) == set()


RESET = "function spoilt.reset()\n  spoilt.seen, spoilt.all, count, CACHE = {}, {}, 0, {}\nend\n"
CHANGES = [
    "spoilt.seen[key] = true",
    "spoilt.seen[name_of(key)] = true",
    "count = count + 1",
    "if key then count = count + 1 end",
    "spoilt.other, count = 1, 2",
    "table.insert(spoilt.all, key)",
    "table.remove(spoilt.all)",
    "CACHE[key] = true",
]


@pytest.mark.parametrize("change", CHANGES)
def test_it_finds_what_is_not(change: str) -> None:
    text = f"local spoilt = {{}}\nlocal count, CACHE -- numbers\n\nfunction spoilt.note(key)\n  {change}\nend\n"
    assert kept(text).left({})
    if "other" not in change:
        assert not kept(text + RESET).left({})
        assert kept(
            text + RESET.replace("{}, {}, 0, {}", "spoilt.seen or {}, spoilt.all or {}, count or 0, CACHE or {}")
        ).left({})
        assert kept(text + RESET.replace("  spoilt", "  if x then\n    spoilt").replace("\nend", "\n  end\nend")).left(
            {}
        )


def test_it_finds_what_is_kept_in_another_helper() -> None:
    assert kept("-- use: item\nlocal function note()\n  item.given = 1\nend\n").left(HELPERS) == {"item.given"}
    assert not kept("-- use: item\nlocal function note(id)\n  item.ahead[id] = true\nend\n").left(HELPERS)
