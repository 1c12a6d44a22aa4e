"""The words that scripts answer with: one list in Lua, the same in Python, and no script knows another."""

from __future__ import annotations

import re
from importlib import resources

import redis.asyncio as aioredis

from hookline.codec import unpack_answer
from hookline.errors import OUTCOMES
from hookline_lua import SCRIPTS, compose, load

LIST = resources.files("hookline_lua").joinpath("lib", "outcome.lua").read_text()
WORD = re.compile(r"\boutcome\.([a-z_]+)")


async def test_lua_and_python_have_the_same_words(raw: aioredis.Redis) -> None:
    script = compose(
        "words", "#!lua\n-- keys: partition\n-- use: outcome\nreturn cmsgpack.pack(outcome)", lambda _: LIST
    )
    words = unpack_answer(await raw.eval(script.source, 1, "hl:{default/0}"))
    assert {word.decode() for word in words} == OUTCOMES
    assert all(name == word for name, word in words.items())


def test_scripts_use_the_list_and_nothing_else() -> None:
    used = {word for name in SCRIPTS for word in WORD.findall(load(name).source)}
    assert used == OUTCOMES
