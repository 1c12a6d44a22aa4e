"""Runs a store server for a parent process and stops it when the parent ends, however the parent ends.

The keeper is a process between the two, and the server is its child: so there is no moment in which the
server runs unwatched, and the pid that the keeper signals cannot have come to mean another process.
:func:`spawn` starts it; what runs in it is this same file, with nothing but the standard library.

Parent and keeper share a line, a socket pair that is the keeper's stdin. The keeper sends the server's pid
over it, or nothing if the server cannot be run (the log says why). When the line ends, it stops the server.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from ctypes.util import find_library
from pathlib import Path
from typing import IO

STOP_S = 60.0
"""How long the server may take to end on SIGTERM. Generous: it may be in an fsync, or in a long script."""
PARENT_CHECK_S = 1.0


def spawn(
    command: list[str], *, data: Path, lock: IO[bytes], socket_dir: Path, log: IO[bytes]
) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
    """Start a keeper, and with it the server, in a session of their own.

    Args:
        command: what to run as the server, in the directory ``data``.
        data: the data directory.
        lock: the open, flocked file of the data directory. The server inherits it and the keeper closes its
            copy; if the caller does too, the lock lives exactly as long as the server.
        socket_dir: removed when the server has ended.
        log: where the keeper's and the server's own output go.

    Returns:
        The keeper's process, which ends when the server has ended; our end of the line; and the server's pid,
        0 if it could not be run. ``shutdown()`` of the line stops the server, even if a child that we forked
        has a copy of it; so does the line when it is just forgotten and collected.

    Raises:
        OSError: the keeper itself could not be run.
    """
    line, theirs = socket.socketpair()
    with contextlib.ExitStack() as on_error, theirs:
        on_error.callback(line.close)
        # By path and isolated: it starts in 50 ms, wherever this package was imported from. No asyncio
        # subprocess: asyncio kills those whose loop is dropped, and the server would be left alone.
        # Without our variables: the store has no use for our secrets.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", __file__, str(lock.fileno()), str(socket_dir), *command],
            stdin=theirs.fileno(),
            stdout=log,
            stderr=log,
            cwd=data,
            env={name: value for name, value in os.environ.items() if not name.startswith("HOOKLINE_")},
            pass_fds=(lock.fileno(),),
            start_new_session=True,
        )
        on_error.pop_all()
    return process, line, int(line.recv(32) or 0)


def keep(lock: int, socket_dir: str, command: list[str]) -> int:
    """Run the server until it ends or the parent does; return the status to exit with."""
    try:
        # The umask: the files hold everybody's data, and the data directory may have been made by hand.
        server = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, pass_fds=(lock,), umask=0o077, env=_with_jemalloc(os.environ)
        )
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=stop_after_parent, args=(server, os.getppid()), daemon=True).start()
    # Neither a full disk nor a parent that is gone already may end the keeper before the server.
    with contextlib.suppress(OSError):
        os.pwrite(lock, f"{server.pid:<10}\n".encode(), 0)
    os.close(lock)
    with contextlib.suppress(OSError):
        os.write(0, str(server.pid).encode())
    status = server.wait()
    shutil.rmtree(socket_dir, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _with_jemalloc(environ: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: with jemalloc where the system has it, unless something else is preloaded.

    A server as it comes from PyPI is built with the C library's allocator, which costs it a quarter more processor
    time (docs/architecture.md). One that has jemalloc already takes no harm.
    """
    library = find_library("jemalloc") if sys.platform == "linux" and "LD_PRELOAD" not in environ else None
    return {**environ, "LD_PRELOAD": library} if library else dict(environ)


def stop_after_parent(server: subprocess.Popen[bytes], parent: int) -> None:
    """Wait for the line to end, or for another process to become our parent; then stop the server.

    The line alone is not enough: a child that the parent forked (``multiprocessing``) may keep a copy of it.
    """
    while os.getppid() == parent and not select.select([0], [], [], PARENT_CHECK_S)[0]:
        pass
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
