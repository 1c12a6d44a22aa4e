"""The library of functions: how it gets to a store, beside those of other releases, and to a node that lacks it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from conftest import datastore_at, wait_until
from hookline import Datastore, EmbeddedStore, Settings
from hookline.errors import Incompatible, StoreFull, Unavailable
from hookline_lua import library
from invariants import check_invariants
from proxy import CALL_LATE, proxied

OTHER = "hookline_0123456789abcdef"


async def load(raw: aioredis.Redis, name: str) -> None:
    """A library of one function that does nothing."""
    register = f"redis.register_function('{name}_f', function() return 1 end)"
    await raw.function_load(f"#!lua name={name}\n{register}", replace=True)


async def libraries(raw: aioredis.Redis) -> set[str]:
    return {row[1].decode() for row in await raw.function_list()}


async def loads(raw: aioredis.Redis) -> int:
    """How many libraries were compiled since the counts were reset."""
    stats = (await raw.info("commandstats")).get("cmdstat_function|load", {"calls": 0, "failed_calls": 0})
    return int(stats["calls"] - stats["failed_calls"])


@asynccontextmanager
async def full(raw: aioredis.Redis) -> AsyncIterator[None]:
    """The store is at its memory limit meanwhile."""
    await raw.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await raw.config_set("maxmemory", 0)


async def test_flushed_functions_are_not_noticed(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.create("jobs", "a", metadata={"status": "not_started"})
    for _ in range(3):
        await raw.function_flush()
        assert (await datastore.get("jobs", "a")).sort_field == "a"
        await raw.function_flush()
        (claimed,) = (await datastore.claim("jobs", worker_id="w")).items
        await raw.function_flush()
        await datastore.run([datastore.calls.release("jobs", "a", claimed.token or "")])
    await raw.function_flush()
    outcomes = await datastore.run([datastore.calls.create("jobs", f"{n}") for n in range(300)])
    assert all(outcome.ok for outcome in outcomes)
    assert (await datastore.get("jobs", "a")).version == 7
    await check_invariants(raw)


async def test_functions_flushed_over_and_over_are_not_noticed(datastore: Datastore, raw: aioredis.Redis) -> None:
    created = asyncio.Event()

    async def flush() -> None:
        while not created.is_set():
            await raw.function_flush()
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flush())
        try:
            for number in range(200):
                await datastore.create("jobs", str(number))
        finally:
            created.set()
    assert len((await datastore.query("jobs", limit=1000)).items) == 200


async def test_a_store_that_takes_functions_and_has_none(store: EmbeddedStore, settings: Settings) -> None:
    async with proxied(store.url) as proxy, datastore_at(proxy.url, settings) as datastore:
        proxy.faults.extend([b"-ERR Function not found\r\n"] * 10)
        with pytest.raises(Unavailable, match="forgets its functions"):
            await datastore.get("jobs", "a")


async def test_many_calls_load_it_once(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.create("jobs", "a")
    await raw.function_flush()
    await raw.config_resetstat()
    items = await asyncio.gather(*(datastore.get("jobs", "a") for _ in range(300)))
    assert {item.version for item in items} == {1}
    assert await loads(raw) == 1


async def test_a_failed_load_is_told_to_all_who_wait(datastore: Datastore, raw: aioredis.Redis) -> None:
    await raw.function_flush()
    async with full(raw):
        reads = [datastore.connection.read("names", 0, {"cursor": "0", "like": "*"}) for _ in range(20)]
        answers = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreFull}
    await datastore.create("jobs", "a")


async def test_closed_while_it_is_loaded(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    """Who waits for it learns that the store gave no answer; nobody is taken for cancelled."""
    async with proxied(store.url) as proxy:
        datastore = datastore_at(proxy.url, settings)
        await datastore.open()
        await raw.function_flush()
        proxy.commands.clear()
        proxy.fault_at = dict.fromkeys(range(1, 9), CALL_LATE)
        reads = [asyncio.create_task(datastore.get("jobs", "a")) for _ in range(3)]
        await wait_until(lambda: b"FUNCTION" in proxy.commands)
        await datastore.connection.close()
        answers = await asyncio.gather(*reads, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        proxy.late.set()
        await datastore.close()


async def test_a_start_loads_it_only_where_it_is_not(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings
) -> None:
    await raw.function_flush()
    await raw.config_resetstat()
    for _ in range(3):
        async with datastore_at(store.url, settings):
            assert await loads(raw) == 1
            assert await libraries(raw) == {library().name}
    async with datastore_at(store.url, settings) as datastore:
        await datastore.create("jobs", "a", metadata={"status": "not_started"})
    async with full(raw), datastore_at(store.url, settings) as datastore:
        assert (await datastore.claim("jobs", worker_id="w")).items[0].sort_field == "a"
    await raw.function_flush()
    async with full(raw):
        with pytest.raises(StoreFull, match="memory limit"):
            await datastore_at(store.url, settings).open()


async def test_releases_side_by_side(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """At the memory limit another release could not load its library again: so nobody takes it away."""
    await raw.function_flush()
    for name in (OTHER, "hookline_reports", "billing"):
        await load(raw, name)
    with caplog.at_level(logging.INFO, "hookline"):
        async with datastore_at(store.url, settings) as datastore:
            await datastore.create("jobs", "a")
    assert await libraries(raw) == {library().name, OTHER, "hookline_reports", "billing"}
    (told,) = [record.getMessage() for record in caplog.records if "FUNCTION DELETE" in record.getMessage()]
    assert told.endswith(f"no server uses of {OTHER}")
    await raw.function_flush()


async def test_a_call_that_is_sent_elsewhere(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    """MOVED: the call follows, and the library with it."""
    async with (
        proxied(store.url) as here,
        proxied(store.url) as there,
        datastore_at(here.url, settings) as datastore,
    ):
        await datastore.create("jobs", "a")
        await raw.function_flush()
        there.commands.clear()
        here.faults.append(f"-MOVED 1 {there.url.removeprefix('redis://')}\r\n".encode())
        assert (await datastore.get("jobs", "a")).version == 1
        assert [name for name in there.commands if name != b"CLIENT"] == [b"FCALL", b"FUNCTION", b"FCALL"]


async def test_a_user_who_may_not_load(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    """Somebody else loads the library for it."""
    rules = "on >p ~* &* +@all -function|load -function|delete -function|flush -function|restore"
    await raw.execute_command("ACL SETUSER", "modest", *rules.split())  # type: ignore[no-untyped-call]
    async with proxied(store.url) as proxy:
        url = proxy.url.replace("redis://", "redis://modest:p@")
        await raw.function_load(library().source, replace=True)
        async with datastore_at(url, settings) as datastore:
            await datastore.create("jobs", "a")
            await raw.function_flush()
            with pytest.raises(Incompatible, match="lacks a permission"):
                await datastore.create("jobs", "b")


@pytest.mark.parametrize("others", [0, 1, 2])
async def test_the_embedded_store_keeps_no_functions_of_many_releases(
    tmp_path: Path, settings: Settings, others: int
) -> None:
    async with EmbeddedStore(tmp_path / "data") as store, datastore_at(store.url, settings) as datastore:
        await datastore.create("jobs", "a")
        async with aioredis.Redis.from_url(store.url, protocol=2) as raw:
            for number in range(others):
                await load(raw, f"hookline_{number:016}")
            before = await libraries(raw)
    async with EmbeddedStore(tmp_path / "data") as store:
        async with aioredis.Redis.from_url(store.url, protocol=2) as raw:
            assert await libraries(raw) == (before if len(before) == 1 else set())
        async with datastore_at(store.url, settings) as datastore:
            assert (await datastore.get("jobs", "a")).version == 1
