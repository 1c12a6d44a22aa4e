"""Claims that the store itself holds back until something is ready: where a namespace has one partition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from msgspec import structs

from backends import Backend
from conftest import end, wait_until
from hookline import Call, Claimed, Datastore, Outcome, SecretBox, Settings
from hookline.keys import bell
from hookline.link import Hold
from jobs import WAITING, names, script_calls


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by itself."""
    monkeypatch.setattr("hookline.claims.POLL", 60.0)


@pytest.fixture
def settings(settings: Settings, store: Backend) -> Settings:
    """One partition, on every store."""
    return replace(settings, partitions=1)


@pytest_asyncio.fixture(loop_scope="session")
async def second(store: Backend, settings: Settings, datastore: Datastore) -> AsyncIterator[Datastore]:
    """Another process, as far as the store can tell."""
    async with Datastore(store.url, settings, SecretBox(bytes(32))) as other:
        yield other


async def held(store: Backend) -> list[tuple[aioredis.Redis, int]]:
    """The connections that the store holds up: each node's client, and the connection's id."""
    return [
        (node, int(client["id"]))
        for node in store.nodes
        for client in await node.client_list()
        if client["cmd"] == "bzpopmin" and "b" in client["flags"]
    ]


async def waits(datastore: Datastore, store: Backend, **options: Any) -> asyncio.Task[Claimed]:
    """A claim, from when the store holds it back."""
    before = len(await held(store))
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=120, **options))

    async def is_held() -> bool:
        return len(await held(store)) > before

    await wait_until(is_held)
    return waiting


async def test_a_write_lets_a_claim_through(datastore: Datastore, store: Backend) -> None:
    token = ""
    for change in ("create", "update", "release"):
        waiting = await waits(datastore, store, lock_for="5m")
        if change == "create":
            await datastore.create("other", "a", metadata=WAITING)
            await datastore.create("jobs", "a", metadata=WAITING)
        elif change == "update":
            before, connections = await script_calls(*store.nodes), await held(store)
            await datastore.create("jobs", "b", metadata={"status": "draft"})
            assert (await script_calls(*store.nodes), await held(store)) == (before + 1, connections)
            await datastore.update("jobs", "b", metadata=WAITING)
        else:
            await datastore.run([datastore.calls.release("jobs", "b", token)])
        (item,) = (await asyncio.wait_for(waiting, 5)).items
        token = item.token or ""
        assert item.sort_field == ("a" if change == "create" else "b")
        assert item.status == "started"
        assert item == structs.replace(await datastore.get("jobs", item.sort_field), token=token)
    assert not await held(store)


async def test_one_of_those_who_wait_claims_and_no_other_asks(
    datastore: Datastore, second: Datastore, store: Backend
) -> None:
    first, other = await waits(datastore, store), await waits(second, store)
    before = await script_calls(*store.nodes)
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await asyncio.wait_for(first, 5)).items) == ["a"]
    assert await script_calls(*store.nodes) == before + 2
    assert len(await held(store)) == 1
    await datastore.create("jobs", "b", metadata=WAITING)
    assert names((await asyncio.wait_for(other, 5)).items) == ["b"]


async def test_who_has_seen_the_end_of_the_line_does_not_look_again(
    datastore: Datastore, second: Datastore, store: Backend
) -> None:
    waiting = await waits(datastore, store, limit=2)
    before = await script_calls(*store.nodes)
    for made, name in enumerate("abc", 1):
        await datastore.create("jobs", name, metadata=WAITING)
        assert names((await asyncio.wait_for(waiting, 5)).items) == [name]
        waiting = await waits(datastore, store, limit=2)
        assert await script_calls(*store.nodes) == before + 2 * made
    await end(waiting)
    assert (await datastore.claim("jobs", worker_id="w", limit=2)).items == []
    # What comes in line before it is held back has rung the bell, and what will be due is waited for.
    await second.create("jobs", "d", metadata=WAITING)
    held_back = await asyncio.wait_for(datastore.claim("jobs", worker_id="w", limit=2, wait=120), 5)
    assert names(held_back.items) == ["d"]
    await second.create("jobs", "e", metadata={**WAITING, "scheduled_at": "+1s"})
    assert (await datastore.claim("jobs", worker_id="w", limit=2)).items == []
    due = await asyncio.wait_for(datastore.claim("jobs", worker_id="w", limit=2, wait=120), 10)
    assert names(due.items) == ["e"]


async def test_what_one_leaves_the_next_gets(datastore: Datastore, second: Datastore, store: Backend) -> None:
    first, other = await waits(datastore, store, limit=2), await waits(second, store, limit=2)
    await datastore.run([datastore.calls.create("jobs", f"{n}", metadata=WAITING) for n in range(5)])
    found = await asyncio.wait_for(asyncio.gather(first, other), 5)
    assert [names(claimed.items) for claimed in found] == [["0", "1"], ["2", "3"]]
    assert names((await datastore.claim("jobs", worker_id="w", wait=120)).items) == ["4"]


async def test_the_bell_rings_while_something_is_in_line(datastore: Datastore, raw: aioredis.Redis) -> None:
    name = bell(datastore.connection.tag(0), "jobs")
    await datastore.run([datastore.calls.create("jobs", f"{n}", metadata=WAITING) for n in range(2)])
    assert await raw.exists(name)
    await datastore.claim("jobs", worker_id="w")
    assert await raw.exists(name)
    await datastore.claim("jobs", worker_id="w")
    assert not await raw.exists(name)
    await datastore.create("jobs", "later", metadata={**WAITING, "scheduled_at": "+1m"})
    assert await raw.exists(name)
    for each in ("0", "1", "later"):
        await datastore.delete("jobs", each)
    assert not await raw.exists(name)


async def test_who_goes_away_takes_nothing(datastore: Datastore, second: Datastore, store: Backend) -> None:
    for n in range(5):
        waiting = await waits(datastore, store)
        waiting.cancel()
        await datastore.create("jobs", f"{n}", metadata=WAITING)
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert not await held(store)
        item = await datastore.get("jobs", f"{n}")
        assert (item.status, item.locked_until_ms) == ("not_started", None)
        assert names((await second.claim("jobs", worker_id="v", wait=120)).items) == [f"{n}"]


async def test_before_the_process_stops_all_are_let_go(datastore: Datastore, store: Backend) -> None:
    waiting = await waits(datastore, store)
    datastore.wakes.release()
    assert (await asyncio.wait_for(waiting, 10)).items == []
    assert not await held(store)


async def test_who_comes_while_the_process_stops_does_not_wait(datastore: Datastore, store: Backend) -> None:
    """Also where it was just seen that nothing is there, and a link is free."""
    waiting = await waits(datastore, store)
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]
    assert (await datastore.claim("jobs", worker_id="w")).items == []
    datastore.wakes.release()
    assert (await asyncio.wait_for(datastore.claim("jobs", worker_id="w", wait=120), 10)).items == []


async def test_a_lost_connection_is_no_end(datastore: Datastore, store: Backend) -> None:
    waiting = await waits(datastore, store)
    for node, connection in await held(store):
        await node.client_kill_filter(_id=str(connection))
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_who_is_told_twice_to_go_takes_nothing_either(
    datastore: Datastore, store: Backend, raw: aioredis.Redis
) -> None:
    for n in range(10):
        waiting = await waits(datastore, store)
        making = asyncio.create_task(datastore.create("jobs", f"{n}", metadata=WAITING))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0.0002 * n)
        await end(waiting)
        await making

        async def is_free(name: str = f"{n}") -> bool:
            return (await datastore.get("jobs", name)).status == "not_started"

        if not waiting.cancelled():  # it was told too late
            assert names(waiting.result().items) == [f"{n}"]
        else:
            await wait_until(is_free)
        await datastore.delete("jobs", f"{n}")
    assert not await held(store)


async def test_what_is_due_soon_is_waited_for_here(datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store would look at its clock too seldom."""
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+300ms"})
    monkeypatch.setattr(datastore.connection, "hold", pytest.fail)
    waiting = datastore.claim("jobs", worker_id="w", wait=120)
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_what_is_too_much_for_one_is_for_the_next(datastore: Datastore, raw: aioredis.Redis) -> None:
    name = bell(datastore.connection.tag(0), "jobs")
    made = [datastore.calls.create("jobs", f"{n:02}", content="x" * 60_000, metadata=WAITING) for n in range(90)]
    await datastore.run(made)
    await raw.delete(name)
    (claimed,) = await datastore.run([datastore.calls.claim("jobs", worker_id="w", limit=100)])
    assert isinstance(claimed, Claimed)
    assert 0 < len(claimed.items) < 90
    assert await raw.exists(name)


async def test_what_a_claim_that_was_cut_short_took_is_given(
    datastore: Datastore, store: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_back = datastore.claims._perform_held

    async def cut_short(call: Call, hold: Hold) -> Outcome | Claimed | None:
        claimed = await held_back(call, hold)
        assert isinstance(claimed, Claimed)
        return structs.replace(claimed, more=True)

    monkeypatch.setattr(datastore.claims, "_perform_held", cut_short)
    waiting = await waits(datastore, store)
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_settings_that_change_meanwhile_hold(datastore: Datastore, second: Datastore, store: Backend) -> None:
    waiting = await waits(datastore, store)
    await second.configure("jobs", lock_for="2h")
    await second.create("jobs", "a", metadata=WAITING)
    (item,) = (await asyncio.wait_for(waiting, 5)).items
    assert item.locked_until_ms
    assert item.locked_until_ms - time.time() * 1000 > 7_000_000


@pytest.mark.parametrize("what", ["in line", "due", "expired"])
async def test_a_key_that_goes_on_after_a_pause(datastore: Datastore, store: Backend, what: str) -> None:
    if what == "expired":
        await datastore.create("jobs", "a", metadata=WAITING)
        await datastore.claim("jobs", worker_id="v", lock_for="100ms")
    await datastore.pause("jobs")
    if what != "expired":
        due = {"scheduled_at": "+100ms"} if what == "due" else {}
        await datastore.create("jobs", "a", metadata={**WAITING, **due})
    await asyncio.sleep(0.15)  # of the store's time, which no test sets here
    waiting = await waits(datastore, store)
    assert not waiting.done()
    await datastore.resume("jobs")
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_nothing_rings_for_what_the_same_call_takes(datastore: Datastore, raw: aioredis.Redis) -> None:
    name = bell(datastore.connection.tag(0), "jobs")
    await datastore.create("jobs", "a", metadata={**WAITING, "scheduled_at": "+50ms"})
    (item,) = (await datastore.claim("jobs", worker_id="w", wait=5)).items
    assert not await raw.exists(name)
    back = datastore.calls.release("jobs", "a", item.token or "")
    _, claimed = await datastore.exchange([back], "jobs", worker_id="w")
    assert names(claimed.items) == ["a"]
    assert not await raw.exists(name)


async def test_where_the_store_holds_nothing_back_messages_wake(
    datastore: Datastore, store: Backend, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = bell(datastore.connection.tag(0), "jobs")
    await raw.set(name, "of a wrong type")
    refused: list[bool] = []
    held_back = datastore.claims._perform_held

    async def noted(call: Call, hold: Hold) -> Outcome | Claimed | None:
        claimed = await held_back(call, hold)
        refused.append(hold.refused)
        return claimed

    monkeypatch.setattr(datastore.claims, "_perform_held", noted)
    waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=120))
    await wait_until(lambda: refused)
    await datastore.create("jobs", "a", metadata=WAITING)
    assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]
    assert refused == [True]
    await raw.delete(name)


async def test_who_waits_is_let_go_as_the_datastore_closes(
    store: Backend, settings: Settings, raw: aioredis.Redis
) -> None:
    datastore = Datastore(store.url, settings, SecretBox(bytes(32)))
    await datastore.open()
    first = await waits(datastore, store)
    others = [asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=120)) for _ in range(2)]
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 3)
    await asyncio.wait_for(datastore.close(), 5)
    for waiting in (first, *others):
        assert (await asyncio.wait_for(waiting, 5)).items == []
    assert not await held(store)


async def test_a_datastore_closes_once_it_is_known_what_its_claims_took(
    store: Backend, settings: Settings, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    datastore = Datastore(store.url, settings, SecretBox(bytes(32)))
    await datastore.open()
    waiting = await waits(datastore, store)
    ask, asked, go_on = datastore.connection._resolved, asyncio.Event(), asyncio.Event()

    async def ask_late(*args: Any, **options: Any) -> Any:
        asked.set()
        await go_on.wait()
        return await ask(*args, **options)

    monkeypatch.setattr(datastore.connection, "_resolved", ask_late)
    closing = asyncio.create_task(datastore.close())
    await asyncio.wait_for(asked.wait(), 5)
    assert await asyncio.wait({closing}, timeout=0.3) == (set(), {closing})
    go_on.set()
    await asyncio.wait_for(closing, 5)
    assert (await asyncio.wait_for(waiting, 5)).items == []


async def test_no_one_waits_for_a_link_that_is_being_made(
    store: Backend, settings: Settings, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Datastore(store.url, settings, SecretBox(bytes(32))) as datastore:
        links, never = datastore.connection.nodes._links_of(datastore.connection._slots[0]), asyncio.Event()
        monkeypatch.setattr(links.holders, "_make", never.wait)
        waiting = asyncio.create_task(datastore.claim("jobs", worker_id="w", wait=120))
        await wait_until(lambda: links.holders._making is not None)
        await datastore.create("jobs", "a", metadata=WAITING)
        assert names((await asyncio.wait_for(waiting, 5)).items) == ["a"]


async def test_as_many_are_held_as_there_are_links(store: Backend, settings: Settings, raw: aioredis.Redis) -> None:
    """Who comes after that waits for messages, and no other call for a link."""
    few = replace(settings, connections=2)
    async with Datastore(store.url, few, SecretBox(bytes(32))) as datastore:
        claims = [asyncio.create_task(datastore.claim(f"k{n}", worker_id="w", wait=120)) for n in range(4)]
        await wait_until(lambda: sum(datastore.claims.waiters.waiting(f"k{n}") for n in range(4)) == 4)

        async def are_held() -> bool:
            return len(await held(store)) == 2

        await wait_until(are_held)
        for n in range(4):
            await datastore.create(f"k{n}", "a", metadata=WAITING)
        for claimed in await asyncio.wait_for(asyncio.gather(*claims), 10):
            assert names(claimed.items) == ["a"]
