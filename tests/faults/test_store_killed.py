"""The store dies in the middle of writes. What it acknowledged is there when it comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as StoreGone

from hookline.embedded import EmbeddedStore

WRITERS = 8
WRITES = 1_000
"""A store is killed after at least so many acknowledged writes, and more that are on their way."""


class Acknowledged:
    """What the store said that it has kept: keys with their values, and stream entries."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.entries: dict[str, list[bytes | str]] = {}

    def __len__(self) -> int:
        return len(self.values) + sum(map(len, self.entries.values()))

    async def missing(self, url: str) -> int:
        """How many of them the store at this URL does not have."""
        async with Redis.from_url(url) as client:
            found = await client.mget(list(self.values))
            lost = sum(value != kept for value, kept in zip(self.values.values(), found, strict=True))
            for stream, entries in self.entries.items():
                lost += len(set(entries) - {entry for entry, _ in await client.xrange(stream) or []})
            return lost


async def write(url: str, name: str, seed: int, acknowledged: Acknowledged) -> None:
    """Write until the store is gone; only what was answered counts."""
    random = Random(seed)
    entries = acknowledged.entries.setdefault(name, [])
    async with Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        for n in count():
            key, value = f"{name}:{n}", random.randbytes(random.choice((10, 1_000, 50_000)))
            try:
                await client.set(key, value)
                acknowledged.values[key] = value
                entries.append(await client.xadd(name, {"n": n}))
            except StoreGone:
                return


async def write_and_kill(store: EmbeddedStore, acknowledged: Acknowledged, *, round_: int, rewrite: bool) -> None:
    """Have writers at the store, kill it while they write, and see to it that it has ended."""
    enough = len(acknowledged) + WRITES
    writers = asyncio.gather(
        *(write(store.url, f"{round_}.{n}", round_ * WRITERS + n, acknowledged) for n in range(WRITERS))
    )
    deadline = monotonic() + 60
    async with Redis.from_url(store.url) as client:
        while len(acknowledged) < enough:
            assert monotonic() < deadline, f"only {len(acknowledged)} of {enough} writes"
            assert not writers.done()
            await asyncio.sleep(0.002)
        if rewrite:
            await client.bgrewriteaof()
            while not (await client.info("persistence"))["aof_rewrite_in_progress"]:
                assert monotonic() < deadline
    os.kill(store.pid, signal.SIGKILL)
    await writers
    await store.stop()


@pytest.mark.parametrize("rewrite", [False, True], ids=["writing", "rewriting its file"])
async def test_no_acknowledged_write_is_lost_when_the_store_is_killed(tmp_path: Path, rewrite: bool) -> None:
    acknowledged = Acknowledged()
    store = EmbeddedStore(tmp_path)
    for round_ in range(3):
        await store.start()
        await write_and_kill(store, acknowledged, round_=round_, rewrite=rewrite)
    async with store:
        assert await acknowledged.missing(store.url) == 0


SYNC_LOG = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writes down the size that each fsync made safe: the size of the file before it. */
static int logged(const char *name, int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  struct stat before;
  char link[64], path[4096];
  fstat(fd, &before);
  int result = real(fd);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  FILE *log = fopen(getenv("SYNC_LOG"), "a");
  if (length > 0 && log) fprintf(log, "%lld %.*s\n", (long long)before.st_size, (int)length, path);
  if (log) fclose(log);
  return result;
}
int fsync(int fd) { return logged("fsync", fd); }
int fdatasync(int fd) { return logged("fdatasync", fd); }
"""


@pytest.fixture
def sync_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores that are started in this test write here what they have made safe."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library, log = (tmp_path / name for name in ("sync.c", "sync.so", "sync.log"))
    source.write_text(SYNC_LOG)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("SYNC_LOG", str(log))
    return log


def cut_power(data: Path, sync_log: Path) -> None:
    """Take from the append-only files what no fsync has covered, as a power cut may."""
    safe: dict[str, int] = {}
    for line in sync_log.read_text().splitlines():
        size, path = line.split(" ", 1)
        safe[path] = int(size)
    for aof in (data / "appendonlydir").glob("*.incr.aof"):
        os.truncate(aof, safe.get(str(aof), 0))


@pytest.mark.parametrize("fsync", ["always", "no"])
async def test_no_acknowledged_write_is_lost_in_a_power_cut(tmp_path: Path, sync_log: Path, fsync: str) -> None:
    acknowledged = Acknowledged()
    store = EmbeddedStore(tmp_path / "data", fsync=fsync)
    await store.start()
    await write_and_kill(store, acknowledged, round_=0, rewrite=False)
    cut_power(tmp_path / "data", sync_log)
    async with store:
        missing = await acknowledged.missing(store.url)
    if fsync == "always":
        assert missing == 0
    else:
        assert missing > 0, "this power cut takes nothing away, so the test shows nothing"
