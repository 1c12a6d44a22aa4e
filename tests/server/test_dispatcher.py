"""An orchestration with maxInFlight: its slots are filled when they get free. Its ticks are an hour apart here."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Item
from hookline.errors import Invalid
from hookline.orchestrations import claim
from hookline_server import dispatcher, orchestrations
from hookline_server.orchestrations import ORCHESTRATIONS, Orchestration, Orchestrations
from jobs import WAITING, token_of
from server.conftest import orchestrating

RULE = Orchestration(key="jobs", every="1h", limit=2, lock_for="10m", max_in_flight=2)


@pytest.fixture(autouse=True)
def _never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "LOOK", 3600.0)


@contextlib.asynccontextmanager
async def another(datastore: Datastore, store: EmbeddedStore, **settings: Any) -> AsyncIterator[Datastore]:
    """A datastore of another server."""
    async with Datastore(store.url, replace(datastore.settings, **settings), datastore.secrets) as opened:
        yield opened


async def create_jobs(datastore: Datastore, count: int) -> None:
    for number in range(count):
        await datastore.create("jobs", f"{number:02d}", metadata=WAITING)


async def started(datastore: Datastore) -> list[Item]:
    return (await datastore.query("jobs", where={"status": "started"}, order="sortField")).items


async def full(datastore: Datastore, *gone: Item) -> list[Item]:
    """Two items that are started, none of them one of those that have ended."""

    async def both() -> list[Item]:
        names = {item.sort_field for item in gone}
        found = [item for item in await started(datastore) if item.sort_field not in names]
        assert len(found) <= 2
        return found if len(found) == 2 else []

    found: list[Item] = await wait_until(both)
    return found


async def update(datastore: Datastore, item: Item) -> None:
    await datastore.update("jobs", item.sort_field, metadata={"status": "completed"})


async def delete(datastore: Datastore, item: Item) -> None:
    await datastore.delete("jobs", item.sort_field)


def settling(verb: str, **fields: Any) -> Callable[[Datastore, Item], Awaitable[Any]]:
    async def settle(datastore: Datastore, item: Item) -> None:
        call = getattr(datastore.calls, verb)("jobs", item.sort_field, await token_of(datastore, item), **fields)
        (outcome,) = await datastore.settle([call])
        assert outcome.ok

    return settle


@pytest.mark.parametrize(
    "end",
    [
        update,
        delete,
        settling("complete"),
        settling("fail", error="no", retry_after="1h"),
        settling("release", delay="1h"),
    ],
    ids=["update", "delete", "complete", "fail", "release"],
)
async def test_a_slot_is_filled_when_its_item_ends(
    datastore: Datastore, end: Callable[[Datastore, Item], Awaitable[Any]]
) -> None:
    await create_jobs(datastore, 5)
    async with orchestrating(datastore):
        await Orchestrations(datastore).put("push", RULE)
        gone: list[Item] = []
        for _ in range(3):
            first, second = await full(datastore, *gone)
            await end(datastore, first)
            gone.append(first)
            assert second.sort_field in [item.sort_field for item in await full(datastore, *gone)]


async def test_a_slot_is_filled_when_the_lock_expires(datastore: Datastore) -> None:
    await create_jobs(datastore, 2)
    async with orchestrating(datastore):
        await Orchestrations(datastore).put("push", replace_rule(lock_for="1s"))

        async def again() -> bool:
            return [item.metadata["attempts"] for item in await started(datastore)] == [2, 2]

        await wait_until(again)


async def test_a_free_slot_is_filled_when_an_item_is_ready(datastore: Datastore) -> None:
    async with orchestrating(datastore) as orchestrator:
        await Orchestrations(datastore).put("push", RULE)
        await wait_until(lambda: orchestrator._dispatching)
        await create_jobs(datastore, 3)
        await full(datastore)


async def test_each_other_server_goes_on_where_one_has_died(datastore: Datastore, store: EmbeddedStore) -> None:
    await create_jobs(datastore, 6)
    rules = Orchestrations(datastore)
    async with another(datastore, store) as dying, orchestrating(dying):
        await rules.put("push", RULE)
        first, second = await full(datastore)
    await update(datastore, first)
    assert [item.sort_field for item in await started(datastore)] == [second.sort_field]
    async with orchestrating(datastore):
        # With other times a rule begins anew: so its tick is due.
        await rules.put("push", replace_rule(every="2h"))
        await full(datastore, first)
        # Claimed by the one that died.
        await update(datastore, second)
        await full(datastore, first, second)


async def test_it_is_the_server_that_ran_the_last_tick_that_dispatches(
    datastore: Datastore, store: EmbeddedStore
) -> None:
    await create_jobs(datastore, 8)
    rules = Orchestrations(datastore)
    async with another(datastore, store) as other, orchestrating(datastore) as one, orchestrating(other) as two:
        gone: list[Item] = []
        for hours in range(1, 5):
            await rules.put("push", replace_rule(every=f"{hours}h"))

            async def run() -> bool:
                last = (await rules.get("push")).metadata.get("last_run")
                return bool(last) and len(await rules_runs(rules)) == hours  # noqa: B023

            await wait_until(run)
            owner = (await rules.get("push")).metadata["ran_by"]
            first, _ = await full(datastore, *gone)
            await update(datastore, first)
            gone.append(first)
            await full(datastore, *gone)
            for server in (one, two):
                _, task = server._dispatching.get("push", (None, None))
                if task:
                    await wait_until(lambda: task.done() == (server._orchestrations.server != owner))  # noqa: B023


async def rules_runs(rules: Orchestrations) -> list[Item]:
    return (await rules.runs("push")).items


@pytest.mark.parametrize("change", ["disable", "delete", "unbound"])
async def test_changed_it_dispatches_no_more(datastore: Datastore, change: str) -> None:
    await create_jobs(datastore, 4)
    rules = Orchestrations(datastore)
    async with orchestrating(datastore) as orchestrator:
        await rules.put("push", RULE)
        first, second = await full(datastore)
        _, task = await wait_until(lambda: orchestrator._dispatching.get("push"))
        if change == "disable":
            await rules.enable("push", False)
        elif change == "delete":
            await rules.delete("push")
        else:
            await rules.put("push", replace_rule(max_in_flight=None))
        await wait_until(task.done)
        await update(datastore, first)
        assert [item.sort_field for item in await started(datastore)] == [second.sort_field]


async def test_changed_it_dispatches_as_it_says_now(datastore: Datastore) -> None:
    await create_jobs(datastore, 4)
    rules = Orchestrations(datastore)
    async with orchestrating(datastore):
        await rules.put("push", replace_rule(max_in_flight=1))

        async def so_many(count: int) -> bool:
            return len(await started(datastore)) == count

        await wait_until(lambda: so_many(1))
        await rules.put("push", replace_rule(max_in_flight=3))
        await wait_until(lambda: so_many(3))


async def test_by_cron_it_ends_when_nothing_is_held_and_tells_what_it_took(datastore: Datastore) -> None:
    await create_jobs(datastore, 5)
    rules = Orchestrations(datastore)
    async with orchestrating(datastore) as orchestrator:
        await rules.put("push", replace_rule(every="1h"))
        await wait_until(lambda: orchestrator._dispatching)
        await rules.put("push", replace_rule(every=None, cron="0 3 1 1 *"))
        gone: list[Item] = []

        async def next_one() -> Item | None:
            names = {item.sort_field for item in gone}
            return next((item for item in await started(datastore) if item.sort_field not in names), None)

        for _ in range(5):
            item = await wait_until(next_one)
            await update(datastore, item)
            gone.append(item)
        await wait_until(lambda: not orchestrator._dispatching)
        assert orchestrator._orchestrations.since("push", RULE) == {"refilled": 3}


async def test_of_those_that_have_gone_nothing_is_left(datastore: Datastore) -> None:
    rules, names = Orchestrations(datastore), [f"push-{number}" for number in range(5)]
    async with orchestrating(datastore) as orchestrator:
        for name in names:
            await rules.put(name, RULE)
        await wait_until(lambda: len(orchestrator._dispatching) == len(names))
        for name in names:
            await rules.delete(name)
        await wait_until(lambda: not orchestrator._dispatching)
        assert not orchestrator._orchestrations._refilled, "none has claimed anything"


async def test_of_more_than_so_many_the_oldest_count_is_forgotten(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrations, "_COUNTED", 2)
    await create_jobs(datastore, 6)
    rules = Orchestrations(datastore)
    for name in "abc":
        await rules.refill(name, RULE)
    assert [rules.since(name, RULE) for name in "abc"] == [{}, {"refilled": 2}, {"refilled": 2}]


def replace_rule(**fields: Any) -> Orchestration:
    return Orchestration(**({name: getattr(RULE, name) for name in RULE.__struct_fields__} | fields))


@pytest.mark.parametrize(("partitions", "most"), [(1, 3), (4, 2), (4, 7)])
async def test_no_more_than_the_bound_whoever_claims_at_once(
    datastore: Datastore, store: EmbeddedStore, partitions: int, most: int
) -> None:
    await datastore.connection.command("FLUSHALL")
    rule = replace_rule(limit=10, max_in_flight=most)
    chance = random.Random(7)
    async with another(datastore, store, partitions=partitions) as one, another(one, store) as two:
        await create_jobs(one, 60)
        for _ in range(6):
            await asyncio.gather(*(claim(server, "push", rule) for server in (one, two, one, two)))
            assert len(await started(one)) <= most
            claimed = await claim(one, "push", rule)
            running = await started(one)
            assert len(running) == most
            assert sorted(claimed.held) == [item.sort_field for item in running]
            for item in chance.sample(running, chance.randint(1, most)):
                await update(one, item)


async def test_a_claim_that_was_counted_out_takes_nothing(datastore: Datastore) -> None:
    await create_jobs(datastore, 2)

    async def ask(ballot: str) -> Any:
        return await datastore._perform(datastore.calls.claim("jobs", worker_id="w", in_flight=5, ballot=ballot))

    assert len((await ask("2.b")).items) == 1
    barred = await ask("2.a")
    assert (barred.items, barred.barred, len(barred.held)) == ([], "2.b", 1)
    assert len((await ask("2.b")).items) == 1


@pytest.mark.parametrize("most", [0, 1001, True, "2"])
async def test_a_bound_that_is_none_is_refused(datastore: Datastore, most: Any) -> None:
    with pytest.raises(Invalid) as refused:
        await datastore.claim("jobs", worker_id="w", max_in_flight=most)
    assert refused.value.flaws[0].pointer == "/maxInFlight"


async def test_who_runs_it_is_not_shown(datastore: Datastore) -> None:
    rules = Orchestrations(datastore)
    await rules.put("push", RULE)
    await rules.run_due()
    item = await datastore.get(ORCHESTRATIONS, "push")
    assert item.metadata["ran_by"] == rules.server
    assert rules.server not in str(rules.describe(item))


async def test_with_a_bound_of_one_each_partition_has_its_turn(datastore: Datastore, store: EmbeddedStore) -> None:
    await datastore.connection.command("FLUSHALL")
    rule = replace_rule(limit=1, max_in_flight=1)
    async with another(datastore, store, partitions=3) as spread:
        await create_jobs(spread, 60)
        taken: set[int] = set()
        for _ in range(3):
            (item,) = (await claim(spread, "push", rule)).items
            taken.add(spread.calls.partition("jobs", item.sort_field))
            await update(spread, item)
    assert taken == {0, 1, 2}


async def test_a_server_whose_clock_is_ahead_asks_not_all_the_time(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    refill = Orchestrations.refill

    async def count(rules: Orchestrations, name: str, rule: Orchestration) -> Any:
        nonlocal asked
        asked += 1
        return await refill(rules, name, rule)

    monkeypatch.setattr(Orchestrations, "refill", count)
    monkeypatch.setattr(dispatcher, "time", SimpleNamespace(time=lambda: time.time() + 60))
    await datastore.create("jobs", "a", metadata=WAITING | {"scheduled_at": "+1500ms"})
    await Orchestrations(datastore).put("push", RULE)
    async with orchestrating(datastore):
        await wait_until(lambda: started(datastore))
    assert asked < 20
