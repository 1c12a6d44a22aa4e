"""A server dies at any of the calls that it makes for a rule: another goes on with the tick, which runs once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from conftest import NOW_MS, Clock, wait_until
from hookline import Datastore, EmbeddedStore, Settings
from hookline.clock import format_time
from hookline.errors import HooklineError, OutcomeUnknown
from hookline.orchestrations import claim
from hookline_server.orchestrations import Orchestration, Orchestrations
from hookline_server.rules import RECALLED, RUN_LOCK
from hookline_server.schedules import Schedule, Schedules
from jobs import WAITING
from proxy import LOSE_CALL, LOSE_STORE, Proxy, proxied


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW_MS)


async def schedule(datastore: Datastore) -> Schedules:
    schedules = Schedules(datastore)
    await schedules.put("it", Schedule(key="jobs", every="1h", catch_up="all", metadata=WAITING))
    return schedules


async def partly_missed(datastore: Datastore) -> Schedules:
    schedules = Schedules(datastore)
    await schedules.put("it", Schedule(key="jobs", every="90s", metadata=WAITING))
    return schedules


async def orchestration(datastore: Datastore, max_in_flight: int | None = None, every: str = "1h") -> Orchestrations:
    for number in range(12):
        await datastore.create("jobs", f"{number:02d}", metadata=WAITING)
    orchestrations = Orchestrations(datastore)
    await orchestrations.put(
        "it", Orchestration(key="jobs", every=every, limit=3, lock_for="10m", max_in_flight=max_in_flight)
    )
    return orchestrations


async def bounded(datastore: Datastore) -> Orchestrations:
    return await orchestration(datastore, max_in_flight=4)


async def items(datastore: Datastore) -> int:
    """What the ticks have created."""
    return (await datastore.count("jobs")).count


async def attempts(datastore: Datastore) -> int:
    """How often items have been claimed."""
    return sum(item.metadata["attempts"] for item in (await datastore.query("jobs", limit=100)).items)


@contextlib.asynccontextmanager
async def two_servers(
    datastore: Datastore, store: EmbeddedStore, settings: Settings, clock: Clock
) -> AsyncIterator[tuple[Proxy, Datastore, Datastore]]:
    """The proxy before one that is to die, that one, and another; the store is emptied and the clock set back."""
    await datastore.connection.command("FLUSHALL")
    clock.ms = NOW_MS
    async with (
        proxied(store.url) as proxy,
        Datastore(proxy.url, settings, datastore.secrets, now_ms=clock) as dying,
        Datastore(store.url, settings, datastore.secrets, now_ms=clock) as other,
    ):
        yield proxy, dying, other


async def dies(work: Coroutine[Any, Any, Any], proxy: Proxy, fault: bytes, place: int) -> bool:
    """A server does some work, and dies of the fault in this call -> whether there was one in this place."""
    proxy.commands.clear()
    proxy.fault_at = {place: fault}
    task = asyncio.create_task(work)
    await wait_until(lambda: task.done() or not proxy.fault_at)
    befell = not proxy.fault_at
    if befell:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, HooklineError):
        await task
    proxy.fault_at.clear()
    proxy.store_lost = False
    return befell


@pytest.mark.parametrize("partitions", [1, 3])
async def test_whatever_dies_between_the_ticks_the_bound_holds_and_is_filled(
    datastore: Datastore, store: EmbeddedStore, settings: Settings, clock: Clock, partitions: int
) -> None:
    rule = Orchestration(key="jobs", limit=10, lock_for="10m", max_in_flight=4)
    settings = replace(settings, partitions=partitions, call_timeout=0.5)

    async def started(datastore: Datastore) -> list[str]:
        return [item.sort_field for item in (await datastore.query("jobs", where={"status": "started"})).items]

    for fault in (LOSE_CALL, LOSE_STORE):
        place, befell = 0, True
        while befell:
            async with two_servers(datastore, store, settings, clock) as (proxy, dying, other):
                await orchestration(other)
                befell = await dies(claim(dying, "it", rule), proxy, fault, place)
                assert len(await started(other)) <= 4
                claimed = await claim(other, "it", rule)
                assert sorted(claimed.held) == sorted(await started(other)), (fault, place, proxy.commands)
                assert len(claimed.held) == 4
            place += 1
        assert place > partitions


async def test_what_is_interrupted_for_too_long_is_abandoned_and_nothing_lost(
    datastore: Datastore, store: EmbeddedStore, settings: Settings, clock: Clock
) -> None:
    rules, claimed, place = await orchestration(datastore), 0, 0
    settings = replace(settings, call_timeout=0.5)
    async with proxied(store.url) as proxy:
        while not claimed:
            async with Datastore(proxy.url, settings, datastore.secrets, now_ms=clock) as dying:
                assert await dies(Orchestrations(dying).run_due(), proxy, LOSE_STORE, place)
            claimed, place = await attempts(datastore), place + 1
            clock.advance(RUN_LOCK + 1)
    assert claimed == 3
    clock.advance(RECALLED)
    await rules.run_due()
    (run,) = (await rules.runs("it")).items
    assert run.content["abandoned"] is True
    assert (run.metadata["status"], run.content["tick"]) == ("failed", format_time(NOW_MS))
    assert await attempts(datastore) == 3
    # The next tick takes what the one before had: its lock has expired by then.
    assert (await rules.next("it", 1))[0]["at"] == format_time(NOW_MS + 3_600_000)
    clock.ms = NOW_MS + 3_600_000
    await rules.run_due()
    last, _ = (await rules.runs("it")).items
    assert (last.content["claimed"], last.content["expiredLocks"], "abandoned" in last.content) == (3, 3, False)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize(
    "change", [{"limit": 1}, {"limit": 5}, {"lock_for": "20m"}, {"where": {"status": "not_started"}, "limit": 2}]
)
@pytest.mark.parametrize(("bound", "later"), [(None, 6), (4, 6), (None, 70)])
async def test_a_rule_that_is_changed_in_a_tick_ends_it_with_all_that_was_claimed(
    datastore: Datastore,
    store: EmbeddedStore,
    settings: Settings,
    clock: Clock,
    change: dict[str, Any],
    bound: int | None,
    later: float,
    partitions: int,
) -> None:
    """Also where a tick has come meanwhile, and whichever call the first server died in."""
    settings, place, befell = replace(settings, partitions=partitions, call_timeout=0.5), 0, True
    while befell:
        async with two_servers(datastore, store, settings, clock) as (proxy, dying, other):
            rules = await orchestration(other, bound, "60s")
            befell = await dies(Orchestrations(dying).run_due(), proxy, LOSE_STORE, place)
            asked: dict[str, Any] = {
                "key": "jobs",
                "every": "60s",
                "limit": 3,
                "lock_for": "10m",
                "max_in_flight": bound,
            }
            await rules.put("it", Orchestration(**asked | change))
            clock.advance(later)
            await rules.run_due()
            runs = (await rules.runs("it")).items
            assert {run.metadata["status"] for run in runs} == {"completed"}, (place, proxy.commands)
            assert sum(run.content["claimed"] for run in runs) == await attempts(other), (place, proxy.commands)
            assert (await other.get(rules.key, "it")).metadata["last_run"] == runs[0].content
        place += 1
    assert place > 3


async def test_a_schedule_that_is_changed_in_a_tick_ends_it_with_its_item(
    datastore: Datastore, store: EmbeddedStore, settings: Settings, clock: Clock
) -> None:
    rules, place = Schedules(datastore), 0
    await rules.put("it", Schedule(key="jobs", every="1h", metadata=WAITING))
    settings = replace(settings, call_timeout=0.5)
    async with proxied(store.url) as proxy:
        while not await items(datastore):
            async with Datastore(proxy.url, settings, datastore.secrets, now_ms=clock) as dying:
                assert await dies(Schedules(dying).run_due(), proxy, LOSE_STORE, place)
            place += 1
            clock.advance(RUN_LOCK + 1)
    await rules.put("it", Schedule(key="jobs", every="1h", sort_field="other-{schedule.tick}", content="new"))
    await rules.run_due()
    (run,) = (await rules.runs("it")).items
    assert (run.metadata["status"], run.content["created"]) == ("completed", 1)
    assert await items(datastore) == 1


@pytest.mark.parametrize(("catch_up", "made"), [("one", [0, 90]), ("skip", [90])])
async def test_who_goes_on_with_a_run_goes_by_what_was_missed_when_it_began(
    datastore: Datastore, store: EmbeddedStore, settings: Settings, clock: Clock, catch_up: Any, made: list[int]
) -> None:
    rules = Schedules(datastore)
    await rules.put("it", Schedule(key="jobs", every="90s", catch_up=catch_up, metadata=WAITING))
    clock.advance(149)
    settings = replace(settings, call_timeout=0.5)
    async with (
        proxied(store.url) as proxy,
        Datastore(proxy.url, settings, datastore.secrets, now_ms=clock) as dying,
    ):
        # Of the claim, the note of what is run, and the creates, these do not come any more.
        assert await dies(Schedules(dying).run_due(), proxy, LOSE_STORE, 1)
    assert await items(datastore) == 0
    clock.advance(RUN_LOCK + 1)
    for _ in range(2):
        await rules.run_due()
    ticks = [format_time(NOW_MS + tick * 1000) for tick in [*made, 180]]
    assert [item.sort_field for item in (await datastore.query("jobs")).items] == [f"it-{tick}" for tick in ticks]


@pytest.mark.parametrize("prepare", [schedule, orchestration])
async def test_what_a_claim_took_that_was_not_answered_runs_as_soon_as_the_store_is_back(
    datastore: Datastore,
    store: EmbeddedStore,
    settings: Settings,
    clock: Clock,
    prepare: Callable[[Datastore], Awaitable[Any]],
) -> None:
    """Not only once the lock has expired, though nobody was told of it."""
    settings = replace(settings, call_timeout=0.5)
    async with proxied(store.url) as proxy, Datastore(proxy.url, settings, datastore.secrets, now_ms=clock) as own:
        rules = await prepare(own)
        await rules.run_due()
        clock.advance(3601)
        proxy.faults.append(LOSE_STORE)
        with pytest.raises(OutcomeUnknown):
            await rules.run_due()
        assert (await datastore.count(rules.key, where={"status": "started"})).count == 1
        proxy.store_lost = False
        await rules.run_due()
        assert len((await rules.runs("it")).items) == 2


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize(
    ("prepare", "late", "effects", "each", "coming", "turn"),
    [
        (schedule, 3601, items, 2, 7200, 100),
        (schedule, 7201, items, 3, 10800, 1),
        (partly_missed, 110, items, 2, 180, 100),
        (orchestration, 30, attempts, 3, 3600, 100),
        (bounded, 30, attempts, 3, 3600, 100),
    ],
)
async def test_whatever_dies_a_tick_runs_once(
    datastore: Datastore,
    store: EmbeddedStore,
    settings: Settings,
    clock: Clock,
    prepare: Callable[[Datastore], Awaitable[Any]],
    late: float,
    effects: Callable[[Datastore], Awaitable[int]],
    each: int,
    coming: int,
    turn: int,
    partitions: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hookline_server.rules.TURN", turn)
    settings = replace(settings, partitions=partitions, call_timeout=0.5)
    for fault in (LOSE_CALL, LOSE_STORE):
        place, befell = 0, True
        while befell:
            async with two_servers(datastore, store, settings, clock) as (proxy, dying, other):
                rules = await prepare(other)
                clock.advance(late)
                befell = await dies(type(rules)(dying).run_due(), proxy, fault, place)
                await rules.run_due()
                clock.advance(RUN_LOCK + 1)
                await rules.run_due()
                assert await effects(other) == each, (fault, place, proxy.commands)
                (run,) = (await rules.runs("it")).items
                assert run.metadata["status"] == "completed"
                assert run.content["created" if effects is items else "claimed"] == each
                assert (await rules.next("it", 1))[0]["at"] == format_time(NOW_MS + coming * 1000)
            place += 1
        assert place > 4
