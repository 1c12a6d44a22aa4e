"""configure: a key's settings in every partition, their generation, and the wake message of a resumed key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hookline import Datastore
from scripts import KEY, Scripts, snapshot, unchanged


async def change(datastore: Datastore, **request: Any) -> tuple[bytes, dict[bytes, bytes]]:
    """One call of the script -> its word, and the settings that hold then."""
    asked = {"key": KEY, "set": {}, "unset": [], **request}
    word, fields = await datastore.connection.read("configure", 0, asked)
    return word, dict(fields)


async def stored(scripts: Scripts) -> dict[str, str]:
    fields: dict[str, str] = (await snapshot(scripts.raw)).get(f"cfg:{KEY}", {})
    return fields


async def test_raw_keys(scripts: Scripts, datastore: Datastore) -> None:
    word, fields = await change(datastore, set={"lock_ms": "5000", "paused": "1"})
    assert (word, fields) == (b"ok", {b"lock_ms": b"5000", b"paused": b"1", b"generation": b"1"})
    assert await snapshot(scripts.raw) == {
        f"cfg:{KEY}": {"lock_ms": "5000", "paused": "1", "generation": "1"},
    }
    await change(datastore, set={"max_attempts": "3"}, unset=["paused"])
    assert await stored(scripts) == {"lock_ms": "5000", "max_attempts": "3", "generation": "2"}
    await change(datastore, unset=["lock_ms", "max_attempts"])
    assert await stored(scripts) == {"generation": "3"}


@pytest.mark.parametrize("request_", [{}, {"set": {"lock_ms": "5000"}}, {"unset": ["paused"]}])
async def test_no_change_is_no_generation(scripts: Scripts, datastore: Datastore, request_: dict[str, Any]) -> None:
    await change(datastore, set={"lock_ms": "5000"})
    async with unchanged(scripts.raw):
        assert (await change(datastore, **request_))[1] == {b"lock_ms": b"5000", b"generation": b"1"}


async def test_the_whole_replaces_what_is_older(scripts: Scripts, datastore: Datastore) -> None:
    await change(datastore, set={"lock_ms": "5000"})
    await change(datastore, whole={"max_attempts": "3", "generation": "4"})
    assert await stored(scripts) == {"max_attempts": "3", "generation": "4"}
    for generation in ("3", "4"):
        async with unchanged(scripts.raw):
            held = await change(datastore, whole={"max_attempts": "9", "generation": generation})
        assert held == (b"ok", {b"max_attempts": b"3", b"generation": b"4"})
    async with unchanged(scripts.raw):
        await change(datastore, whole={})


async def test_a_change_goes_on_from_what_was_lost(scripts: Scripts, datastore: Datastore) -> None:
    await change(datastore, set={"lock_ms": "5000", "paused": "1"})
    known = {"lock_ms": "5000", "paused": "1", "generation": "1"}
    await change(datastore, ahead=known)
    assert await stored(scripts) == known
    await change(datastore, set={"max_attempts": "3"}, unset=["paused"], ahead={"length_max": "9", "generation": "7"})
    assert await stored(scripts) == {"length_max": "9", "max_attempts": "3", "generation": "1000000"}
    held = await change(datastore, set={"max_attempts": "4"}, ahead={"generation": "999999"})
    assert held == (b"ok", {b"length_max": b"9", b"max_attempts": b"4", b"generation": b"1000001"})
    await change(datastore, unset=["len*"], ahead={"length_max": "8", "generation": "1000001"})
    assert await stored(scripts) == {"generation": "2000000"}


async def test_resuming_wakes_who_waits(scripts: Scripts, datastore: Datastore) -> None:
    await change(datastore, set={"paused": "1"})
    async with datastore.wakes.listening(f"ready:{KEY}") as woken:
        await change(datastore, set={"lock_ms": "1"})
        await change(datastore, unset=["paused"])
        await asyncio.wait_for(woken.wait(), 10)
