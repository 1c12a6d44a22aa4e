"""The settings of a key: forms, flaws, and what they change in every partition."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import pytest
import redis.asyncio as aioredis

from hookline import Datastore, SecretBox
from hookline.codec import encode_triggers
from hookline.errors import Invalid, OutcomeUnknown
from hookline.item import FLAWS_MAX
from hookline.keys import partition_tag
from hookline.keysettings import decode_settings, encode_backoff, encode_settings

PARTITIONS = 4
pytestmark = pytest.mark.settings(partitions=PARTITIONS)


SHOWN = {
    "max_attempts": "maxAttempts",
    "lock_for": "lockFor",
    "max_length": "maxLength",
    "record_deliveries": "recordDeliveries",
    "trigger_urls": "triggerUrls",
}
seal = partial(encode_triggers, secrets=SecretBox(bytes(32)), owner=b"")


def outside(changes: dict[str, Any]) -> dict[str, Any]:
    """The same by the names that settings have outside."""
    return {SHOWN.get(name, name): value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, {}),
        ({"max_attempts": 0}, {}),
        ({"max_attempts": 3, "lock_for": "90s", "paused": True}, {}),
        ({"lock_for": 30}, {"lock_for": "30s"}),
        ({"backoff": "30s"}, {}),
        ({"backoff": ["1s", "10s", 60]}, {"backoff": ["1s", "10s", "1m"]}),
        ({"backoff": {"first": "1s", "longest": "2h"}}, {}),
        ({"record_deliveries": True}, {}),
        ({"max_length": 8}, {}),
        ({"max_length": 9}, {"max_length": 12}),
        ({"indexes": {}}, {}),
        ({"indexes": {"createdAt": "time", "customer.id": "string", "size": "number"}}, {}),
        ({"retention": {"completed": {"age": "7d", "count": 100}, "failed": {"age": "90s"}}}, {}),
        ({"retention": {"completed": {"count": 2}}}, {"retention": {"completed": {"count": 4}}}),
        (
            {"trigger_urls": {"http://w.example/": "k"}},
            {
                "trigger_urls": [
                    {"url": "http://w.example/", "events": ["created", "updated", "deleted"], "hasApiKey": True}
                ]
            },
        ),
        ({"trigger_urls": [{"url": "http://w.example/", "events": ["deleted"], "hasApiKey": False}]}, {}),
    ],
)
def test_round_trip(changes: dict[str, Any], shown: dict[str, Any]) -> None:
    values, gone = encode_settings(changes, PARTITIONS, seal)
    fields = {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in values.items()}
    defaults = {
        "maxAttempts": 10, "lockFor": "10m", "backoff": {"first": "5s", "longest": "1h"}, "paused": False,
        "maxLength": None, "indexes": {}, "retention": {}, "recordDeliveries": False, "triggerUrls": [],
        "generation": 0,
    }  # fmt: skip
    assert decode_settings(fields, PARTITIONS).to_dict() == defaults | outside(changes | shown)
    assert len(gone) == len(changes.keys() - {"trigger_urls"})  # which keep their API keys


def test_none_brings_the_default_back() -> None:
    names = (
        "max_attempts",
        "lock_for",
        "backoff",
        "paused",
        "max_length",
        "indexes",
        "retention",
        "record_deliveries",
        "trigger_urls",
    )
    gone = ["max_attempts", "lock_ms", "backoff", "paused", "length_max", "x:*", "keep:*", "record_deliveries", "t"]
    assert encode_settings(dict.fromkeys(names), PARTITIONS, seal) == ({}, gone)
    assert encode_settings({"paused": False}, PARTITIONS, seal) == ({}, ["paused"])


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"max_attempts": -1}, "/maxAttempts"),
        ({"max_attempts": True}, "/maxAttempts"),
        ({"max_attempts": "3"}, "/maxAttempts"),
        ({"lock_for": 0}, "/lockFor"),
        ({"lock_for": "soon"}, "/lockFor"),
        ({"paused": 1}, "/paused"),
        ({"record_deliveries": "yes"}, "/recordDeliveries"),
        ({"max_length": 0}, "/maxLength"),
        ({"max_length": 1.5}, "/maxLength"),
        ({"backoff": []}, "/backoff"),
        ({"backoff": ["1s"] * 65}, "/backoff"),
        ({"backoff": "soon"}, "/backoff"),
        ({"backoff": {"first": "1s"}}, "/backoff"),
        ({"backoff": {"first": "2s", "longest": "1s"}}, "/backoff"),
        ({"backoff": {"first": 0, "longest": "1s"}}, "/backoff"),
        ({"backoff": {"first": None, "longest": "1s"}}, "/backoff/first"),
        ({"indexes": ["size"]}, "/indexes"),
        ({"indexes": {f"f{n}": "number" for n in range(9)}}, "/indexes"),
        ({"indexes": {f"f{n}": "float" for n in range(9)}}, "/indexes"),
        ({"indexes": {"size": "float"}}, "/indexes/size"),
        ({"indexes": {"a/b": None}}, "/indexes/a~1b"),
        ({"indexes": {"": "string"}}, "/indexes/"),
        ({"indexes": {"metadata.type": "string"}}, "/indexes/metadata.type"),
        ({"indexes": {"status": "string"}}, "/indexes/status"),
        ({"indexes": {"sortField": "string"}}, "/indexes/sortField"),
        ({"indexes": {"createdAt": "number"}}, "/indexes/createdAt"),
        ({"indexes": {"worker_id": "time"}}, "/indexes/worker_id"),
        ({"retention": "7d"}, "/retention"),
        ({"retention": {"started": {"age": "7d"}}}, "/retention/started"),
        ({"retention": {"failed": "7d"}}, "/retention/failed"),
        ({"retention": {"failed": {}}}, "/retention/failed"),
        ({"retention": {"failed": {"ages": "7d"}}}, "/retention/failed"),
        ({"retention": {"failed": {"age": "soon"}}}, "/retention/failed/age"),
        ({"retention": {"failed": {"count": -1}}}, "/retention/failed/count"),
        ({"trigger_urls": ["http://w.example/"]}, "/triggerUrls/0"),
    ],
)
async def test_every_flaw_is_named_and_nothing_changed(
    datastore: Datastore, changes: dict[str, Any], pointer: str
) -> None:
    other = {"max_attempts": -2} if pointer != "/maxAttempts" else {"lock_for": -1}
    with pytest.raises(Invalid) as refused:
        await datastore.configure("jobs", **changes, **other)
    assert {flaw.pointer for flaw in refused.value.flaws} == {pointer, *(f"/{name}" for name in outside(other))}
    assert (await datastore.key_settings("jobs")).generation == 0


async def test_of_very_many_flaws_some_are_named(datastore: Datastore) -> None:
    with pytest.raises(Invalid) as refused:
        await datastore.configure("jobs", retention={f"status {n}": {"age": "7d"} for n in range(1000)})
    assert [flaw.pointer for flaw in refused.value.flaws] == [f"/retention/status {n}" for n in range(FLAWS_MAX)]


@pytest.mark.parametrize(
    ("backoff", "text"),
    [
        ("30s", "list 30000"),
        (0, "list 0"),
        ([1, "2s"], "list 1000,2000"),
        ({"first": 1, "longest": "1m"}, "exponential 1000 60000"),
    ],
)
def test_backoff(backoff: Any, text: str) -> None:
    assert encode_backoff(backoff, "/backoff") == text


async def test_a_change_reaches_partitions_that_are_ahead(datastore: Datastore, raw: aioredis.Redis) -> None:
    for tries in (2, 3):
        await datastore.configure("jobs", max_attempts=tries)
    names = [f"{partition_tag('default', each, PARTITIONS)}:cfg:jobs" for each in range(PARTITIONS)]
    lost: dict[Any, Any] = await raw.hgetall(names[0])
    for since in (1, 2):
        await datastore.configure("jobs", max_attempts=7, record_deliveries=True)
        if since == 2:
            await datastore.configure("jobs", record_deliveries=None)
        await raw.delete(names[0])
        await raw.hset(names[0], mapping=lost)
        changed = await datastore.configure("jobs", lock_for="1m")
        assert (changed.max_attempts, changed.lock_ms, changed.record_deliveries) == (7, 60_000, since == 1)
        first, *others = [await raw.hgetall(name) for name in names]
        assert others == [first] * 3
        await datastore.configure("jobs", lock_for="2m")
    await raw.delete(names[0])
    assert (await datastore.key_settings("jobs")).max_attempts == 7
    assert await raw.hgetall(names[0]) == await raw.hgetall(names[3])


async def test_changes_at_once_after_the_first_partition_lost_some_are_all_kept(
    datastore: Datastore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{partition_tag('default', each, PARTITIONS)}:cfg:jobs" for each in range(PARTITIONS)]
    changes: list[dict[str, Any]] = [
        {"lock_for": "4s"},
        {"paused": True},
        {"backoff": "4s"},
        {"record_deliveries": True},
    ]
    chance = random.Random(5)

    def late(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def asked(*args: Any) -> Any:
            await asyncio.sleep(chance.random() * 0.004)
            answer = await ask(*args)
            await asyncio.sleep(chance.random() * 0.004)
            return answer

        return asked

    async def configure(change: Mapping[str, Any]) -> None:
        await asyncio.sleep(chance.random() * 0.03)
        await datastore.configure("jobs", **change)

    for name in ("read", "change"):
        monkeypatch.setattr(datastore.connection, name, late(getattr(datastore.connection, name)))
    for lost in (*range(1, 9), *range(1, 9)):
        await raw.delete(*names)
        await datastore.configure("jobs", max_attempts=3)
        left: dict[Any, Any] = await raw.hgetall(names[0])
        for each in range(lost):
            await datastore.configure("jobs", max_length=400 + PARTITIONS * each)
        await raw.delete(names[0])
        await raw.hset(names[0], mapping=left)
        await asyncio.gather(*map(configure, changes))
        first, *others = [await raw.hgetall(name) for name in names]
        assert others == [first] * 3
        assert {b"max_attempts", b"lock_ms", b"paused", b"backoff", b"record_deliveries"} < set(first)
        assert first[b"length_max"] == b"%d" % (99 + lost)


async def test_a_change_that_is_lost_before_it_has_spread_is_not_acknowledged(
    datastore: Datastore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partition fails over to a replica that has not heard of it, and then another change comes."""
    await datastore.configure("jobs", max_attempts=3)
    name = f"{partition_tag('default', 0, PARTITIONS)}:cfg:jobs"
    left: dict[Any, Any] = await raw.hgetall(name)
    written, change = asyncio.Event(), datastore.connection.change

    async def fail_over(*args: Any) -> Any:
        answer = await change(*args)
        if not written.is_set():
            written.set()
            await raw.delete(name)
            await raw.hset(name, mapping=left)
            await datastore.configure("jobs", max_attempts=4)
        return answer

    monkeypatch.setattr(datastore.connection, "change", fail_over)
    with pytest.raises(OutcomeUnknown, match="ask for the key's settings"):
        await datastore.configure("jobs", lock_for="4s")
    found = await datastore.key_settings("jobs")
    assert (found.max_attempts, found.lock_ms) == (4, 600_000)
