"""The signing secret of a namespace: derived from the installation's, by a number that grows when it is rotated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hookline import Datastore, SecretBox, Settings, keys
from hookline.clock import format_time
from hookline.connection import Connection
from hookline.errors import HooklineError, NotFound, Refused
from hookline.secret import load_key
from hookline_server.issuing import opened

FRESH = 5.0
"""Seconds after which a sender looks again which secrets sign."""
_FIELD = "signing"


@dataclass(frozen=True, slots=True)
class Signing:
    """How often the secret of a namespace was rotated, and until when (ms since 1970) the one before signs too."""

    rotations: int = 0
    until_ms: int = 0

    @classmethod
    async def read(cls, connection: Connection, namespace: str) -> Signing:
        """As it is stored.

        Raises:
            Unavailable
        """
        name = keys.meta(namespace)
        written = await connection.command_on(name, "HGET", name, _FIELD)
        return cls(*map(int, written.split())) if written else cls()

    async def rotate(self, connection: Connection, namespace: str, grace: float, *, force: bool = False) -> Signing:
        """The next one, stored; for ``grace`` seconds both sign. Two rotations at once are one.

        Raises:
            Refused: the one before the present one signs still, and with ``force`` would no more.
            Unavailable
        """
        name, now = keys.meta(namespace), await connection.now_ms()
        if now < self.until_ms and not force:
            until = format_time(self.until_ms)
            raise Refused(f"the secret was rotated, and the one before signs until {until}: --force ends that")
        following = Signing(self.rotations + 1, now + round(grace * 1000))
        await connection.command_on(name, "HSET", name, _FIELD, f"{following.rotations} {following.until_ms}")
        return following

    def secrets(self, box: SecretBox, namespace: str) -> list[bytes]:
        """Those that sign now, the newest first."""
        both = self.rotations > 0 and time.time() * 1000 < self.until_ms
        numbers = [self.rotations, self.rotations - 1] if both else [self.rotations]
        return [box.derive(f"webhook-signing:{namespace}" + (f":{number}" if number else "")) for number in numbers]


class Signer:
    """The secrets that sign a datastore's webhooks now, read again every :data:`FRESH` seconds while they are used."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._secrets: Sequence[bytes] = ()
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def secrets(self) -> Sequence[bytes]:
        """The newest first.

        Raises:
            Unavailable: none is known yet.
        """
        if time.monotonic() >= self._fresh_until:
            async with self._reading:
                if time.monotonic() >= self._fresh_until:
                    await self._read()
        return self._secrets

    async def _read(self) -> None:
        namespace = self._datastore.settings.namespace
        try:
            signing = await Signing.read(self._datastore.connection, namespace)
            self._secrets = signing.secrets(self._datastore.secrets, namespace)
        except HooklineError:
            if not self._secrets:
                raise
        self._fresh_until = time.monotonic() + FRESH


async def secrets(settings: Settings, namespace: str) -> list[bytes]:
    """Those that sign for a namespace now, the newest first. Where there is no store yet, the first of all.

    Raises:
        Invalid, Incompatible, Unavailable
    """
    if settings.store_url is None and not (settings.data / "appendonlydir").is_dir():
        return Signing().secrets(SecretBox(load_key(settings.secret_key, settings.data)), namespace)
    async with opened(settings) as (connection, box):
        return (await Signing.read(connection, namespace)).secrets(box, namespace)


async def rotate(settings: Settings, namespace: str, grace: float, *, force: bool = False) -> bytes:
    """Replace the secret of a namespace -> the new one; for ``grace`` seconds the one before signs as well.

    Raises:
        NotFound: there is no such namespace.
        Refused: one before signs still: ``force`` ends that.
        Invalid, Incompatible, Unavailable
    """
    async with opened(settings) as (connection, box):
        if not await connection.command_on(keys.meta(namespace), "EXISTS", keys.meta(namespace)):
            raise NotFound(f"there is no namespace {namespace!r} in this store")
        signing = await Signing.read(connection, namespace)
        signing = await signing.rotate(connection, namespace, grace, force=force)
        return signing.secrets(box, namespace)[0]
