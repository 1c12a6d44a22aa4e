"""What handlers tell of how far they are, written together a few times a second."""

from __future__ import annotations

import asyncio
import logging

from hookline.errors import HooklineError, MissingScope
from hookline.holding import LOST, Held
from hookline.source import Source

EVERY = 0.2
"""Seconds between two writes."""

log = logging.getLogger(__name__)


class Progress:
    """Gathers what is told, in whichever thread, until :meth:`run` writes it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._told: dict[Held, None] = {}
        self._some = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warned = False

    def tell(self, held: Held) -> None:
        """A handler has told how far its job is."""
        if held not in self._told and self._loop:
            self._told[held] = None
            self._loop.call_soon_threadsafe(self._some.set)

    def forget(self, held: Held) -> None:
        """It has come to its end, which says the rest."""
        self._told.pop(held, None)

    async def run(self) -> None:
        """Write what is told, until cancelled; whose job is not the worker's any more is given up."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._some.clear()
            told, self._told = list(self._told), {}
            written = [(held, *held.tell(self._source.calls)) for held in told if held.running]
            sent = [each for each in written if each[1] is not None]
            try:
                outcomes = await self._source.run([call for _, call, _ in sent]) if sent else []
            except HooklineError as error:
                if isinstance(error, MissingScope) and not self._warned:
                    self._warned = True
                    log.warning("progress is told only at the end of a job: it needs an API key with the scope write")
                log.info("progress could not be told: %s", error)
                outcomes = []
            for (held, _, value), outcome in zip(sent, outcomes, strict=False):
                if outcome.ok:
                    held.told(value)
                elif outcome.word in ("stale_token", "cancelled", "not_found") and held.running:
                    held.give_up(LOST)
            await asyncio.sleep(EVERY)
