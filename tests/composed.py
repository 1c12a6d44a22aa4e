"""Scripts of the tests' own, made of the helpers as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import redis.asyncio as aioredis

from hookline_lua import Library, compose

KEY = "hl:{default/0}"


def read_lib(name: str) -> str:
    """The text of a helper."""
    return resources.files("hookline_lua").joinpath("lib", f"{name}.lua").read_text()


def composed(text: str) -> Library:
    """A library of one script, ``test``."""
    return compose({"test": text}, read_lib)


async def call(raw: aioredis.Redis, library: Library, *args: Any, key: str = KEY) -> Any:
    """Run the script ``test`` of a library -> its answer."""
    async with loaded(raw, library):
        return await raw.fcall(library.scripts["test"].function, 1, key, *args)


@asynccontextmanager
async def loaded(raw: aioredis.Redis, library: Library) -> AsyncIterator[None]:
    """The store has a library meanwhile."""
    await raw.function_load(library.source, replace=True)
    try:
        yield
    finally:
        await raw.function_delete(library.name)
