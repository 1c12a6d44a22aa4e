"""A command of the command line in a pseudo-terminal: what is typed goes in, what it shows can be waited for."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass

from conftest import wait_until

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07|\r")
ROWS, COLUMNS = 50, 200


@dataclass
class Terminal:
    """``raw`` is all that was shown, control sequences included."""

    process: asyncio.subprocess.Process
    descriptor: int
    raw: bytes = b""
    read: int = 0

    @property
    def shown(self) -> str:
        """What was shown since the last :meth:`sees`, without colours and movements."""
        return _CONTROL.sub("", self.raw[self.read :].decode(errors="replace"))

    @property
    def is_prompting(self) -> bool:
        """Whether keys go to the command one by one, and Ctrl-C is one of them."""
        return not termios.tcgetattr(self.descriptor)[3] & termios.ISIG

    def type(self, text: str) -> None:
        """Press the keys of a text; a newline is Enter."""
        os.write(self.descriptor, text.replace("\n", "\r").encode())

    async def sees(self, text: str) -> str:
        """Wait until a text is shown -> all that was shown up to now; the next call looks only at what comes then."""
        try:
            await wait_until(lambda: text in self.shown or self._check(text), seconds=20)
        except AssertionError as error:
            raise AssertionError(f"{text!r} was not shown:\n{self.shown}") from error
        shown = self.shown
        self.read = len(self.raw)
        return shown

    def _check(self, text: str) -> bool:
        assert self.process.returncode is None, f"ended without showing {text!r}:\n{self.shown}"
        return False

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            self.raw += os.read(self.descriptor, 65536)


@contextlib.asynccontextmanager
async def terminal(*args: str, **environ: str) -> AsyncIterator[Terminal]:
    """Run ``hookline`` in a pseudo-terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hookline_server", *args),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Nobody here answers where the cursor is.
            env={**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **environ},
            preexec_fn=_take_terminal,
        )
    finally:
        os.close(theirs)
    found = Terminal(process, ours)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, found._take)
    try:
        yield found
    finally:
        loop.remove_reader(ours)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(ours)


def _take_terminal() -> None:
    """Make the terminal the process's own, so that Ctrl-C in it is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
