"""What all that use a namespace agree on, as the store has it: partitions, cursor secret, schema.

A store may come back empty under those that use it: flushed, restarted without persistence, or a replica promoted that
had nothing yet. What they write then lies where their partitions are, so they write those back, before somebody who
starts finds none and chooses others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from time import monotonic
from typing import Any

from hookline import keys
from hookline.errors import HooklineError, Incompatible, StoreFull
from hookline.settings import Settings

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds after which it is looked again, while the namespace is used."""
_OTHERS = 5
"""So many times as seldom at those of a server besides its own: there may be hundreds."""


class Meta:
    """The hash of one namespace. ``run`` runs a command on the node of a name, ``now_ms`` asks for the time."""

    def __init__(
        self, settings: Settings, run: Callable[..., Awaitable[Any]], now_ms: Callable[[], Awaitable[int]]
    ) -> None:
        self._settings = settings
        self._name = keys.meta(settings.namespace)
        self._run = run
        self._now_ms = now_ms
        self._look_at = math.inf
        self._pause = LOOK
        self._looking: asyncio.Task[None] | None = None
        self.partitions = 0
        self.cursor_secret = b""
        self.refusal = ""
        """Why nothing may be done: others use the namespace in another form."""

    async def open(self, partitions: int, *, home: bool) -> None:
        """Find the namespace, or make it with so many partitions. ``home``: it is the one that the settings mean.

        Raises:
            Incompatible: the store holds it in another form.
            Unavailable: no answer.
        """
        settings = self._settings
        found = await self._agree(
            {b"partitions": partitions, b"cursor_secret": secrets.token_bytes(32), b"schema": keys.SCHEMA}
        )
        # A server opens a namespace also to see whether there is anything to do.
        await self.note_use("GT" if home else "NX")
        if int(found[b"schema"]) != keys.SCHEMA:
            raise Incompatible(
                f"namespace {settings.namespace!r} is of schema {int(found[b'schema'])}, this release works with"
                f" {keys.SCHEMA}: use a release of that schema"
            )
        self.partitions = int(found[b"partitions"])
        # Of the other namespaces of a server, the setting means those that are new.
        if home and settings.partitions not in (None, self.partitions):
            raise Incompatible(
                f"namespace {settings.namespace!r} was created with {self.partitions} partitions, which is fixed: start"
                f" with HOOKLINE_PARTITIONS={self.partitions}, or without it"
            )
        self.cursor_secret = found[b"cursor_secret"]
        self.refusal = ""
        self._pause = LOOK if home else _OTHERS * LOOK
        self._look_at = monotonic() + self._pause

    async def _agree(self, wanted: Mapping[bytes, Any]) -> dict[bytes, bytes]:
        """Write what is missing -> what is there then, of whoever was first."""
        found = await self._read()
        missing = wanted.keys() - found.keys()
        for field in missing:
            await self._run(self._name, "HSETNX", self._name, field, wanted[field])
        return await self._read() if missing else found

    async def _read(self) -> dict[bytes, bytes]:
        flat = await self._run(self._name, "HGETALL", self._name)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def note_use(self, mode: str = "GT") -> None:
        """Note in the store's list of namespaces that this one is used now; ``NX``: only that there is one.

        Raises:
            Unavailable
        """
        now_ms = await self._now_ms()
        # At the memory limit servers start all the same, to drain it; one that has begun before is listed.
        with contextlib.suppress(StoreFull):
            await self._run(keys.namespaces(), "ZADD", keys.namespaces(), mode, now_ms, self._settings.namespace)

    def holds(self) -> bool:
        """Whether the store had the namespace as it is here, when last looked at. If that is long ago, a task looks."""
        if monotonic() >= self._look_at:
            self._look_at = monotonic() + self._pause
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_quietly(), context=Context())
        return not self.refusal

    async def _look_quietly(self) -> None:
        try:
            await self.look()
        except HooklineError as error:  # whoever needs an answer is told by its own call
            log.debug("no look at namespace %s: %s", self._settings.namespace, error)

    async def look(self) -> None:
        """Write back what the store has lost, and take over the cursor secret; refuse what lies in other partitions.

        Raises:
            Unavailable, Incompatible: no answer.
        """
        ours = {b"partitions": self.partitions, b"cursor_secret": self.cursor_secret, b"schema": keys.SCHEMA}
        lost = 0
        with contextlib.suppress(StoreFull):
            # A write, so that also who only reads learns that a link leads to what is no primary any more.
            lost = await self._run(self._name, "HSETNX", self._name, b"partitions", self.partitions)
        found = await self._agree(ours)
        if lost:
            log.error(
                "the store came back without namespace %s, and so without what it held: it goes on with %d partitions",
                self._settings.namespace,
                self.partitions,
            )
            await self.note_use()
        if not ours.keys() <= found.keys():  # it is being emptied just now
            return
        partitions, schema = int(found[b"partitions"]), int(found[b"schema"])
        if (partitions, schema) == (self.partitions, keys.SCHEMA):
            self.cursor_secret, self.refusal = found[b"cursor_secret"], ""
        elif not self.refusal:
            self.refusal = (
                f"namespace {self._settings.namespace!r} has {partitions} partitions in the store by now and schema"
                f" {schema}; here it has {self.partitions} and {keys.SCHEMA}: the store was emptied and somebody else"
                " has begun it anew, so start this process again"
            )
            log.error("%s", self.refusal)

    async def close(self) -> None:
        """Look no more."""
        self._look_at = math.inf
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
