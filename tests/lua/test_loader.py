"""The loader: what it makes of a header, what it refuses, and that a real store takes every script."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest
import redis.asyncio as aioredis

from hookline_lua import SCRIPTS, HeaderError, Script, compose, load

HEADER = "#!lua flags=no-writes\n-- What it does.\n-- keys: partition\n"
LIBRARY = {
    "clock": "-- The clock.\nlocal clock = {}",
    "index": "-- use: clock\nlocal index = {}",
    "item": "-- use: clock index\nlocal item = {}",
    "snake": "-- use: tail\nlocal snake = {}",
    "tail": "-- use: snake\nlocal tail = {}",
    "lost": "-- use: nowhere",
    "seen": "local seen = { made = 0 }",
    "late": "-- use: seen\n-- load: late\nlocal late = { text = 'late' }\nseen.made = seen.made + 1\n"
    "function late.word()\n  return late.text\nend",
    "later": "-- use: seen late\n-- load: late\nlocal later = {}\nseen.made = seen.made + 1\n"
    "function later.word()\n  return 'later, ' .. late.word()\nend",
}


def read_lib(name: str) -> str:
    if name not in LIBRARY:
        raise FileNotFoundError(name)
    return LIBRARY[name]


def composed(text: str, name: str = "try") -> Script:
    return compose(name, text, read_lib)


def test_header_becomes_locals() -> None:
    script = composed(HEADER + "-- args: now_ms:int call_id request:msgpack\n\nreturn 1")
    assert script.source.splitlines() == [
        "#!lua flags=no-writes",
        "local partition = KEYS[1]",
        "local now_ms = tonumber(ARGV[1])",
        "local call_id = ARGV[2]",
        "local request = cmsgpack.unpack(ARGV[3])",
        "-- What it does.",
        "-- keys: partition",
        "-- args: now_ms:int call_id request:msgpack",
        "",
        "return 1",
    ]
    assert script.keys == ("partition",)
    assert script.args == ("now_ms", "call_id", "request")
    assert script.flags == {"no-writes"}
    assert script.sha == hashlib.sha1(script.source.encode()).hexdigest()


def test_each_helper_once_and_after_those_it_uses() -> None:
    source = composed(HEADER + "-- use: item index clock item\n").source
    places = [source.index(f"local {name} = {{}}") for name in ("clock", "index", "item")]
    assert places == sorted(places)
    assert [source.count(f"local {name} = {{}}") for name in ("clock", "index", "item")] == [1, 1, 1]


def test_without_flags() -> None:
    script = composed("#!lua\n-- keys: partition\nreturn 1")
    assert script.source.startswith("#!lua\n")
    assert script.flags == frozenset()


def test_drain_variant_also_runs_at_the_memory_limit() -> None:
    text = "#!lua\n-- keys: partition\n-- drain: yes\nreturn 1"
    plain, drain = composed(text, "try"), composed(text, "try_drain")
    assert plain.flags == frozenset()
    assert drain.flags == {"allow-oom"}
    assert drain.source == plain.source.replace("#!lua\n", "#!lua flags=allow-oom\n")
    assert drain.sha != plain.sha


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("-- keys: partition\n", "try.lua:1: expected '#!lua'", id="no shebang"),
        pytest.param("", "try.lua:1: expected '#!lua'", id="empty file"),
        pytest.param("#!lua flags=A;B\n-- keys: partition\n", "try.lua:1: expected '#!lua'", id="odd flags"),
        pytest.param("#!lua\nreturn 1", "expected a line '-- keys: ...'", id="no keys"),
        pytest.param("#!lua\n\n-- keys: partition\n", "expected a line '-- keys: ...'", id="keys after the header"),
        pytest.param(HEADER + "-- args: limit:float", "argument limit:float: expected :int", id="unknown kind"),
        pytest.param(HEADER + "-- use: clock nowhere", "try.lua: no helper lib/nowhere.lua", id="no such helper"),
        pytest.param(HEADER + "-- use: lost", "lib/lost.lua: no helper lib/nowhere.lua", id="nor for a helper"),
        pytest.param(
            HEADER + "-- use: snake",
            "lib/snake.lua: uses itself by way of try.lua -> lib/snake.lua -> lib/tail.lua",
            id="helpers in a circle",
        ),
    ],
)
def test_bad_headers(text: str, message: str) -> None:
    with pytest.raises(HeaderError) as caught:
        composed(text)
    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_drain_variant_must_be_declared() -> None:
    with pytest.raises(HeaderError, match="no line '-- drain: yes'"):
        composed(HEADER, "try_drain")


def test_unknown_script() -> None:
    with pytest.raises(FileNotFoundError):
        load("no_such_script")


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("claim", {"allow-oom"}),
        ("create", set()),
        ("create_drain", {"allow-oom"}),
        ("delete", {"allow-oom"}),
        ("find", {"no-writes"}),
        ("patch", set()),
        ("patch_drain", {"allow-oom"}),
        ("relay_done", {"allow-oom"}),
        ("relay_take", {"allow-oom"}),
        ("relay_turn", {"allow-oom"}),
        ("settle", {"allow-oom"}),
        ("stats", {"no-writes"}),
    ],
)
def test_what_drains_runs_at_the_memory_limit_and_what_grows_does_not(name: str, flags: set[str]) -> None:
    assert load(name).flags == flags


def test_the_list_names_every_file() -> None:
    files = {file.name for file in resources.files("hookline_lua").iterdir() if file.name.endswith(".lua")}
    assert {f"{name.removesuffix('_drain')}.lua" for name in SCRIPTS} == files
    assert list(SCRIPTS) == sorted(SCRIPTS)


def test_every_helper_is_used() -> None:
    sources = [load(name).source for name in SCRIPTS]
    unused = [
        file.name
        for file in resources.files("hookline_lua").joinpath("lib").iterdir()
        if not any(file.read_text() in source for source in sources)
    ]
    assert unused == []


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_store_takes_every_script(raw: aioredis.Redis, name: str) -> None:
    script = load(name)
    assert await raw.script_load(script.source) == script.sha


async def test_a_late_helper_is_made_once_it_is_used(raw: aioredis.Redis) -> None:
    body = """
local before = seen.made
late.more = late.word() .. later.word()
return { before, seen.made, late.word(), late.more }
"""
    script = composed("#!lua\n-- keys: partition\n-- use: late later" + body)
    assert script.source.index("local seen") < script.source.index("local late = {")
    assert await raw.eval(script.source, 1, "k") == [0, 2, b"late", b"latelater, late"]
