"""A feed: a link on which the store speaks unasked."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
from redis import exceptions as redis_errors

from hookline.link import MORE, Link, LostError, Told


class Feed(Link):
    """Once it is told which channels to hear, ``told`` gets all that the store says. ``lost`` is set when it ends."""

    def __init__(self, connection: Any, timeout: float) -> None:
        super().__init__(connection, timeout)
        self.told: Told = _ignore
        self.lost = asyncio.Event()

    def send(self, *args: Any) -> None:
        """Send a command; its answer is told as all else is."""
        self._transport.write(hiredis.pack_command(args))

    def data_received(self, data: bytes) -> None:
        """Pass on what is whole."""
        try:
            self._reader.feed(data)
            while (said := self._reader.gets()) is not MORE:
                self.told(said)
        except redis_errors.InvalidResponse as error:
            self._lose(LostError(str(error)))

    def _lose(self, reason: LostError) -> None:
        super()._lose(reason)
        self.lost.set()


def _ignore(_: Any) -> None:
    pass
