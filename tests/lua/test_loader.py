"""The loader: what it makes of a header, what it refuses, and that a real store takes every script."""

from __future__ import annotations

import re
from importlib import resources
from importlib.resources.abc import Traversable

import pytest
import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from composed import loaded
from hookline_lua import HeaderError, Library, compose, library, load

HEADER = "#!lua flags=no-writes\n-- What it does.\n-- keys: partition\n"
LIBRARY = {
    "clock": "-- The clock.\nlocal clock = {}\nfunction clock.reset()\nend",
    "index": "-- use: clock\nlocal index = {}",
    "item": "-- use: clock index\nlocal item = {}\n\nfunction item.reset()\nend",
    "snake": "-- use: tail\nlocal snake = {}",
    "tail": "-- use: snake\nlocal tail = {}",
    "lost": "-- use: nowhere",
    "kept": "local kept = { made = 0, calls = 0 }\n"
    "function kept.reset()\n  kept.calls, kept.mine = kept.calls + 1, 0\nend",
}

USES = "-- use: clock\n\n"
HELPERS = {file.name for file in resources.files("hookline_lua").joinpath("lib").iterdir()}


def read_lib(name: str) -> str:
    if name not in LIBRARY:
        raise FileNotFoundError(name)
    return LIBRARY[name]


def composed(text: str) -> Library:
    return compose({"try": text}, read_lib)


def test_header_becomes_variables() -> None:
    made = composed(HEADER + "-- args: now_ms:int call_id request:msgpack\n\nreturn function() end")
    script = made.scripts["try"]
    values = "partition, now_ms, call_id, request = keys[1], tonumber(args[1]), args[2], cmsgpack.unpack(args[3])"
    assert values in made.source.splitlines()
    assert script.keys == ("partition",)
    assert script.args == ("now_ms", "call_id", "request")
    assert script.flags == {"no-writes"}


def test_a_name_is_that_of_the_text() -> None:
    """So a server of another release asks for another function, and never gets this one's."""
    one, other, again = (composed(f"{HEADER}return function() return {n} end") for n in (1, 2, 1))
    assert one.name == again.name != other.name
    assert composed(f"#!lua\n{HEADER.partition(chr(10))[2]}return function() return 1 end").name != one.name
    assert re.fullmatch(r"hookline_[0-9a-f]{16}", one.name)
    assert one.source.startswith(f"#!lua name={one.name}\n")
    assert one.scripts["try"].function == f"{one.name}_try"


def test_each_helper_once_and_after_those_it_uses() -> None:
    made = compose(dict.fromkeys(("try", "again"), f"{HEADER}-- use: item index clock item\n"), read_lib)
    places = [made.source.index(f"local {name} = {{}}") for name in ("clock", "index", "item")]
    assert places == sorted(places)
    assert [made.source.count(f"local {name} = {{}}") for name in ("clock", "index", "item")] == [1, 1, 1]


def test_helpers_that_keep_something_are_reset_in_order() -> None:
    lines = composed(HEADER + "-- use: item\n").source.splitlines()
    assert [line for line in lines if line.endswith(".reset()") and "function" not in line] == [
        "clock.reset()",
        "item.reset()",
    ]


def test_without_flags() -> None:
    assert composed("#!lua\n-- keys: partition\nreturn 1").scripts["try"].flags == frozenset()


def test_drain_variant_also_runs_at_the_memory_limit() -> None:
    made = composed("#!lua\n-- keys: partition\n-- drain: yes\nreturn 1")
    assert {name: set(script.flags) for name, script in made.scripts.items()} == {
        "try": set(),
        "try_drain": {"allow-oom"},
    }


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


def test_unknown_script() -> None:
    with pytest.raises(KeyError):
        load("no_such_script")


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("claim", {"allow-oom"}),
        ("create", set()),
        ("create_drain", {"allow-oom"}),
        ("delete", {"allow-oom"}),
        ("find", {"allow-cross-slot-keys", "no-writes"}),
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


def test_every_file_is_a_script() -> None:
    files = {file.name for file in resources.files("hookline_lua").iterdir() if file.name.endswith(".lua")}
    assert {f"{name.removesuffix('_drain')}.lua" for name in library().scripts} == files


def test_every_helper_is_used() -> None:
    helpers = resources.files("hookline_lua").joinpath("lib").iterdir()
    assert [file.name for file in helpers if file.read_text() not in library().source] == []


FILES = [
    file
    for folder in (resources.files("hookline_lua"), resources.files("hookline_lua").joinpath("lib"))
    for file in folder.iterdir()
    if file.name.endswith(".lua")
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.name}")
def test_each_says_what_it_uses(file: Traversable) -> None:
    text = file.read_text()
    used = set((re.findall(r"^-- use: (.*)$", text, re.MULTILINE) or [""])[0].split())
    code = re.sub(r"--.*|'[^'\n]*'", "", text)
    own = set(re.findall(r"local (?:function )?(\w+)", code)) | set(re.findall(r"for _, (\w+) in", code))
    own |= {name for names in re.findall(r"function [\w.]*\(([\w, ]*)\)", code) for name in names.split(", ")}
    named = set(re.findall(r"(?<![\w.])([a-z_]+)\.\w", code))
    helpers = {each.name.removesuffix(".lua") for each in FILES if each.name in HELPERS}
    assert named & helpers - own <= used
    assert used <= named


async def test_what_is_not_said_to_be_used_is_not_there(raw: aioredis.Redis) -> None:
    """It would not be reset for the call."""
    texts = {name: f"{HEADER}{use}return function() return clock.ms end" for name, use in (("a", ""), ("b", USES))}
    made = compose(texts, read_lib)
    async with loaded(raw, made):
        assert await raw.fcall(made.scripts["b"].function, 1, "k") is None
        with pytest.raises(ResponseError, match="clock"):
            await raw.fcall(made.scripts["a"].function, 1, "k")


async def test_a_store_takes_the_library(raw: aioredis.Redis) -> None:
    assert await raw.function_load(library().source, replace=True) == library().name.encode()
    ((_, name, *_),) = await raw.function_list(library().name)
    assert name == library().name.encode()


async def test_helpers_are_made_once_and_reset_before_each_call(raw: aioredis.Redis) -> None:
    body = """
kept.made = kept.made + 1

return function()
  kept.mine = kept.mine + 1
  return { kept.made, kept.calls, kept.mine, call_id or 'none' }
end
"""
    header = "#!lua\n-- keys: partition\n-- use: kept\n"
    made = compose({"with": f"{header}-- args: call_id\n{body}", "without": header + body}, read_lib)
    async with loaded(raw, made):
        answers = [await raw.fcall(made.scripts[name].function, 1, "k", "x") for name in ("with", "without", "with")]
    assert answers == [[2, 1, 1, b"x"], [2, 2, 1, b"none"], [2, 3, 1, b"x"]]
