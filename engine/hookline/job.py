"""What a handler is given, and what it may raise to say what becomes of the job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from hookline.clock import Duration
from hookline.item import Item


class Retry(Exception):
    """Raised by a handler: this attempt failed; try again ``after`` so long, or by the key's backoff.

    The attempt counts. ``reason``, text or an error, becomes ``last_error``.
    """

    def __init__(self, reason: str | BaseException = "retry", *, after: Duration | None = None) -> None:
        super().__init__(reason, after)
        self.reason = reason
        self.after = after

    def __reduce__(self) -> tuple[Any, ...]:
        return _retry, (type(self), self.reason, self.after)


def _retry(kind: type[Retry], reason: str | BaseException, after: Duration | None) -> Retry:
    return kind(reason, after=after)


class Release(Exception):
    """Raised by a handler: give the job back, uncounted, to be claimed again after ``delay``."""

    def __init__(self, delay: Duration = 0) -> None:
        super().__init__(delay)
        self.delay = delay


class Cancel(Exception):
    """Raised by a handler: the job is not to be done at all. It becomes ``cancelled``, ``reason`` its last error."""

    def __init__(self, reason: str | BaseException = "cancelled by its handler") -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOut(Exception):
    """The handler took longer than its timeout."""


class Job:
    """One claimed item, for as long as its handler runs. The claim's token is not shown."""

    __slots__ = ("_gone", "_item", "_locked_until_ms", "_report")

    def __init__(self, item: Item, report: Callable[[Any], None] = lambda _: None) -> None:
        self._item = item
        self._locked_until_ms = item.locked_until_ms
        self._report = report
        self._gone: threading.Event | bool = False

    def __repr__(self) -> str:
        return f"Job(key={self.key!r}, sort_field={self.sort_field!r}, attempt={self.attempt})"

    @property
    def key(self) -> str:
        """The key that the item is in."""
        return self._item.key

    @property
    def sort_field(self) -> str:
        """Names the item in its key."""
        return self._item.sort_field

    @property
    def content(self) -> Any:
        """The payload: any JSON value."""
        return self._item.content

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata as it was when the job was claimed."""
        return self._item.metadata

    @property
    def version(self) -> int:
        """The item's version when it was claimed: it rises with every claim, so it can fence writes elsewhere."""
        return self._item.version

    @property
    def attempt(self) -> int:
        """Which attempt this is: 1 is the first."""
        attempts: int = self._item.metadata.get("attempts", 1)
        return attempts

    @property
    def deadline(self) -> datetime | None:
        """When the lock ends, by the store's clock, unless the worker prolongs it until then, as it does by itself."""
        until = self._locked_until_ms
        return None if until is None else datetime.fromtimestamp(until / 1000, UTC)

    @property
    def cancelled(self) -> bool:
        """Whether the job is not this handler's any more: cancelled, timed out, or its lock was lost.

        An async handler is cancelled then. A plain function in a thread can't be: a long one looks here.
        """
        return bool(self._gone)

    def progress(self, value: Any) -> None:
        """Tell how far the job is: any JSON value, kept as metadata ``progress``. Never waits; the last one counts."""
        self._report(value)
