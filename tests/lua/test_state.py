"""Nothing of a call outlives it: what functions assign outside of themselves, its beginning assigns as well."""

from __future__ import annotations

import re
from importlib import resources

import pytest

ROOT = resources.files("hookline_lua")
FILES = sorted(file.name for folder in (ROOT, ROOT.joinpath("lib")) for file in folder.iterdir() if ".lua" in file.name)
PLACE = r"[a-z_]\w*(?:\.\w+)?"
TARGETS = re.compile(rf"\s+({PLACE}[^=()]*?) = ")
INSERTED = re.compile(rf"\s+table\.insert\(({PLACE})")
TOP = re.compile(r"local (?!function)([\w, ]+?)(?: = .*)?")
BEGINNING = re.compile(r"(?:function \w+\.reset\(\)|return function\(\))")
REMEMBERED = {"known", "processor_time"}
"""What the clock has found out of the store: it is the same for every call."""


def text_of(name: str) -> str:
    """A script or helper; the names of the two kinds overlap, so both stand behind each other."""
    return "\n".join(
        folder.joinpath(name).read_text() for folder in (ROOT, ROOT.joinpath("lib")) if folder.joinpath(name).is_file()
    )


def assigned(lines: list[str]) -> set[str]:
    """Variables, and fields of variables, that lines assign or add to."""
    found = set()
    for line in lines:
        if match := TARGETS.match(line):
            found |= {place[0] for target in match[1].split(",") if (place := re.match(PLACE, target.strip()))}
        if match := INSERTED.match(line):
            found.add(match[1])
    return found


def kept(text: str) -> tuple[set[str], set[str]]:
    """What functions keep outside of themselves; and what the beginning of a call makes anew."""
    outside: set[str] = set()
    elsewhere: list[str] = []
    beginning: list[str] = []
    into = elsewhere
    for line in text.splitlines():
        if match := TOP.fullmatch(line):
            outside |= {name.strip() for name in match[1].split(",")}
        elif BEGINNING.fullmatch(line):
            into = beginning
        elif line == "end":
            into = elsewhere
        elif line.startswith(" "):
            into.append(line)
    return {place for place in assigned(elsewhere) if place.split(".")[0] in outside}, assigned(beginning)


@pytest.mark.parametrize("name", FILES)
def test_what_a_call_keeps_is_made_anew(name: str) -> None:
    places, anew = kept(text_of(name))
    assert {place for place in places if place not in anew and place.split(".")[0] not in anew} <= REMEMBERED


@pytest.mark.parametrize("change", ["spoilt.seen[key] = true", "count = count + 1", "table.insert(spoilt.all, key)"])
def test_it_finds_what_is_not(change: str) -> None:
    text = f"local spoilt = {{}}\nlocal count, other = 0\n\nfunction spoilt.note(key)\n  {change}\nend\n"
    places, anew = kept(text)
    assert places - anew
    reset = "function spoilt.reset()\n  spoilt.seen, spoilt.all, count = {}, {}, 0\nend\n"
    places, anew = kept(text + reset)
    assert not places - anew
