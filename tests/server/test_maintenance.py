"""doctor, export and import as processes: beside a running server, on data at rest, on a named store."""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.embedded import find_server, running
from hookline.errors import HooklineError
from hookline.secret import load_key
from process import running_store, serving
from scripts import TAG, URL


async def hookline(
    *args: str | Path, stdin: bytes = b"", environ: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command -> exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", *map(str, args)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    out, err = await process.communicate(stdin)
    process._transport.close()  # type: ignore[attr-defined]  # else its pipes are reported as left open
    return process.returncode or 0, out.decode(), err.decode()


def begun(*args: str | Path, **environ: str) -> subprocess.Popen[bytes]:
    """A command that runs, its pipes in our hands."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "hookline_server", *map(str, args)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environ})


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
    code, out, _ = await hookline("doctor", "--json", "--store", store.url)
    assert (code, [json.loads(line) for line in out.splitlines()][1:]) == (
        1,
        [
            {"key": "jobs", "sortField": "a", "what": "is not in the set of all sortFields", "repaired": False},
            {"examined": 2, "flaws": 2, "repaired": 0},
        ],
    )
    code, out, _ = await hookline("doctor", "--repair", "--store", store.url)
    assert code == 0
    assert "jobs/a: is not in the set of all sortFields (repaired)" in out
    assert (await hookline("doctor", "--store", store.url))[0] == 0
    await raw.hdel(f"{TAG}:i:jobs:a", "c")
    assert (await hookline("doctor", "--repair", "--store", store.url))[0] == 1


async def test_doctor_on_data_with_and_without_a_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, _, err = await hookline("doctor", "--data", data)
    assert (code, data.exists()) == (3, False)
    assert "there is no data in" in err
    async with serving(data):
        url = running(data)
        assert url
        async with Datastore(url, Settings(), SecretBox(bytes(32))) as datastore:
            await create_item(datastore)
        code, out, _ = await hookline("doctor", "--data", data)
        assert (code, out) == (0, "examined 3 items and entries: 0 flaws, 0 repaired\n")
    assert running(data) is None
    assert (await hookline("doctor", environ={"HOOKLINE_DATA": str(data)}))[:2] == (code, out)
    code, _, err = await hookline("doctor", "--data", data, environ={"HOOKLINE_PARTITIONS": "3"})
    assert code == 3
    assert "HOOKLINE_PARTITIONS=1" in err


async def test_doctor_where_nothing_answers(tmp_path: Path) -> None:
    code, _, err = await hookline("doctor", "--store", f"unix://{tmp_path}/none")
    assert code == 3
    assert err.startswith("hookline: the store gave no answer")
    assert err.splitlines()[-1] == "  next: start the store, or name another by --store or HOOKLINE_STORE_URL"


async def test_out_of_one_store_and_into_another(tmp_path: Path) -> None:
    data, copy, file = tmp_path / "data", tmp_path / "copy", tmp_path / "items.ndjson"
    async with serving(data):
        url = running(data)
        assert url
        async with Datastore(url, Settings(), SecretBox(load_key(None, data))) as datastore:
            await datastore.configure("jobs", max_attempts=3)
            for number in range(150):
                await datastore.create("jobs", f"{number}", content={"n": number}, trigger_urls={URL: "secret"})
        code, out, err = await hookline("export", "--data", data)
        assert (code, err) == (0, "exported 150 items of default\n")
        assert (await hookline("export", "--data", data, "--namespace", "jbos"))[2] == "exported 0 items of jbos\n"
    assert (await hookline("export", "--data", data))[1].splitlines()[1:] == out.splitlines()[1:]
    file.write_text(out)

    code, _, err = await hookline("import", file, "--data", copy)
    assert code == 1
    assert "sealed under another secret" in err
    assert "--without-api-keys" in err
    (copy / "secret").write_bytes((data / "secret").read_bytes())
    (copy / "secret").chmod(0o600)
    code, out_of_import, err = await hookline("import", file, "--data", copy)
    assert (code, out_of_import) == (0, ""), err
    assert err.splitlines()[-1] == "read 153 lines: 151 written, 0 there already, 0 failed"
    code, again, _ = await hookline("export", "--data", copy)
    assert (code, again.splitlines()[1:]) == (0, out.splitlines()[1:])
    code, _, err = await hookline(
        "import", "-", "--data", copy, stdin="\n".join(out.splitlines()[:70]).encode() + b"\n{"
    )
    assert code == 1
    assert err.splitlines()[-3:] == [  # before them it may say that the store is loading its data
        "line 71: expected a JSON object",
        "the archive has no end: its export, or its copy, was cut off",
        "read 71 lines: 0 written, 69 there already, 1 failed",
    ]
    code, _, err = await hookline(
        "import", "-", "--strict", "--data", copy, stdin=out.encode().replace(b'"n"', b"n", 1)
    )
    assert (code, err.splitlines()[-1]) == (2, "hookline: line 3: expected a JSON object")


async def test_the_sums_of_an_import_tell_whether_the_file_was_whole(
    datastore: Datastore, store: EmbeddedStore
) -> None:
    await create_item(datastore)
    _, archive, _ = await hookline("export", "--without-api-keys", "--store", store.url)
    header, item, end = archive.splitlines(keepends=True)
    sums = {"written": 0, "skipped": 1, "failed": 0}
    for lines, code, told in (
        ([header, item, end], 0, {"lines": 3, **sums, "whole": True}),
        ([header, item], 1, {"lines": 2, **sums, "whole": False}),
        ([header, item, item, end], 1, {"lines": 4, **sums, "skipped": 2, "whole": False}),
        ([header, "{}\n", end], 1, {"lines": 3, **sums, "skipped": 0, "failed": 1, "whole": True}),
    ):
        stdin = "".join(lines).encode()
        found, out, _ = await hookline("import", "-", "--json", "--store", store.url, stdin=stdin)
        assert (found, json.loads(out)) == (code, told)


async def test_an_import_that_a_full_store_breaks_off_says_how_far_it_was(tmp_path: Path) -> None:
    async with running_store(str(find_server()), tmp_path / "store") as store:
        async with Datastore(store.url, Settings(), SecretBox(bytes(32))) as datastore:
            for number in range(400):
                await datastore.create("jobs", f"{number}", content="x" * 5000)
        _, archive, _ = await hookline("export", "--without-api-keys", "--store", store.url)
        # Valkey frees memory later, but for this word.
        await store.client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
        used = (await store.client.info("memory"))["used_memory"]
        await store.client.config_set("maxmemory", used + 1_000_000)
        code, _, err = await hookline("import", "-", "--store", store.url, stdin=archive.encode())
        said, reason = err.splitlines()[-2:]
        found = re.fullmatch(r"broken off after \d+ lines, (\d+) of them written: a repeat goes on from there", said)
        assert found, err
        assert (code, reason) == (3, "hookline: the store is at its memory limit: raise maxmemory, or delete items")
        await store.client.config_set("maxmemory", 0)
        code, _, err = await hookline("import", "-", "--store", store.url, stdin=archive.encode())
        read = re.search(r"read 402 lines: (\d+) written, (\d+) there already, 0 failed", err)
        assert code == 0
        assert read, err
        assert int(read[2]) >= int(found[1]) > 0


async def ended(process: subprocess.Popen[bytes], signum: signal.Signals, data: Path) -> list[str]:
    """Have a process end by one signal, its store in order -> what it said."""
    with process:
        try:
            process.send_signal(signum)
            code = await asyncio.to_thread(process.wait, 20)
        finally:
            process.kill()
        assert (code, running(data)) == (130 if signum == signal.SIGINT else -signum, None)
        said = process.communicate()[1].decode().splitlines()
    return [line for line in said if "is loading its data" not in line]


def spent(pid: int) -> list[str]:
    """The processor time of a process so far, from /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_an_import_whose_pipe_stands_still(tmp_path: Path, signum: signal.Signals) -> None:
    data, now = tmp_path / "data", "2027-01-01T00:00:00Z"
    item = {"key": "jobs", "version": 1, "createdAt": now, "updatedAt": now, "content": 1, "metadata": {}}
    lines = [{"hookline": "archive", "format": 1, "namespace": "default", "at": now, "items": 200, "secret": None}]
    lines += [item | {"sortField": f"{number}"} for number in range(150)]
    process = begun("import", "-", "--data", data)
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    process.stdin.flush()

    async def written() -> bool:
        if not (url := running(data)):
            return False
        try:
            async with Datastore(url, Settings(), SecretBox(bytes(32))) as datastore:
                return await datastore.get("jobs", "99") is not None
        except HooklineError:  # not there yet, or the store is not
            return False

    async def at_rest() -> bool:
        """Whether it has read the store's answer, and waits for its pipe."""
        before = spent(process.pid)
        await asyncio.sleep(0.2)
        return spent(process.pid) == before

    assert await wait_until(written)
    assert await wait_until(at_rest)
    said = await ended(process, signum, data)
    assert said == ["broken off after 101 lines, 100 of them written: a repeat goes on from there"]


@pytest.mark.parametrize(("signum", "unbuffered"), [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGINT, "1")])
async def test_a_signal_ends_an_export_whose_pipe_is_full(
    tmp_path: Path, signum: signal.Signals, unbuffered: str
) -> None:
    data = tmp_path / "data"
    async with EmbeddedStore(data) as store, Datastore(store.url, Settings(), SecretBox(bytes(32))) as datastore:
        for number in range(300):
            await datastore.create("jobs", f"{number}", content="x" * 5000)
    process = begun("export", "--without-api-keys", "--data", data, PYTHONUNBUFFERED=unbuffered)
    assert process.stdout is not None
    waiting = array.array("i", [0])

    async def full() -> bool:
        fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)  # type: ignore[arg-type]
        return waiting[0] >= 16_384

    assert await wait_until(full)
    assert await ended(process, signum, data) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_an_export_to_a_disk_without_room_for_its_end(
    datastore: Datastore, store: EmbeddedStore, tmp_path: Path, unbuffered: str
) -> None:
    await create_item(datastore)
    command = [sys.executable, "-m", "hookline_server", "export", "--without-api-keys", "--store", store.url]
    whole = len((await hookline(*command[3:]))[1].encode())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 5, whole - 5))

    def run() -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with (tmp_path / "items.ndjson").open("wb") as file:
            return subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, text=True, env=environ, preexec_fn=limit, check=False
            )

    done = await asyncio.to_thread(run)
    assert (done.returncode, done.stderr) == (1, "hookline: cannot write: File too large\n")


async def test_without_a_secret_only_without_api_keys(
    datastore: Datastore, store: EmbeddedStore, tmp_path: Path
) -> None:
    await create_item(datastore)
    code, out, err = await hookline("export", "--store", store.url, "--data", tmp_path)
    assert (code, out) == (1, "")
    assert "there is no secret in" in err
    code, out, _ = await hookline("export", "--store", store.url, "--data", tmp_path, "--without-api-keys")
    assert code == 0
    there = {"HOOKLINE_NAMESPACE": "copy", "HOOKLINE_STORE_URL": store.url, "HOOKLINE_DATA": str(tmp_path)}
    assert (await hookline("import", "-", stdin=out.encode(), environ=there))[0] == 0
    assert (await hookline("doctor", environ=there))[:2] == (0, "examined 3 items and entries: 0 flaws, 0 repaired\n")
    assert list(tmp_path.iterdir()) == []
