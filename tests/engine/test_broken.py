"""Items whose hash can be no item: each verb says so of that one, and does for the others what it was asked."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import Clock, wait_until
from hookline import Datastore, bulk, codec
from hookline.doctor import examine
from hookline.errors import Corrupt, NotFound
from hookline.transfer import export, restore
from scripts import TAG

pytestmark = pytest.mark.spoils
KEY, ITEM = "jobs", f"{TAG}:i:jobs:b"
UNSEEN: list[tuple[str, bytes | None]] = [
    ("c", b"\xc1"),
    ("c", b"\x91" * 2000),
    ("m:n", b"\xc1"),
    ("ca", b"9" * 17),
    ("t", b"\xc1"),
    ("le", b"\xff"),
]
"""What the scripts do not read, and we do."""
RECKONED: list[tuple[str, bytes | None]] = [
    ("v", b"x"),
    ("v", None),
    ("a", b"x"),
    ("p", b"x"),
    ("sd", b"nan"),
    ("cr", b"-inf"),
]
"""What the scripts reckon with."""


async def break_one(datastore: Datastore, raw: aioredis.Redis, field: str, stored: bytes | None, **more: Any) -> None:
    """Three items in line, of which the second is broken."""
    for name in "abc":
        await datastore.create(KEY, name, content=name, metadata={"status": "not_started", **more})
    await (raw.hdel(ITEM, field) if stored is None else raw.hset(ITEM, field, stored))


@pytest.mark.parametrize(("field", "stored"), UNSEEN + RECKONED)
async def test_writes_answer_that_it_is_corrupt(
    datastore: Datastore, raw: aioredis.Redis, field: str, stored: bytes | None
) -> None:
    await break_one(datastore, raw, field, stored)
    calls = [datastore.calls.update(KEY, name, metadata={"x": 1}, triggers=False) for name in "abc"]
    again = [datastore.calls.create(KEY, name) for name in "cb"]
    outcomes = await datastore.run([*calls, *again])
    assert [each.word for each in outcomes] == ["ok", "corrupt", "ok", "exists", "corrupt"]
    with pytest.raises(Corrupt):
        await datastore.update(KEY, "b", metadata={"x": 2}, triggers=False)
    assert await raw.hget(ITEM, "m:x") == (codec.pack(2) if (field, stored) in UNSEEN else None)


@pytest.mark.parametrize(("field", "stored"), UNSEEN + RECKONED)
async def test_it_can_be_deleted(datastore: Datastore, raw: aioredis.Redis, field: str, stored: bytes | None) -> None:
    await break_one(datastore, raw, field, stored)
    with pytest.raises(Corrupt, match=r"the hash of jobs/b can be no item; the operation is done all the same$"):
        await datastore.delete(KEY, "b", triggers=False)
    with pytest.raises(NotFound):
        await datastore.get(KEY, "b")
    assert (await datastore.count(KEY)).count == 2
    assert [found async for step in examine(datastore.connection, 1) for found in step.findings] == []


@pytest.mark.parametrize("options", [{}, {"where": {"type": "r"}}, {"triggers": "on"}, {"triggers": "off"}])
@pytest.mark.parametrize(("field", "stored"), UNSEEN + RECKONED)
async def test_a_claim_gives_the_others(
    datastore: Datastore, raw: aioredis.Redis, options: dict[str, Any], field: str, stored: bytes | None
) -> None:
    await break_one(datastore, raw, field, stored, type="r")
    claimed = await datastore.claim(KEY, worker_id="w", limit=3, **options)
    assert [item.sort_field for item in claimed.items] == ["a", "c"]


@pytest.mark.parametrize("wait", [0, 3])
@pytest.mark.parametrize(("field", "stored"), UNSEEN)
async def test_what_is_claimed_and_cannot_be_read_becomes_a_dead_letter(
    datastore: Datastore, raw: aioredis.Redis, wait: float, field: str, stored: bytes
) -> None:
    await break_one(datastore, raw, field, stored)
    (a,) = (await datastore.claim(KEY, worker_id="w", wait=wait)).items
    with pytest.raises(Corrupt, match="the hash of jobs/b can be no item; it becomes a dead letter"):
        await datastore.claim(KEY, worker_id="w", wait=wait)
    await wait_until(lambda: became(raw, b"failed"))
    assert await raw.hget(ITEM, "le") == b"its hash can be no item"
    assert [item.sort_field for item in (await datastore.claim(KEY, worker_id="w", limit=9)).items] == ["c"]
    assert a.sort_field == "a"


@pytest.mark.parametrize(("field", "stored"), UNSEEN + RECKONED)
async def test_bulk_changes_name_it_and_go_on_once_it_is_gone(
    datastore: Datastore, raw: aioredis.Redis, field: str, stored: bytes | None
) -> None:
    await break_one(datastore, raw, field, stored)
    for change in (bulk.cancel, bulk.delete):
        with pytest.raises(Corrupt, match="jobs/b"):
            assert not [step async for step in change(datastore, KEY, {})]
    with pytest.raises(Corrupt):
        await datastore.delete(KEY, "b", triggers=False)
    assert [step.done async for step in bulk.delete(datastore, KEY, {})] == [2]


async def test_bulk_changes_tell_of_what_is_corrupt_by_then(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.create(KEY, "a", metadata={"status": "not_started"})
    await raw.set(f"{TAG}:s:jobs:cancelled", "spoilt")
    with pytest.raises(Corrupt):
        assert not [step async for step in bulk.cancel(datastore, KEY)]


@pytest.mark.parametrize("status", ["scheduled", "started"])
@pytest.mark.parametrize(("field", "stored"), [*RECKONED, ("lu", b"x"), ("at", b"x")])
async def test_the_sweep_passes_it_over(
    datastore: Datastore, raw: aioredis.Redis, clock: Clock, status: str, field: str, stored: bytes | None
) -> None:
    clock.advance(0)
    more = {"worker_id": "w"} if status == "started" else {"scheduled_at": "+10s"}
    await datastore.configure(KEY, max_attempts=1, lock_for="10s")
    for name in "abc":
        await datastore.create(KEY, name, metadata={"status": status, **more})
    await (raw.hdel(ITEM, field) if stored is None else raw.hset(ITEM, field, stored))
    clock.advance(20)
    await datastore.sweep()
    after = "failed" if status == "started" else "not_started"
    assert (await datastore.count(KEY, where={"status": after})).count == (3 if field == "sd" else 2)


async def test_an_archive_puts_it_right(datastore: Datastore, raw: aioredis.Redis) -> None:
    await datastore.create(KEY, "b", content="whole", metadata={"status": "not_started"})
    lines = [line async for step in export(datastore) for line in step.lines.splitlines(keepends=True)]
    await raw.hdel(ITEM, "v")
    assert [step.written async for step in restore(datastore, lines, replace=True)][-1] == 1
    assert (await datastore.get(KEY, "b")).content == "whole"


async def became(raw: aioredis.Redis, status: bytes) -> bool:
    """Whether it has a status."""
    return await raw.hget(ITEM, "s") == status
