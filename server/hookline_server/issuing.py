"""What an operator does with API keys: beside running servers, or on the data of one that is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hookline import SecretBox, Settings
from hookline.clock import format_time
from hookline.connection import Connection
from hookline.errors import Unavailable
from hookline.keyring import ApiKey, Keyring
from hookline.secret import SECRET_FILE, load_key
from hookline_server.maintenance import has_data, reaching
from hookline_server.progress import tell

_COLUMNS = ("id", "name", "namespace", "scopes", "patterns", "created", "last used", "ends")


async def create(settings: Settings, namespace: str, **options: Any) -> tuple[ApiKey, str]:
    """Make a key -> it, and its text, which can be had only now; ``options`` are those of :meth:`Keyring.create`.

    Where that made a store too, it says so: the key is none of a server that runs elsewhere.

    Raises:
        Invalid, Incompatible, Unavailable
    """
    is_new = settings.store_url is None and not has_data(settings)
    async with _keyring(settings, fresh=True) as keyring:
        made = await keyring.create(namespace, **options)
    if is_new:
        tell(f"made new data in {settings.data}, for a server that starts there; for one that runs name its --data")
    return made


async def show(settings: Settings) -> list[ApiKey]:
    """All keys.

    Raises:
        Incompatible, Unavailable
    """
    async with _keyring(settings) as keyring:
        return await keyring.all()


async def rotate(settings: Settings, key_id: str, *, grace: float, lasts: float | None) -> str:
    """Give a key another secret -> its text.

    Raises:
        UnknownApiKey, Incompatible, Unavailable
    """
    async with _keyring(settings) as keyring:
        return await keyring.rotate(key_id, grace=grace, lasts=lasts)


async def revoke(settings: Settings, key_id: str) -> None:
    """End a key.

    Raises:
        UnknownApiKey, Incompatible, Unavailable
    """
    async with _keyring(settings) as keyring:
        await keyring.revoke(key_id)


def lines(keys: Sequence[ApiKey]) -> list[str]:
    """Keys for people, under the names of the columns."""
    rows = [_COLUMNS, *map(_row, keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


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
            secrets = SecretBox(load_key(settings.secret_key, settings.data))
            await Keyring(connection, secrets).check()
            yield connection, secrets
        finally:
            await connection.close()


def _row(key: ApiKey) -> tuple[str, ...]:
    ends = f"revoked {_time(key.revoked_ms)}" if key.revoked_ms else _time(key.ends_ms)
    grant = key.grant
    limits = (" ".join(grant.scopes), " ".join(grant.patterns) or "*")
    return (key.id, key.name or "-", key.namespace, *limits, _time(key.created_ms), _time(key.used_ms), ends)


def _time(ms: int | None) -> str:
    return "-" if ms is None else format_time(ms // 1000 * 1000)
