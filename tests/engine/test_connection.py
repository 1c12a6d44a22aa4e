"""Which stores are taken, and what their errors become."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio as aioredis
from redis.exceptions import NoPermissionError

from backends import opened
from conftest import datastore_at, wait_until
from hookline import Datastore, EmbeddedStore, Settings, keys
from hookline.embedded import find_server
from hookline.errors import HooklineError, Incompatible, Invalid, StoreFull, Unavailable
from hookline.nodes import Nodes
from jobs import fill
from process import Store, running_store
from proxy import Proxy, proxied

META = keys.meta("default")


async def refusal(url: str, settings: Settings) -> str:
    """The text with which a store is refused."""
    with pytest.raises(Incompatible) as refused:
        async with datastore_at(url, settings):
            pass
    return str(refused.value)


def bulk(text: str) -> bytes:
    return f"${len(text)}\r\n{text}\r\n".encode()


def info(**fields: str) -> bytes:
    return bulk("# Server\r\n" + "".join(f"{name}:{value}\r\n" for name, value in fields.items()))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14"),
        ({"redis_version": "6.9"}, "Redis 6.9"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.1.0"}, "Valkey 7.1.0"),
        ({}, "Redis 0"),
    ],
)
async def test_old_servers(proxy: Proxy, settings: Settings, fields: dict[str, str], name: str) -> None:
    proxy.answers[b"INFO"] = info(**fields)
    text = await refusal(proxy.url, settings)
    assert text.startswith(f"the store is {name}; Hookline needs Redis >= 7.0 or Valkey >= 7.2: upgrade it")


@pytest.mark.parametrize(
    "fields",
    [
        {"redis_version": "7.0.0"},
        {"redis_version": "8.2-rc1"},
        {"redis_version": "10.0.0"},
        {"redis_version": "7.2.4", "valkey_version": "7.2.0"},
        {"redis_version": "7.2.4", "valkey_version": "9.1.0", "maxmemory_policy": "noeviction", "maxmemory": "0"},
    ],
)
async def test_servers_that_are_taken(proxy: Proxy, settings: Settings, fields: dict[str, str]) -> None:
    proxy.answers[b"INFO"] = info(**fields)
    async with datastore_at(proxy.url, settings) as datastore:
        await datastore.create("jobs", "a")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_store_that_may_drop_items(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings, policy: str
) -> None:
    await raw.config_set("maxmemory-policy", policy)
    try:
        text = await refusal(store.url, settings)
    finally:
        await raw.config_set("maxmemory-policy", "noeviction")
    assert policy in text
    assert "CONFIG SET maxmemory-policy noeviction" in text
    assert await raw.keys() == []


async def test_that_there_is_no_append_only_file_is_said(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    await raw.config_set("appendonly", "no")
    try:
        async with datastore_at(store.url, settings):
            assert "the store has no append-only file: if it crashes, it loses writes" in caplog.text
    finally:
        await raw.config_set("appendonly", "yes")
    caplog.clear()
    async with datastore_at(store.url, settings):
        assert caplog.text == ""


async def test_no_limit_of_memory_is_said(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with datastore_at(store.url, settings):
        assert "the store has no maxmemory" in caplog.text
    caplog.clear()
    await raw.config_set("maxmemory", 10**9)
    try:
        async with datastore_at(store.url, settings):
            assert caplog.text == ""
    finally:
        await raw.config_set("maxmemory", 0)


async def test_the_namespace_as_it_was_created(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    async with datastore_at(store.url, replace(settings, partitions=4)) as first:
        meta = await raw.hgetall(META)
        assert meta == {b"partitions": b"4", b"schema": b"1", b"cursor_secret": first.connection.meta.cursor_secret}
        assert len(first.connection.meta.cursor_secret) == 32
    assert await refusal(store.url, replace(settings, partitions=1)) == (
        "namespace 'default' was created with 4 partitions, which is fixed: start with HOOKLINE_PARTITIONS=4,"
        " or without it"
    )
    async with datastore_at(store.url, replace(settings, partitions=4)) as again:
        assert again.connection.meta.cursor_secret == first.connection.meta.cursor_secret
    async with datastore_at(store.url, replace(settings, namespace="other")) as other:
        assert other.connection.meta.cursor_secret != first.connection.meta.cursor_secret
    assert await raw.hgetall(META) == meta


async def test_who_names_no_partitions_has_those_of_the_namespace(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings
) -> None:
    async with datastore_at(store.url, replace(settings, partitions=4)) as first:
        await first.run([first.calls.create("jobs", f"{n}") for n in range(20)])
    async with datastore_at(store.url, settings) as again:
        assert [item.version for n in range(20) for item in (await again.get("jobs", f"{n}"),)] == [1] * 20
        assert [row.key for row in (await again.stats()).rows] == ["jobs"] * 4
        assert (await again.configure("jobs", max_length=40)).max_length == 40
    async with datastore_at(store.url, replace(settings, namespace="new")):
        assert await raw.hget(keys.meta("new"), "partitions") == b"1"


async def test_several_stores_that_are_no_cluster(store: EmbeddedStore, settings: Settings) -> None:
    text = await refusal(f"{store.url},{store.url}", settings)
    assert text == "several stores are named, and one of them is not a node of a cluster: name one store"


async def test_the_user_of_the_documentation_may_do_nothing_else(store: EmbeddedStore, tmp_path: Path) -> None:
    """That it may do what is needed is what tests/conformance shows."""
    async with (
        opened("partitioned", store, tmp_path) as backend,
        aioredis.Redis.from_url(backend.url, protocol=2) as client,
    ):
        await client.set("hl:x", "1")
        for words in (
            "SET other 1",
            "GET other",
            "SPUBLISH other 1",
            "FLUSHALL",
            "KEYS *",
            "CONFIG GET dir",
            "SCRIPT FLUSH",
            "FUNCTION FLUSH",
            "FUNCTION DELETE x",
            "FUNCTION RESTORE x",
            "EVAL x 0",
        ):
            with pytest.raises(NoPermissionError):
                await client.execute_command(*words.split())  # type: ignore[no-untyped-call]


async def test_a_newer_schema(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    await raw.hset(META, mapping={"schema": 2, "partitions": 1})
    text = await refusal(store.url, settings)
    assert "is of schema 2, this release works with 1: use a release of that schema" in text
    assert await raw.hget(META, "schema") == b"2"


async def test_servers_that_start_together_agree(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings) -> None:
    datastores = [datastore_at(store.url, settings) for _ in range(10)]
    await asyncio.gather(*(datastore.open() for datastore in datastores))
    assert len({datastore.connection.meta.cursor_secret for datastore in datastores}) == 1
    await asyncio.gather(*(datastore.close() for datastore in datastores))


async def test_nobody_there(tmp_path: Path, settings: Settings) -> None:
    for url in (f"unix://{tmp_path}/none.sock", "redis://127.0.0.1:1"):
        with pytest.raises(Unavailable, match="the store gave no answer"):
            await datastore_at(url, settings).open()


async def test_refused_after_it_was_there(proxy: Proxy, settings: Settings) -> None:
    async with datastore_at(proxy.url, settings) as datastore:
        await datastore.create("jobs", "a")
        await proxy.stop()
        for verb in (datastore.create("jobs", "b"), datastore.get("jobs", "a"), datastore.query("jobs")):
            with pytest.raises(Unavailable):
                await verb


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull, "raise maxmemory"),
        ("READONLY You can't write against a read only replica.", Unavailable, "cannot take writes"),
        ("LOADING Redis is loading the dataset in memory", Unavailable, "loading"),
        ("MISCONF Errors writing to the AOF file: No space left on device", Unavailable, "No space left"),
        ("BUSY Redis is busy running a script.", Unavailable, "busy"),
        ("MASTERDOWN Link with MASTER is down", Unavailable, "Link with MASTER"),
        ("NOREPLICAS Not enough good replicas to write.", Unavailable, "replicas"),
        ("CLUSTERDOWN The cluster is down", Unavailable, "cluster is down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable, "rehashing"),
        ("NOPERM User default has no permissions to run the 'fcall' command", Incompatible, "permission"),
        ("NOAUTH Authentication required.", Incompatible, "password"),
        ("ERR user_function:1: something broke", HooklineError, "something broke"),
        ("WRONGTYPE Operation against a key", HooklineError, "WRONGTYPE"),
    ],
)
async def test_errors_of_the_store(
    proxy: Proxy, settings: Settings, answer: str, error: type[HooklineError], words: str
) -> None:
    async with datastore_at(proxy.url, settings) as datastore:
        for verb in (
            lambda: datastore.create("jobs", "a"),
            lambda: datastore.get("jobs", "a"),
            lambda: datastore.connection.command("TIME"),
        ):
            # More than once, for where links lead to a replica the call is sent again over a new one.
            proxy.faults.extend([f"-{answer}\r\n".encode()] * 2)
            proxy.answers[b"TIME"] = proxy.faults[0]
            with pytest.raises(error, match=words) as caught:
                await verb()
            assert type(caught.value) is error
            proxy.faults.clear()
            assert (await datastore.create("jobs")).ok, "the connection is of no use any more"


async def test_a_primary_is_demoted_and_its_address_leads_to_the_new_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links that lead to the old one are made anew: by writes, by the question whether the store is ready, by reads."""
    monkeypatch.setattr("hookline.link.RENEW", 0.0)
    monkeypatch.setattr("hookline.meta.LOOK", 0.1)
    server = str(find_server())
    async with (
        running_store(server, tmp_path / "a", unixsocket=str(tmp_path / "a.sock")) as one,
        running_store(server, tmp_path / "b", unixsocket=str(tmp_path / "b.sock")) as two,
        proxied(f"unix://{tmp_path}/a.sock") as proxy,
        datastore_at(proxy.url, settings) as datastore,
    ):
        primary, replica = one, two
        for verb in (lambda: datastore.create("jobs"), datastore.connection.ready, lambda: _until_written(datastore)):
            await datastore.create("jobs", "seen", upsert=True)
            await replica.client.replicaof("127.0.0.1", str(primary.port))
            await wait_until(lambda: _follows(replica))  # noqa: B023 - it is called at once
            await replica.client.replicaof("NO", "ONE")
            await primary.client.replicaof("127.0.0.1", str(replica.port))
            proxy.socket = str(tmp_path / ("b.sock" if replica is two else "a.sock"))
            await datastore.get("jobs", "seen")  # an idle link, which leads to the old one
            await verb()
            await datastore.create("jobs")
            primary, replica = replica, primary


async def _follows(store: Store) -> bool:
    told = await store.client.info("replication")
    return bool(told.get("master_link_status") == "up" and not told["master_sync_in_progress"])


async def _until_written(datastore: Datastore) -> None:
    """Read alone, until the answers are those of a primary."""

    async def primary() -> bool:
        await datastore.get("jobs", "seen")
        return b"role:master" in await datastore.connection.command("INFO", "replication")

    await wait_until(primary)


async def test_a_replica_is_not_ready_and_not_asked_over_ever_new_links(
    store: EmbeddedStore, settings: Settings, tmp_path: Path
) -> None:
    async with (
        running_store(str(find_server()), tmp_path / "a", unixsocket=str(tmp_path / "a.sock")) as alone,
        proxied(f"unix://{tmp_path}/a.sock") as proxy,
        datastore_at(proxy.url, settings) as datastore,
    ):
        await datastore.connection.ready()
        await alone.client.replicaof("127.0.0.1", "1")
        proxy.commands.clear()
        for _ in range(20):
            with pytest.raises(Unavailable, match="is a replica"):
                await datastore.connection.ready()
            with pytest.raises(Unavailable, match="read only replica"):
                await datastore.create("jobs")
        assert proxy.commands.count(b"CLIENT") < 10


async def test_wrong_password(store: EmbeddedStore, raw: aioredis.Redis, settings: Settings, proxy: Proxy) -> None:
    await raw.acl_setuser(
        "guarded", enabled=True, passwords=["+right"], keys=["*"], channels=["*"], categories=["+@all"]
    )
    host = proxy.url.removeprefix("redis://")
    try:
        text = await refusal(f"redis://guarded:canary-7f3a@{host}", settings)
        assert "user or password" in text
        assert "canary" not in text
        assert await refusal(store.url.replace("unix://", "unix://guarded:canary-7f3a@"), settings) == text
        async with datastore_at(f"redis://guarded:right@{host}", settings) as datastore:
            await datastore.create("jobs", "a")
    finally:
        await raw.acl_deluser("guarded")


async def test_a_full_store_still_drains(datastore: Datastore, raw: aioredis.Redis) -> None:
    for name in "abcd":
        await datastore.create("jobs", name, metadata={"status": "not_started"})
    await raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFull):
            await datastore.create("jobs", "e")
        with pytest.raises(StoreFull):
            await datastore.update("jobs", "a", content="x")
        first, second = (await datastore.claim("jobs", worker_id="w", limit=2)).items
        await datastore.settle([datastore.calls.complete("jobs", "a", first.token or "")])
        await datastore.update("jobs", "b", metadata={"status": "completed"}, version=second.version)
        await datastore.update("jobs", "c", metadata={"status": "started", "worker_id": "w"})
        await datastore.delete("jobs", "d")
        await datastore.run([datastore.calls.create("hookline.deliveries.x", "a", reserved=True)])
        assert [item.status for item in (await datastore.query("jobs")).items] == ["completed", "completed", "started"]
    finally:
        await raw.config_set("maxmemory", 0)
    await datastore.create("jobs", "e")


async def test_a_full_store_is_swept_also_where_an_index_waits_for_room(
    datastore: Datastore, raw: aioredis.Redis
) -> None:
    await fill(datastore, 1000, status="completed")
    await datastore.configure("jobs", indexes={"n": "number"}, retention={"completed": {"count": 1}})
    await raw.config_set("maxmemory", 1)
    try:
        await datastore.sweep()
        assert (await datastore.count("jobs")).count < 500
    finally:
        await raw.config_set("maxmemory", 0)


async def test_too_few_replicas(datastore: Datastore, raw: aioredis.Redis) -> None:
    await raw.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(Unavailable, match="cannot take writes"):
            await datastore.create("jobs", "a")
    finally:
        await raw.config_set("min-replicas-to-write", 0)
    await datastore.create("jobs", "a")


async def test_more_callers_than_connections(proxy: Proxy, settings: Settings) -> None:
    async with datastore_at(proxy.url, replace(settings, connections=2)) as datastore:
        await datastore.create("jobs", "a")
        items = await asyncio.gather(*(datastore.get("jobs", "a") for _ in range(100)))
        assert len(items) == 100
        assert proxy.links_max <= 2


@pytest.mark.parametrize("connections", [1, 2])
async def test_a_lane_with_much_to_do_does_not_keep_its_link(
    proxy: Proxy, settings: Settings, connections: int
) -> None:
    """Its calls follow each other over one link, which others get in between where there are too few."""
    fewest = replace(settings, connections=connections, partitions=3, call_timeout=3.0)
    async with datastore_at(proxy.url, fewest) as datastore:
        writes = asyncio.create_task(datastore.run([datastore.calls.create("jobs", f"{n}") for n in range(9000)]))
        reads = 0
        while not writes.done():
            assert await datastore.get_many([("jobs", f"{n}") for n in range(9)])
            reads += 1
        assert {outcome.word for outcome in await writes} == {"ok"}
        assert reads > 5
        assert proxy.links_max <= connections


async def test_a_cancelled_read_leaves_nothing_out_of_step(datastore: Datastore) -> None:
    for name in ("a", "b"):
        await datastore.create("jobs", name)
    for _ in range(50):
        read = asyncio.create_task(datastore.get("jobs", "a"))
        for _ in range(3):
            await asyncio.sleep(0)
        read.cancel()
        others = await asyncio.gather(*(datastore.get("jobs", name) for name in "bab"))
        assert [item.sort_field for item in others] == ["b", "a", "b"]
        await asyncio.gather(read, return_exceptions=True)


async def test_a_call_that_is_cancelled_ends_its_task_at_whatever_moment(datastore: Datastore) -> None:
    async def call_and_go_on() -> None:
        await datastore.connection.command("PING")
        await asyncio.Event().wait()

    for turns in range(60):
        task = asyncio.create_task(call_and_go_on())
        for _ in range(turns % 15):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, f"cancelled after {turns % 15} turns of the loop, and it goes on"


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:canary",
        "redis://:canary/2@host",
        "redis://host?db=canary",
        "redis://host?canary=1",
        "redis://[canary",
        "unix:///path?canary=1",
        "redis://host,redis://host?canary=1",
        "redis+sentinel://host:canary/main",
        "redis+sentinel://host,,host/main",
        "redis+sentinel://host/main?canary=1",
        "redis+sentinel://host/main/canary",
        "redis+sentinel://host/main/1/canary",
        "redis://host/canary",
        "redis://host/1,redis://host/canary",
    ],
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str, settings: Settings) -> None:
    with pytest.raises(Invalid, match="expected a URL such as redis://") as refused:
        Nodes(url, settings)
    assert "canary" not in "".join(traceback.format_exception(refused.value))
