"""Where a run was made: machine, versions, commit, durability."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hookline import Datastore

PACKAGES = ("hookline", "redis", "hiredis", "starlette", "uvicorn", "uvloop", "msgspec", "aiohttp")
_NO = "unknown"


async def describe(datastore: Datastore) -> dict[str, Any]:
    """All of it, as the results keep it."""
    info = await _info(datastore)
    fsync = (await datastore.connection.command("CONFIG", "GET", "appendfsync"))[1].decode()
    appends = info.get("aof_enabled") == "1"
    return {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": {
            "processor": _first("/proc/cpuinfo", "model name"),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            "store": _store(info),
            **{name: version(name) for name in PACKAGES},
        },
        "durability": f"append-only file, fsync {fsync}" if appends else "no append-only file",
    }


def _store(info: dict[str, str]) -> str:
    """Name and version; Valkey tells those of Redis as well."""
    return f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version', _NO)}"


async def _info(datastore: Datastore) -> dict[str, str]:
    lines = (await datastore.connection.command("INFO")).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _first(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return _NO
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), _NO)


def _commit() -> str:
    """The commit that is run, and whether there are changes beside it."""
    asked = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return _NO
