"""doctor: every way in which an index can differ from the items is told of by name, and put right."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore, EmbeddedStore, SecretBox, Settings, agreement
from hookline.clock import format_time
from hookline.doctor import Finding, examine
from hookline.errors import HooklineError
from hookline.keys import partition_tag
from invariants import check_invariants, read_keyspace
from scripts import TAG

AT = "2026-07-01T12:00:00Z"
INDEXES = {"kind": "string", "n": "number", "seen": "time", "owner.team": "string"}
LATER = format_time(NOW_MS + 60_000)
ITEMS: dict[str, dict[str, Any]] = {
    "waits": {"status": "not_started", "kind": "a\0b", "n": 3, "priority": 7},
    "later": {"status": "scheduled", "scheduled_at": LATER, "n": 1.5},
    "held": {"status": "started", "worker_id": "w", "seen": AT},
    "done": {"status": "completed", "owner": {"team": "blue"}},
    "dead": {"status": "failed", "kind": "x"},
    "mine": {"status": "review:2"},
    "plain": {"n": "no number"},
    "colon:é/": {"status": "not_started", "kind": "é"},
}


async def find(datastore: Datastore, *, repair: bool = False) -> list[Finding]:
    """All that the doctor tells of."""
    found: list[Finding] = []
    async for progress in examine(datastore.connection, datastore.calls.partitions, repair=repair):
        found += progress.findings
        assert progress.flaws == len(found)
        assert progress.repaired == sum(finding.repaired for finding in found)
        assert progress.examined <= progress.total
    return found


async def stored(raw: aioredis.Redis) -> dict[bytes, Any]:
    """All that the store holds but the outcomes of calls."""
    return {name: entry.value for name, entry in (await read_keyspace(raw)).items() if b":o:" not in name}


async def fill(datastore: Datastore) -> None:
    """Items of every status, in a key with indexes, retention and a trigger, and in others without."""
    await datastore.configure("jobs", indexes=INDEXES, retention={"completed": {"age": "1h", "count": 5}})
    for key in ("jobs", "other"):
        for name, metadata in ITEMS.items():
            await datastore.create(key, name, metadata=metadata)
    rule = datastore.calls.create(
        "hookline.orchestrations", "rule", content={}, metadata={"status": "not_started"}, reserved=True
    )
    await datastore.run([rule])


@pytest_asyncio.fixture(loop_scope="session")
async def filled(datastore: Datastore, clock: Clock) -> Datastore:
    clock.ms = NOW_MS
    await fill(datastore)
    return datastore


async def test_a_sound_store_has_no_flaws(filled: Datastore, raw: aioredis.Redis) -> None:
    before = await stored(raw)
    assert await find(filled, repair=True) == []
    assert await stored(raw) == before


async def test_an_index_under_way_may_lack_entries_but_have_no_wrong_ones(
    filled: Datastore, raw: aioredis.Redis
) -> None:
    await filled.configure("other", indexes={"n": "number"})
    assert await find(filled, repair=True) == []
    await raw.zadd(f"{TAG}:x:other:n", {"plain": 1, "waits": 4})
    assert {str(finding) for finding in await find(filled, repair=True)} == {
        "other/plain: is in the index on n by a value that it does not have",
        "other/waits: is out of place in the index on n",
    }
    await check_invariants(raw)
    assert await raw.hexists(f"{TAG}:builds", "other\0n")


async def test_progress_ends_with_everything_examined(filled: Datastore) -> None:
    last = [progress async for progress in examine(filled.connection, 1)][-1]
    items = 2 * len(ITEMS) + 1
    indexed, with_status = 7, items - 2
    assert last.examined == last.total == 2 * items + with_status + indexed


SPOILT: list[tuple[list[Any], set[str]]] = [
    # what every item is in
    (["ZREM", "k:jobs", "waits"], {"jobs/waits: is not in the set of all sortFields"}),
    (["ZADD", "k:jobs", 5, "waits"], {"jobs/waits: is out of place in the set of all sortFields"}),
    (["ZADD", "k:jobs", 0, "alien"], {"jobs/alien: is in the set of all sortFields, and is not there"}),
    (
        ["DEL", "k:other"],
        {*(f"other/{name}: is not in the set of all sortFields" for name in ITEMS)}
        | {"other: the set of all sortFields is in the registry, and empty"},
    ),
    (["SET", "k:jobs", "x"], {"k:jobs has a wrong type: string"}),
    # statuses
    (["ZREM", "s:jobs:not_started", "waits"], {"jobs/waits: is not in the set of status not_started"}),
    (["ZREM", "s:jobs:review:2", "mine"], {"jobs/mine: is not in the set of status review:2", "and empty"}),
    (["ZADD", "s:jobs:not_started", 1, "waits"], {"jobs/waits: is out of place in the set of status not_started"}),
    (
        ["ZINCRBY", "s:jobs:not_started", 1000, "waits"],
        {"jobs/waits: is out of place in the set of status not_started"},
    ),
    (["ZADD", "s:jobs:scheduled", 1, "later"], {"jobs/later: is out of place in the set of status scheduled"}),
    (["ZADD", "s:jobs:started", 1, "held"], {"jobs/held: is out of place in the set of status started"}),
    (["ZADD", "s:jobs:completed", 1, "done"], {"jobs/done: is out of place in the set of status completed"}),
    (
        ["ZADD", "s:jobs:failed", 1, "waits"],
        {"jobs/waits: is in the set of status failed, and has another status"},
    ),
    (["ZADD", "s:jobs:failed", 1, "plain"], {"jobs/plain: is in the set of status failed, and has another status"}),
    (
        ["ZADD", "s:gone:failed", 1, "alien"],
        {
            "gone/alien: is in the set of status failed, and is not there",
            "gone: the set of status failed is not in the registry",
        },
    ),
    (["HSET", "i:jobs:waits", "s", "cancelled"], {"jobs/waits: is in the set of status not_started, and", "is not in"}),
    (["HSET", "i:jobs:waits", "p", "2"], {"jobs/waits: is out of place in the set of status not_started"}),
    (["SET", "s:jobs:failed", "x"], {"s:jobs:failed has a wrong type: string"}),
    # those who wait
    (["ZADD", "ready:jobs", 0, "x"], {"jobs: its bell has a wrong entry"}),
    (["ZADD", "ready:jobs", 1, ""], {"jobs: its bell has a wrong entry"}),
    (["ZADD", "ready:gone", 0, ""], {"gone: its bell rings, and it has no items"}),
    (["SET", "ready:jobs", "x"], {"ready:jobs has a wrong type: string"}),
    # declared indexes
    (["ZREM", "x:jobs:n", "waits"], {"jobs/waits: is not in the index on n"}),
    (["ZADD", "x:jobs:n", 4, "waits"], {"jobs/waits: is out of place in the index on n"}),
    (["ZADD", "x:jobs:n", 4, "plain"], {"jobs/plain: is in the index on n by a value that it does not have"}),
    (["ZADD", "x:jobs:seen", 4, "alien"], {"jobs/alien: is in the index on seen, and is not there"}),
    (["ZADD", "x:jobs:kind", 0, "z\0dead"], {"jobs/dead: is in the index on kind by a value that it does not have"}),
    (["ZADD", "x:jobs:kind", 1, "x\0dead"], {"jobs/dead: is out of place in the index on kind"}),
    (["ZREM", "x:jobs:owner.team", "blue\0done"], {"jobs/done: is not in the index on owner.team"}),
    (["ZADD", "x:jobs:size", 4, "waits"], {"jobs: the index on size was declared by nobody"}),
    (["ZADD", "x:other:n", 3, "waits"], {"other: the index on n was declared by nobody"}),
    (["SET", "x:jobs:n", "x"], {"x:jobs:n has a wrong type: string"}),
    (["HSET", "builds", "jobs\0size", ""], {"jobs: the index on size is to be built, and was declared by nobody"}),
    (["SET", "builds", "x"], {"builds has a wrong type: string"}),
    # the registry
    (["SREM", "r", "jobs\0"], {"jobs: the set of all sortFields is not in the registry"}),
    (["SREM", "r", "jobs\0failed"], {"jobs: the set of status failed is not in the registry"}),
    (["SADD", "r", "jobs\0cancelled"], {"jobs: the set of status cancelled is in the registry, and empty"}),
    (["SADD", "r:hookline", "jobs\0failed"], {"jobs: the set of status failed is in the registry of other keys"}),
    (["SADD", "r", "nothing"], {"the registry has an entry that names nothing"}),
    (
        ["SREM", "r:hookline", "hookline.orchestrations\0"],
        {"hookline.orchestrations: the set of all sortFields is not"},
    ),
    (["DEL", "r"], {f"{key}: the set of" for key in ("jobs", "other")}),
    (["SET", "r", "x"], {"r has a wrong type: string"}),
    # what becomes due
    (["ZREM", "due", "jobs"], {"jobs: is noted to become due too late, or not at all"}),
    (["ZADD", "due", 4e12, "other"], {"other: is noted to become due too late, or not at all"}),
    (["SET", "due", "x"], {"due has a wrong type: string"}),
]


def _ids(spoilt: tuple[list[Any], set[str]]) -> str:
    return " ".join(str(part).replace("\0", "/") for part in spoilt[0])


@pytest.mark.parametrize("spoilt", SPOILT, ids=_ids)
async def test_a_flaw_is_named_and_put_right(
    filled: Datastore, raw: aioredis.Redis, spoilt: tuple[list[Any], set[str]]
) -> None:
    (command, name, *args), expected = spoilt
    await raw.execute_command(command, f"{TAG}:{name}", *args)  # type: ignore[no-untyped-call]
    before = await stored(raw)
    told = await find(filled)
    texts = [str(finding) for finding in told]
    assert all(any(part in text for text in texts) for part in expected), texts
    assert all(any(part in text for part in expected) for text in texts), texts
    assert await stored(raw) == before
    repaired = await find(filled, repair=True)
    assert {*texts} <= {str(finding) for finding in repaired}
    assert all(finding.repaired for finding in repaired)
    await check_invariants(raw)
    assert await find(filled) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["SET", "i:jobs:waits", "x"], "jobs/waits: is no hash, so it can be no item"),
        (["HDEL", "i:jobs:waits", "v"], "jobs/waits: can be no item: its field v is missing, or no number"),
        (["HDEL", "i:jobs:waits", "c"], "jobs/waits: can be no item: its field c is missing, or no number"),
        (["HDEL", "i:jobs:later", "at"], "jobs/later: can be no item: its field at is missing, or no number"),
        (["HSET", "i:jobs:waits", "p", "x"], "jobs/waits: can be no item: its field p is missing, or no number"),
        (["HSET", "i:jobs:waits", "m:n", b"\xc1"], "jobs/waits: has a field that is no value, at n"),
        (["HSET", "i:jobs:waits", "p", "nan"], "jobs/waits: can be no item: its field p is missing, or no number"),
        (["HSET", "i:jobs:waits", "v", "nan"], "jobs/waits: can be no item: its field v is missing, or no number"),
        (["HSET", "i:jobs:waits", "m:n", b"\xcb\x7f\xf8" + bytes(6)], "jobs/waits: has a field that is no value, at n"),
        (["HSET", "i:jobs:plain", "s", ""], "jobs/plain: has a status that can be none"),
        (["HSET", "i:foo", "v", "1"], "i:foo names no item"),
        (["HSET", "i:jobs:", "v", "1"], "i:jobs: names no item"),
        (["HSET", "cfg:jobs", "x:n", b"\xc1"], "jobs: has a setting that cannot be read: x:n"),
        (["HSET", "cfg:jobs", "x:n", b""], "jobs: has a setting that cannot be read: x:n"),
        (["HSET", "cfg:jobs", "lock_ms", "x"], "jobs: has a setting that cannot be read: lock_ms"),
        (["HSET", "cfg:jobs", "keep:completed", "x y"], "jobs: has a setting that cannot be read: keep:completed"),
        (["SET", "cfg:jobs", "x"], "cfg:jobs has a wrong type: string"),
        (["SET", "n:jobs", "x"], "n:jobs has a wrong type: string"),
        (["SET", "outbox", "x"], "outbox has a wrong type: string"),
        (["SET", "queue", "x"], "queue is of no family that is known here"),
    ],
)
async def test_what_can_not_be_known_is_only_told(
    filled: Datastore, raw: aioredis.Redis, command: list[Any], expected: str
) -> None:
    verb, name, *args = command
    await raw.execute_command(verb, f"{TAG}:{name}", *args)  # type: ignore[no-untyped-call]
    before = await stored(raw)
    found = await find(filled, repair=True)
    assert [str(finding) for finding in found if not finding.repaired] == [expected]
    assert [str(finding) for finding in found if finding.repaired] == []
    assert await stored(raw) == before


async def test_a_damaged_item_and_setting_hide_nothing_else(filled: Datastore, raw: aioredis.Redis) -> None:
    await raw.hset(f"{TAG}:i:foo", mapping={"v": 1})
    await raw.hset(f"{TAG}:cfg:jobs", mapping={"x:n": b"\xc1", "generation": "x"})
    await raw.hset(f"{TAG}:i:jobs:waits", mapping={"s": ""})
    await raw.zadd(f"{TAG}:k:jobs", {"waits": 7})
    await raw.zrem(f"{TAG}:s:jobs:failed", "dead")
    told = {
        "i:foo names no item",
        "jobs: has a setting that cannot be read: x:n",
        "jobs: has a setting that cannot be read: generation",
        "jobs/waits: has a status that can be none",
    }
    mended = {
        "jobs/waits: is in the set of status not_started, and has another status",
        "jobs/waits: is out of place in the set of all sortFields",
        "jobs/dead: is not in the set of status failed",
    }
    first = await find(filled, repair=True)
    assert {str(finding) for finding in first if not finding.repaired} == told
    assert mended <= {str(finding) for finding in first if finding.repaired}
    assert await raw.zscore(f"{TAG}:k:jobs", "waits") == 0
    assert {str(finding) for finding in await find(filled, repair=True)} == told


async def spoil_something(raw: aioredis.Redis, chance: random.Random) -> None:
    """Change one key without the others, the items among them."""
    names = sorted([name async for name in raw.scan_iter(f"{TAG}:*") if b":o:" not in name and b":cfg:" not in name])
    name = chance.choice(names)
    family = name.removeprefix(f"{TAG}:".encode()).split(b":")[0]
    members = [
        "waits",
        "later",
        "done",
        "x\0dead",
        "a\1\1b\0waits",
        "jobs\0failed",
        "other\0",
        "jobs",
        "other",
        "alien",
    ]
    member = chance.choice(members)
    if family == b"i":
        if chance.random() < 0.3:
            await raw.delete(name)
        else:
            changed: list[dict[Any, Any]] = [{"m:n": b"\x07"}, {"m:kind": b"\xa1q"}, {"p": 2}, {"ua": NOW_MS + 7}]
            await raw.hset(name, mapping=chance.choice(changed))
    elif chance.random() < 0.1:
        await raw.set(name, "x")
    elif chance.random() < 0.1:
        await raw.delete(name)
    elif await raw.type(name) == b"set":
        await (raw.srem if chance.random() < 0.5 else raw.sadd)(name, member)
    elif await raw.type(name) == b"zset":
        if chance.random() < 0.5:
            await raw.zrem(name, *(await raw.zrange(name, 0, -1))[chance.randrange(2) :] or ["alien"])
        else:
            await raw.zadd(name, {member: chance.choice([0, 1, NOW_MS, 4e12])})


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_spoilt_is_put_right(filled: Datastore, raw: aioredis.Redis, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 3, 20))):
        await spoil_something(raw, chance)
    assert all(finding.repaired for finding in await find(filled, repair=True))
    assert await find(filled) == []
    await check_invariants(raw)


async def test_running_writers_make_no_flaws_and_lose_nothing(
    datastore: Datastore, raw: aioredis.Redis, store: EmbeddedStore
) -> None:
    await fill(datastore)
    chance, ended = random.Random(7), asyncio.Event()

    async def write() -> None:
        while not ended.is_set():
            key, name = chance.choice(("jobs", "other")), f"n{chance.randrange(300)}"
            status = chance.choice(("not_started", "scheduled", "started", "completed", "failed", "review", None))
            metadata = {
                "status": status,
                "n": chance.randrange(9),
                "kind": chance.choice("abc"),
                "scheduled_at": "+50ms",
            }
            metadata |= {"locked_until": "+40ms", "max_attempts": 1, "worker_id": "w"} if status == "started" else {}
            with contextlib.suppress(HooklineError):
                match chance.randrange(6):
                    case 0:
                        await datastore.delete(key, name)
                    case 1:
                        claimed = await datastore.claim(key, worker_id="c", limit=3, lock_for="30ms")
                        await datastore.settle(
                            [datastore.calls.complete(key, item.sort_field, item.token or "") for item in claimed.items]
                        )
                    case 2:
                        await datastore.sweep()
                    case _:
                        await datastore.create(key, name, metadata=metadata, upsert=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(write())
        try:
            for _ in range(15):
                assert [str(finding) for finding in await find(datastore, repair=True)] == []
                await datastore.configure("jobs", indexes=chance.choice([INDEXES, {"n": "number"}, {"n": "string"}]))
        finally:
            ended.set()
    assert (await raw.zcard(f"{TAG}:k:jobs")) > 50
    await check_invariants(raw)


async def test_flaws_are_put_right_beside_running_writers(datastore: Datastore, raw: aioredis.Redis) -> None:
    await fill(datastore)
    ended = asyncio.Event()
    written: dict[str, int] = {}

    async def write(worker: int) -> None:
        number = 0
        while not ended.is_set():
            number, name = number + 1, f"w{worker}-{number % 40}"
            outcome = await datastore.create("jobs", name, metadata={"status": "completed", "n": number}, upsert=True)
            written[name] = outcome.version or 0

    async def spoil() -> None:
        for name in list(written):
            await raw.zrem(f"{TAG}:k:jobs", name)
            await raw.zadd(f"{TAG}:x:jobs:n", {name: -1})
            await raw.zadd(f"{TAG}:s:jobs:failed", {name: 1})

    await datastore.configure("jobs", retention=None)
    async with asyncio.TaskGroup() as group:
        for worker in range(3):
            group.create_task(write(worker))
        try:
            repaired = 0
            for _ in range(5):
                await spoil()
                repaired += len(await find(datastore, repair=True))
        finally:
            ended.set()
    assert repaired
    await find(datastore, repair=True)
    await check_invariants(raw)
    for name, version in written.items():
        assert (await datastore.get("jobs", name)).version == version


@pytest.fixture
def parted(settings: Settings) -> Settings:
    return replace(settings, partitions=3)


async def test_partitions(parted: Settings, raw: aioredis.Redis, store: EmbeddedStore) -> None:
    async with Datastore(store.url, parted, SecretBox(bytes(32))) as datastore:
        await fill(datastore)
        assert await find(datastore) == []
        place = datastore.calls.partition("other", "waits")
        home, away = (partition_tag("default", number % 3, 3) for number in (place, place + 1))
        await raw.rename(f"{home}:i:other:waits", f"{away}:i:other:waits")
        assert {str(finding) for finding in await find(datastore, repair=True)} == {
            "other/waits: belongs into another partition",
            "other/waits: is in the set of all sortFields, and is not there",
            "other/waits: is in the set of status not_started, and is not there",
        }
        assert [str(finding) for finding in await find(datastore)] == ["other/waits: belongs into another partition"]


@pytest.mark.parametrize(
    ("partition", "spoiled", "held"),
    [
        (1, None, 3),
        (2, {"generation": "1", "max_attempts": "7"}, 3),
        (2, {"generation": "2", "max_attempts": "7"}, 7),
        (3, {"generation": "9", "max_attempts": "7"}, 7),
        (0, {"generation": "1", "max_attempts": "7"}, 3),
        (0, {"generation": "?", "max_attempts": "7"}, 3),
        (0, None, 3),
    ],
)
async def test_settings_are_made_the_same_in_all_partitions(
    store: EmbeddedStore, raw: aioredis.Redis, partition: int, spoiled: dict[Any, Any] | None, held: int
) -> None:
    async with Datastore(store.url, replace(Settings(), partitions=4), SecretBox(bytes(32))) as datastore:
        for tries in (2, 3):
            await datastore.configure("jobs", max_attempts=tries)
        await datastore.create("jobs", "a")
        names = [f"{partition_tag('default', each, 4)}:cfg:jobs" for each in range(4)]
        assert await find(datastore, repair=True) == []
        await raw.delete(names[partition])
        if spoiled:
            await raw.hset(names[partition], mapping=spoiled)
        flaw = Finding("jobs", "", "has not the same settings in all partitions", False)
        unread = Finding("jobs", "", "has a setting that cannot be read: generation", False)
        told = [unread] if spoiled and not spoiled["generation"].isdigit() else []
        assert await find(datastore) == [*told, flaw]
        assert await find(datastore, repair=True) == [*told, replace(flaw, repaired=True)]
        first, *others = [await raw.hgetall(name) for name in names]
        assert first[b"max_attempts"] == b"%d" % held
        assert others == [first] * 3
        assert (await datastore.configure("jobs", lock_for="1m")).max_attempts == held
        assert await find(datastore) == []


async def test_settings_of_what_can_be_no_key_are_left_alone(store: EmbeddedStore, raw: aioredis.Redis) -> None:
    async with Datastore(store.url, replace(Settings(), partitions=4), SecretBox(bytes(32))) as datastore:
        for name in ("", "a key", "a:b"):
            await raw.hset(f"{partition_tag('default', 1, 4)}:cfg:{name}", "generation", 2)
        before = await stored(raw)
        await find(datastore, repair=True)
        assert await stored(raw) == before


async def test_settings_that_change_meanwhile_are_no_flaw(
    store: EmbeddedStore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Datastore(store.url, replace(Settings(), partitions=4), SecretBox(bytes(32))) as datastore:
        await datastore.configure("jobs", max_attempts=2)
        name = f"{partition_tag('default', 3, 4)}:cfg:jobs"
        behind: dict[Any, Any] = await raw.hgetall(name)
        await datastore.configure("jobs", max_attempts=3)
        await raw.delete(name)
        await raw.hset(name, mapping=behind)
        looked = asyncio.Event()

        async def look(*args: Any) -> list[agreement.Stored]:
            found = await held(*args)
            looked.set()
            return found

        held = agreement.held
        monkeypatch.setattr("hookline.agreement.held", look)
        monkeypatch.setattr("hookline.doctor.UNDER_WAY", 1.0)
        examination = asyncio.create_task(find(datastore))
        await looked.wait()
        assert not examination.done()
        await datastore.key_settings("jobs")
        assert await examination == []
