"""``hookline doctor`` as a process: beside a running server, on the data of a stopped one, on a named store."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import redis.asyncio as aioredis

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.embedded import running
from process import serving
from scripts import TAG


async def hookline(*args: str | Path, stdin: bytes = b"", **environ: str) -> tuple[int, str, str]:
    """Run a command -> exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", *map(str, args)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    out, err = await process.communicate(stdin)
    process._transport.close()  # type: ignore[attr-defined]  # else its pipes are reported as left open
    return process.returncode or 0, out.decode(), err.decode()


async def create_item(datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata={"status": "not_started"})


async def test_doctor_on_a_named_store(datastore: Datastore, raw: aioredis.Redis, store: EmbeddedStore) -> None:
    await create_item(datastore)
    assert await hookline("doctor", "--store", store.url) == (
        0,
        "examined 3 items and entries: 0 flaws, 0 repaired\n",
        "",
    )
    await raw.zrem(f"{TAG}:k:jobs", "a")
    code, out, _ = await hookline("doctor", "--store", store.url)
    assert code == 1
    assert out.splitlines() == [
        "jobs: the set of all sortFields is in the registry, and empty",
        "jobs/a: is not in the set of all sortFields",
        "examined 2 items and entries: 2 flaws, 0 repaired",
        "put right what can be with: hookline doctor --repair",
    ]
    code, out, _ = await hookline("doctor", "--repair", "--store", store.url)
    assert code == 0
    assert "jobs/a: is not in the set of all sortFields (repaired)" in out
    assert (await hookline("doctor", "--store", store.url))[0] == 0
    await raw.hdel(f"{TAG}:i:jobs:a", "c")
    assert (await hookline("doctor", "--repair", "--store", store.url))[0] == 1


async def test_doctor_on_data_with_and_without_a_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, _, err = await hookline("doctor", "--data", data)
    assert (code, data.exists()) == (1, False)
    assert "there is no data in" in err
    async with serving(data):
        url = running(data)
        assert url
        async with Datastore(url, Settings(), SecretBox(bytes(32))) as datastore:
            await create_item(datastore)
        code, out, _ = await hookline("doctor", "--data", data)
        assert (code, out) == (0, "examined 3 items and entries: 0 flaws, 0 repaired\n")
    assert running(data) is None
    assert (await hookline("doctor", HOOKLINE_DATA=str(data)))[:2] == (code, out)
    code, _, err = await hookline("doctor", "--data", data, HOOKLINE_PARTITIONS="3")
    assert code == 1
    assert "HOOKLINE_PARTITIONS=1" in err


async def test_doctor_where_nothing_answers(tmp_path: Path) -> None:
    code, _, err = await hookline("doctor", "--store", f"unix://{tmp_path}/none")
    assert code == 1
    assert err.startswith("hookline: the store gave no answer")
