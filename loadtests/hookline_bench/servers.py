"""Servers as processes: ours, the floors, the receiver of webhooks. Each says on a line where it listens."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from hookline.errors import HooklineError
from hookline_bench.part import NAMESPACE
from hookline_bench.usage import cpu_seconds


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its processes."""
        return cpu_seconds(self.pid)


@contextlib.asynccontextmanager
async def process(*args: str) -> AsyncIterator[Served]:
    """A Python process that serves, from the line with its address to the end of the context.

    Raises:
        HooklineError: it ended without that line.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert child.stdout
        async for line in child.stdout:
            if b"listens on" in line:
                yield Served(line.decode().split("listens on ")[1].strip(), child.pid)
                return
        raise HooklineError(f"a server ended before it served: {' '.join(args)}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


def hookline(
    store: str, data: Path, processes: int, roles: str = "api", more: Sequence[str] = ()
) -> contextlib.AbstractAsyncContextManager[Served]:
    """Our server before a store."""
    given = ("--store", store, "--data", str(data), "--namespace", NAMESPACE, "--clients-per-address", "5000", *more)
    return process(
        "-m", "hookline_server", "serve", "--port", "0", "--workers", str(processes), "--roles", roles, *given
    )


def floor(
    kind: str, store: str, data: Path, processes: int, answers: Path
) -> contextlib.AbstractAsyncContextManager[Served]:
    """A server that parses and answers as many bytes, without doing anything."""
    given = ("--store", store, "--data", str(data), "--processes", str(processes), "--answers", str(answers))
    return process("-m", "hookline_bench.floor", kind, *given)


def receiver() -> contextlib.AbstractAsyncContextManager[Served]:
    """A receiver of webhooks."""
    return process("-m", "hookline_bench.receiver")


async def received(url: str) -> tuple[int, int]:
    """What a receiver has got so far: of different webhooks, and in all."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        distinct, total = (await response.text()).split()
        return int(distinct), int(total)
