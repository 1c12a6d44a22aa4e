"""Orchestrations over a real store, with a real receiver behind the triggers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.errors import Invalid, NotFound, ReservedKey
from hookline_server.orchestrations import ORCHESTRATIONS, Orchestration, Orchestrations
from hookline_server.orchestrator import Orchestrator
from hookline_server.schedules import Schedule, Schedules
from server.conftest import orchestrating


async def create_jobs(datastore: Datastore, count: int) -> None:
    for number in range(count):
        metadata = {"status": "not_started", "type": "odd" if number % 2 else "even"}
        await datastore.create("jobs", f"{number:03d}", metadata=metadata)


async def started(datastore: Datastore) -> list[str]:
    found = await datastore.query("jobs", where={"status": "started"}, order="sortField")
    return [item.sort_field for item in found.items]


async def test_by_hand_it_claims_what_matches(datastore: Datastore) -> None:
    await create_jobs(datastore, 6)
    orchestrations = Orchestrations(datastore)
    await orchestrations.put("odd", Orchestration(key="jobs", where={"type": "odd"}, limit=2))
    claimed = await orchestrations.run_by_hand("odd")
    assert [item.sort_field for item in claimed.items] == ["001", "003"]
    assert claimed.items[0].metadata["worker_id"] == "orchestration:odd"
    assert await started(datastore) == ["001", "003"]


async def test_kept_by_the_server_it_runs_again_and_again(datastore: Datastore) -> None:
    await create_jobs(datastore, 3)
    orchestrations = Orchestrations(datastore)
    async with orchestrating(datastore):
        await orchestrations.put("all", Orchestration(key="jobs", limit=2, every="1s"))
        assert len(await wait_until(lambda: started(datastore))) == 2

        async def all_started() -> bool:
            return len(await started(datastore)) == 3

        await wait_until(all_started)
        rule = orchestrations.describe(await orchestrations.get("all"))
        assert rule["lastRun"]["claimed"] in (1, 2)


async def test_an_expired_lock_is_dispatched_again(datastore: Datastore) -> None:
    await create_jobs(datastore, 1)
    orchestrations = Orchestrations(datastore)
    await orchestrations.put("all", Orchestration(key="jobs"))
    await datastore.update("jobs", "000", metadata={"status": "started", "locked_until": "2024-03-15T10:10:00Z"})
    (again,) = (await orchestrations.run_by_hand("all")).items
    assert again.metadata["attempts"] == 2


async def test_two_servers_run_one_tick_once(datastore: Datastore) -> None:
    await create_jobs(datastore, 10)
    async with orchestrating(datastore), orchestrating(datastore):
        await Orchestrations(datastore).put("slow", Orchestration(key="jobs", limit=1, every="1h"))
        await wait_until(lambda: started(datastore))

        async def scheduled() -> bool:
            item = await datastore.get(ORCHESTRATIONS, "slow")
            return item.status == "scheduled"

        await wait_until(scheduled)
    assert len(await started(datastore)) == 1


async def test_due_items_are_promoted_and_exhausted_locks_buried_without_a_claim(datastore: Datastore) -> None:
    await datastore.create("jobs", "due", metadata={"status": "not_started", "scheduled_at": "+200ms"})
    await datastore.create("jobs", "lost", metadata={"status": "not_started", "max_attempts": 1})
    await datastore.update("jobs", "lost", metadata={"status": "started", "locked_until": "2024-03-15T10:10:00Z"})

    async def tidied() -> bool:
        due, lost = await datastore.get("jobs", "due"), await datastore.get("jobs", "lost")
        return (due.status, lost.status) == ("not_started", "failed")

    async with orchestrating(datastore):
        await wait_until(tidied)
    assert (await datastore.get("jobs", "lost")).metadata["last_error"] == "lock expired"


@pytest.mark.parametrize("busy", [Orchestrations, Schedules])
async def test_rules_that_are_due_without_end_hold_up_nothing_else(
    busy: type[Orchestrations | Schedules], datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of one kind than a server manages: those of the other kind are run, and keys are swept."""
    run_due, begun = busy.run_due, asyncio.Event()

    async def without_end(rules: Any) -> None:
        while True:
            begun.set()
            await run_due(rules)

    monkeypatch.setattr(busy, "run_due", without_end)
    async with orchestrating(datastore):
        await begun.wait()
        await create_jobs(datastore, 1)
        await Orchestrations(datastore).put("claims", Orchestration(key="jobs", every="1h"))
        await Schedules(datastore).put("creates", Schedule(key="made", every="1h"))
        await datastore.create("later", "due", metadata={"status": "not_started", "scheduled_at": "+50ms"})

        async def all_done() -> bool:
            promoted = (await datastore.get("later", "due")).status == "not_started"
            return promoted and bool(await started(datastore)) and bool(await datastore.count("made"))

        await wait_until(all_done)


async def test_it_ends_at_the_release_of_the_waits(store: EmbeddedStore, settings: Settings) -> None:
    async with Datastore(store.url, replace(settings, tick=60.0), SecretBox(bytes(range(32)))) as resting:
        task = asyncio.create_task(Orchestrator(resting).run())
        await wait_until(lambda: resting.wakes.listeners() == 3)
        resting.wakes.release()
        async with asyncio.timeout(10):
            await task


async def test_deleted_it_is_gone(datastore: Datastore) -> None:
    orchestrations = Orchestrations(datastore)
    await orchestrations.put("rule", Orchestration(key="jobs"))
    await orchestrations.delete("rule")
    for gone in (orchestrations.run_by_hand, orchestrations.get, orchestrations.delete):
        with pytest.raises(NotFound, match="no orchestration"):
            await gone("rule")


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        (Orchestration(key="no good"), "/key"),
        (Orchestration(key="jobs", limit=501), "/limit"),
        (Orchestration(key="jobs", limit=0), "/limit"),
        (Orchestration(key="jobs", every="10ms"), "/every"),
        (Orchestration(key="jobs", every="soon"), "/every"),
        (Orchestration(key="jobs", lock_for=0), "/lockFor"),
        (Orchestration(key="jobs", where={"a": {"like": "b"}}), "/where/a"),
    ],
)
async def test_a_rule_that_cannot_run_is_refused(datastore: Datastore, rule: Orchestration, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        await Orchestrations(datastore).put("rule", rule)
    assert refused.value.flaws[0].pointer == pointer


async def test_a_corrupt_key_does_not_hold_up_the_others(datastore: Datastore, raw: aioredis.Redis) -> None:
    names = [f"key-{number}" for number in range(8)]
    for name in [*names, "bad"]:
        await datastore.create(name, "due", metadata={"status": "not_started", "scheduled_at": "+50ms"})
    await raw.set("hl:{default/0}:s:bad:not_started", "spoilt")

    async def promoted() -> bool:
        return all([(await datastore.get(name, "due")).status == "not_started" for name in names])

    async with orchestrating(datastore):
        await wait_until(promoted)


async def test_at_the_memory_limit_a_rule_is_still_scheduled_again(datastore: Datastore, raw: aioredis.Redis) -> None:
    await Orchestrations(datastore).put("rule", Orchestration(key="jobs", every="1h"))

    async def scheduled() -> bool:
        return (await datastore.get(ORCHESTRATIONS, "rule")).status == "scheduled"

    await raw.config_set("maxmemory", "1")
    try:
        async with orchestrating(datastore):
            await wait_until(scheduled)
    finally:
        await raw.config_set("maxmemory", "0")


async def test_no_rule_may_claim_the_engines_own_items(datastore: Datastore) -> None:
    with pytest.raises(ReservedKey):
        await Orchestrations(datastore).put("rule", Orchestration(key="hookline.deliveries.x"))
