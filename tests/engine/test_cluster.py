"""The engine over a real cluster of three nodes: every verb, slots that move, and nodes that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster import NODES, Cluster, Node, clustering
from conftest import NOW_MS, Clock, beside, wait_until
from hookline import Datastore, Item, Job, SecretBox, Settings, Worker, doctor, keys, transfer
from hookline.clock import parse_time
from hookline.errors import Unavailable
from hookline.keyring import Keyring
from hookline.keys import SLOTS
from hookline.link import LostError
from hookline_server.orchestrations import Orchestration, Orchestrations
from jobs import WAITING
from process import free_port

PARTITIONS = 6
pytestmark = pytest.mark.settings(partitions=PARTITIONS)
NAMES = [f"{n:03}" for n in range(240)]
FIRST = next(name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) == 0)
"""An item in the first partition, which the first node has."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with clustering(tmp_path_factory.mktemp("cluster")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def datastore(cluster: Cluster, settings: Settings, clock: Clock) -> AsyncIterator[Datastore]:
    await cluster.flush()
    async with Datastore(cluster.url, settings, SecretBox(bytes(range(32))), now_ms=clock) as opened:
        yield opened


async def fill(datastore: Datastore) -> None:
    outcomes = await datastore.run([datastore.calls.create("jobs", name, metadata=WAITING) for name in NAMES])
    assert all(outcome.ok for outcome in outcomes)


async def test_partitions_spread_over_the_nodes(datastore: Datastore, cluster: Cluster) -> None:
    before = await cluster.calls()
    await fill(datastore)
    made = [after - earlier for after, earlier in zip(await cluster.calls(), before, strict=True)]
    assert made == [PARTITIONS // NODES] * NODES


async def test_api_keys_whose_lists_lie_on_several_nodes(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.keyring.NAMESPACE_KEYS_MAX", 3)
    keyring = Keyring(datastore.connection, datastore.secrets)
    made = [(await keyring.create("acme"))[0].id for _ in range(3)]
    other, _ = await keyring.create("globex")
    await keyring.revoke(made[0])
    new, _ = await keyring.create("acme")
    assert {key.id for key in await keyring.all("acme")} == {*made[1:], new.id}
    assert {key.id for key in await keyring.all()} == {*made[1:], new.id, other.id}


async def test_examined_exported_and_brought_back(datastore: Datastore, cluster: Cluster) -> None:
    await fill(datastore)
    tag = keys.partition_tag("default", datastore.calls.partition("jobs", "000"), PARTITIONS)
    await (await cluster.owner(keys.slot(tag))).client.zrem(f"{tag}:k:jobs", "000")
    steps = [step async for step in doctor.examine(datastore.connection, PARTITIONS, repair=True)]
    assert [str(found) for step in steps for found in step.findings] == [
        "jobs/000: is not in the set of all sortFields"
    ]
    assert (steps[-1].examined, steps[-1].repaired) == (3 * len(NAMES) - 1, 1)
    lines = b"".join([step.lines async for step in transfer.export(datastore)]).splitlines()
    await cluster.flush()
    await datastore.connection.open()
    ends = [step async for step in transfer.restore(datastore, lines)]
    assert (ends[-1].written, ends[-1].failed) == (len(NAMES), 0)
    assert [item.sort_field for item in (await datastore.query("jobs", order="sortField", limit=240)).items] == NAMES


async def test_a_new_namespace_gets_16_partitions(cluster: Cluster, settings: Settings) -> None:
    await cluster.flush()
    unnamed = replace(settings, partitions=None)
    for _ in range(2):
        async with Datastore(cluster.url, unnamed, SecretBox(bytes(range(32)))) as opened:
            assert opened.calls.partitions == 16
    async with Datastore(cluster.url, replace(settings, namespace="named"), SecretBox(bytes(range(32)))) as other:
        assert other.calls.partitions == PARTITIONS


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_the_first_node_that_answers_is_used(cluster: Cluster, settings: Settings, place: int) -> None:
    nobody = [f"redis://127.0.0.1:{free_port()}" for _ in range(2)]
    urls = [*nobody[:place], cluster.nodes[place].url, *nobody[place:], cluster.url]
    await cluster.flush()
    async with Datastore(",".join(urls), settings, SecretBox(bytes(range(32)))) as opened:
        await fill(opened)
    with pytest.raises(Unavailable):
        await Datastore(",".join(nobody), settings, SecretBox(bytes(range(32)))).open()


async def test_flushed_functions_are_loaded_on_their_node(datastore: Datastore, cluster: Cluster) -> None:
    for node in cluster.nodes:
        await node.client.function_flush()
    await fill(datastore)


async def test_slots_that_move_under_load(
    datastore: Datastore, cluster: Cluster, settings: Settings, clock: Clock
) -> None:
    """Each acknowledged item is there once, and what was refused is not there."""
    source, target = cluster.nodes[0], cluster.nodes[1]
    last = SLOTS // NODES - 1
    acknowledged: list[str] = []
    refused: list[str] = []
    stop = asyncio.Event()

    async def write(worker: int) -> None:
        number = 0
        while not stop.is_set():
            name, number = f"{worker}-{number:05}", number + 1
            try:
                await datastore.create("jobs", name, metadata=WAITING)
            except Unavailable:
                refused.append(name)
                await asyncio.sleep(0.01)
            else:
                acknowledged.append(name)

    def moved() -> int:
        """How many were acknowledged that lie in slots which move."""
        partitions = (keys.partition_of("jobs", name, PARTITIONS) for name in acknowledged)
        return sum(keys.slot(keys.partition_tag("default", number, PARTITIONS)) <= last for number in partitions)

    writers = [asyncio.create_task(write(worker)) for worker in range(8)]
    await wait_until(lambda: moved() > 30)
    try:
        await cluster.move(0, last, source, target)
        before = moved()
        await wait_until(lambda: moved() > before + 100)
    finally:
        stop.set()
        await asyncio.gather(*writers)
        await wait_until(lambda: _agree(cluster))
        await cluster.move(0, last, target, source)
    await wait_until(lambda: _agree(cluster))
    found = await datastore.get_many([("jobs", name) for name in (*acknowledged, *refused)])
    assert [item and item.version for item in found] == [1] * len(acknowledged) + [None] * len(refused)
    assert len((await datastore.claim("jobs", worker_id="w", limit=500)).items) == min(500, len(acknowledged))


async def test_a_node_reads_all_of_its_partitions_in_one_call(
    datastore: Datastore, cluster: Cluster, clock: Clock
) -> None:
    clock.ms = NOW_MS  # it stands still, so no call is late
    await fill(datastore)

    async def found() -> list[int]:
        before = await cluster.calls()
        page = await datastore.query("jobs", limit=20)
        rest = await datastore.query("jobs", limit=len(NAMES), cursor=page.cursor)
        assert [item.sort_field for item in (*page.items, *rest.items)] == NAMES
        assert (await datastore.count("jobs", where=WAITING)).count == len(NAMES)
        return [after - earlier for after, earlier in zip(await cluster.calls(), before, strict=True)]

    assert await found() == [3] * NODES
    # The slots of the second partition: the first node has those of the first still, which it is asked for by.
    first, last = SLOTS // PARTITIONS, 2 * SLOTS // PARTITIONS - 1
    await cluster.move(first, last, cluster.nodes[0], cluster.nodes[2])
    try:
        await found()
        await datastore.connection.nodes.learn()
        assert sum(await found()) == 3 * PARTITIONS, "as one was refused, each is read by itself for a while"
    finally:
        await wait_until(lambda: _agree(cluster))
        await cluster.move(first, last, cluster.nodes[2], cluster.nodes[0])
        await wait_until(lambda: _agree(cluster))
        await datastore.connection.nodes.learn()


async def _agree(cluster: Cluster) -> bool:
    tables = [await node.client.execute_command("CLUSTER SLOTS") for node in cluster.nodes]  # type: ignore[no-untyped-call]
    return all(sorted(table) == sorted(tables[0]) for table in tables)


async def test_a_waiter_outlives_a_move(
    datastore: Datastore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.05)
    source, target, last = cluster.nodes[0], cluster.nodes[2], SLOTS // NODES - 1
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") and datastore.wakes._subscribed.is_set())
    await cluster.move(0, last, source, target)
    try:
        channel = keys.wake_channel(keys.partition_tag("default", 0, PARTITIONS))

        async def subscribed() -> bool:
            return bool((await target.client.pubsub_shardnumsub(channel))[0][1])

        await wait_until(subscribed)
        await datastore.create("jobs", FIRST, metadata=WAITING)
        assert len((await asyncio.wait_for(waiting, 5)).items) == 1
    finally:
        await wait_until(lambda: _agree(cluster))
        await cluster.move(0, last, target, source)
        await wait_until(lambda: _agree(cluster))


async def test_while_a_slot_moves_key_by_key_nothing_is_written(datastore: Datastore, cluster: Cluster) -> None:
    await fill(datastore)
    slot = keys.slot(keys.partition_tag("default", 0, PARTITIONS))
    source, target = cluster.nodes[0], cluster.nodes[1]
    await target.cluster("SETSLOT", slot, "IMPORTING", source.id)
    await source.cluster("SETSLOT", slot, "MIGRATING", target.id)
    try:
        with pytest.raises(Unavailable, match="as a whole"):
            await datastore.update("jobs", FIRST, metadata={"x": 1})
        other = next(name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) == PARTITIONS - 1)
        await datastore.update("jobs", other, metadata={"x": 1})
    finally:
        for node in (source, target):
            await node.cluster("SETSLOT", slot, "STABLE")
    assert (await datastore.update("jobs", FIRST, metadata={"x": 1})).version == 2
    tag = keys.partition_tag("default", 0, PARTITIONS)
    assert [key async for key in target.client.scan_iter(f"{tag}:*")] == []


async def test_a_tick_that_passed_a_partition_over_is_gone_on_with(datastore: Datastore) -> None:
    """What it took elsewhere is known by the same ids."""
    await fill(datastore)
    gone = 2
    datastore.claims._away._until[gone] = math.inf
    first = await datastore.once("tick", caller="rule", keep=60, everywhere=True).claim(
        "jobs", worker_id="w", limit=500
    )
    taken = {item.sort_field: item.token for item in first.items}
    assert sorted(taken) == [name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) != gone]
    datastore.claims._away.discard(gone)
    again = await datastore.once("tick", caller="rule", keep=60, everywhere=True).claim(
        "jobs", worker_id="w", limit=500
    )
    assert taken.items() <= {item.sort_field: item.token for item in again.items}.items()
    assert len(again.items) == len(NAMES)


async def test_a_partition_whose_time_has_come_is_asked_by_whoever_comes_to_it(datastore: Datastore) -> None:
    await fill(datastore)
    datastore.claims._away._until[2] = 0.0
    assert len((await datastore.claim("jobs", worker_id="w")).items) == 1  # which is enough, before it comes there
    assert len((await datastore.claim("jobs", worker_id="w", limit=500)).items) == len(NAMES) - 1
    assert not datastore.claims._away._until


async def test_a_node_that_is_gone(settings: Settings, tmp_path: Path) -> None:
    """Its partitions are unavailable, the others go on, also for those who are started anew."""
    async with (
        clustering(tmp_path / "nodes") as cluster,
        Datastore(cluster.nodes[2].url, settings, SecretBox(bytes(range(32)))) as datastore,
    ):
        await fill(datastore)
        held = [item for _ in NAMES[:12] for item in (await datastore.claim("jobs", worker_id="w", limit=1)).items]
        gone, rules = {4, 5}, Orchestrations(datastore)
        for name in NAMES[:12]:
            await rules.put(name, Orchestration(key="claimed", every="1h", limit=2))
        async with _worker_with_a_job_in(datastore, gone) as told:
            cluster.nodes[2].process.kill()
            await cluster.nodes[2].process.wait()
            await told()
        for name in NAMES[:40]:
            work = datastore.update("jobs", name, metadata={"x": 1})
            if keys.partition_of("jobs", name, PARTITIONS) in gone:
                with pytest.raises(Unavailable):
                    await work
            else:
                assert (await work).ok
        outcomes = await datastore.run([datastore.calls.update("jobs", name, metadata={"y": 1}) for name in NAMES[:40]])
        words = {name: outcome.word for name, outcome in zip(NAMES, outcomes, strict=False)}
        assert set(words.values()) == {"ok", "unavailable"}
        assert await datastore.connection.now_ms()  # though it began by the one that is gone
        await _work_goes_on(datastore, held, gone)
        await _rules_go_on(datastore, rules, gone)
        urls = f"{cluster.nodes[2].url},{cluster.url}"
        async with Datastore(urls, settings, SecretBox(bytes(range(32)))) as later:
            outcomes = await later.run([later.calls.update("jobs", name, metadata={"z": 1}) for name in NAMES[:40]])
            assert {name: outcome.word for name, outcome in zip(NAMES, outcomes, strict=False)} == words


@contextlib.asynccontextmanager
async def _worker_with_a_job_in(
    datastore: Datastore, gone: set[int]
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """A worker whose job's end cannot be told once they are gone -> what sees that it does other jobs all the same."""
    names = [name for name in NAMES if keys.partition_of("others", name, PARTITIONS) in gone]
    reached = [name for name in NAMES if name not in names][:20]
    worker = Worker(datastore, "others", concurrency=2, grace=0.5)
    began, ended = set[str](), asyncio.Event()

    @worker.handles()
    async def handle(job: Job) -> None:
        began.add(job.sort_field)
        await ended.wait()

    async def told() -> None:
        ended.set()
        await datastore.run([datastore.calls.create("others", name, metadata=WAITING) for name in reached])
        await wait_until(lambda: _all_completed(datastore, reached))

    await datastore.create("others", names[0], metadata=WAITING)
    running = asyncio.create_task(worker.run())
    await wait_until(lambda: began)
    yield told
    await wait_until(lambda: worker.in_flight == 1)
    worker.stop()
    await running


async def _all_completed(datastore: Datastore, names: list[str]) -> bool:
    items = await datastore.get_many([("others", name) for name in names])
    return {item.status for item in items if item} == {"completed"}


async def _work_goes_on(datastore: Datastore, held: list[Item], gone: set[int]) -> None:
    """Claims, exchanges and a worker take what is in the other partitions, and no claim fails."""
    reached = {name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) not in gone}
    left = reached - {item.sort_field for item in held}
    calls = [datastore.calls.complete("jobs", item.sort_field, item.token or "") for item in held]
    outcomes, claimed = await datastore.exchange(calls, "jobs", worker_id="w", limit=10)
    assert [outcome.ok for outcome in outcomes] == [item.sort_field in reached for item in held]
    assert (len(claimed.items), claimed.failure) == (10, None)
    left -= {item.sort_field for item in claimed.items}
    for _ in range(2 * PARTITIONS):
        left -= {item.sort_field for item in (await datastore.claim("jobs", worker_id="w", limit=1)).items}
    for _ in range(2):  # a tick of a rule, and who goes on with it
        view = datastore.once("tick", caller="rule", keep=60, everywhere=True)
        taken = {item.sort_field for item in (await view.claim("jobs", worker_id="w", limit=7)).items}
        assert taken <= left
        assert len(taken) == 7
    left -= taken
    worker = Worker(datastore, "jobs", concurrency=4)
    done: set[str] = set()

    @worker.handles()
    async def handle(job: Job) -> None:
        done.add(job.sort_field)

    running = asyncio.create_task(worker.run())
    await wait_until(lambda: done == left)
    worker.stop()
    await running
    assert (await datastore.claim("jobs", worker_id="w")).items == []


async def _rules_go_on(datastore: Datastore, rules: Orchestrations, gone: set[int]) -> None:
    """Those that can be read run, also where what came of it cannot be listed."""
    reached = [name for name in NAMES if keys.partition_of("claimed", name, PARTITIONS) not in gone][:24]
    await datastore.run([datastore.calls.create("claimed", name, metadata=WAITING) for name in reached])
    await rules.run_due()
    ran = [name for name in NAMES[:12] if keys.partition_of(rules.key, name, PARTITIONS) not in gone]
    for name in ran:
        item = await rules.get(name)
        run, listed_in = item.metadata["last_run"], rules._runs_of(name, rules.rule(item))
        place = keys.partition_of(listed_in, f"{parse_time(run['tick']):015d}", PARTITIONS)
        assert (run["claimed"], "endedAt" in run) == (2, place not in gone)


async def test_a_node_that_falls_silent(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had is with another node by then: one call waits for an answer in vain, and no other does."""
    monkeypatch.setattr("hookline.subscription.QUIET", 0.1)
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.05)
    near = replace(settings, call_timeout=1.0)
    async with (
        clustering(tmp_path / "nodes") as cluster,
        Datastore(cluster.url, near, SecretBox(bytes(range(32)))) as datastore,
    ):
        first, second, third = cluster.nodes
        async with _hearing(datastore) as heard:
            await asyncio.sleep(0.5)  # several times as long as a node may be quiet
            with _silent(third):
                await _say(first, 0, "goes on")
                await wait_until(lambda: "goes on" in heard)
                await asyncio.sleep(0.5)  # its kernel takes connections all the same
            await wait_until(lambda: heard == [None] * NODES + ["goes on", None])
            await _say(third, PARTITIONS - 1, "there again")
            await wait_until(lambda: heard[-1] == "there again")
        await fill(datastore)
        mine = [name for name in NAMES if keys.partition_of("jobs", name, PARTITIONS) == 0]
        await asyncio.gather(*(datastore.get("jobs", name) for name in mine))  # over a link each
        silent = datastore.connection.nodes._links["127.0.0.1", first.port]
        assert len(silent._idle) > 1
        await cluster.move(0, SLOTS // NODES - 1, first, second)
        with _silent(first):
            for name in mine:
                assert (await datastore.update("jobs", name, metadata={"x": 1})).ok
            assert not silent._idle  # else each of them would be tried, and its answer waited for


async def test_what_is_due_elsewhere_does_not_wait_for_a_node_that_is_silent(
    settings: Settings, tmp_path: Path
) -> None:
    patient = replace(settings, call_timeout=10.0)
    async with (
        clustering(tmp_path / "nodes") as cluster,
        Datastore(cluster.url, patient, SecretBox(bytes(range(32)))) as datastore,
    ):
        made = [name for name in NAMES if datastore.calls.partition("jobs", name) < PARTITIONS * 2 // NODES]
        for name in made:
            await datastore.create("jobs", name, metadata={**WAITING, "scheduled_at": "+100ms"})
        await asyncio.sleep(0.2)
        with _silent(cluster.nodes[2]):
            sweeping = asyncio.create_task(datastore.sweep())

            async def promoted() -> bool:
                found = await datastore.get_many([("jobs", name) for name in made])
                return {item and item.status for item in found} == {"not_started"}

            await wait_until(promoted, seconds=5)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(sweeping, 5)


@contextlib.asynccontextmanager
async def _hearing(datastore: Datastore) -> AsyncIterator[list[str | None]]:
    """What is heard of all nodes, from when they are subscribed to."""
    heard: list[str | None] = []
    async with beside(datastore.connection.follow(keys.wake_channel, lambda topic, _: heard.append(topic))):
        await wait_until(lambda: heard == [None] * NODES)
        yield heard


async def _say(node: Node, partition: int, topic: str) -> None:
    channel = keys.wake_channel(keys.partition_tag("default", partition, PARTITIONS))
    await node.client.execute_command("SPUBLISH", channel, topic)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _silent(node: Node) -> Iterator[None]:
    node.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)


async def test_what_could_not_be_sent_goes_to_who_has_the_slot_by_now(settings: Settings, tmp_path: Path) -> None:
    async with (
        clustering(tmp_path / "nodes") as cluster,
        Datastore(cluster.url, settings, SecretBox(bytes(range(32)))) as datastore,
    ):
        first, second, _ = cluster.nodes
        await fill(datastore)
        await cluster.move(0, SLOTS // NODES - 1, first, second)
        first.process.kill()
        await first.process.wait()
        assert (await datastore.get("jobs", FIRST)).version == 1
        assert await datastore.connection.now_ms()


async def test_what_is_no_store_by_now_is_passed_over(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a node was, something else listens: what it had is with another one, and so are the messages."""
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.05)
    async with (
        clustering(tmp_path / "nodes") as cluster,
        Datastore(cluster.url, settings, SecretBox(bytes(range(32)))) as datastore,
    ):
        first, second, _ = cluster.nodes
        async with _hearing(datastore) as heard:
            await fill(datastore)
            await cluster.move(0, SLOTS // NODES - 1, first, second)
            first.process.kill()
            await first.process.wait()
            async with await asyncio.start_server(_answer_http, "127.0.0.1", first.port):
                assert (await datastore.get("jobs", FIRST)).version == 1
                assert await datastore.connection.now_ms()
                await wait_until(lambda: heard.count(None) > NODES)  # what the one had, anew of the other
                await _say(second, 0, "from another")
                await wait_until(lambda: heard[-1] == "from another")


async def _answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def test_nodes_that_refuse_the_user_are_passed_over(settings: Settings, tmp_path: Path) -> None:
    """As those do that were started anew without their lists of users; what they had is with another one."""
    async with clustering(tmp_path / "nodes") as cluster:
        for node in cluster.nodes:
            await node.client.execute_command("ACL SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
        url = cluster.url.replace("//", "//app:secret@")
        async with Datastore(url, settings, SecretBox(bytes(range(32)))) as datastore:
            first, second, third = cluster.nodes
            await fill(datastore)
            for number, node in enumerate((first, second)):
                await cluster.move(number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1, node, third)
                await node.client.acl_deluser("app")
            with contextlib.suppress(Unavailable):  # over a connection that ends by that
                await datastore.get("jobs", FIRST)
            assert (await datastore.get("jobs", FIRST)).version == 1
            assert await datastore.connection.now_ms()


async def test_where_all_known_nodes_are_gone_those_named_are_asked(settings: Settings, tmp_path: Path) -> None:
    async with clustering(tmp_path / "nodes") as cluster:
        first, second, third = cluster.nodes
        named = f"{first.url},{third.url}"
        await cluster.move(SLOTS * 2 // NODES, SLOTS - 1, third, first)
        async with Datastore(named, settings, SecretBox(bytes(range(32)))) as datastore:
            await fill(datastore)
            await cluster.move(0, SLOTS // NODES - 1, first, third)
            await cluster.move(SLOTS * 2 // NODES, SLOTS - 1, first, third)
            await cluster.move(SLOTS // NODES, SLOTS * 2 // NODES - 1, second, third)
            for node in (first, second):
                node.process.kill()
                await node.process.wait()
            assert [item is None for item in await datastore.get_many([("jobs", name) for name in NAMES])] == [
                False
            ] * len(NAMES)


async def test_of_a_node_that_has_no_slots_any_more_no_links_are_kept(settings: Settings, tmp_path: Path) -> None:
    """But of those that the store is named by. What is under way ends as it would; one that is back is used again."""
    async with (
        clustering(tmp_path / "nodes") as cluster,
        Datastore(cluster.url, settings, SecretBox(bytes(range(32)))) as datastore,
    ):
        first, second, third = cluster.nodes
        nodes = datastore.connection.nodes
        await fill(datastore)
        left = nodes._links["127.0.0.1", third.port]
        under_way = [asyncio.create_task(nodes._exchange(left, "WAIT", 1, ms)) for ms in (800, 1500)]
        await wait_until(lambda: len(left._taken) == 2)
        await cluster.move(SLOTS * 2 // NODES, SLOTS - 1, third, second)
        await cluster.move(0, SLOTS // NODES - 1, first, second)
        await wait_until(lambda: _agree(cluster))
        await nodes.refresh()
        assert {port for _, port in nodes._links} == {first.port, second.port}
        assert await under_way[0] == 0
        await nodes.close()
        with pytest.raises(LostError):
            await under_way[1]
        assert (left._idle, left._taken) == ([], set())
        await datastore.connection.open()
        await cluster.move(SLOTS * 2 // NODES, SLOTS - 1, second, third)
        await wait_until(lambda: _agree(cluster))
        assert all(await datastore.get_many([("jobs", name) for name in NAMES]))
        await nodes.refresh()
        assert {port for _, port in nodes._links} == {first.port, second.port, third.port}


async def test_each_node_has_one_subscription_also_when_slots_have_moved(
    datastore: Datastore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.05)
    source, target = cluster.nodes[0], cluster.nodes[1]

    async def subscriptions() -> list[int]:
        """How many channels each connection to each node has subscribed to."""
        lists = [await node.client.client_list("pubsub") for node in cluster.nodes]
        return [int(each["ssub"]) for clients in lists for each in clients]

    async with datastore.wakes.listening("it"):
        await wait_until(subscriptions)
        slot = keys.slot(keys.partition_tag("default", 0, PARTITIONS))
        await cluster.move(slot, slot, source, target)
        try:
            await wait_until(lambda: _holds(subscriptions, [1, 3, 2]))
        finally:
            await cluster.move(slot, slot, target, source)
            await wait_until(lambda: _agree(cluster))
        await wait_until(lambda: _holds(subscriptions, [2, 2, 2]))


async def _holds(ask: Callable[[], Coroutine[Any, Any, object]], wanted: object) -> bool:
    return await ask() == wanted
