"""Lines seen to their end: of many partitions a claim that waits asks only those of which it was told something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from backends import PARTITIONS, Backend
from conftest import wait_until
from hookline import Claimed, Datastore, SecretBox, Settings
from hookline.where import compile_where
from jobs import WAITING, names, script_calls

REPORTS = {"type": "report"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by itself, and what was seen holds until something is told of it."""
    monkeypatch.setattr("hookline.claims.POLL", 60.0)


@pytest.fixture
def settings(settings: Settings, store: Backend) -> Settings:
    """As many partitions, on every store."""
    return replace(settings, partitions=PARTITIONS)


@pytest_asyncio.fixture(loop_scope="session")
async def second(store: Backend, settings: Settings, datastore: Datastore) -> AsyncIterator[Datastore]:
    """Another process, as far as the store can tell."""
    async with Datastore(store.url, settings, SecretBox(bytes(32))) as other:
        yield other


async def waits(datastore: Datastore, where: Any = None) -> asyncio.Task[Claimed]:
    """A claim, from when it has looked everywhere, and would be told of whatever comes."""
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", limit=10, wait=120, where=where))
    seen, compiled = datastore.claims._seen, compile_where(where)
    await wait_until(lambda: len(seen.untold("jobs", PARTITIONS, compiled, 60.0)) == PARTITIONS)
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    assert not waiting.done()
    return waiting


async def ended(waiting: asyncio.Task[Claimed]) -> list[str]:
    return names((await asyncio.wait_for(waiting, 5)).items)


@pytest.mark.parametrize("where", [None, REPORTS])
async def test_a_job_costs_as_many_calls_as_on_one_partition(
    datastore: Datastore, second: Datastore, store: Backend, where: Any
) -> None:
    waiting = await waits(datastore, where)
    before = await script_calls(*store.nodes)
    for n in range(3 * PARTITIONS):
        await second.create("jobs", f"{n}", metadata={**WAITING, **REPORTS})
        (item,) = (await asyncio.wait_for(waiting, 5)).items
        assert item.sort_field == f"{n}"
        done = datastore.calls.complete("jobs", item.sort_field, item.token or "")
        _, claimed = await datastore.exchange([done], "jobs", worker_id="w", limit=10, where=where)
        assert claimed.items == []
        waiting = await waits(datastore, where)
    assert await script_calls(*store.nodes) == before + 3 * PARTITIONS * 3
    waiting.cancel()


async def test_a_claim_that_does_not_wait_asks_everywhere(
    datastore: Datastore, second: Datastore, store: Backend
) -> None:
    """The partition that it begins with, then all others of a node in one call, and each that has something."""
    waiting = await waits(datastore)
    others = {p for p in range(PARTITIONS) if p != datastore.claims.partition("jobs")}
    looks = 1 + len({datastore.connection.node_of(p) for p in others})
    before = await script_calls(*store.nodes)
    assert (await datastore.claim("jobs", worker_id="w")).items == []
    assert await script_calls(*store.nodes) == before + looks
    waiting.cancel()
    made = [f"{n}" for n in range(3)]
    for name in made:
        await second.create("jobs", name, metadata=WAITING)
    before = await script_calls(*store.nodes)
    places = {datastore.calls.partition("jobs", name) for name in made}
    assert sorted(names((await datastore.claim("jobs", worker_id="w", limit=10)).items)) == made
    assert await script_calls(*store.nodes) == before + looks + len(places & others)


async def test_a_key_that_is_paused_costs_as_little_as_an_empty_one(datastore: Datastore, store: Backend) -> None:
    await datastore.create("jobs", metadata=WAITING)
    await datastore.pause("jobs")
    await datastore.claim("jobs", worker_id="learns of it")
    others = {p for p in range(PARTITIONS) if p != datastore.claims.partition("jobs")}
    before = await script_calls(*store.nodes)
    claimed = await datastore.claim("jobs", worker_id="w")
    assert (claimed.items, claimed.paused) == ([], True)
    assert await script_calls(*store.nodes) == before + 1 + len({datastore.connection.node_of(p) for p in others})
    await datastore.resume("jobs")
    assert len((await datastore.claim("jobs", worker_id="w")).items) == 1


async def test_a_claim_with_a_bound_counts_everywhere_and_visits_where_something_is(
    datastore: Datastore, store: Backend
) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    others = {p for p in range(PARTITIONS) if p != datastore.claims.partition("jobs")}
    calls = PARTITIONS + 1 + len({datastore.connection.node_of(p) for p in others})
    calls += datastore.calls.partition("jobs", "a") in others
    before = await script_calls(*store.nodes)
    claimed = await datastore.claim("jobs", worker_id="w", limit=10, max_in_flight=5)
    assert (names(claimed.items), claimed.held) == (["a"], ("a",))
    assert await script_calls(*store.nodes) == before + calls


@pytest.mark.parametrize("bound", [{}, {"max_in_flight": 5}])
async def test_what_is_due_next_is_told_over_all_partitions(datastore: Datastore, bound: dict[str, Any]) -> None:
    for seconds in (50, 20, 90):
        await datastore.create("jobs", metadata={**WAITING, "scheduled_at": f"+{seconds}s"})
    began = time.time()
    claimed = await datastore.claim("jobs", worker_id="w", **bound)
    assert claimed.items == []
    assert (claimed.next_ms or 0) / 1000 - began == pytest.approx(20, abs=5)


async def test_what_is_due_is_asked_for(datastore: Datastore, store: Backend) -> None:
    await datastore.create("jobs", "late", metadata={**WAITING, "scheduled_at": "+1s"})
    waiting = await waits(datastore)
    before = await script_calls(*store.nodes)
    assert await ended(waiting) == ["late"]
    assert await script_calls(*store.nodes) <= before + 2  # the store's clock may be behind ours


async def test_a_lock_that_ends_is_asked_for(datastore: Datastore, second: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await second.claim("jobs", worker_id="dies", lock_for="1s")).items) == ["a"]
    assert await ended(await waits(datastore)) == ["a"]


async def test_each_that_is_due_is_told_of(datastore: Datastore, second: Datastore) -> None:
    """Also where the sweep has still to look at the key for one that was due before it."""
    in_one = [f"{n}" for n in range(200) if datastore.calls.partition("jobs", f"{n}") == 3]
    for name in in_one[:4]:
        waiting = await waits(datastore)
        await second.create("jobs", name, metadata={**WAITING, "scheduled_at": "+50ms"})
        assert await ended(waiting) == [name]


async def test_a_lock_that_is_shortened_is_told_of(datastore: Datastore, second: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    (item,) = (await second.claim("jobs", worker_id="w", lock_for="10m")).items
    waiting = await waits(datastore)
    await second.run([second.calls.extend("jobs", "a", item.token or "", lock_for="50ms")])
    (item,) = (await asyncio.wait_for(waiting, 5)).items
    waiting = await waits(datastore)
    change = {"status": "started", "worker_id": item.metadata["worker_id"], "locked_until": "+50ms"}
    await second.update("jobs", "a", metadata=change, token=item.token, triggers=False)
    assert await ended(waiting) == ["a"]


async def test_where_the_outbox_was_full_it_is_asked_again(
    datastore: Datastore, store: Backend, settings: Settings
) -> None:
    await datastore.configure("jobs", trigger_urls=[{"url": "http://w.example/", "events": ["status:started"]}])
    in_one = [f"{n}" for n in range(200) if datastore.calls.partition("jobs", f"{n}") == 3][:5]
    await datastore.run([datastore.calls.create("jobs", name, metadata=WAITING) for name in in_one])
    async with Datastore(store.url, replace(settings, outbox_max=3), datastore.secrets) as narrow:
        waiting = asyncio.create_task(narrow.claim("jobs", worker_id="w", limit=10, wait=120, triggers="on"))
        assert len(await ended(waiting)) == 3
        assert 3 not in narrow.claims._seen.untold("jobs", PARTITIONS, compile_where(None), 60.0)


async def test_where_something_is_left_in_line_it_is_asked_again(
    datastore: Datastore, second: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told of what comes behind it."""
    monkeypatch.setattr("hookline.claims.POLL", 0.05)
    await datastore.run([datastore.calls.create("jobs", f"{n}", metadata=WAITING) for n in range(100)])
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", limit=10, wait=120, where=REPORTS))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs"))
    await second.create("jobs", "mine", metadata={**WAITING, **REPORTS})
    assert await ended(waiting) == ["mine"]


async def test_a_lost_message_costs_no_more_than_its_time(
    datastore: Datastore, second: Datastore, store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await waits(datastore)
    monkeypatch.setattr("hookline.subscription._Follower.tell", lambda *_: None)
    before = await script_calls(*store.nodes)
    name = next(f"{n}" for n in range(100) if datastore.calls.partition("jobs", f"{n}") == 3)
    await second.create("jobs", name, metadata=WAITING)
    assert (await datastore.exchange([], "jobs", worker_id="w"))[1].items == []
    assert await script_calls(*store.nodes) == before + 2
    # What was asked for some time ago must be asked again so much sooner.
    assert 0 < datastore.claims._seen.stale_in("jobs", PARTITIONS, b"", 60.0) < 60
    monkeypatch.setattr("hookline.claims.POLL", 0.0)
    assert names((await datastore.exchange([], "jobs", worker_id="w"))[1].items) == [name]
    waiting.cancel()
