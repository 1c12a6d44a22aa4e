"""A store that comes back empty under those that use it: they write back what a namespace is, and agree on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis.asyncio as aioredis

from conftest import datastore_at, wait_until
from hookline import Datastore, EmbeddedStore, Settings, keys, meta
from hookline.doctor import examine
from hookline.errors import Incompatible

META = keys.meta("default")


@pytest.fixture(autouse=True)
def everybody_looks(nobody_looks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often."""
    monkeypatch.setattr(meta, "LOOK", 0.05)


@pytest.fixture
def four(settings: Settings) -> Settings:
    return replace(settings, partitions=4)


async def found(datastore: Datastore) -> list[str]:
    """What the doctor tells of."""
    examined = examine(datastore.connection, datastore.calls.partitions)
    return [str(finding) async for progress in examined for finding in progress.findings]


async def test_an_emptied_store_has_the_namespace_as_it_was(
    store: EmbeddedStore, raw: aioredis.Redis, four: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever goes on reading or writing looks by itself; who starts after that finds what was written."""
    async with datastore_at(store.url, four) as first:
        before = await raw.hgetall(META)
        for verb in (first.query, first.create):
            await raw.flushall()

            async def written_back() -> bool:
                await verb("jobs")  # noqa: B023 - it is called at once
                return await raw.hgetall(META) == before

            await wait_until(written_back)
            await wait_until(lambda: raw.zscore(keys.namespaces(), "default"))
        assert caplog.text.count("the store came back without namespace default") == 2
        await first.create("jobs", "a")
        async with datastore_at(store.url, replace(four, partitions=None)) as second:
            assert (await second.get("jobs", "a")).version == 1
            assert await found(second) == []


async def test_who_looks_and_who_starts_agree(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    old, new = ([datastore_at(store.url, settings) for _ in range(5)] for _ in range(2))
    await asyncio.gather(*(datastore.open() for datastore in old))
    await raw.flushall()
    await new[0].open()  # so there is another secret than theirs
    await asyncio.gather(*(each.connection.meta.look() for each in old), *(datastore.open() for datastore in new[1:]))
    await asyncio.gather(*(each.connection.meta.look() for each in old))
    secret = await raw.hget(META, "cursor_secret")
    assert {each.connection.meta.cursor_secret for each in (*old, *new)} == {secret}
    await asyncio.gather(*(datastore.close() for datastore in (*old, *new)))


async def test_nothing_is_written_where_nobody_looks(
    store: EmbeddedStore,
    raw: aioredis.Redis,
    four: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody else began the namespace anew with other partitions: what has those of before does nothing more."""
    async with datastore_at(store.url, four) as first:
        await raw.flushall()
        await raw.hset(META, mapping={"partitions": 1, "schema": keys.SCHEMA, "cursor_secret": bytes(32)})

        async def refused() -> bool:
            try:
                await first.run([first.calls.create("jobs", f"{n}") for n in range(20)])
            except Incompatible:
                return True
            return False

        await wait_until(refused)
        before = await raw.dbsize()
        for verb in (
            first.create("jobs", "a"),
            first.get("jobs", "a"),
            first.claim("jobs", worker_id="w", wait=5),
            first.configure("jobs", max_length=1),
            first.connection.ready(),
        ):
            with pytest.raises(Incompatible, match=r"has 1 partitions in the store by now .*; here it has 4"):
                await verb
        assert await raw.dbsize() == before
        assert [(line.levelname, line.name) for line in caplog.records if "by now" in line.message] == [
            ("ERROR", "hookline.meta")
        ]
        await raw.hset(META, "partitions", 4)
        await wait_until(lambda: first.connection.meta.holds())
        await first.create("jobs", "a")


async def test_what_lies_in_other_partitions_is_told(store: EmbeddedStore, raw: aioredis.Redis, four: Settings) -> None:
    async with datastore_at(store.url, four) as first:
        await first.run([first.calls.create("jobs", f"{n}") for n in range(20)])
        tags = {first.connection.tag(partition) for partition in range(4)}
    await raw.delete(META)
    async with datastore_at(store.url, replace(four, partitions=1)) as second:
        before = sorted(await raw.keys())
        told = [line for line in await found(second) if "is no partition of the namespace" in line]
        assert {line.partition(": ")[0] for line in told} == tags - {second.connection.tag(0)}
        assert sorted(name for name in await raw.keys() if b":o:" not in name) == [
            name for name in before if b":o:" not in name
        ]
