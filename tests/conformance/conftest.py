"""Every test here runs on every store of ``backends.BACKENDS``; after each the keyspace must still fit together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from backends import BACKENDS, Backend, opened
from hookline import EmbeddedStore, Settings
from invariants import check_invariants


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=BACKENDS)
async def store(
    request: pytest.FixtureRequest, store: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    """The store under test, in place of the session's."""
    async with opened(request.param, store, tmp_path_factory.mktemp("backend") / request.param) as backend:
        yield backend


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def raw(request: pytest.FixtureRequest, store: Backend) -> AsyncIterator[aioredis.Redis]:
    """A client of the emptied store that may do everything."""
    await store.raw.flushall()
    yield store.raw
    if "spoils" not in request.keywords:
        await check_invariants(store.raw)


@pytest.fixture
def settings(settings: Settings, store: Backend) -> Settings:
    return replace(settings, partitions=store.partitions)
