"""Each script where a key is of a wrong type, at the memory limit, on a replica: it does what it says, or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from msgspec import structs

from conftest import NOW_MS, Clock, wait_until
from faults.verbs import CALLING
from hookline import Call, Datastore, EmbeddedStore, SecretBox
from hookline.codec import unpack_answer
from hookline.connection import Connection
from hookline.errors import HooklineError, StoreFull, Unavailable
from hookline.index import Index
from hookline.keysettings import Known
from hookline_lua import library, load
from invariants import check_invariants
from process import free_port
from scripts import KEY, TAG, Scripts, Snapshot, snapshot

OTHER = "other"
"""The key that is spoilt, while :data:`KEY` is not; only its items have triggers."""
ITEMS: dict[str, dict[str, Any]] = {
    "waits": {"status": "not_started", "size": 3},
    "held": {"status": "started", "worker_id": "w"},
    "held too": {"status": "started", "worker_id": "w"},
    "spent": {"status": "started", "worker_id": "w", "locked_until": "+5s", "max_attempts": 1},
    "due": {"status": "scheduled", "scheduled_at": "+5s"},
    "plain": {"status": "review"},
}
TAKES = {"consumer": "r1", "limit": 100, "idle_ms": 0, "dead_ms": 60_000, "look": True, "own": None}
QUERY = {
    "verb": "query",
    "key": OTHER,
    "label": "",
    "lex": True,
    "where": [],
    "limit": 9,
    "budget": 99,
    "generation": 0,
}
INDEXES: dict[Any, Any] = {
    f"x:{name}": Index(name, kind).pack() for name, kind in (("size", "number"), ("kind", "string"))
}
"""Of the key that is spoilt; the second is not complete."""

RESTORED = {"v": "3", "ca": "5", "ua": "5", "s": "done", "c": b"\xc0"}

GROWS = ("backfill", "create", "patch", "restore")
DRAINS = ("claim", "create_drain", "delete", "patch_drain", "settle")
READS = ("depth", "find", "names", "outlook", "stats")
LOOKS_AFTER = ("claim", "sweep")
"""Scripts that promote and bury: they pass over items of a wrong type (tests/lua), and note when to look again."""
NEEDED = {
    "backfill": "builds cfg:other k:other x:other:size",
    "backfill_drain": "builds cfg:other k:other x:other:size",
    "claim": "cfg:other k:other outbox r s:other:failed s:other:not_started s:other:scheduled s:other:started",
    "configure": "builds cfg:other k:other",
    "create": "cfg:other i:other:new k:other outbox r s:other:done",
    "create_drain": "cfg:other i:other:new k:other outbox r s:other:done",
    "delete": "cfg:other i:other:plain k:other outbox r s:other:review",
    "depth": "",
    "find": "cfg:other i:other:plain k:other s:other:review",
    "inspect": "",
    "names": "",
    "once": "once:other",
    "outlook": "",
    "patch": "cfg:other i:other:plain k:other outbox r s:other:done s:other:review",
    "patch_drain": "cfg:other i:other:plain k:other outbox r s:other:review s:other:started",
    "relay_done": "outbox",
    "relay_take": "outbox",
    "relay_turn": "",
    "restore": "cfg:other i:other:new k:other r s:other:done",
    "settle": "cfg:other i:other:held k:other outbox r s:other:completed s:other:started",
    "stats": "",
    "sweep": "cfg:other due k:other r s:other:failed s:other:not_started s:other:scheduled s:other:started",
}
INDEXED = ("claim", "create", "create_drain", "delete", "find", "patch", "patch_drain", "restore", "settle", "sweep")
"""Scripts that cannot do without the declared indexes of the key either."""
"""What each script cannot do without: its other keys may be of any type."""


async def write(connection: Connection, script: str, operations: list[Any]) -> list[Any]:
    """Run packed operations in one call -> their outcomes."""
    outcomes: list[Any] = unpack_answer(await connection.send(script, 0, operations))
    return outcomes


@dataclass
class Bench:
    """Items of two keys, the same each time: the calls that make them are the same, and so are their tokens."""

    raw: aioredis.Redis
    datastore: Datastore
    clock: Clock
    made: list[Call] = field(default_factory=list)
    asked: dict[str, list[Call]] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)

    async def fill(self) -> Snapshot:
        """Fill an emptied store."""
        await self.raw.flushall()
        self.clock.ms = NOW_MS
        await self.raw.hset(f"{TAG}:cfg:{OTHER}", mapping=INDEXES)
        answers = await write(self.datastore.connection, "create", [call.pack(Known()) for call in self.made])
        await self.raw.hset(f"{TAG}:builds", f"{OTHER}\0kind", "")
        self.clock.advance(10)
        self.events = [stream_id for stream_id, _ in await self.raw.xrange(f"{TAG}:outbox") or []]
        if not self.asked:
            names = [(call.key, call.sort_field) for call in self.made]
            tokens = {
                name: (shown.get(b"tk") or b"").decode() for name, (_, shown, *_) in zip(names, answers, strict=True)
            }
            self.asked = calls_of(self.datastore, tokens)
        return await snapshot(self.raw)

    async def ask(self, script: str) -> Any:
        """Run a script as the engine does -> its answer."""
        connection = self.datastore.connection
        if script in self.asked:
            return await write(connection, script, [call.pack(Known()) for call in self.asked[script]])
        return await connection.read(script, 0, self.request(script))

    def request(self, script: str) -> Any:
        match script:
            case "backfill":
                return {"work": 1000}
            case "backfill_drain":
                return {"work": 0, "key": OTHER}
            case "configure":
                return {"key": OTHER, "set": {"max_attempts": "1"}, "unset": []}
            case "find":
                return [
                    {"verb": "get", "key": OTHER, "sort": "plain"},
                    *({**QUERY, "label": label, "lex": label == ""} for label in ("", "review", "\0size")),
                ]
            case "depth":
                return {"keys": [KEY, OTHER]}
            case "outlook":
                return {"tags": [self.datastore.connection.tag(0)], "key": OTHER}
            case "inspect":
                items = [f"{key}:{name}" for key in (KEY, OTHER) for name in ITEMS]
                return {"verb": "items", "repair": True, "work": 999, "names": items}
            case "names":
                return {"cursor": "0", "like": "[^o]*"}
            case "once":
                return {"id": OTHER, "body": b"asked", "keep_ms": 9000}
            case "stats":
                return {"prefix": "", "cursor": "0"}
            case "sweep":
                return {"work": 1000, "places": {}, "passed": [], "outbox_max": 1000}
            case "relay_take":
                return TAKES
            case "relay_done":
                return {"ids": self.events}
            case "relay_turn":
                return {"key": OTHER, "sort": "plain", "url": "http://h/", "id": "1-1", "ended": None, "keep": 1000}
        raise AssertionError(f"nobody has said how {script} is asked")

    def refused(self, script: str, answer: Any) -> set[str]:
        """The keys of which the answer says that they are corrupt."""
        match script:
            case "find":
                corrupt = any(word == b"corrupt" for word, *_ in answer)
            case "backfill" | "backfill_drain":
                corrupt = answer[0] == b"corrupt" or any(left is False for _, left in answer[1])
            case "configure" | "once":
                corrupt = answer[0] == b"corrupt"
            case "relay_take":
                corrupt = answer[b"corrupt"]
            case "sweep" if answer.get(b"unreadable"):
                return {KEY, OTHER}
            case "sweep":
                return {key.decode() for key in answer[b"corrupt"]}
            case "depth" | "inspect" | "names" | "outlook" | "stats" | "relay_done" | "relay_turn":
                corrupt = False
            case _:
                words = [(call.key, answer[0]) for call, answer in zip(self.asked[script], answer, strict=True)]
                assert {word for _, word in words} <= {b"ok", b"corrupt"}
                assert len(set(words)) == 2, "the same word for all calls of a key"
                return {key for key, word in words if word == b"corrupt"}
        return {OTHER} if corrupt else set()


def calls_of(datastore: Datastore, tokens: dict[tuple[str, str], str]) -> dict[str, list[Call]]:
    """For each script with operations: one on the key that is spoilt, between two on the other key."""
    calls = datastore.calls
    new: dict[str, Any] = {"metadata": {"status": "done"}}
    started = {"status": "started", "worker_id": "v"}
    creates = [
        calls.create(KEY, "new", **new),
        calls.create(OTHER, "new", **new, trigger_urls=CALLING),
        calls.create(KEY, "new too", **new),
    ]
    updates = [
        calls.update(KEY, "plain", metadata={"status": "done"}),
        calls.update(OTHER, "plain", metadata={"status": "done"}),
        calls.update(KEY, "waits", content=1),
    ]
    claim: dict[str, Any] = {"worker_id": "v", "limit": 9, "triggers": "on"}
    return {
        "create": creates,
        "create_drain": [structs.replace(call, script="create_drain") for call in creates],
        "restore": [
            structs.replace(call, script="restore", request=call.request | {"set": RESTORED}) for call in creates
        ],
        "patch": updates,
        "patch_drain": [
            calls.update(KEY, "plain", metadata=started),
            calls.update(OTHER, "plain", metadata=started),
            calls.update(KEY, "waits", metadata=started),
        ],
        "delete": [calls.delete(KEY, "plain"), calls.delete(OTHER, "plain"), calls.delete(KEY, "waits")],
        "claim": [calls.claim(KEY, **claim), calls.claim(OTHER, **claim), calls.claim(KEY, **claim)],
        "settle": [
            calls.complete(KEY, "held", tokens[KEY, "held"]),
            calls.complete(OTHER, "held", tokens[OTHER, "held"], triggers="on"),
            calls.extend(KEY, "held too", tokens[KEY, "held too"]),
        ],
    }


def without(store: Snapshot, spoilt: str) -> Snapshot:
    return {name: value for name, value in store.items() if name != spoilt}


def of_key(store: Snapshot, key: str) -> Snapshot:
    """What a partition holds of a key: keys of its own, and its part of what it shares with others."""
    mine = {name: value for name, value in store.items() if f":{key}" in name}
    mine["r"] = {entry for entry in store.get("r", ()) if entry.startswith(f"{key}\0")}
    mine["due"] = store.get("due", {}).get(key)
    mine["outbox"] = [event for event in store.get("outbox", ()) if event["key"] == key.encode()]
    return mine


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStore]:
    """A store of these tests alone, for they change its configuration, and one that others can follow."""
    async with listening(tmp_path_factory.mktemp("store")) as store:
        yield store


@asynccontextmanager
async def listening(data: Path) -> AsyncIterator[EmbeddedStore]:
    config = [f"port {free_port()}", "bind 127.0.0.1", "repl-diskless-sync-delay 0"]
    async with EmbeddedStore(data, fsync="no", extra_config=config) as store:
        yield store


@pytest_asyncio.fixture(loop_scope="session")
async def bench(raw: aioredis.Redis, datastore: Datastore, clock: Clock) -> Bench:
    bench = Bench(raw, datastore, clock)
    for key in (KEY, OTHER):
        bench.made += [
            datastore.calls.create(key, name, metadata=metadata, trigger_urls=CALLING if key == OTHER else None)
            for name, metadata in ITEMS.items()
        ]
    return bench


# Keys of a wrong type


@pytest.mark.parametrize("script", library().scripts)
async def test_what_needs_a_key_of_a_wrong_type_writes_nothing(bench: Bench, script: str) -> None:
    """And the calls on other keys beside it are done, and those that can do without it."""
    before = await bench.fill()
    await bench.ask("sweep")
    swept = await snapshot(bench.raw)
    await bench.fill()
    assert bench.refused(script, await bench.ask(script)) == set()
    whole = await snapshot(bench.raw)
    needed = set()
    for name in sorted(before.keys() | whole.keys() | {f"cfg:{OTHER}", f"n:{OTHER}"}):
        if f":{KEY}" in name or (script in LOOKS_AFTER and name.startswith("i:")):
            continue
        await bench.fill()
        await Scripts(bench.raw, bench.datastore, bench.clock).spoil(name)
        refused = await refusals(bench, script)
        needed |= {name} if refused else set()
        after = await snapshot(bench.raw)
        assert after.get(name) == b"spoilt", f"{name} was replaced"
        for key in (KEY, OTHER):
            expected = whole if key not in refused else swept if script == "claim" and name == "outbox" else before
            wrong = of_key(without(expected, name), key), of_key(without(after, name), key)
            if key in refused and script in LOOKS_AFTER:
                wrong[0].pop("due"), wrong[1].pop("due")
            assert wrong[0] == wrong[1], f"{key} with {name} spoilt"
    assert needed == {*NEEDED[script].split(), *(["x:other:size"] if script in INDEXED else [])}


async def refusals(bench: Bench, script: str) -> set[str]:
    try:
        return bench.refused(script, await bench.ask(script))
    except HooklineError as error:
        if script in ("relay_done", "relay_turn") and "WRONGTYPE" in str(error):
            return {OTHER}
        raise


@pytest.mark.parametrize("script", [script for script in library().scripts if "call_id" in load(script).args])
async def test_outcomes_of_a_wrong_type_are_an_error(bench: Bench, script: str) -> None:
    """No call can have kept them there."""
    before = await bench.fill()
    await bench.raw.rpush(f"{TAG}:o:lost", "spoilt")
    with pytest.raises(aioredis.ResponseError, match="WRONGTYPE"):
        await Scripts(bench.raw, bench.datastore, bench.clock).answer(bench.asked[script], call_id="lost")
    assert await snapshot(bench.raw) == before


# At the memory limit


@pytest.mark.parametrize("script", library().scripts)
async def test_at_the_memory_limit_only_what_grows_is_refused(bench: Bench, script: str) -> None:
    await bench.fill()
    whole_answer, whole = await bench.ask(script), await snapshot(bench.raw)
    before = await bench.fill()
    await bench.raw.config_set("maxmemory", "1")
    try:
        if script in GROWS:
            with pytest.raises(StoreFull):
                await bench.ask(script)
        else:
            answer = await bench.ask(script)
            # These show ids of the outbox, which are of the store's own clock.
            assert script.startswith(("relay", "depth")) or comparable(answer) == comparable(whole_answer)
        after = await snapshot(bench.raw)
    finally:
        await bench.raw.config_set("maxmemory", "0")
    assert after == (before if script in GROWS else whole)
    await check_invariants(bench.raw)


def comparable(answer: Any) -> Any:
    """Fields of an item are in no order, and pages of a registry neither."""
    if isinstance(answer, list):
        return sorted(map(comparable, answer), key=repr)
    if isinstance(answer, dict):
        return {name: comparable(value) for name, value in sorted(answer.items())}
    return answer


@pytest.mark.parametrize("script", DRAINS)
async def test_at_the_memory_limit_the_answers_of_what_drains_are_kept(bench: Bench, script: str) -> None:
    await bench.fill()
    view = bench.datastore.once("k", body=b"")
    assert view.marks
    marked = [view.marks.mark(call, place).pack(Known()) for place, call in enumerate(bench.asked[script])]
    await bench.raw.config_set("maxmemory", "1")
    try:
        first = await write(bench.datastore.connection, script, marked)
        after = await snapshot(bench.raw)
        again = await write(bench.datastore.connection, script, marked)
    finally:
        await bench.raw.config_set("maxmemory", "0")
    assert [answer[0] for answer in first] == [answer[0] for answer in again] == [b"ok"] * len(marked)
    made = [not answer[2] or answer[2].get(b"items", True) for answer in first]
    assert [bool(answer[2] and answer[2].get(b"replayed")) for answer in again] == [*map(bool, made)]
    assert await snapshot(bench.raw) == after


# On a replica


async def test_on_a_replica_reads_work_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    """The store that the engine is connected to has become a replica: another one was promoted."""
    before = await bench.fill()
    answers = {script: await bench.ask(script) for script in READS}
    async with promoted_beside(bench.raw, tmp_path):
        for script in library().scripts:
            if script in READS:
                assert comparable(await bench.ask(script)) == comparable(answers[script])
                continue
            with pytest.raises(Unavailable, match="cannot take writes now"):
                await bench.ask(script)
            assert await snapshot(bench.raw) == before
        with pytest.raises(Unavailable, match="cannot take writes now"):
            await bench.datastore.create(KEY, "new")
        assert (await bench.datastore.get(KEY, "plain")).version == 1
        again = Datastore(url_of(bench.raw), bench.datastore.settings, SecretBox(bytes(32)))
        with pytest.raises(Unavailable, match="cannot take writes now"):
            await again.open()
    await bench.datastore.create(KEY, "new")


def url_of(raw: aioredis.Redis) -> str:
    return f"unix://{raw.connection_pool.connection_kwargs['path']}"


@asynccontextmanager
async def promoted_beside(raw: aioredis.Redis, data: Path) -> AsyncIterator[None]:
    """Another server follows this one and is then promoted; this one follows it in turn, as long as this lasts."""
    async with listening(data / "other") as store, aioredis.Redis.from_url(store.url, protocol=2) as other:
        await follow(other, raw)
        await other.replicaof("NO", "ONE")
        await follow(raw, other)
        yield
        await raw.replicaof("NO", "ONE")


async def follow(replica: aioredis.Redis, primary: aioredis.Redis) -> None:
    await replica.replicaof("127.0.0.1", (await primary.config_get("port"))["port"])

    async def linked() -> bool:
        return bool((await replica.info("replication"))["master_link_status"] == "up")

    await wait_until(linked, seconds=30)
