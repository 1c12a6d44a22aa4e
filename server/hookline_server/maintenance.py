"""What an operator does to a whole namespace: beside running servers, or on the data of one that is stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import BinaryIO, NoReturn

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.connection import Connection
from hookline.doctor import examine
from hookline.embedded import running
from hookline.errors import HooklineError, OutcomeUnknown, Unavailable
from hookline.secret import KEY_BYTES, SECRET_FILE, load_key
from hookline.transfer import Imported, export, restore
from hookline_server.progress import Say, showing, tell


def has_data(settings: Settings) -> bool:
    """Whether an embedded store has ever run in the directory of the data."""
    return (settings.data / "appendonlydir").is_dir()


@asynccontextmanager
async def reaching(settings: Settings, *, fresh: bool = False) -> AsyncIterator[str]:
    """The URL of the store that is meant: the one named, a running server's, or the embedded one, started now.

    Raises:
        Unavailable: there is no data, unless it may be ``fresh``; or the directory cannot be used.
        Incompatible: there is no server to start.
    """
    url = settings.store_url or running(settings.data)
    if url:
        yield url
        return
    if not fresh and not has_data(settings):
        raise Unavailable(
            f"there is no data in {settings.data}: name the server's directory with --data, or its --store"
        )
    async with EmbeddedStore(settings.data, say=tell) as store:
        yield store.url


async def doctor(settings: Settings, repair: bool, say: Say, *, as_json: bool = False) -> bool:
    """Examine the namespace, say each flaw, and in the end how many there were -> whether none is left.

    ``as_json`` says each, and the sums, as a document.

    Raises:
        Incompatible, Unavailable: the store cannot be used, or gave no answer; the text says what to do.
    """
    async with reaching(settings) as url:
        connection = Connection(url, settings)
        try:
            await connection.open()
            return await _examine(connection, repair, say, as_json=as_json)
        finally:
            await connection.close()


async def _examine(connection: Connection, repair: bool, say: Say, *, as_json: bool) -> bool:
    with showing("Examined", say) as (advance, say_beside):
        async for progress in examine(connection, connection.partitions, repair=repair):
            for finding in progress.findings:
                text = f"{finding} (repaired)" if finding.repaired else str(finding)
                say_beside(json.dumps(finding.to_dict()) if as_json else text)
            advance(progress.examined, progress.total)
    left = progress.flaws - progress.repaired
    sums = {"examined": progress.examined, "flaws": progress.flaws, "repaired": progress.repaired}
    if as_json:
        say(json.dumps(sums))
        return not left
    say("examined {examined} items and entries: {flaws} flaws, {repaired} repaired".format(**sums))
    if left and not repair:
        say("put right what can be with: hookline doctor --repair")
    return not left


async def write_archive(settings: Settings, output: BinaryIO, *, api_keys: bool) -> bool:
    """Write the namespace as an archive -> whether every item is in it.

    Raises:
        HooklineError: there is no secret that the API keys are sealed under.
        Corrupt, Incompatible, Unavailable
    """
    secrets = _secrets(settings)
    if secrets is None and api_keys:
        raise HooklineError(
            f"there is no secret in {settings.data}, so nothing tells where the API keys would open: name the server's"
            " --data or HOOKLINE_SECRET_KEY, or leave them out with --without-api-keys"
        )
    failed = 0
    async with reaching(settings) as url, Datastore(url, settings, secrets or _no_secret()) as datastore:
        with showing("Exported", tell) as (advance, say):
            async for step in export(datastore, api_keys=api_keys):
                _write(output, step.lines)
                failed += len(step.failed)
                for name in step.failed:
                    say(name)
                advance(step.done, step.total)
        with _breakable():
            output.flush()
    tell(f"exported {step.done} items of {settings.namespace}" + (f"; {failed} could not be" if failed else ""))
    return not failed


async def read_archive(
    settings: Settings, file: BinaryIO, *, replace: bool, api_keys: bool, strict: bool
) -> tuple[bool, dict[str, int]]:
    """Read an archive into the namespace -> whether all of it is there now, and what became of how many lines.

    With these is ``whole``: whether the archive had its end, and all that this tells of.

    Raises:
        Invalid: it has no header; or ``strict``, and a line can't be taken.
        Unopenable: its API keys would not open here.
        Incompatible, Unavailable, StoreFull, OutcomeUnknown
    """
    step = Imported(0, 0, 0, 0, 0)
    secrets = _secrets(settings) or _no_secret()
    async with reaching(settings, fresh=True) as url, Datastore(url, settings, secrets) as datastore:
        with showing("Imported", tell) as (advance, say):
            try:
                async for step in restore(datastore, _lines(file), replace=replace, api_keys=api_keys, strict=strict):
                    for note in step.notes:
                        say(note)
                    advance(step.lines, step.total)
            except (Unavailable, OutcomeUnknown, asyncio.CancelledError, KeyboardInterrupt):
                say(f"broken off after {step.lines} lines, {step.written} of them written: a repeat goes on from there")
                raise
    sums = {"lines": step.lines, "written": step.written, "skipped": step.skipped, "failed": step.failed}
    sums["whole"] = step.whole
    tell("read {lines} lines: {written} written, {skipped} there already, {failed} failed".format(**sums))
    return step.whole and not step.failed, sums


def _write(output: BinaryIO, lines: bytes) -> None:
    with _breakable():
        while lines:
            lines = lines[output.write(lines) :]  # where PYTHONUNBUFFERED is set, it may be a part


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while True:
        with _breakable():
            line = file.readline()
        if not line:
            return
        yield line


@contextmanager
def _breakable() -> Iterator[None]:
    """Where the loop waits for a pipe that may stand still: Ctrl-C breaks off even that.

    Raises:
        CancelledError: it came.
    """
    handler, task = signal.getsignal(signal.SIGINT), asyncio.current_task()
    if not callable(handler) or handler is signal.default_int_handler:  # not the runner's, which cancels the task
        yield
        return
    signal.signal(signal.SIGINT, _cancel)
    try:
        if task and task.cancelling():  # it came just before
            raise asyncio.CancelledError
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _cancel(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise asyncio.CancelledError


def _secrets(settings: Settings) -> SecretBox | None:
    """The installation's secret; None where there is none yet: it is not for these commands to make one."""
    if settings.secret_key is None and not (settings.data / SECRET_FILE).exists():
        return None
    return SecretBox(load_key(settings.secret_key, settings.data))


def _no_secret() -> SecretBox:
    """A box that opens nothing; nothing is sealed here either."""
    return SecretBox(os.urandom(KEY_BYTES))
