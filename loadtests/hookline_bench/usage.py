"""What the store and processes have used: processor time, commands, memory."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from hookline import Datastore

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """The store's processor seconds, and the commands that it ran, those inside scripts included."""

    seconds: float
    commands: int


async def store_usage(datastore: Datastore) -> Usage:
    """So far."""
    cpu = (await datastore.connection.command("INFO", "cpu")).decode()
    stats = (await datastore.connection.command("INFO", "commandstats")).decode()
    seconds = sum(
        float(line.split(":")[1]) for line in cpu.splitlines() if line.startswith(("used_cpu_user:", "used_cpu_sys:"))
    )
    commands = sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in stats.splitlines()
        if line.startswith("cmdstat_") and not line.startswith(("cmdstat_info", "cmdstat_script"))
    )
    return Usage(seconds, commands)


async def store_memory(datastore: Datastore) -> int:
    """Bytes that the store holds."""
    info = (await datastore.connection.command("INFO", "memory")).decode()
    return int(info.split("used_memory:")[1].split()[0])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children that live, from /proc (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    own = (int(fields[11]) + int(fields[12])) / _TICKS
    return own + sum(cpu_seconds(child) for child in children(pid))


def resident(pid: int) -> float:
    """MiB of memory of a process and its children, from /proc (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    return own + sum(resident(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """Processes that a process has started and that live, from /proc (Linux)."""
    found: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found += map(int, each.read_text().split())
    return found
