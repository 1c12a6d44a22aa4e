"""The gate: which API key a request shows, looked up once and then known for some seconds."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from starlette.types import Scope

from hookline import Datastore
from hookline.keyring import PREFIX, ApiKey, Keyring
from hookline_server.answer import FIELDS
from hookline_server.attempts import Attempts
from hookline_server.caller import Caller, admitted
from hookline_server.problem import Problem
from hookline_server.role import Surviving

log = logging.getLogger(__name__)
T = TypeVar("T")

KNOWN_FOR = 5.0
"""Seconds for which a key that was good is not looked up again: so long a revoked one may still be good."""
WATCH = 1.0
"""Seconds between looks for the first key, as long as there is none."""
KNOWN_MAX = 10_000
"""Keys that are known at one time."""
WRONG_MAX = 1000
"""Wrong keys that are remembered at one time: each may be looked up every :data:`KNOWN_FOR` seconds, however often."""
USE_NOTED = 60_000
"""Milliseconds after which the use of a key is noted again."""
_BEARER = b"bearer "


class Gate:
    """Tells who asks. A key, good or wrong, is looked up in the store at most every :data:`KNOWN_FOR` seconds.

    A wrong key counts against its address once, as long as it is remembered: who guesses shows another one each time,
    while a worker whose key was revoked goes on with the same, and must not keep others out that have its address.

    Args:
        keyring: the API keys.
        open_namespace: opens a namespace, or finds it open.
        home: the server's own namespace.
        unguarded: whether who shows no key may do everything, until the first key is made.
    """

    def __init__(
        self,
        keyring: Keyring,
        open_namespace: Callable[[str], Awaitable[Datastore]],
        *,
        home: str = "default",
        unguarded: bool = False,
    ) -> None:
        self.unguarded = unguarded
        self._home = home
        self._keyring = keyring
        self._open_namespace = open_namespace
        # By a digest that nobody outside can compute: neither the keys nor how they compare is in this memory.
        self._salt = os.urandom(16)
        self._known: dict[bytes, tuple[float, Caller]] = {}
        self._wrong: dict[bytes, float] = {}  # until when each is not looked up again
        self._asked: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._noting: set[asyncio.Task[None]] = set()
        self._attempts = Attempts()

    def known(self, scope: Scope) -> Caller | None:
        """Who asks, if that is known by now; this is all that most requests need."""
        shown = _shown(scope)
        if shown is None:
            return None
        found = self._known.get(self._digest(shown))
        return found[1] if found and found[0] > time.monotonic() else None

    async def identify(self, scope: Scope) -> Caller | None:
        """Who asks; None who shows no key, where none is asked for.

        Raises:
            Problem: no key is shown, or one that is not good; or there were too many of those from this address.
            Unavailable: the store gave no answer.
        """
        shown = _shown(scope)
        if self.unguarded and not (shown and shown.startswith(PREFIX.encode())):
            return None  # what else stands there may be a proxy's
        if shown is None:
            raise _unauthenticated(
                "missing_api_key",
                "expected an API key, as 'hookline keys create' makes it: Authorization: Bearer hl_...",
            )
        digest = self._digest(shown)
        caller = None
        if self._wrong.get(digest, 0.0) <= time.monotonic():
            peer = _peer(scope)
            # Who was good may go on while others from the same address, such as a proxy's, try wrong keys.
            if not (digest in self._known or digest in self._wrong) and (wait := self._attempts.wait(peer)):
                detail = "too many wrong API keys came from this address"
                raise Problem("too_many_attempts", detail, {"Retry-After": str(wait)})
            caller = await self._look_up(digest, shown, peer)
        if caller is None:
            detail = "the API key is unknown, or it was revoked or has ended"
            raise _unauthenticated("invalid_api_key", detail, ', error="invalid_token"')
        return caller

    async def run(self) -> None:
        """Notice the first key that is made, wherever that is; until cancelled."""
        while True:
            with Surviving(log, "a look for API keys"):
                if self.unguarded and await self._keyring.any_made():
                    self.unguarded = False
            await asyncio.sleep(WATCH)

    async def _look_up(self, digest: bytes, shown: bytes, peer: str) -> Caller | None:
        """However many ask at one time, the store is asked once."""
        task = self._asked.get(digest)
        if task is None:
            task = self._asked[digest] = asyncio.create_task(self._verify(digest, shown, peer))
            task.add_done_callback(partial(self._answered, digest))
        return await asyncio.shield(task)

    def _answered(self, digest: bytes, task: asyncio.Task[Caller | None]) -> None:
        del self._asked[digest]
        if not task.cancelled():
            task.exception()  # else it is reported, where all who asked have gone away

    async def _verify(self, digest: bytes, shown: bytes, peer: str) -> Caller | None:
        began = time.monotonic()
        key = await self._keyring.verify(shown.decode("latin-1"))
        if key is None:
            self._known.pop(digest, None)
            if digest not in self._wrong:
                self._attempts.note_wrong(peer)
            _put(self._wrong, digest, began + KNOWN_FOR, WRONG_MAX)
            return None
        self.unguarded = False
        whole = await self._open_namespace(key.namespace)
        caller = admitted(whole, key.grant, key.id, at_home=key.namespace == self._home)
        left = KNOWN_FOR if key.ends_ms is None else min(KNOWN_FOR, key.ends_ms / 1000 - time.time())
        self._wrong.pop(digest, None)
        _put(self._known, digest, (began + left, caller), KNOWN_MAX)
        self._note_use(key)
        return caller

    def _note_use(self, key: ApiKey) -> None:
        if key.used_ms is None or time.time() * 1000 - key.used_ms >= USE_NOTED:
            task = asyncio.create_task(self._note(key.id))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _note(self, key_id: str) -> None:
        with Surviving(log, "noting the use of an API key"):
            await self._keyring.note_use(key_id)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._noting, *self._asked.values(), return_exceptions=True)

    def _digest(self, shown: bytes) -> bytes:
        return hashlib.blake2b(shown, digest_size=16, key=self._salt).digest()


def _shown(scope: Scope) -> bytes | None:
    """The API key that a request shows, in one header or the other."""
    fields: dict[bytes, bytes] = scope[FIELDS]
    written = fields.get(b"authorization")
    if written is None:
        return fields.get(b"x-api-key")
    return written[len(_BEARER) :].strip() if written[: len(_BEARER)].lower() == _BEARER else written


def _put(memory: dict[bytes, T], digest: bytes, value: T, most: int) -> None:
    """Remember a value, in place of the oldest where there are ``most``."""
    memory.pop(digest, None)
    while len(memory) >= most:
        del memory[next(iter(memory))]
    memory[digest] = value


def _peer(scope: Scope) -> str:
    client: Any = scope.get("client")
    return client[0] if client else ""


def _unauthenticated(code: str, detail: str, more: str = "") -> Problem:
    return Problem(code, detail, {"WWW-Authenticate": f'Bearer realm="hookline"{more}'})
