"""What an operator does with API keys: beside running servers, or on the data of one that is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from hookline import SecretBox, Settings
from hookline.clock import format_time
from hookline.connection import Connection
from hookline.errors import Unavailable
from hookline.keyring import ApiKey, Keyring
from hookline.secret import SECRET_FILE, load_key
from hookline_server.maintenance import reaching

Say = Callable[[str], None]
_COLUMNS = ("id", "name", "namespace", "scopes", "patterns", "created", "last used", "ends")


async def create(settings: Settings, namespace: str, *, say: Say, **options: Any) -> None:
    """Make a key, and say it; ``options`` are those of :meth:`Keyring.create`.

    Raises:
        Invalid, Incompatible, Unavailable
    """
    async with _keyring(settings, fresh=True) as keyring:
        _, text = await keyring.create(namespace, **options)
    say(text)


async def show(settings: Settings, say: Say) -> None:
    """Say all keys, one a line.

    Raises:
        Incompatible, Unavailable
    """
    async with _keyring(settings) as keyring:
        rows = [_COLUMNS, *map(_row, await keyring.all())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


async def rotate(settings: Settings, key_id: str, *, grace: float, lasts: float | None, say: Say) -> None:
    """Give a key another secret, and say the key.

    Raises:
        UnknownApiKey, Incompatible, Unavailable
    """
    async with _keyring(settings) as keyring:
        text = await keyring.rotate(key_id, grace=grace, lasts=lasts)
    say(text)


async def revoke(settings: Settings, key_id: str, say: Say) -> None:
    """End a key.

    Raises:
        UnknownApiKey, Incompatible, Unavailable
    """
    async with _keyring(settings) as keyring:
        await keyring.revoke(key_id)
    say(f"revoked {key_id}")


@asynccontextmanager
async def _keyring(settings: Settings, *, fresh: bool = False) -> AsyncIterator[Keyring]:
    async with opened(settings, fresh=fresh) as (connection, secrets):
        yield Keyring(connection, secrets)


@asynccontextmanager
async def opened(settings: Settings, *, fresh: bool = False) -> AsyncIterator[tuple[Connection, SecretBox]]:
    """The store that is meant, and the installation's secret.

    For a store that is named, a new one would not be its servers'.

    Raises:
        Invalid, Incompatible, Unavailable
    """
    if settings.store_url and settings.secret_key is None and not (settings.data / SECRET_FILE).exists():
        raise Unavailable(
            f"there is no secret in {settings.data} yet: name the servers' --data, set their HOOKLINE_SECRET_KEY, or"
            " start one, which makes it"
        )
    async with reaching(settings, fresh=fresh) as url:
        connection = Connection(url, settings)
        try:
            await connection.open()
            yield connection, SecretBox(load_key(settings.secret_key, settings.data))
        finally:
            await connection.close()


def _row(key: ApiKey) -> tuple[str, ...]:
    ends = f"revoked {_time(key.revoked_ms)}" if key.revoked_ms else _time(key.ends_ms)
    grant = key.grant
    limits = (" ".join(grant.scopes), " ".join(grant.patterns) or "*")
    return (key.id, key.name or "-", key.namespace, *limits, _time(key.created_ms), _time(key.used_ms), ends)


def _time(ms: int | None) -> str:
    return "-" if ms is None else format_time(ms // 1000 * 1000)
