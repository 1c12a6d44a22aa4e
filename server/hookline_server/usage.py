"""What this process uses of its machine, as figures under Prometheus's own names."""

from __future__ import annotations

import contextlib
import resource
import time
from pathlib import Path

from hookline.figures import Family

_PROCESS = ("process",)
_CPU = Family("reading", "process_cpu_seconds", "Processor time, user and system", _PROCESS)
_MEMORY = Family("gauge", "process_resident_memory_bytes", "Resident memory", _PROCESS)
_FILES = Family("gauge", "process_open_fds", "Open file descriptors", _PROCESS)
_BEGAN = Family("gauge", "process_start_time_seconds", "When the process began, in seconds since 1970", _PROCESS)
_LOADED = time.time()


def note_usage(slot: int) -> None:
    """Take down what this process uses, as that of a slot of the server."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    name = str(slot)
    _CPU.row(name)[0] = used.ru_utime + used.ru_stime
    _BEGAN.row(name)[0] = _LOADED
    _MEMORY.row(name)[0] = resident()
    with contextlib.suppress(OSError):  # elsewhere than on Linux there is no /proc
        _FILES.row(name)[0] = sum(1 for _ in Path("/proc/self/fd").iterdir())


def resident() -> int:
    """Bytes of memory that this process has; 0 where that cannot be told."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return 0
