"""Each call of the store that a verb makes fails before it has run or after, or runs twice.

However many calls a verb makes and of which kind: they are counted on the wire. The effect is one or none, and what the
caller is told is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from msgspec import structs

from conftest import NOW_MS, Clock
from faults.verbs import VERBS, Bench, Verb, prepare
from hookline import Claimed, Datastore, EmbeddedStore, Item, Outcome, SecretBox, Settings
from hookline.codec import unpack_answer
from hookline.errors import HooklineError, OutcomeUnknown, Refused, Unavailable
from hookline_lua import library
from invariants import Entry, check_keyspace, read_keyspace
from proxy import LOSE_CALL, LOSE_REPLY, LOSE_STORE, TWICE_FIRST, TWICE_LAST, Proxy, proxied

Store = dict[str, Any]
LOSING = ("create", "claim of many", "exchange", "run of many", "configure", "bulk cancel")
"""Verbs that are played also with a store that does not come back: it takes them two timeouts to give up."""
_DIFFERS = re.compile(rb"(?<=\d\.)[0-9a-f]{16}-\d+|\d{13}-\d+")
"""What no two runs have in common: marks of tokens, and ids of events."""


@dataclass
class Played:
    """What became of a verb: its answer or error, the store before and after it, the commands that it sent, and
    whether the fault befell one of them.
    """

    bench: Bench
    answer: Any
    error: HooklineError | None
    before: Store
    after: Store
    commands: list[bytes]
    befell: bool
    in_the_end: Store | None = None


@dataclass
class Stage:
    """Plays verbs, each on a store filled anew, and over new connections."""

    raw: aioredis.Redis
    proxy: Proxy
    settings: Settings
    clock: Clock
    datastore: Datastore

    async def play(self, verb: Verb, fault: bytes = b"", place: int = 0) -> Played:
        """Run a verb; the fault befalls the command at this place. Undisturbed, what was before is noted."""
        await self.raw.flushall()
        self.clock.ms = NOW_MS  # a datastore that opens writes it down
        self.proxy.store_lost = False
        if verb.partitions == 1 and not verb.leaves:
            return await self.play_on(self.datastore, verb, fault, place)
        settings = replace(self.settings, partitions=verb.partitions)
        async with Datastore(self.proxy.url, settings, SecretBox(bytes(32)), now_ms=self.clock) as datastore:
            return await self.play_on(datastore, verb, fault, place)

    async def play_on(self, datastore: Datastore, verb: Verb, fault: bytes, place: int) -> Played:
        bench = await prepare(datastore, self.clock, verb.crowd)
        before = None if fault else facts(await read_keyspace(self.raw))
        await self.proxy.cut()
        if verb.flushed:
            await self.raw.function_flush()
        self.proxy.commands.clear()
        self.proxy.fault_at = {place: fault}
        answer, error = await told(verb, bench)
        befell = place not in self.proxy.fault_at
        self.proxy.fault_at.clear()
        if verb.flushed:
            await self.raw.function_load(library().source, replace=True)
        keyspace = await read_keyspace(self.raw)
        check_keyspace(keyspace)
        assert {item.token for item in items(answer) if item.token} <= tokens(keyspace)
        played = Played(bench, answer, error, before or {}, facts(keyspace), self.proxy.commands[:], befell)
        if type(error) is Unavailable and fault != LOSE_STORE:
            await self.repeat(verb, played)
        return played

    async def repeat(self, verb: Verb, played: Played) -> None:
        """Who is told that nothing happened runs it again."""
        _, error = await told(verb, replace(played.bench, done=0))
        assert error is None
        played.in_the_end = facts(await read_keyspace(self.raw))

    async def at_each_call(self, name: str, *faults: bytes) -> list[Played]:
        """Play a verb once undisturbed; then, for each command that it sent then, with each of the faults there."""
        verb = VERBS[name]
        whole = await self.play(verb)
        assert b"FCALL" in whole.commands
        assert whole.error is None
        faulty = []
        for fault, place in product(faults, range(len(whole.commands))):
            played = await self.play(verb, fault, place)
            try:
                check(verb, whole, played, unknown_allowed=fault == LOSE_STORE)
            except AssertionError as error:
                error.add_note(f"{name}: {fault.decode()} at command {place} of {played.commands}")
                raise
            # Calls at the same time may come to share a connection, which saves the commands that begin one.
            assert played.befell or place > whole.commands.index(b"FCALL")
            faulty.append(played)
        return faulty


async def told(verb: Verb, bench: Bench) -> tuple[Any, HooklineError | None]:
    """A verb's answer, a refusal among them; or the failure of the store."""
    try:
        return await verb.run(bench), None
    except Refused as refusal:
        return (type(refusal), refusal.item), None
    except (Unavailable, OutcomeUnknown) as error:
        # The calls on other partitions come to their end behind it.
        left = [task for task in asyncio.all_tasks() if re.search(r"(Datastore|Upkeep)\._", repr(task.get_coro()))]
        await asyncio.gather(*left, return_exceptions=True)
        return None, error


def facts(keyspace: dict[bytes, Entry]) -> Store:
    """The whole store but the outcomes of calls and the records of answers, without what no two runs have in common."""
    return {
        name.decode(): _plain(entry.value)
        for name, entry in keyspace.items()
        if b":o:" not in name and b":once:" not in name and not name.endswith(b":meta")
    }


def tokens(keyspace: dict[bytes, Entry]) -> set[str]:
    """The tokens that the store has."""
    stored = [entry.value for name, entry in keyspace.items() if b"}:i:" in name]
    return {fields[b"tk"].decode() for fields in stored if b"tk" in fields}


def _plain(value: Any) -> Any:
    if isinstance(value, list):  # the order of events of different items is nobody's business
        return sorted((_plain(fields) for _, fields in value), key=lambda event: (event[b"key"], event[b"sort"]))
    if isinstance(value, dict):
        return {name: _plain_field(name, stored) for name, stored in value.items()}
    return value


def _plain_field(name: bytes, stored: Any) -> Any:
    return unpack_answer(stored) if name in (b"before", b"after", b"triggers") else shown(stored)


def shown(answer: Any) -> Any:
    """An answer, or what is stored, without what no two runs have in common."""
    match answer:
        case Item():
            return structs.replace(answer, token=None)
        case Outcome():
            return structs.replace(answer, item=shown(answer.item))
        case Claimed():
            return structs.replace(answer, items=shown(answer.items))
        case tuple() | list():
            return [shown(each) for each in answer]
        case bytes():
            return _DIFFERS.sub(b"", answer)
    return answer


def parts(answer: Any) -> list[Any]:
    """The outcomes and claims that an answer has of many operations, or of one."""
    if isinstance(answer, tuple | list):
        return [part for each in answer for part in parts(each)]
    return [answer] if isinstance(answer, Outcome | Claimed) else []


def items(answer: Any) -> list[Item]:
    """The items that an answer shows."""
    shown = [part.items if isinstance(part, Claimed) else [part.item] for part in parts(answer)]
    return [item for each in shown for item in each if item]


def versions(answer: Any) -> dict[str, int | None]:
    """The version of each item that an answer says it has made."""
    made = {part.sort_field: part.version for part in parts(answer) if isinstance(part, Outcome) and part.ok}
    claimed = [item for part in parts(answer) if isinstance(part, Claimed) for item in part.items]
    return made | {item.sort_field: item.version for item in claimed}


def items_of(store: Store) -> dict[str, dict[bytes, Any]]:
    """The items of a store, by sortField: no two keys have the same here."""
    return {name.rpartition(":")[2]: fields for name, fields in store.items() if "}:i:" in name}


def check(verb: Verb, whole: Played, played: Played, *, unknown_allowed: bool) -> None:
    """The effect is the whole one, none, or just as much of it as the caller was told."""
    failures = [part.failure for part in parts(played.answer) if part.failure]
    failures += [played.error] if played.error else []
    unknown = any(isinstance(failure, OutcomeUnknown) for failure in failures)
    assert unknown_allowed or not unknown
    if not failures:
        assert shown(played.answer) == shown(whole.answer)
        assert played.after == whole.after
    elif verb.harmless:
        check_parts(whole, played, unknown=True)
    elif played.error and not unknown and not played.bench.done:
        assert played.after == whole.before
    else:
        check_parts(whole, played, unknown=unknown)
    if played.in_the_end:
        assert played.in_the_end == whole.after


def check_parts(whole: Played, played: Played, *, unknown: bool) -> None:
    """Each item is as the caller was told, and if it was told nothing, as before.

    It may be as it was to become if that is unknown, or if it is nothing that the caller is told of.
    """
    before, after, in_the_end = items_of(whole.before), items_of(played.after), items_of(whole.after)
    told_now, told_then = versions(played.answer), versions(whole.answer)
    for name in before.keys() | after.keys():
        if name in told_now:
            assert after.get(name, {}).get(b"v") == (str(told_now[name]).encode() if name in in_the_end else None)
        elif unknown or name not in told_then:
            assert after.get(name) in (before.get(name), in_the_end.get(name))
        else:
            assert after.get(name) == before.get(name)
    done = played.bench.done
    changed = sum(after.get(name) != before[name] for name in before)
    assert not done or changed == done or (unknown and changed > done)


@contextlib.asynccontextmanager
async def staging(store: EmbeddedStore, call_timeout: float) -> AsyncIterator[Stage]:
    settings, clock = replace(Settings(), call_timeout=call_timeout), Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hookline.subscription.RECONNECT", 0.05)
        patch.setattr("hookline.meta.LOOK", math.inf)  # it would write back what is emptied here
        async with aioredis.Redis.from_url(store.url, protocol=2) as raw, proxied(store.url) as proxy:
            await raw.flushall()  # the verb before may have left more partitions
            async with Datastore(proxy.url, settings, SecretBox(bytes(32)), now_ms=clock) as datastore:
                yield Stage(raw, proxy, settings, clock, datastore)
            await raw.flushall()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(store: EmbeddedStore) -> AsyncIterator[Stage]:
    async with staging(store, 2.0) as stage:
        yield stage


@pytest.mark.parametrize("verb", VERBS)
async def test_fails_before_it_has_run(stage: Stage, verb: str) -> None:
    await stage.at_each_call(verb, LOSE_CALL)


@pytest.mark.parametrize("verb", VERBS)
async def test_its_reply_is_lost(stage: Stage, verb: str) -> None:
    await stage.at_each_call(verb, LOSE_REPLY)


@pytest.mark.parametrize("verb", VERBS)
async def test_runs_twice(stage: Stage, verb: str) -> None:
    for played in await stage.at_each_call(verb, TWICE_FIRST, TWICE_LAST):
        assert played.error is None


@pytest.mark.parametrize("verb", LOSING)
async def test_its_reply_is_lost_and_the_store_with_it(store: EmbeddedStore, verb: str) -> None:
    """Then nobody can say; but a call that was never sent is told as such."""
    async with staging(store, 0.2) as stage:
        errors = {type(played.error) for played in await stage.at_each_call(verb, LOSE_STORE)}
    assert Unavailable in errors
