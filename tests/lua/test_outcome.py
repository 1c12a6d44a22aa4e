"""The words that scripts answer with: one list in Lua, the same in Python, and no script knows another."""

from __future__ import annotations

import re

import redis.asyncio as aioredis

from composed import call, composed
from hookline.codec import unpack_answer
from hookline.errors import OUTCOMES
from hookline_lua import library

WORD = re.compile(r"\boutcome\.([a-z_]+)")


async def test_lua_and_python_have_the_same_words(raw: aioredis.Redis) -> None:
    script = "#!lua\n-- keys: partition\n-- use: outcome\nreturn function()\n  return cmsgpack.pack(outcome)\nend"
    words = unpack_answer(await call(raw, composed(script)))
    assert {word.decode() for word in words} == OUTCOMES
    assert all(name == word for name, word in words.items())


def test_scripts_use_the_list_and_nothing_else() -> None:
    used = set(WORD.findall(library().source))
    assert used == OUTCOMES
