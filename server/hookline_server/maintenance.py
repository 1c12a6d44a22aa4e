"""What an operator does to a whole namespace: beside running servers, or on the data of one that is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hookline import EmbeddedStore, Settings
from hookline.connection import Connection
from hookline.doctor import examine
from hookline.embedded import running
from hookline.errors import Unavailable
from hookline_server.progress import Say, showing


@asynccontextmanager
async def reaching(settings: Settings, say: Say, *, fresh: bool = False) -> AsyncIterator[str]:
    """The URL of the store that is meant: the one named, a running server's, or the embedded one, started now.

    Raises:
        Unavailable: there is no data, unless it may be ``fresh``; or the directory cannot be used.
        Incompatible: there is no server to start.
    """
    url = settings.store_url or running(settings.data)
    if url:
        yield url
        return
    if not fresh and not (settings.data / "appendonlydir").is_dir():
        raise Unavailable(
            f"there is no data in {settings.data}: name the server's directory with --data, or its --store"
        )
    async with EmbeddedStore(settings.data, say=say) as store:
        yield store.url


async def doctor(settings: Settings, repair: bool, say: Say) -> bool:
    """Examine the namespace, say each flaw, and in the end how many there were -> whether none is left.

    Raises:
        Incompatible, Unavailable: the store cannot be used, or gave no answer; the text says what to do.
    """
    async with reaching(settings, say) as url:
        connection = Connection(url, settings)
        try:
            await connection.open()
            return await _examine(connection, settings.partitions, repair, say)
        finally:
            await connection.close()


async def _examine(connection: Connection, partitions: int, repair: bool, say: Say) -> bool:
    with showing("Examined", say) as (advance, say_beside):
        async for progress in examine(connection, partitions, repair=repair):
            for finding in progress.findings:
                say_beside(f"{finding} (repaired)" if finding.repaired else str(finding))
            advance(progress.examined, progress.total)
    left = progress.flaws - progress.repaired
    say(f"examined {progress.examined} items and entries: {progress.flaws} flaws, {progress.repaired} repaired")
    if left and not repair:
        say("put right what can be with: hookline doctor --repair")
    return not left
