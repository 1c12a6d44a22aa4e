"""A worker as a process of its own: it opens its source, works until a signal, and never outlives its grace."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from types import FrameType
from typing import Any

from hookline.collector import collect_rarely
from hookline.worker import Worker

OVERTIME = 2.0
"""Seconds after the grace at which a process ends that a handler keeps from ending."""
STUCK = 7
"""Exit code of a process that had to be ended so."""

log = logging.getLogger(__name__)


def work(worker: Worker, *, with_parent: bool = False) -> None:
    """Open the worker's source and work until SIGTERM or SIGINT; a second one gives back at once what still runs.

    ``with_parent``: standard input is a line to the process that started this one; its end is a SIGTERM.

    Raises:
        Invalid, ReservedKey, Unavailable, Incompatible: it cannot work; the text says why.
    """
    try:
        import uvloop
    except ImportError:
        loop_factory = None
    else:
        loop_factory = uvloop.new_event_loop
    collect_rarely()
    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    end = _ending_after(worker.grace + OVERTIME)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            try:
                runner.run(_work(worker))
            finally:
                end.start()  # the runner waits for handlers that do not let themselves be cancelled
    finally:
        end.cancel()


def _ending_after(seconds: float) -> threading.Timer:
    """What ends this process, so long after it was started."""
    timer = threading.Timer(seconds, os._exit, (STUCK,))
    timer.daemon = True
    return timer


def _end_with_parent() -> None:
    """Wait for the end of the line, which comes however the parent dies."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


async def _work(worker: Worker) -> None:
    source: Any = worker.source
    async with source:
        running = asyncio.create_task(worker.run())
        signals = _Signals(worker, running)
        signals.listen()
        log.info("%s works on %s: %s", worker.worker_id, worker.key, ", ".join(worker.handlers))
        await asyncio.wait((running,))
        if not running.cancelled():
            running.result()


class _Signals:
    """Python's own handlers, not the loop's: they are heard also while a handler keeps the loop busy."""

    def __init__(self, worker: Worker, running: asyncio.Task[None]) -> None:
        self._worker = worker
        self._running = running
        self._loop = asyncio.get_running_loop()
        self._heard = 0

    def listen(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._hear)

    def _hear(self, _signum: int, _frame: FrameType | None) -> None:
        self._heard += 1
        if self._heard == 1:
            _ending_after(self._worker.grace + OVERTIME).start()
            self._loop.call_soon_threadsafe(self._worker.stop)
        else:
            self._loop.call_soon_threadsafe(self._running.cancel)
