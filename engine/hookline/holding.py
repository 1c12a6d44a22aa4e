"""What a worker holds: a job from its claim until it is known that its end has been taken; and the handlers' lanes."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hookline.clock import Duration
from hookline.codec import TEXT_MAX
from hookline.errors import HooklineError, Invalid
from hookline.item import Item
from hookline.job import Cancel, Job, Release, Retry, TimedOut
from hookline.runner import Run, describe

LOST, RELEASED = "lost", "released"
"""Why a handler was given up: the claim is somebody else's, or nobody's; or the worker stops and gives the job back."""

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Lane:
    """One handler, and how its claims stand.

    ``idle``: the last claim found nothing more, so the next waits. ``resting``: there is no use in one for a while.
    """

    name: str
    where: dict[str, Any] | None
    run: Run
    idle: bool = False
    resting: bool = False
    waiting: asyncio.Task[None] | None = None


class Held:
    """One claim. ``call`` is what ends it, once that is known; ``updates`` whether that is an update, not a settle."""

    __slots__ = ("_progress", "_tell", "call", "fate", "item", "job", "locked_at", "sent", "task", "token", "updates")

    def __init__(self, item: Item, tell: Callable[[Held], None], locked_at: float) -> None:
        self.item = item
        self.token = item.token or ""
        self.job = Job(item, self._report)
        self.locked_at = locked_at
        self.task: asyncio.Task[Any] | None = None
        self.call: Any = None
        self.updates = False
        self.fate = ""
        self.sent = False
        self._tell = tell
        self._progress: tuple[Any] | None = None

    @property
    def running(self) -> bool:
        """Whether the handler has not come to its end."""
        return self.task is not None and not self.task.done()

    @property
    def _name(self) -> tuple[str, str, str]:
        return self.item.key, self.item.sort_field, self.token

    def judge(self, calls: Any, task: asyncio.Task[Any]) -> None:
        """What the handler came to -> the call that says so."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        try:
            self._judge(calls, task, error)
        except Exception as refused:  # whatever a handler gives, the job must come to an end
            self.refuse(calls, refused)

    def _judge(self, calls: Any, task: asyncio.Task[Any], error: BaseException | None) -> None:
        progress = self._told_last()
        if error is None:
            result = task.result()
            results = progress if result is None else {"result": result} | progress
            self.call = calls.complete(*self._name, metadata=results or None)
        elif isinstance(error, Retry):
            reason = as_text(error.reason)
            when = "" if error.after is None else f", after {error.after}"
            log.info("%s is to be tried again%s: %s", self.job, when, reason)
            self.call = calls.fail(*self._name, error=reason, retry_after=error.after, metadata=progress or None)
        elif isinstance(error, Release):
            self.call = calls.release(*self._name, delay=error.delay or None)
        elif isinstance(error, Cancel):
            key, sort_field, token = self._name
            gone = {"status": "cancelled", "last_error": as_text(error.reason)} | progress
            self.call, self.updates = calls.update(key, sort_field, metadata=gone, token=token), True
        elif self.fate == RELEASED and isinstance(error, asyncio.CancelledError):
            self.call = calls.release(*self._name)
        else:
            # The traceback is for the log alone: it may show what is nobody's business.
            reason = as_text(error)
            log.warning("%s failed: %s", self.job, reason, exc_info=None if isinstance(error, TimedOut) else error)
            self.call = calls.fail(*self._name, error=reason, metadata=progress or None)

    def refuse(self, calls: Any, refused: Exception) -> None:
        """What the handler gave can't be kept, which is a failure like others, unless it is the progress."""
        if self._progress and self.task and self.task.done():
            log.warning("%s: its progress is dropped, it may be what cannot be kept: %s", self.job, describe(refused))
            self._progress, self.updates = None, False
            self.judge(calls, self.task)
            return
        log.warning("%s failed: what its handler gave cannot be kept: %s", self.job, describe(refused))
        reason = str(refused) if isinstance(refused, HooklineError) else describe(refused)
        self.call, self.updates = calls.fail(*self._name, error=as_text(f"cannot be kept: {reason}")), False

    def abandon(self, calls: Any) -> None:
        """Give the job back although its handler goes on."""
        self.fate, self.call = LOST, calls.release(*self._name)

    def give_up(self, fate: str) -> None:
        """Cancel the handler."""
        if self.running and self.task:
            self.fate = fate
            self.job._gone = True
            self.task.cancel()

    def extend(self, calls: Any, lock_for: Duration) -> Any:
        """The call that prolongs the claim."""
        return calls.extend(*self._name, lock_for=lock_for)

    def prolonged(self, locked_at: float, until_ms: int | None) -> None:
        """The lock holds on."""
        self.locked_at = locked_at
        self.job._locked_until_ms = until_ms

    def _report(self, value: Any) -> None:
        # As it is now: who goes on with the same object tells of it again.
        with contextlib.suppress(Exception):  # what cannot be copied cannot be kept, as will be told
            value = copy.deepcopy(value)
        self._progress = (value,)
        self._tell(self)

    def tell(self, calls: Any) -> tuple[Any, Any]:
        """The call that says how far the job is, and what it says; the call is None if that can't be kept."""
        told = self._progress
        key, sort_field, token = self._name
        try:
            return calls.update(key, sort_field, metadata=self._told_last(), token=token), told
        except Invalid as invalid:
            log.warning("%s: its progress cannot be kept: %s", self.job, invalid)
            self.told(told)
            return None, told

    def told(self, told: object) -> None:
        """What the store has by now, the end need not say once more."""
        if self._progress is told:
            self._progress = None

    def _told_last(self) -> dict[str, Any]:
        return {"progress": self._progress[0]} if self._progress else {}


def timed(run: Run, seconds: float) -> Run:
    """The same with an end to it."""

    async def run_timed(job: Job) -> Any:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await run(job)
        except TimeoutError:
            if not limit.expired():
                raise
            job._gone = True
            raise TimedOut(f"took longer than {seconds:g} s") from None

    return run_timed


def as_text(reason: object) -> str:
    """A reason, which may be an error, as text: as much of it as the store keeps."""
    return describe(reason).encode(errors="replace").decode().replace("\0", "")[:TEXT_MAX] or "failed"
