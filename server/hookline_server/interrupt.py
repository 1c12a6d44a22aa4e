"""Ctrl-C while a command's modules load, and nothing has begun: there it could be lost, or become another error."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def quit_at_once() -> None:
    """From now on Ctrl-C ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _quit)


def is_quitting() -> bool:
    """Whether it does so."""
    return signal.getsignal(signal.SIGINT) is _quit


def be_told() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again: what has begun is to be ended."""
    if is_quitting():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _quit(_: int, __: FrameType | None) -> None:
    os._exit(INTERRUPTED)
