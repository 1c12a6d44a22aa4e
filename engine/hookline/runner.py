"""How a handler's function is run: on the loop, in a thread, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from hookline.item import Item
from hookline.job import Cancel, Job, Release, Retry

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
"""How the log of a worker reads, and of its processes."""

log = logging.getLogger(__name__)

Run = Callable[[Job], Coroutine[Any, Any, Any]]
"""A job -> what its handler returned; raises what that raised."""


class _RemoteTraceback(Exception):
    """Where an error came from in another process, as text: a traceback cannot be sent."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def describe(error: object) -> str:
    """An error, or the reason that a handler gives, as the last error of its job."""
    if not isinstance(error, BaseException):
        return str(error or "")
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return name
    return f"{name}: {text}" if text else name


def contained(run: Run) -> Run:
    """The same, but that a SystemExit is an error of the job: it must not end the worker, with the jobs of others."""

    async def run_contained(job: Job) -> Any:
        try:
            return await run(job)
        except SystemExit as end:
            raise RuntimeError(f"SystemExit: {end.code}") from end

    return run_contained


class Threads:
    """Runs plain functions in daemon threads: one that never returns must not keep the process from ending."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    async def handle(self, function: Callable[[Job], Any], job: Job) -> Any:
        """What a handler returns; that of a wrapped async function is awaited on the loop."""
        value = await self.run(function, job)
        return await value if inspect.isawaitable(value) else value

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns. Cancelled, the thread goes on, and what it returns is dropped."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def resolve(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            try:
                value, error = context.run(function, *args), None
            except StopIteration as stopped:  # which a future cannot hold
                value, error = None, RuntimeError(f"StopIteration: {stopped}")
            except BaseException as raised:
                value, error = None, raised  # type: ignore[assignment]
            if not loop.is_closed():
                loop.call_soon_threadsafe(resolve, value, error)

        self._work.put(work)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._serve, name="hookline-handler", daemon=True).start()
        return await future

    def _serve(self) -> None:
        while True:
            self._work.get()()
            self._idle.release()


class Processes:
    """Runs functions in child processes, one job each at a time. Cancelled, a job's process is killed."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._idle: list[tuple[BaseProcess, Connection]] = []

    async def run(self, function: Callable[[Job], Any], job: Job) -> Any:
        """What the function returns.

        Raises:
            RuntimeError: the process ended, or what the function raised cannot be sent from one to another.
        """
        process, line, was_idle = await self._sent((function, job._item))
        try:
            while True:
                word, value = await self._threads.run(line.recv)
                if word != "progress":
                    break
                job.progress(value)
        except (EOFError, ConnectionResetError) as ending:
            process.join(1)
            line.close()
            if was_idle and isinstance(ending, ConnectionResetError):  # it had ended, and has not read what it was sent
                return await self.run(function, job)
            raise RuntimeError(f"the handler's process ended with exit code {process.exitcode}") from None
        except BaseException:
            process.kill()
            raise
        self._idle.append((process, line))
        if word == "raised":
            error, where = value
            raise error from _RemoteTraceback(where)
        return value

    async def _sent(self, work: tuple[Callable[[Job], Any], Item]) -> tuple[BaseProcess, Connection, bool]:
        """A process that was sent the work: one that is idle, if it has not died since; and whether it was."""
        while True:
            was_idle = bool(self._idle)
            process, line = self._idle.pop() if was_idle else await self._threads.run(_start)
            try:
                await self._threads.run(_send, line, work)
            except BaseException as error:
                process.kill()
                line.close()
                if not (was_idle and isinstance(error, BrokenPipeError)):
                    raise
            else:
                return process, line, was_idle

    def close(self) -> None:
        """End the processes that run nothing."""
        for process, line in self._idle:
            line.close()
            process.join(1)
        self._idle.clear()


def _start() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    line, child = context.Pipe()
    process = context.Process(target=_serve, args=(child, _log_levels()), name="hookline-handler", daemon=True)
    process.start()
    child.close()
    return process, line


def _send(line: Connection, work: tuple[Callable[[Job], Any], Item]) -> None:
    """Send a process its work, as bytes of their own.

    ``line.send`` leaves its buffer in the traceback of an error, in a circle: as that is collected, Python 3.12.1
    crashes, and 3.13 complains on standard error (python/cpython#111049, #111331).
    """
    line.send_bytes(bytes(ForkingPickler.dumps(work)))


def _log_levels() -> dict[str, int]:
    """The levels that loggers of this process were given, by name, the root's as ``""``; none if it writes no log."""
    if not logging.root.handlers:
        return {}
    named = {name: logging.getLogger(name) for name in ["", *logging.root.manager.loggerDict]}
    return {name: logger.level for name, logger in named.items() if logger.level}


def _serve(line: Connection, log_levels: dict[str, int]) -> None:
    """Run what comes, until the worker goes away; only it decides when this ends."""
    if log_levels:
        logging.basicConfig(format=LOG_FORMAT)
    for name, level in log_levels.items():
        logging.getLogger(name).setLevel(level)
    for signum in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN, which the programs that a handler starts would have as well.
        signal.signal(signum, lambda *_: None)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            packed = line.recv_bytes()
        except EOFError:
            return
        try:
            function, item = pickle.loads(packed)  # noqa: S301 - from the worker whose child this is
            value = pickle.dumps(("returned", _call(function, item, line)))
        except (Exception, SystemExit) as error:  # also where the function cannot be imported here
            value = pickle.dumps(("raised", (_movable(error), traceback.format_exc())))
        line.send_bytes(value)


def _end_with_parent() -> None:
    """A worker that is killed takes its jobs along: others claim them once their locks have ended."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _movable(error: BaseException) -> Exception:
    """An error as it can be sent from one process to another: some are made of more than they show."""
    with contextlib.suppress(Exception):
        error = _plain(error)
        if isinstance(error, Exception) and isinstance(pickle.loads(pickle.dumps(error)), type(error)):  # noqa: S301
            return error
    return RuntimeError(describe(error))


def _plain(error: BaseException) -> BaseException:
    """What a handler says of its job, as the class that says it, with its reason as text; others as they are."""
    if isinstance(error, Retry):
        return Retry(describe(error.reason), after=error.after)
    if isinstance(error, Release):
        return Release(error.delay)
    return Cancel(describe(error.reason)) if isinstance(error, Cancel) else error


def _call(function: Callable[[Job], Any], item: Item, line: Connection) -> Any:
    """What the function returns. Threads of it may tell progress meanwhile, but not once it has returned."""
    telling, returned = threading.Lock(), False

    def tell(progress: Any) -> None:
        with telling:
            if not returned:
                try:
                    line.send(("progress", progress))
                except Exception as error:  # also where the worker is gone: then this process ends as well
                    log.warning("%s: its progress cannot be kept: %s", job, describe(error))

    job = Job(item, tell)
    try:
        value = function(job)
        return asyncio.run(value) if inspect.iscoroutine(value) else value
    finally:
        with telling:
            returned = True
