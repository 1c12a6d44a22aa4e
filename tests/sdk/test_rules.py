"""Orchestrations and schedules by a datastore and by both clients: the same verbs, values and errors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hookline import Client, Datastore, Orchestration, Schedule, SyncClient
from hookline.clientrules import ClientRules, SyncRules
from hookline.errors import Exists, Invalid, NotFound, ReservedKey
from hookline.rulebook import Rulebook
from hookline.rules import LIST_MAX
from jobs import WAITING, fill, names

PUSH = Orchestration(key="jobs", where={"n": {"gte": 1}}, every="1h", limit=2, lock_for="5m", max_in_flight=3)
NIGHTLY = Schedule(
    key="jobs",
    cron="30 2 * * *",
    time_zone="Europe/Berlin",
    content={"for": "{schedule.tick}"},
    metadata={"status": "not_started", "type": "report"},
    trigger_urls=[{"url": "https://worker.example/run", "apiKey": "its-secret-key", "events": ["updated"]}],
    catch_up="all",
)


def public(kind: type) -> dict[str, inspect.Signature]:
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(function) for name, function in found if not name.startswith("_")}


def test_the_verbs_are_the_same() -> None:
    assert public(Rulebook) == public(ClientRules) == public(SyncRules)
    for kind in ("orchestrations", "schedules"):
        for source in (Datastore, Client, SyncClient):
            assert isinstance(inspect.getattr_static(source, kind), property)


class Sync:
    """A client that blocks, as one that does not: each verb in a thread."""

    def __init__(self, rules: Any) -> None:
        self._rules = rules

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def verb(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(getattr(self._rules, name), *args, **options)

        return verb


@pytest.fixture(params=["datastore", "client", "sync"])
def books(request: pytest.FixtureRequest, datastore: Datastore, client: Client, url: str) -> Iterator[Any]:
    """The orchestrations and the schedules of each."""
    source = datastore if request.param == "datastore" else client
    with SyncClient(url) as blocking:
        if request.param == "sync":
            yield Sync(blocking.orchestrations), Sync(blocking.schedules)
        else:
            yield source.orchestrations, source.schedules


async def test_an_orchestration(books: Any, datastore: Datastore) -> None:
    book, _ = books
    await fill(datastore, 4)
    stored = await book.put("push", PUSH)
    assert (stored.name, stored.rule, stored.version, stored.last_run) == ("push", PUSH, 1, None)
    assert stored.next_run
    assert stored == await book.get("push") == await datastore.orchestrations.get("push")
    assert await book.all() == [stored]
    assert names((await book.run("push")).items) == ["0001", "0002"]
    assert [run["claimed"] for run in (await book.runs("push")).items] == [2]
    assert names((await book.run("push")).items) == ["0003"]
    first = await book.runs("push", limit=1)
    assert [run["claimed"] for run in first.items] == [1]
    rest = await book.runs("push", limit=5, cursor=first.cursor)
    assert [run["claimed"] for run in rest.items] == [2]
    assert [tick.at for tick in await book.next("push", 1)] == [stored.next_run]
    disabled = await book.disable("push")
    assert (disabled.rule.enabled, disabled.next_run, await book.next("push")) == (False, None, [])
    assert (await book.enable("push")).rule == PUSH
    changed = await book.put("push", Orchestration(key="jobs"))
    assert (changed.rule.every, changed.rule.limit, changed.version) == (None, 10, 4)
    await book.delete("push")
    assert await book.all() == []


async def test_all_are_more_than_a_page(datastore: Datastore, client: Client, url: str) -> None:
    wanted = [f"rule-{number:04}" for number in range(LIST_MAX + 1)]
    await asyncio.gather(*(datastore.orchestrations.put(name, Orchestration(key="jobs")) for name in wanted))
    with SyncClient(url) as blocking:
        for book in (datastore.orchestrations, client.orchestrations, Sync(blocking.orchestrations)):
            assert [stored.name for stored in await book.all()] == wanted


async def test_a_schedule(books: Any, datastore: Datastore) -> None:
    _, book = books
    stored = await book.put("nightly", NIGHTLY)
    assert "its-secret-key" not in repr(stored)
    assert [(trigger.url, trigger.has_api_key) for trigger in stored.triggers] == [("https://worker.example/run", True)]
    assert (stored.rule.content, stored.rule.catch_up, stored.rule.trigger_urls) == (NIGHTLY.content, "all", None)
    assert stored == await book.get("nightly") == await datastore.schedules.get("nightly")
    ticks = await book.next("nightly", 3)
    assert [tick.local[10:16] for tick in ticks] == ["T02:30"] * 3
    created = await book.run("nightly")
    item = await datastore.get("jobs", created.sort_field)
    assert (created.item, item.metadata["type"], len(item.triggers)) == (item, "report", 1)
    assert [run["by"] for run in (await book.runs("nightly")).items] == ["hand"]
    await book.delete("nightly")


async def test_refusals(books: Any, datastore: Datastore) -> None:
    orchestrations, schedules = books
    for ask in (orchestrations.get, orchestrations.run, schedules.runs, schedules.next, schedules.delete):
        with pytest.raises(NotFound, match="has this name"):
            await ask("nothing")
    with pytest.raises(Invalid) as invalid:
        await orchestrations.put("push", Orchestration(key="jobs", every="often"))
    assert [flaw.pointer for flaw in invalid.value.flaws] == ["/every"]
    with pytest.raises(Invalid):
        await orchestrations.put("no name", PUSH)
    with pytest.raises(ReservedKey):
        await schedules.put("it", Schedule(key="hookline.workers"))
    await schedules.put("fixed", Schedule(key="jobs", sort_field="x-{schedule.localTick}", time_zone="UTC"))
    assert (await schedules.get("fixed")).next_run is None


async def test_by_an_idempotency_key_a_rule_is_run_once(client: Client, datastore: Datastore) -> None:
    await fill(datastore, 3)
    await client.orchestrations.put("one", Orchestration(key="jobs", limit=1))
    taken = [names((await client.once("a").orchestrations.run("one")).items) for _ in range(2)]
    assert taken == [["0000"], ["0000"]]
    assert len((await datastore.query("jobs", where=WAITING)).items) == 2
    with pytest.raises(Exists):
        await datastore.create("jobs", "0000")
