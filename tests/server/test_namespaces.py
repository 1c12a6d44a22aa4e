"""Several namespaces in one process: opened on first use, and worked for while there is something to do."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as aioredis

from api import Api
from conftest import beside, wait_until
from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.codec import identity, unpack_answer
from hookline.keyring import Keyring
from hookline.secret import Unopenable, load_key
from hookline_server import namespaces as module
from hookline_server.gate import Gate
from hookline_server.namespaces import Namespaces
from hookline_server.orchestrator import Orchestrator
from process import serving
from receiver import receiving
from server.conftest import MakeKey


class Roles:
    """Notes for which namespaces the roles run, in place of a relay."""

    def __init__(self) -> None:
        self.running: set[str] = set()

    async def run(self, name: str) -> None:
        self.running.add(name)
        try:
            await asyncio.Event().wait()
        finally:
            self.running.discard(name)

    def __call__(self, datastore: Datastore) -> list[Coroutine[Any, Any, None]]:
        return [self.run(datastore.settings.namespace), Orchestrator(datastore).run()]


@pytest.fixture
def roles() -> Roles:
    return Roles()


@contextlib.asynccontextmanager
async def running(datastore: Datastore, roles: Roles) -> AsyncIterator[Namespaces]:
    async with Namespaces(datastore, roles) as namespaces:
        async with beside(namespaces.run()):
            yield namespaces
        assert roles.running == set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    monkeypatch.setattr(module, "AWAKE_FOR", 300)
    monkeypatch.setattr(module, "INSPECTED_EVERY", 0.1)


async def test_all_share_the_connections_of_the_process(
    datastore: Datastore, namespaces: Namespaces, raw: aioredis.Redis
) -> None:
    names = [f"tenant-{number}" for number in range(20)]
    opened = await asyncio.gather(*(namespaces.open(name) for name in names for _ in range(3)))
    assert len(set(map(id, opened))) == 20
    await asyncio.gather(*(each.create("jobs", "a", content=each.settings.namespace) for each in opened[::3]))
    assert [(await each.get("jobs", "a")).content for each in opened[::3]] == names
    assert len(await raw.client_list()) <= datastore.settings.connections + 2
    assert await namespaces.open("default") is datastore


async def test_one_that_could_not_be_opened_is_tried_again(
    datastore: Datastore, namespaces: Namespaces, raw: aioredis.Redis
) -> None:
    await raw.set("hl:acme:meta", "spoilt")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await namespaces.open("acme")
    await raw.delete("hl:acme:meta")
    assert (await namespaces.open("acme")).settings.namespace == "acme"


async def test_roles_run_while_a_namespace_is_used_and_rest_after(datastore: Datastore, roles: Roles) -> None:
    async with running(datastore, roles) as namespaces:
        acme = await namespaces.open("acme")
        await wait_until(lambda: roles.running == {"acme"})
        await wait_until(lambda: roles.running == set())
        await wait_until(lambda: acme.wakes._task is None)  # A moment later: the other roles end as well.
        await acme.create("jobs", "a", metadata={"status": "not_started"})  # nothing that a role would do
        await asyncio.sleep(0.3)
        assert roles.running == set()


async def test_roles_rest_also_where_something_was_due_when_they_were_to_rest(
    datastore: Datastore, roles: Roles
) -> None:
    async with running(datastore, roles) as namespaces:
        acme = await namespaces.open("acme")
        await acme.create("hookline.deliveries.x", "a", metadata={"status": "not_started"}, reserved=True)
        await asyncio.sleep(0.6)  # until its use is long ago, and it was looked at
        assert roles.running == {"acme"}
        await acme.delete("hookline.deliveries.x", "a", reserved=True)
        await wait_until(lambda: roles.running == set(), seconds=5)


async def test_a_namespace_of_another_process_is_picked_up(
    datastore: Datastore, roles: Roles, store: EmbeddedStore
) -> None:
    async with running(datastore, roles):
        other = Datastore(store.url, replace(datastore.settings, namespace="acme"), datastore.secrets)
        async with other:
            await wait_until(lambda: roles.running == {"acme"})
            await wait_until(lambda: roles.running == set())
            # Not noted as used: it is found by what it holds.
            await other.create("jobs", "a", metadata={"status": "not_started", "scheduled_at": "+1s"})

            async def promoted() -> bool:
                return (await other.get("jobs", "a")).status == "not_started"

            await wait_until(promoted)


@pytest.mark.parametrize("left", ["event", "lane", "rule", "index"])
async def test_what_was_left_to_do_is_done_after_a_restart(
    datastore: Datastore, roles: Roles, namespaces: Namespaces, left: str
) -> None:
    acme = await namespaces.open("acme")
    match left:
        case "event":
            trigger = [{"url": "https://example.com/", "events": ["created"]}]
            await acme.create("jobs", "a", trigger_urls=trigger)
        case "lane":
            await acme.create("hookline.deliveries.x", "a", metadata={"status": "not_started"}, reserved=True)
        case "rule":
            await acme.create("hookline.orchestrations", "a", metadata={"status": "not_started"}, reserved=True)
        case "index":
            await acme.create("jobs", "a", metadata={"n": 1})
            await acme.configure("jobs", indexes={"n": "number"})
    await asyncio.sleep(0.4)  # until its use is long ago
    assert await acme.upkeep.next_ms() == 0
    async with running(datastore, roles):
        await wait_until(lambda: "acme" in roles.running)


async def test_a_long_list_of_what_has_been_is_looked_through_by_pages(
    namespaces: Namespaces, raw: aioredis.Redis
) -> None:
    """As of 20,000 rules that have run: no command takes the store long, and one that is in line is found."""
    acme = await namespaces.open("acme")
    registry = f"{acme.connection.tag(0)}:r:hookline"
    await raw.sadd(registry, *(f"hookline.runs.{number}\0completed" for number in range(20_000)))
    await raw.config_resetstat()
    assert await acme.upkeep.next_ms() == math.inf
    assert (await raw.info("commandstats")).get("cmdstat_sscan", {"calls": 0})["calls"] >= 10
    await raw.sadd(registry, *(f"hookline.deliveries.{number}\0not_started" for number in range(20_000)))
    await raw.config_resetstat()
    assert await acme.upkeep.next_ms() == 0
    assert (await raw.info("commandstats"))["cmdstat_sscan"]["calls"] < 10


async def test_idle_namespaces_cost_the_store_nearly_nothing(
    datastore: Datastore, roles: Roles, namespaces: Namespaces, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INSPECTED_EVERY", 600.0)
    for number in range(30):
        await (await namespaces.open(f"tenant-{number}")).create("jobs", "a", content=1)
    await asyncio.sleep(0.4)
    async with running(datastore, roles) as looking:
        await wait_until(lambda: looking._inspect_at > 0 and not looking._idle and roles.running == set())
        await raw.config_resetstat()
        began = time.monotonic()
        await asyncio.sleep(1)
        asked = (await raw.info("stats"))["total_commands_processed"]
        # Two commands a look, however many namespaces there are.
        assert asked <= 2 * (time.monotonic() - began) / module.LOOK + 5
        assert roles.running == set()


async def test_an_api_key_of_a_trigger_opens_in_its_namespace_alone(
    api: Api, gate: Gate, namespaces: Namespaces, make_key: MakeKey
) -> None:
    headers = await make_key("acme")
    shown = []
    for method, path, body in (
        ("PUT", "/v1/items/jobs/a", {"triggerUrls": {"https://example.com/": "trigger-secret"}}),
        ("GET", "/v1/items/jobs/a", None),
        ("PATCH", "/v1/items/jobs/a", {"metadata": {"n": 1}}),
        ("PUT", "/v1/keys/jobs/settings", {"triggerUrls": {"https://example.com/": "trigger-secret"}}),
        ("GET", "/v1/keys/jobs/settings", None),
        ("POST", "/v1/items/hookline.deliveries.x/query", {}),
    ):
        shown.append(await api(method, path, body, headers=headers))
        assert shown[-1].status < 300, shown[-1].body
    assert not [answer for answer in shown if b"trigger-secret" in answer.body]
    acme = await namespaces.open("acme")
    ((_, sealed, _),) = unpack_answer((await acme.get("jobs", "a")).sealed_triggers)
    assert acme.secrets.open(sealed, identity("acme", "jobs", "a")) == "trigger-secret"
    with pytest.raises(Unopenable):
        acme.secrets.open(sealed, identity("globex", "jobs", "a"))


async def test_webhooks_of_every_namespace_are_delivered_also_after_a_restart(tmp_path: Path) -> None:
    """Two tenants of one server; what is left in an outbox is posted by the next server, which nobody has asked yet."""
    data, names = tmp_path / "data", ("acme", "globex")
    box = SecretBox(load_key(None, data))
    async with EmbeddedStore(tmp_path / "own", fsync="no") as store, receiving() as receiver:
        trigger = [{"url": receiver.url, "events": ["created"]}]
        async with Datastore(store.url, Settings(data=data), box) as home:
            keyring = Keyring(home.connection, box)
            api_keys = [(await keyring.create(name, scopes=["write"]))[1] for name in names]
        async with serving(data, "--store", store.url) as server, aiohttp.ClientSession() as session:
            for api_key in api_keys:
                body = {"key": "jobs", "triggerUrls": trigger}
                headers = {"Authorization": f"Bearer {api_key}"}
                async with session.post(f"{server.url}/v1/items", json=body, headers=headers) as answer:
                    assert answer.status == 201
            await receiver.wait_for(2)
        for name in names:
            async with Datastore(store.url, Settings(data=data, namespace=name), box) as left:
                await left.create("jobs", "left", content=name, trigger_urls=trigger)
        async with serving(data, "--store", store.url):
            posts = (await receiver.wait_for(4))[2:]
        assert {post.data["newDataset"]["content"] for post in posts} == set(names)
