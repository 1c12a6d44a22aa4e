"""A real store for every test: one server a session, emptied between tests."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from hookline import Datastore, EmbeddedStore, SecretBox, Settings, meta
from hookline.errors import Unavailable
from hookline.keyring import Keyring
from proxy import Proxy, proxied

NOW_MS = 1_800_000_000_000
"""Where the injected clock stands at the start of a test that uses it."""

BEGUN_FIRST = (
    "test_schemathesis",
    "test_cli",
    "test_processes",
    "test_serve",
    "test_seeds",
    "test_model",
    "test_relay_killed",
    "test_workers_killed",
    "test_issuing",
    "test_maintenance",
    "test_isolation",
    "test_ndjson",
    "test_every_call",
    "test_cli_items",
    "test_index",
    "test_once",
)
"""Files that take longest: begun last, one of them would run alone while the other processes have nothing to do."""


def pytest_configure() -> None:
    """Heed Ctrl-C, and have what is started heed it, also where a shell began us in the background, to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, in this order; of the others nothing changes."""
    places = {name: place for place, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@dataclass
class Clock:
    """The clock that scripts are given in place of the store's own."""

    ms: int | None = None

    def __call__(self) -> int | None:
        return self.ms

    def advance(self, seconds: float) -> None:
        """Move on; from the first call the clock stands still by itself."""
        self.ms = (self.ms or NOW_MS) + round(seconds * 1000)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStore]:
    """The session's store, without fsync: what survives a crash is tested in tests/faults with a store of its own."""
    data: Path = tmp_path_factory.mktemp("store")
    async with EmbeddedStore(data, fsync="no") as embedded:
        yield embedded


@pytest_asyncio.fixture(loop_scope="session")
async def raw(store: EmbeddedStore) -> AsyncIterator[aioredis.Redis]:
    """A bare client of the emptied store, to look at and to spoil raw keys."""
    client = aioredis.Redis.from_url(store.url, decode_responses=False, protocol=2)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes back beside its calls what a test has emptied, nor is there in its counts of commands.

    What runs as a process of its own looks, and so do tests/engine/test_meta.py and whoever sets this anew.
    """
    monkeypatch.setattr(meta, "LOOK", math.inf)


@pytest.fixture
def clock() -> Clock:
    """Unset it is the store's own clock; ``clock.ms = NOW_MS`` and ``clock.advance`` take over."""
    return Clock()


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of the datastore under test; a file or a test has others by the mark ``settings``."""
    changes: dict[str, Any] = {"data": tmp_path, "call_timeout": 2.0, "tick": 0.1}
    for mark in reversed([*request.node.iter_markers("settings")]):  # that of the file first
        changes |= mark.kwargs
    return replace(Settings(), **changes)


@pytest_asyncio.fixture(loop_scope="session")
async def datastore(
    raw: aioredis.Redis, store: EmbeddedStore, settings: Settings, clock: Clock
) -> AsyncIterator[Datastore]:
    """A datastore on the emptied store."""
    async with opened(Datastore(store.url, settings, SecretBox(bytes(range(32))), now_ms=clock)) as datastore:
        yield datastore


@pytest.fixture
def keyring(datastore: Datastore) -> Keyring:
    """The API keys of the store under test."""
    return Keyring(datastore.connection, datastore.secrets)


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(store: EmbeddedStore, raw: aioredis.Redis) -> AsyncIterator[Proxy]:
    """A proxy before the emptied store, which loses what it is told to."""
    async with proxied(store.url) as opened:
        yield opened


def datastore_at(url: str, settings: Settings) -> Datastore:
    """Another datastore, not yet open."""
    return Datastore(url, settings, SecretBox(bytes(32)))


@contextlib.asynccontextmanager
async def opened(datastore: Datastore) -> AsyncIterator[Datastore]:
    """Open it, however busy the machine is: one whose calls have little time has no more to connect."""

    async def opens() -> bool:
        with contextlib.suppress(Unavailable):
            await datastore.open()
            return True
        return False

    await wait_until(opens)
    try:
        yield datastore
    finally:
        await datastore.close()


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run this beside what is done within, and cancel it at the end; what it raised before is raised then."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def end(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and wait until it has ended by that."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def wait_until(holds: Callable[[], Awaitable[Any] | Any], *, seconds: float = 30.0) -> Any:
    """Wait until the condition holds, and give what it gave; fail after so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        found = holds()
        if asyncio.iscoroutine(found) or asyncio.isfuture(found):
            found = await found
        if found:
            return found
        assert loop.time() < deadline, f"not so within {seconds} s"
        await asyncio.sleep(0.02)
