"""Waiting for something to claim, and for what becomes of an item."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from backends import Backend
from conftest import NOW_MS, Clock, end, wait_until
from hookline import Claimed, Datastore, Outcome
from hookline.call import Call
from hookline.errors import Invalid, NotFound
from jobs import WAITING, claim_one, names


async def test_a_waiting_claim_is_woken(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    """From whichever partition it is."""
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    by_number = {datastore.calls.partition("jobs", f"{n}"): f"{n}" for n in range(200)}
    assert len(by_number) == datastore.calls.partitions
    for name in by_number.values():
        waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
        await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
        assert not waiting.done()
        await datastore.create("other", name, metadata=WAITING)
        await datastore.create("jobs", name, metadata=WAITING)
        assert names((await asyncio.wait_for(waiting, 5)).items) == [name]
    assert not datastore.wakes._listeners


async def test_what_one_process_says_others_hear(datastore: Datastore) -> None:
    async with datastore.wakes.listening("it", "other") as woken:
        await wait_until(datastore.wakes._subscribed.is_set)
        woken.clear()
        await datastore.wakes.say("it")
        async with asyncio.timeout(5):
            await woken.wait()


async def subscribers(store: Backend) -> dict[str, int]:
    """How many channels each client has that listens; clients by node and id."""
    return {
        f"{place}/{client['id']}": int(client["ssub"])
        for place, node in enumerate(store.nodes)
        for client in await node.client_list("pubsub")
    }


async def test_waits_outlive_a_lost_subscription(
    datastore: Datastore, store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.05)
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.wakes._subscribed.is_set())
    first = await subscribers(store)
    assert sum(first.values()) == datastore.calls.partitions
    for node in store.nodes:
        for client in await node.client_list("pubsub"):
            await node.client_kill_filter(_id=client["id"])

    async def subscribed_again() -> bool:
        now = await subscribers(store)
        return not now.keys() & first.keys() and sum(now.values()) == datastore.calls.partitions

    await wait_until(subscribed_again)
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_a_waiting_claim_looks_by_itself_too(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 0.05)
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60, where={"x": 1}))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    await datastore.create("jobs", "a", metadata=WAITING)
    await datastore.update("jobs", "a", metadata={"x": 1})  # wakes nobody: it was ready before
    assert (await asyncio.wait_for(waiting, 5)).items[0].sort_field == "a"


@pytest.mark.parametrize("what", ["due", "expired"])
async def test_a_waiting_claim_knows_when_to_look(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    if what == "due":
        await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+300ms"})
    else:
        await datastore.create("jobs", "a", metadata=WAITING)
        await claim_one(datastore, lock_for="300ms")
    started = time.monotonic()
    claimed = await asyncio.wait_for(datastore.claim("jobs", worker_id="w", wait=60), 10)
    assert [item.sort_field for item in claimed.items] == ["a"]
    assert time.monotonic() - started > 0.1


async def test_who_has_a_clock_that_is_ahead_asks_not_all_the_time(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    perform = datastore.claims._perform

    async def count(call: Call) -> Outcome | Claimed:
        nonlocal asked
        asked += call.partition == 0
        return await perform(call)

    monkeypatch.setattr(datastore.claims, "_perform", count)
    monkeypatch.setattr("hookline.claims.time.time", lambda now=time.time: now() + 60)
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+1200ms"})
    claimed = await asyncio.wait_for(datastore.claim("jobs", worker_id="w", wait=60), 10)
    assert names(claimed.items) == ["a"]
    assert asked < 15


async def test_a_claim_waits_no_longer_than_it_may(datastore: Datastore) -> None:
    assert (await asyncio.wait_for(datastore.claim("jobs", worker_id="w", wait=0.1), 10)).items == []
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    await end(waiting)
    assert not datastore.wakes._listeners


async def test_a_waiting_claim_learns_of_what_is_due_before_it_looks_again(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    await datastore.create("jobs", "later", metadata={**WAITING, "scheduled_at": "+1h"})
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    await asyncio.sleep(0.05)
    await datastore.create("jobs", "sooner", metadata={**WAITING, "scheduled_at": "+300ms"})
    assert [item.sort_field for item in (await asyncio.wait_for(waiting, 10)).items] == ["sooner"]


@pytest.mark.parametrize("what", ["bound", "once"])
async def test_who_may_take_less_looks_for_nobody_else(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Its worker holds as much as it may; or its request looks at one partition, where a repeat of it would."""
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    view = datastore.once("k", body=b"")
    assert view.marks
    elsewhere = (view.marks.partition() + 1) % datastore.calls.partitions
    new = next(name for name in map(str, range(1000)) if datastore.calls.partition("jobs", name) == elsewhere)
    if what == "bound":
        await datastore.create("jobs", "held", metadata=WAITING)
        assert names((await datastore.claim("jobs", worker_id="w", max_in_flight=1)).items) == ["held"]
        less = datastore.claim("jobs", worker_id="w", wait=60, max_in_flight=1)
    else:
        less = view.claim("jobs", worker_id="w", wait=60)
    ahead = asyncio.create_task(less)
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
    behind = asyncio.create_task(datastore.claim("jobs", worker_id="v", wait=60))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 2)
    await asyncio.sleep(0.05)
    await datastore.create("jobs", new, metadata=WAITING)
    done, _ = await asyncio.wait({ahead, behind}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert [names(task.result().items) for task in done] == [[new]]
    for task in {ahead, behind} - done:
        await end(task)


async def test_who_waits_with_other_filters_has_a_line_of_their_own(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    waiting = {
        kind: asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60, where={"kind": kind}))
        for kind in ("a", "b", "c")
    }
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 3)
    for kind in ("c", "a", "b"):
        await datastore.create("jobs", kind, metadata={**WAITING, "kind": kind})
        assert [item.sort_field for item in (await asyncio.wait_for(waiting[kind], 5)).items] == [kind]


async def test_when_the_first_in_line_leaves_the_next_looks(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    first = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=60))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
    second = asyncio.create_task(datastore.claim("jobs", worker_id="v", wait=60))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 2)
    await asyncio.sleep(0.05)
    await end(first)
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+200ms"})
    assert [item.metadata["worker_id"] for item in (await asyncio.wait_for(second, 5)).items] == ["v"]


async def test_waiting_claims_share_what_comes(datastore: Datastore) -> None:
    waiting = [asyncio.create_task(datastore.claim("jobs", worker_id=f"w{n}", wait=60)) for n in range(20)]
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 20)
    await datastore.run([datastore.calls.create("jobs", f"{n:02}", metadata=WAITING) for n in range(20)])
    found = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert sorted(name for claimed in found for name in names(claimed.items)) == [f"{n:02}" for n in range(20)]


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_wait_for_the_end_of_an_item(datastore: Datastore, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr("hookline.reader.CHANGE_POLL", 60.0)
    await datastore.create("jobs", "a", metadata=WAITING)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore.changes._subscribed.is_set())
    await datastore.create("jobs", "b", metadata={"status": end})
    await datastore.update("jobs", "a", metadata={"step": 1})
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await datastore.update("jobs", "a", metadata={"status": end, "result": {"rows": 3}})
    item = await asyncio.wait_for(waiting, 5)
    assert item == await datastore.get("jobs", "a")
    assert await datastore.wait_for("jobs", "a", timeout=60) == item
    assert datastore.changes._task is None


async def test_wait_for_a_change(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata={"step": 1})
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", until={"version": {"gt": 1}}, timeout=60))
    stepping = asyncio.create_task(datastore.wait_for("jobs", "a", until={"step": 3}, timeout=60))
    await wait_until(lambda: datastore.changes._subscribed.is_set())
    await datastore.update("jobs", "a", metadata={"step": 2})
    assert [item and item.version for item in (await asyncio.wait_for(waiting, 5),)] == [2]
    await datastore.update("jobs", "a", metadata={"step": 3})
    assert [item and item.version for item in (await asyncio.wait_for(stepping, 5),)] == [3]


async def test_who_begins_to_wait_as_another_leaves_hears_of_changes(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that other had no patience: the store does not tell yet of changes."""
    subscribing, follow = asyncio.Event(), datastore.connection.follow

    async def follow_late(*args: Any) -> None:
        await subscribing.wait()
        await follow(*args)

    monkeypatch.setattr("hookline.reader.CHANGE_POLL", 60.0)
    monkeypatch.setattr("hookline.wake._PATIENCE", 0.1)
    monkeypatch.setattr(datastore.connection, "follow", follow_late)
    await datastore.create("jobs", "a", metadata=WAITING)
    leaving = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=0))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await leaving
    subscribing.set()
    await asyncio.wait_for(datastore.changes._subscribed.wait(), 5)
    await datastore.update("jobs", "a", metadata={"status": "completed"})
    assert await asyncio.wait_for(waiting, 5)


async def test_who_goes_before_messages_arrive_ends_the_subscription(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await asyncio.sleep(0)
    await end(waiting)
    assert datastore.changes._task is None


async def test_wait_for_what_does_not_come(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    assert await datastore.wait_for("jobs", "a", timeout=0.05) is None
    assert await datastore.wait_for("jobs", "a", timeout=0) is None
    with pytest.raises(NotFound):
        await datastore.wait_for("jobs", "nobody", timeout=60)
    with pytest.raises(Invalid):
        await datastore.wait_for("jobs", "a", until={"x": {"about": 1}})
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore.changes._subscribed.is_set())
    await datastore.delete("jobs", "a")
    with pytest.raises(NotFound):
        await asyncio.wait_for(waiting, 5)


async def test_wait_for_what_a_sweep_ends(datastore: Datastore, clock: Clock) -> None:
    clock.ms = NOW_MS
    await datastore.create("jobs", "a", metadata={**WAITING, "max_attempts": 1})
    await claim_one(datastore, lock_for=1)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore.changes._subscribed.is_set())
    clock.advance(2)
    await datastore.sweep()
    item = await asyncio.wait_for(waiting, 5)
    assert item is not None
    assert item.status == "failed"


async def test_to_close_lets_those_go_who_wait(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    waiting = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore.changes.listeners())
    await datastore.close()
    assert await asyncio.wait_for(waiting, 5) is None
    await datastore.open()
    ending = asyncio.create_task(datastore.wait_for("jobs", "a", timeout=60))
    await wait_until(lambda: datastore.changes._subscribed.is_set())
    await datastore.update("jobs", "a", metadata={"status": "completed"})
    assert await asyncio.wait_for(ending, 5)
