"""What a run stands on: a store of its own or one that was named, and a namespace that nobody else uses."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.errors import HooklineError
from hookline.keys import partition_tag
from hookline_bench.part import CALL_TIMEOUT, NAMESPACE


@dataclass(frozen=True, slots=True)
class Ground:
    """A store for this run, its data directory, and a datastore on it."""

    url: str
    data: Path
    datastore: Datastore

    async def count(self, key: str, **statuses: int) -> None:
        """Hold what is there of a key, and of those of single processes, against what ought to be.

        Raises:
            HooklineError: something was lost, or is there twice.
        """
        found: Counter[str] = Counter()
        for row in (await self.datastore.stats(key)).rows:
            if row.key == key or row.key.startswith(f"{key}-"):
                found[row.status or "items"] += row.count
        for status, expected in statuses.items():
            if found[status] != expected:
                raise HooklineError(f"expected {expected:,} {status} of {key}, found {found[status]:,}")


@contextlib.asynccontextmanager
async def grounds(store: str | None, fsync: str, partitions: int | None = None) -> AsyncIterator[Ground]:
    """An embedded store in a temporary directory; or the store at a URL, on this machine, left as it was.

    Its namespace is of so many ``partitions``, or as many as one has by itself.

    Raises:
        HooklineError: the URL leads elsewhere, or the namespace is not empty.
    """
    async with contextlib.AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hookline-bench-")))
        if store is None:
            url = (await stack.enter_async_context(EmbeddedStore(data, fsync=fsync))).url
        else:
            url = store
            _check_local(url)
        settings = Settings(data=data, namespace=NAMESPACE, call_timeout=CALL_TIMEOUT, partitions=partitions)
        datastore = await stack.enter_async_context(Datastore(url, settings, SecretBox(bytes(32))))
        if (await datastore.stats()).rows or (await datastore.stats("hookline.")).rows:
            raise HooklineError(f"expected a store whose namespace {NAMESPACE} is empty: what is there is not touched")
        try:
            yield Ground(url, data, datastore)
        finally:
            if store is not None:
                await _clear(datastore)


def _check_local(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "unix" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise HooklineError("expected a store on this machine: a load is meant for loopback only")


async def _clear(datastore: Datastore) -> None:
    """Remove what the run has left: everything of the namespace's partitions."""
    command = datastore.connection.command
    for partition in range(datastore.calls.partitions):
        pattern = f"{partition_tag(NAMESPACE, partition, datastore.calls.partitions)}:*"
        cursor = b"0"
        while True:
            cursor, names = await command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            if names:
                await command("UNLINK", *names)
            if cursor == b"0":
                break
            await asyncio.sleep(0)
