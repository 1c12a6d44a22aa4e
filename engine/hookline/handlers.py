"""The functions that handle jobs, each with its lane: which jobs it gets, and how its claims stand."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from hookline.clock import Duration, parse_duration
from hookline.holding import Lane, timed
from hookline.job import Job
from hookline.runner import Processes, Threads, contained

Handler = TypeVar("Handler", bound=Callable[[Job], Any])


class Handlers:
    """Functions that are registered by :meth:`handles`; plain ones run in threads, on request in processes."""

    def __init__(self) -> None:
        self.lanes: deque[Lane] = deque()
        self._threads = Threads()
        self.processes = Processes(self._threads)

    def handles(
        self, where: Mapping[str, Any] | None = None, *, timeout: Duration | None = None, process: bool = False
    ) -> Callable[[Handler], Handler]:
        """Let a function handle the jobs that match ``where``, or all. Its result becomes metadata ``result``.

        An async function runs on the loop, a plain one in a thread, either with ``process`` in a process of its own:
        then it must be importable. ``timeout``: how long it may take before the attempt has failed.
        """

        def register(function: Handler) -> Handler:
            run = partial(self.processes.run if process else self._threads.handle, function)
            chosen: Any = function if inspect.iscoroutinefunction(function) and not process else run
            if timeout is not None:
                chosen = timed(chosen, parse_duration(timeout) / 1000)
            name: str = getattr(function, "__name__", type(function).__name__)
            self.lanes.append(Lane(name, None if where is None else dict(where), contained(chosen)))
            return function

        return register

    @property
    def handlers(self) -> list[str]:
        """The names of the functions that handle jobs."""
        return [lane.name for lane in self.lanes]
