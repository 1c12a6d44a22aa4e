"""How a handler's function is run: on the loop, in a thread, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import multiprocessing
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from hookline.item import Item
from hookline.job import Job

Run = Callable[[Job], Coroutine[Any, Any, Any]]
"""A job -> what its handler returned; raises what that raised."""


class Threads:
    """Runs plain functions in daemon threads: one that never returns must not keep the process from ending."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

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
        process, line = self._idle.pop() if self._idle else await self._threads.run(_start)
        try:
            await self._threads.run(line.send, (function, job._item))
            while True:
                word, value = await self._threads.run(line.recv)
                if word != "progress":
                    break
                job.progress(value)
        except EOFError:
            process.join(1)
            line.close()
            raise RuntimeError(f"the handler's process ended with exit code {process.exitcode}") from None
        except BaseException:
            process.kill()
            raise
        self._idle.append((process, line))
        if word == "raised":
            raise value
        return value

    def close(self) -> None:
        """End the processes that run nothing."""
        for process, line in self._idle:
            line.close()
            process.join(1)
        self._idle.clear()


def _start() -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    line, child = context.Pipe()
    process = context.Process(target=_serve, args=(child,), name="hookline-handler", daemon=True)
    process.start()
    child.close()
    return process, line


def _serve(line: Connection) -> None:
    """Run what comes, until the worker goes away; only it decides when this ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            packed = line.recv_bytes()
        except EOFError:
            return
        try:
            function, item = pickle.loads(packed)  # noqa: S301 - from the worker whose child this is
            answer = ("returned", _call(function, item, line))
        except Exception as error:  # also where the function cannot be imported here
            answer = ("raised", error)
        try:
            line.send(answer)
        except Exception:  # it does not pickle
            line.send(("raised", RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))


def _call(function: Callable[[Job], Any], item: Item, line: Connection) -> Any:
    value = function(Job(item, lambda progress: line.send(("progress", progress))))
    return asyncio.run(value) if inspect.iscoroutine(value) else value
