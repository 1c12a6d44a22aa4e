"""A store that sentinels watch: a primary and a replica, of which now the one, now the other takes the writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from conftest import wait_until
from hookline import Datastore, SecretBox, Settings
from hookline.embedded import find_server
from hookline.errors import Incompatible, OutcomeUnknown, Unavailable
from hookline.sentinel import Sentinels
from jobs import WAITING, names
from process import Store, free_port, hookline, running_store, serving

pytestmark = pytest.mark.settings(call_timeout=1.0)

PASSWORD = "of-the-sentinels"


@dataclass
class Watched:
    """The two servers, and the sentinel. ``url`` names a second one that is not there before it."""

    primary: Store
    replica: Store
    sentinel: Store
    away: int

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.away},127.0.0.1:{self.sentinel.port}/main"

    async def ask(self, *args: Any) -> Any:
        """``SENTINEL ...``"""
        return await self.sentinel.client.execute_command(" ".join(("SENTINEL", str(args[0]))), *args[1:])  # type: ignore[no-untyped-call]

    async def follows(self) -> bool:
        """Whether the sentinel knows the replica, and that has all that was written."""
        known = await self.ask("REPLICAS", "main")
        return len(known) == 1 and await self.primary.client.wait(1, 100) == 1


@pytest_asyncio.fixture(loop_scope="session")
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    server, config = str(find_server()), tmp_path / "sentinel.conf"
    config.touch()
    async with contextlib.AsyncExitStack() as stack:
        primary = await stack.enter_async_context(running_store(server, tmp_path / "primary"))
        following = {"replicaof": f"127.0.0.1 {primary.port}"}
        replica = await stack.enter_async_context(running_store(server, tmp_path / "replica", **following))
        sentinel = await stack.enter_async_context(
            running_store(server, tmp_path / "sentinel", str(config), "--sentinel")
        )
        watched = Watched(primary, replica, sentinel, free_port())
        await watched.ask("MONITOR", "main", "127.0.0.1", primary.port, 1)
        await watched.ask("SET", "main", "down-after-milliseconds", 500, "failover-timeout", 5000)
        await wait_until(watched.follows)
        yield watched


@pytest_asyncio.fixture(loop_scope="session")
async def datastore(watched: Watched, settings: Settings) -> AsyncIterator[Datastore]:
    async with Datastore(watched.url, settings, SecretBox(bytes(range(32)))) as opened:
        yield opened


@pytest.mark.parametrize("how", ["planned", "killed"])
async def test_after_a_failover_the_other_is_worked_on(watched: Watched, datastore: Datastore, how: str) -> None:
    await datastore.create("jobs", "before", metadata=WAITING)
    assert names((await datastore.claim("jobs", worker_id="w")).items) == ["before"]
    early = asyncio.create_task(_claimed(datastore))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
    await wait_until(watched.follows)
    if how == "planned":
        await watched.ask("FAILOVER", "main")
    else:
        watched.primary.process.kill()
    await wait_until(lambda: _leads(watched.replica))
    await wait_until(lambda: _created(datastore, watched.replica))
    late = asyncio.create_task(_claimed(datastore))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 2 - early.done())
    for name in "ab":
        await datastore.create("jobs", name, metadata=WAITING)
    # Who waited when the store went away may have been told that.
    assert sorted(await asyncio.wait_for(asyncio.gather(early, late), 20)) in (["a", "b"], ["", "a"])
    assert await watched.replica.client.exists("hl:{default/0}:i:jobs:b")
    assert (await datastore.get("jobs", "before")).status == "started"


async def test_an_old_primary_is_not_written_to_until_it_is_told(watched: Watched, datastore: Datastore) -> None:
    """Which sentinels do ten seconds later; also where no new connection is made meanwhile."""
    assert await _created(datastore, watched.primary)
    await watched.ask("FAILOVER", "main")
    await wait_until(lambda: _leads(watched.replica))
    await wait_until(lambda: _created(datastore, watched.replica))
    assert await _leads(watched.primary)


async def test_most_of_them_are_believed_and_none_is_needed_meanwhile(
    watched: Watched, datastore: Datastore, tmp_path: Path
) -> None:
    ports = [watched.sentinel.port]
    async with contextlib.AsyncExitStack() as stack:
        for name, primary in (("other", watched.primary.port), ("cut-off", watched.away)):
            (config := tmp_path / f"{name}.conf").touch()
            started = running_store(str(find_server()), tmp_path / name, str(config), "--sentinel")
            sentinel = await stack.enter_async_context(started)
            await sentinel.client.execute_command("SENTINEL MONITOR", "main", "127.0.0.1", primary, 2)  # type: ignore[no-untyped-call]
            ports.insert(0, sentinel.port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        assert await Sentinels(f"redis+sentinel://{hosts}/main", 1.0).primary() == ("127.0.0.1", watched.primary.port)
    made = await datastore.create("jobs")
    watched.sentinel.process.kill()
    await watched.sentinel.process.wait()
    found = await asyncio.gather(*(datastore.get("jobs", made.sort_field) for _ in range(40)))
    assert found == [made.item] * 40


async def test_what_the_sentinels_do_not_say_is_told(watched: Watched, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no sentinel says where other is: .*:\d+ knows of none"):
        async with Datastore(watched.url.replace("/main", "/other"), settings, SecretBox(bytes(32))):
            pass
    async with (
        serving(tmp_path / "data", "--store", watched.url) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/readyz") as answer,
    ):
        assert answer.status == 200
    await watched.sentinel.client.execute_command("ACL SETUSER", "default", f">{PASSWORD}")  # type: ignore[no-untyped-call]
    for login in ("", "?sentinel_password=wrong"):
        with pytest.raises(Incompatible, match="user or password") as refused:
            async with Datastore(watched.url + login, settings, SecretBox(bytes(32))):
                pass
        assert "wrong" not in str(refused.value)
    async with Datastore(f"{watched.url}?sentinel_password={PASSWORD}", settings, SecretBox(bytes(32))) as datastore:
        assert await _created(datastore, watched.primary)
    secret, login = {"HOOKLINE_DATA": str(tmp_path / "data")}, f"{watched.url}?sentinel_password={PASSWORD}"
    _, said = await hookline("serve", "--host", "0.0.0.0", "--port", "0", "--store", login, **secret)
    assert "hookline keys create --store URL" in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("url", "addresses", "name", "options"),
    [
        ("redis+sentinel://a/main", [("a", 26379)], "main", {}),
        ("redis+sentinel://a:1,b,[::1]:2/main/3", [("a", 1), ("b", 26379), ("::1", 2)], "main", {"db": 3}),
        (
            "redis+sentinel://u:p%2F%40@a/the%20one?protocol=2",
            [("a", 26379)],
            "the one",
            {"username": "u", "password": "p/@", "protocol": 2},
        ),
    ],
)
def test_urls(url: str, addresses: list[tuple[str, int]], name: str, options: dict[str, Any]) -> None:
    sentinels = Sentinels(url, 1.0)
    assert (sentinels.addresses, sentinels.name) == (addresses, name)
    assert {key: value for key, value in sentinels.options.items() if key != "connection_class"} == options


async def _created(datastore: Datastore, store: Store) -> bool:
    """Whether an item comes to a store by now."""
    with contextlib.suppress(Unavailable, OutcomeUnknown):
        made = await datastore.create("other")
        return bool(await store.client.exists(f"hl:{{default/0}}:i:other:{made.sort_field}"))
    return False


async def _claimed(datastore: Datastore) -> str:
    """The name of an item that was waited for; empty where the store was away."""
    with contextlib.suppress(Unavailable, OutcomeUnknown):
        return (await datastore.claim("jobs", worker_id="w", wait=60)).items[0].sort_field
    return ""


async def _leads(store: Store) -> bool:
    return bool((await store.client.info("replication"))["role"] == "master")
