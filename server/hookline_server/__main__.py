"""``hookline``, and ``python -m hookline_server``: the command line as a process, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from hookline_server import interrupt

_ENDED_BY: list[int] = []
"""The signals that came to end us, and had no handler of a command's own."""


def main() -> None:
    """Run the command that the arguments name.

    SIGTERM and SIGHUP end it as Ctrl-C does, so that nothing stays behind: no server of the demo, no screen of ``top``.
    The process then dies of the signal, as its parent expects. What handles SIGTERM by itself is sent one for SIGHUP.
    """
    _open_closed()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(signum, _end)
    interrupt.quit_at_once()
    try:
        from hookline_server import cli

        cli.main()
    finally:
        if _ENDED_BY:
            signal.signal(_ENDED_BY[0], signal.SIG_DFL)
            signal.raise_signal(_ENDED_BY[0])


def _end(signum: int, _: FrameType | None) -> None:
    if signal.getsignal(signal.SIGTERM) is not _end:  # the command has a way of its own to stop
        signal.raise_signal(signal.SIGTERM)
        return
    if interrupt.is_quitting():
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
    _ENDED_BY.append(signum)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells have it for what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def _open_closed() -> None:
    """Where standard streams were closed there is nothing to read, and nobody takes what is written."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free is that of the stream, and so no socket gets it.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


if __name__ == "__main__":
    main()
