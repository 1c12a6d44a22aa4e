"""``hookline serve``, other commands, or a store's server, as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio as aioredis
from typer.testing import CliRunner

from conftest import wait_until
from hookline_server.cli import app


@dataclass
class Process:
    """A running server. ``said`` is what it printed."""

    url: str
    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask it to stop -> its exit code."""
        self.process.send_signal(signum)
        return await asyncio.wait_for(self.process.wait(), 20)


@dataclass
class Store:
    """A running store: its port, its process, a client."""

    port: int
    process: asyncio.subprocess.Process
    client: aioredis.Redis

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    async def state(self) -> str | None:
        """Whether it answers yet, or has ended since somebody else took its port meanwhile."""
        if self.process.returncode is not None:
            return "ended"
        with contextlib.suppress(aioredis.ConnectionError):
            return "answers" if (await self.client.info("server"))["process_id"] == self.process.pid else None
        return None


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def hookline(*args: str, stdin: str = "", **environ: str) -> tuple[int, str]:
    """Run the command line to its end -> exit code, and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", *args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environ},
    )
    said, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    return process.returncode or 0, said.decode()


async def within(*args: str, stdin: str = "", **environ: str) -> tuple[int, str]:
    """The same in this process, which saves the start of another; for commands that need no loop and no signals."""
    result = await asyncio.to_thread(CliRunner().invoke, app, args, input=stdin, env=environ, prog_name="hookline")
    return result.exit_code, result.output


@contextlib.asynccontextmanager
async def serving(data: Path, *args: str, port: int = 0, **environ: str) -> AsyncIterator[Process]:
    """Start ``hookline serve`` and wait until it listens; stop it in the end, if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "serve", "--port", str(port), "--data", str(data), *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
    )
    said: list[str] = []
    assert process.stdout is not None
    reader: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(40):
            async for line in process.stdout:
                said.append(line.decode().rstrip())
                found = re.search(r"listens on (http://\S+|no port)", said[-1])
                if found:
                    break
            else:
                raise AssertionError("the server did not start:\n" + "\n".join(said))
        reader = asyncio.create_task(_read_on(process.stdout, said))
        yield Process(found[1], process, said)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()
        if reader:
            await reader
        process._transport.close()  # type: ignore[attr-defined]  # else its pipe is reported as left open


@contextlib.asynccontextmanager
async def running_store(server: str, directory: Path, *args: str, **options: str | int) -> AsyncIterator[Store]:
    """Start a Redis or Valkey with these options on a free port, and wait until it answers; kill it in the end.

    ``args`` stand before all options.
    """
    directory.mkdir(parents=True)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            store = await stack.enter_async_context(_started(server, directory, args, options))
            if await wait_until(store.state) == "answers":
                break
        else:
            raise AssertionError(f"{server} did not start in {directory}")
        yield store


@contextlib.asynccontextmanager
async def _started(
    server: str, directory: Path, first: Sequence[str], options: Mapping[str, str | int]
) -> AsyncIterator[Store]:
    port = free_port()
    common = {"port": port, "bind": "127.0.0.1", "dir": str(directory), "save": "", "appendonly": "no"}
    bus = {"cluster-port": free_port()} if "cluster-enabled" in options else {}
    args = [part for name, value in {**common, **bus, **options}.items() for part in (f"--{name}", str(value))]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(server, *first, *args, stdout=quiet, stderr=quiet)
    store = Store(port, process, aioredis.Redis(host="127.0.0.1", port=port, protocol=2))
    try:
        yield store
    finally:
        await store.client.aclose()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _read_on(stdout: asyncio.StreamReader, said: list[str]) -> None:
    async for line in stdout:
        said.append(line.decode().rstrip())  # noqa: PERF401 - each line counts when it comes
