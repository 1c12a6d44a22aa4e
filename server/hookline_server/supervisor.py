"""Several processes that serve alike: started, started again when one dies, and stopped together.

All accept from one socket, which this process holds as well: whoever waits there when one dies is served by another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from hookline.errors import HooklineError
from hookline_server.process import Process, Say
from hookline_server.stop import LAST, Stop, beside

log = logging.getLogger(__name__)

UP = b"up\n"
"""What a process says to us once it serves."""
_WAIT_MIN, _WAIT_MAX = 0.1, 10.0
"""Seconds before one that died is started again: the first time, and at most. They double between."""
_PROVED = 10.0
"""Seconds of life after which the next death counts as the first."""


@dataclass(frozen=True, slots=True)
class Sibling:
    """A process that we have started, and the line to it, whose end tells it of ours, however we die."""

    child: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def up(self) -> bool:
        """Wait -> whether it serves, or has ended."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.readline() == UP
        return False

    async def ended(self) -> int:
        """Wait until it has ended -> its exit code, or minus the signal that ended it."""
        code = await self.child.wait()
        self.writer.close()
        return code

    def signal(self, signum: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signum)


async def start(process: Process, directory: str) -> Sibling:
    """Start a process. What it is to do goes over the line: anybody could read it among its arguments.

    ``directory`` is where all of them tell their figures.

    Raises:
        OSError: the system starts none now: it has no memory or no file descriptor left for it.
    """
    settings, listener = process.settings, process.listener
    order = {
        # The file has been read, and may have changed since.
        "settings": {row.name: getattr(settings, row.name) for row in fields(settings) if row.name != "config"},
        "store_url": process.store_url,
        "listener": listener and listener.fileno(),
        "slot": process.slot,
        "directory": directory,
    }
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "hookline_server.sibling"),
                stdin=theirs.fileno(),
                pass_fds=[listener.fileno()] if listener else [],
                # Ctrl-C is for us, who then stop them in order.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(json.dumps(order, default=str).encode() + b"\n")
    return Sibling(child, reader, writer)


class Supervisor:
    """Keeps as many processes running as the settings say: the given one, each in a slot of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._running: dict[int, Sibling] = {}
        self._came_up: set[int] = set()
        self._first_up = asyncio.Event()

    async def run(self, stop: Stop, _: Say, started: Callable[[], None]) -> None:
        """Serve until asked to stop, and all have ended.

        Raises:
            HooklineError: the first could not start; it has said why.
        """
        slots = range(self._process.settings.workers)
        with tempfile.TemporaryDirectory(prefix="hookline-", ignore_cleanup_errors=True) as directory:
            try:
                keeping = (self._keep(slot, directory, stop, started) for slot in slots)
                async with beside(stop, *keeping) as keepers:
                    await stop.asked.wait()
                    self._first_up.set()
                    self._signal(signal.SIGTERM)
                    await stop.pause(self._process.settings.drain)
                    # As they do now: while anybody has it, the system takes connections that nobody will serve.
                    if self._process.listener:
                        self._process.listener.close()
                    await self._end(keepers, stop)
            finally:
                self._signal(signal.SIGKILL)

    async def _keep(self, slot: int, directory: str, stop: Stop, started: Callable[[], None]) -> None:
        """Keep one running. The first comes up alone: it makes what all need, and tells if the store can be used."""
        if slot:
            await self._first_up.wait()
        loop, wait = asyncio.get_running_loop(), _WAIT_MIN
        while not stop.asked.is_set():
            since = loop.time()
            end = await self._serve(slot, directory, stop, started)
            if stop.asked.is_set():
                return
            if not self._came_up:
                raise HooklineError(f"one of the processes could not start, what it said is above: {slot} {end}")
            wait = _WAIT_MIN if loop.time() - since > _PROVED else wait
            log.error("process %d %s: started again in %.1f s", slot, end, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await stop.asked.wait()
            wait = min(2 * wait, _WAIT_MAX)

    async def _serve(self, slot: int, directory: str, stop: Stop, started: Callable[[], None]) -> str:
        """Start one, and wait until it has ended -> what became of it, in words."""
        try:
            sibling = self._running[slot] = await start(replace(self._process, slot=slot), directory)
        except OSError as error:
            return f"could not be started ({error})"
        if stop.asked.is_set():
            sibling.signal(signal.SIGTERM)
        elif await sibling.up() and not stop.asked.is_set():
            self._note(slot, started)
        return f"({sibling.child.pid}) has ended with {await sibling.ended()}"

    def _note(self, slot: int, started: Callable[[], None]) -> None:
        again = slot in self._came_up
        self._came_up.add(slot)
        self._first_up.set()
        if again:
            log.info("process %d is back", slot)
        elif len(self._came_up) == self._process.settings.workers:
            started()

    async def _end(self, keepers: list[asyncio.Task[None]], stop: Stop) -> None:
        """Let all end; who does not in time, or when we are hurried, is cut off."""
        await stop.wait(keepers, LAST)
        for signum in (signal.SIGINT, signal.SIGKILL):
            if not all(keeper.done() for keeper in keepers):
                self._signal(signum)
                await asyncio.wait(keepers, timeout=LAST)

    def _signal(self, signum: int) -> None:
        for sibling in self._running.values():
            sibling.signal(signum)
