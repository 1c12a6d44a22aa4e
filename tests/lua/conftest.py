"""The scripts under a clock that stands still; after each test the keyspace must still fit together."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore
from invariants import check_invariants
from scripts import Scripts


@pytest_asyncio.fixture(loop_scope="session")
async def scripts(raw: aioredis.Redis, datastore: Datastore, clock: Clock) -> Scripts:
    clock.ms = NOW_MS
    return Scripts(raw, datastore, clock)


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def invariants(request: pytest.FixtureRequest, raw: aioredis.Redis) -> AsyncIterator[None]:
    yield
    if "spoils" not in request.keywords:
        await check_invariants(raw)
