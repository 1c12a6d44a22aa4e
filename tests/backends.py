"""The stores that the engine must work on. Each is started when its first test begins, and lives until its last."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio as aioredis

from cluster import clustering
from hookline import EmbeddedStore
from process import running_store

REDIS = shutil.which("redis-server")
MISSING = (
    {"redis": "not run on redis: redis-server is not installed (apt-get install redis-server)"} if not REDIS else {}
)
"""The stores that are not installed, and how a report says so."""
PARTITIONS = 8
ACL_PAGE = Path(__file__).parents[1] / "docs/architecture.md"


def _backend(name: str) -> Any:
    """A test's parameter; with HOOKLINE_TEST_BACKENDS=all a store that is not installed is a failure."""
    skipped = name in MISSING and os.environ.get("HOOKLINE_TEST_BACKENDS") != "all"
    return pytest.param(name, marks=[pytest.mark.skip(reason=MISSING[name])] if skipped else [])


BACKENDS = [_backend(name) for name in ("embedded", "redis", "partitioned", "cluster")]


@dataclass(frozen=True, slots=True)
class Backend:
    """A store: the URL that the engine is given, the partitions it is told, and clients that may do everything.

    ``raw`` reaches every key; ``nodes`` are the servers one by one.
    """

    url: str
    partitions: int | None
    raw: aioredis.Redis
    nodes: list[aioredis.Redis]


@contextlib.asynccontextmanager
async def opened(name: str, embedded: EmbeddedStore, directory: Path) -> AsyncIterator[Backend]:
    """One of :data:`BACKENDS`, started if it does not run yet."""
    if name in MISSING:
        pytest.fail(MISSING[name])
    match name:
        case "cluster":
            async with clustering(directory) as cluster:
                # Tests ask it like a single server.
                every: Any = aioredis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, protocol=2)
                yield Backend(cluster.url, None, cast("aioredis.Redis", every), [node.client for node in cluster.nodes])
                await every.aclose()
        case "redis":
            async with running_store(str(REDIS), directory) as store:
                yield Backend(store.url, None, store.client, [store.client])
        case _:
            client = aioredis.Redis.from_url(embedded.url, protocol=2)
            if name == "embedded":
                yield Backend(embedded.url, None, client, [client])
            else:
                # By the user that may do no more than it must: another rule than the partitions', and no more tests.
                yield Backend(await _restricted(client, embedded.url), PARTITIONS, client, [client])
            await client.aclose()


async def _restricted(client: aioredis.Redis, url: str) -> str:
    """Make the user of the documentation -> the URL with that user."""
    found = re.search(r"^ACL SETUSER hookline (.+)$", ACL_PAGE.read_text(), re.MULTILINE)
    assert found, "the documentation has no line for the user"
    await client.execute_command("ACL SETUSER", "hookline", "reset", *found[1].split())  # type: ignore[no-untyped-call]
    return url.replace("unix://", "unix://hookline:PASSWORD@")
