"""Several worker processes under one: started again when they die, stopped together, exchanged when code changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

Say = Callable[[str], None]

RESTART_FIRST, RESTART_LONGEST = 0.5, 30.0
"""Seconds before a process that died is started again: twice as long each time, unless it has lived for a minute."""
LONG_LIFE = 60.0
LOOK_EVERY = 0.5
"""Seconds between looks at the files, with reload: a few hundred stats take a millisecond, and need no library."""
SKIPPED = {"__pycache__", "node_modules", "venv", "hookline-data"}
MISUSED, FORBIDDEN = 2, 5
"""Exit codes of a worker that would end the same when it is started again."""
MEMBER = "HOOKLINE_CREW_MEMBER"
"""Variable that tells a worker that a crew has started it."""


class Crew:
    """Runs ``hookline worker <target>`` in so many processes."""

    def __init__(self, target: str, processes: int, *, reload: Path | None = None, say: Say = print) -> None:
        self._command = (sys.executable, "-m", "hookline_server", "worker", target)
        self._count = processes
        self._reload = reload
        self._say = say
        self._running: set[asyncio.subprocess.Process] = set()
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        """Of the code as it is now: set, and another, once that has changed."""
        self._code = 0

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT -> the exit code: 2 if the target is none, 5 if its API key is bad, else 0."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop)
        posts = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        watcher = asyncio.create_task(self._watch(self._reload)) if self._reload else None
        await asyncio.gather(*posts)
        if watcher:
            watcher.cancel()
        return self._code

    def _stop(self) -> None:
        """Ask all to stop; each keeps to its own grace. Asked again, so are they."""
        self._ended.set()
        self._signal()

    def _signal(self) -> None:
        for process in self._running:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)

    async def _keep(self, number: int) -> None:
        """Keep one process running."""
        loop, failures = asyncio.get_running_loop(), 0
        while not self._ended.is_set():
            began, changed = loop.time(), self._changed
            process = await self._start()
            self._running.add(process)
            if self._ended.is_set():
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            self._running.discard(process)
            if self._ended.is_set():
                return
            if changed.is_set():
                failures = 0
                continue
            if code == 0:  # it was told to stop, and not by us
                return
            if code in (MISUSED, FORBIDDEN) and self._reload is None:
                self._code = code
                self._stop()
                return
            failures = 0 if loop.time() - began > LONG_LIFE else failures + 1
            delay = min(RESTART_LONGEST, RESTART_FIRST * 2 ** (failures - 1)) if failures else 0
            self._say(f"worker {number + 1} ended with exit code {code}; starting it again in {delay:g} s")
            await self._pause(delay)

    async def _start(self) -> asyncio.subprocess.Process:
        """Start one process. Its standard input is a line to us, which ends with us, also if we are killed."""
        # In a session of its own: Ctrl-C reaches us, and from us each once.
        return await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, env={**os.environ, MEMBER: "1"}, start_new_session=True
        )

    async def _pause(self, seconds: float) -> None:
        """Wait, but not once all is to end, or once the code is another."""
        waits = [asyncio.create_task(event.wait()) for event in (self._ended, self._changed)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _watch(self, root: Path) -> None:
        seen = await asyncio.to_thread(snapshot, root)
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = await asyncio.to_thread(snapshot, root)
            if now != seen:
                changed = sorted(path for path, _ in {*now.items()} ^ {*seen.items()})
                self._say(f"{changed[0]} has changed: the workers start anew")
                seen, last, self._changed = now, self._changed, asyncio.Event()
                last.set()
                self._signal()


def snapshot(root: Path) -> dict[str, int]:
    """When each Python file below was written."""
    return dict(_files(root))


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):  # of what is gone again, or is not ours to read, there is nothing to see
        for entry in sorted(folder.iterdir()):
            if entry.is_dir():
                if entry.name not in SKIPPED and not entry.name.startswith(".") and not entry.is_symlink():
                    yield from _files(entry)
            elif entry.suffix == ".py":
                with contextlib.suppress(OSError):
                    yield str(entry), entry.stat().st_mtime_ns
