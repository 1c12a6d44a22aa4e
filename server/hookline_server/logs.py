"""Log lines: JSON or text, with what they belong to, and without a word of what users store or keep secret.

What an exception says is left out wherever it is not one of ours: it may quote what it stumbled over. Its type and
where it was raised are enough to find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hookline import Settings
from hookline.errors import HooklineError

REQUEST: ContextVar[bytes] = ContextVar("request", default=b"")
"""The id of the request that is being served; of use to whoever has its ``X-Request-Id``."""
EVENT: ContextVar[str] = ContextVar("event", default="")
"""The ``webhook-id`` of the delivery under way."""
FIELDS = "fields"
"""``log.info(..., extra={FIELDS: {...}})``: what a line says in its own fields where it is JSON."""
OURS = ("hookline", "hookline_server")
QUIET = 60.0
"""Seconds for which a warning that was given is not given again: each role looks for work about once a second."""
_KEPT = 200
_FRAMES = 12


def set_up(settings: Settings) -> None:
    """Write lines to stderr as the settings say. Other libraries only warn: below that they quote what they get."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if settings.log_format == "json" else Text())
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level.upper())


def note_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log what asyncio has nobody to tell, without the values that it would show."""
    loop.set_exception_handler(_note_loop_error)


def _note_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    logging.getLogger("hookline_server").error("asyncio: %s", context["message"], exc_info=context.get("exception"))


class Repeats(logging.Filter):
    """Lets the same warning through once a minute, and says how often it came; all of those of an event."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._given: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno != logging.WARNING or EVENT.get():
            return True
        text, now = f"{record.name}: {record.getMessage()}", self._clock()
        since, held_back = self._given.pop(text, (-QUIET, 0))
        if now - since < QUIET:
            self._given[text] = since, held_back + 1
            return False
        self._given[text] = now, 0
        if len(self._given) > _KEPT:
            del self._given[next(iter(self._given))]
        record.held_back = held_back
        return True


class Text(logging.Formatter):
    """``WARNING hookline_server.relay: ... [event default-0-17-0]``, and below it where an exception was raised."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; more of an exception."""
        told = "".join(f" [{name} {value}]" for name, value in _belongs_to().items())
        line = f"{record.levelname} {record.name}: {_message(record)}{told}"
        return "\n  ".join([line, *_explain(record)])


class Json(logging.Formatter):
    """One JSON object a line: ``time, level, logger, message``, ``request`` or ``event``, ``exception``, and more."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_belongs_to(),
            **getattr(record, FIELDS, {}),
        }
        if explained := _explain(record):
            document["exception"] = explained
        return msgspec.json.encode(document).decode()


def _message(record: logging.LogRecord) -> str:
    """The text, on one line whatever is in it, so that no part of it can pass for a line of its own."""
    text = record.getMessage()
    if held_back := getattr(record, "held_back", 0):
        text += f" (and {held_back} times more since this was said last)"
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _belongs_to() -> dict[str, str]:
    request, event = REQUEST.get(), EVENT.get()
    found = {"request": request.decode()} if request else {}
    return {**found, "event": event} if event else found


def _explain(record: logging.LogRecord) -> list[str]:
    """The type of an exception, what it says if it is ours, and its frames, the innermost last."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return []
    said = f": {error}" if isinstance(error, HooklineError) else ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-_FRAMES:]
    places = [f"at {_short(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_qualname}" for frame in frames]
    return [*places, f"{type(error).__name__}{said}"]


def _short(filename: str) -> str:
    """A file's path from its package on."""
    path = Path(filename)
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path(__file__).parents[1]))
    return "/".join(path.parts[-2:])
