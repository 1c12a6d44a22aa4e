"""The connection to the store: the only module that speaks redis-py.

redis-py's own retries are off: after a timeout they would run a write twice. Instead every writing call carries a
call id under which the store keeps its outcomes; an answer that was lost is asked for again with the same id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import redis.asyncio as aioredis
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hookline import keys
from hookline.codec import pack_request, unpack_answer
from hookline.errors import HooklineError, Incompatible, OutcomeUnknown, StoreFull, Unavailable
from hookline.settings import Settings
from hookline_lua import SCRIPTS, load

log = logging.getLogger(__name__)

REDIS_MIN, VALKEY_MIN = (7, 0), (7, 2)
"""Script flags and sharded pub/sub begin here."""
_RETRY_PAUSE = 0.05

# Python 3.12 to 3.14.0 raise the last two on a socket that the peer closed (redis-py #4287).
_LOST = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError, TypeError, AttributeError)
_NOT_NOW = ("MISCONF", "LOADING", "BUSY", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")


class _NotSentError(Exception):
    """No byte of the call left this process."""


class _LostError(Exception):
    """The call may have reached the store; its answer did not come."""


class Connection:
    """Runs scripts on the store. ``now_ms`` gives the clock of every call in tests; None is the store's own."""

    def __init__(self, url: str, settings: Settings, *, now_ms: Callable[[], int | None] = lambda: None) -> None:
        self._settings = settings
        self._now_ms = now_ms
        self._options: dict[str, Any] = {
            "socket_timeout": settings.call_timeout,
            "socket_connect_timeout": settings.call_timeout,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "decode_responses": False,
            "protocol": 2,
            "health_check_interval": 0,
            "client_name": "hookline",
        }
        self._url = url
        self._pool = aioredis.BlockingConnectionPool.from_url(
            url, max_connections=settings.connections, timeout=settings.call_timeout, **self._options
        )
        self._tags: list[str] = []
        self.partitions = settings.partitions
        self.cursor_secret = b""

    async def open(self) -> None:
        """Check the store, open the namespace, load the scripts.

        Raises:
            Incompatible: the store is too old, may evict keys, or holds the namespace in another form.
            Unavailable: the store cannot be reached.
        """
        _check_server(_read_info(await self.command("INFO", "server")))
        _check_policy(_read_info(await self.command("INFO", "memory")))
        await self._open_namespace()
        for name in SCRIPTS:
            await self.command("SCRIPT", "LOAD", load(name).source)

    async def _open_namespace(self) -> None:
        settings, name = self._settings, keys.meta(self._settings.namespace)
        wanted = {"partitions": settings.partitions, "cursor_secret": secrets.token_bytes(32), "schema": keys.SCHEMA}
        for field, value in wanted.items():
            await self.command("HSETNX", name, field, value)
        flat = await self.command("HGETALL", name)
        meta = dict(zip(flat[::2], flat[1::2], strict=True))
        if int(meta[b"schema"]) != keys.SCHEMA:
            raise Incompatible(
                f"namespace {settings.namespace!r} is of schema {int(meta[b'schema'])}, this release works with"
                f" {keys.SCHEMA}: use a release of that schema"
            )
        if int(meta[b"partitions"]) != settings.partitions:
            raise Incompatible(
                f"namespace {settings.namespace!r} was created with {int(meta[b'partitions'])} partitions, which is"
                f" fixed: start with HOOKLINE_PARTITIONS={int(meta[b'partitions'])}"
            )
        self.cursor_secret = meta[b"cursor_secret"]
        self._tags = [
            keys.partition_tag(settings.namespace, partition, settings.partitions)
            for partition in range(settings.partitions)
        ]

    async def close(self) -> None:
        """Close every connection to the store."""
        await self._pool.disconnect()

    async def write(self, script: str, partition: int, operations: Sequence[bytes]) -> list[Any]:
        """Run packed operations in one call -> one outcome each, ``[word, fields | false, extra | false]``.

        Raises:
            Unavailable: nothing was sent, or the store cannot take the call now.
            StoreFull: the store is at its memory limit; nothing was written.
            OutcomeUnknown: the call was sent and no answer came until the deadline.
        """
        settings = self._settings
        keep_ms = round(settings.call_timeout * 2000)
        request = b"".join(
            (
                b"\x93",  # msgpack: a list of three
                pack_request(keep_ms),
                pack_request(settings.outbox_max),
                msgpack.Packer().pack_array_header(len(operations)),
                *operations,
            )
        )
        call_id = secrets.token_hex(12)
        args = (self._tags[partition], self._now_text(), call_id, request)
        answer: list[Any] = unpack_answer(await self._resolved(script, args))
        return answer

    async def _resolved(self, script: str, args: tuple[Any, ...]) -> bytes:
        # Outcomes are kept for as long: what is sent after the deadline could take effect a second time.
        deadline = asyncio.get_running_loop().time() + self._settings.call_timeout * 2
        sent = False
        while True:
            try:
                answer: bytes = await self._evaluate(script, args, deadline if sent else None)
            except _NotSentError as error:
                if not sent:
                    raise Unavailable(f"the store cannot be reached: {error}") from error
            except _LostError:
                sent = True
            except Unavailable:
                # Once a call was sent, a store that takes none now says nothing about that one.
                if not sent:
                    raise
            else:
                return answer
            if asyncio.get_running_loop().time() >= deadline:
                raise OutcomeUnknown("the store was sent the call and gave no answer; read the item to see its state")
            await asyncio.sleep(_RETRY_PAUSE)

    async def read(self, script: str, partition: int, request: object) -> Any:
        """Run a script of which a repeat does no harm -> its answer.

        Raises:
            Unavailable: no answer.
            StoreFull: the store is at its memory limit.
        """
        args = (self._tags[partition], self._now_text(), pack_request(request))
        try:
            answer = await self._evaluate(script, args)
        except (_NotSentError, _LostError) as error:
            raise Unavailable(f"the store gave no answer: {error}") from error
        return unpack_answer(answer) if isinstance(answer, bytes) else answer

    async def command(self, *args: Any) -> Any:
        """Run one bare command of which a repeat does no harm -> its answer.

        Raises:
            Unavailable: no answer.
        """
        try:
            return await self._roundtrip(*args)
        except (_NotSentError, _LostError) as error:
            raise Unavailable(f"the store gave no answer: {error}") from error

    async def _evaluate(self, name: str, args: tuple[Any, ...], send_by: float | None = None) -> Any:
        script = load(name)
        try:
            return await self._roundtrip("EVALSHA", script.sha, len(script.keys), *args, send_by=send_by)
        except redis_errors.NoScriptError:
            # Nothing ran: the store was restarted, or its scripts were flushed.
            await self._roundtrip("SCRIPT", "LOAD", script.source, send_by=send_by)
        try:
            return await self._roundtrip("EVALSHA", script.sha, len(script.keys), *args, send_by=send_by)
        except redis_errors.NoScriptError:
            # Flushed again in between: sent with its text it cannot be missing.
            return await self._roundtrip("EVAL", script.source, len(script.keys), *args, send_by=send_by)

    async def _roundtrip(self, *args: Any, send_by: float | None = None) -> Any:
        try:
            async with asyncio.timeout_at(send_by):
                connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except redis_errors.AuthenticationError as error:
            raise Incompatible(f"the store refuses the user or password of its URL: {error}") from error
        except _LOST as error:
            raise _NotSentError(str(error)) from error
        try:
            await connection.send_command(*args)
            return await connection.read_response()
        except redis_errors.AuthenticationError as error:
            raise Incompatible(f"the store asks for a user or password: {error}") from error
        except redis_errors.BusyLoadingError as error:
            raise Unavailable("the store is loading its data") from error
        except redis_errors.NoScriptError:
            raise
        except redis_errors.OutOfMemoryError as error:
            raise StoreFull("the store is at its memory limit: raise maxmemory, or delete items") from error
        except redis_errors.ResponseError as error:
            raise _translate(error) from error
        except _LOST as error:
            await connection.disconnect(nowait=True)
            raise _LostError(str(error)) from error
        except BaseException:
            # Cancelled between sending and answer: the connection is out of step.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def messages(self, channel: Callable[[str], str]) -> AsyncIterator[AsyncIterator[str]]:
        """Subscribe to a channel of every partition -> the topics of its messages.

        Raises:
            Unavailable: the store cannot be reached, or the subscription was lost.
        """
        client = aioredis.Redis.from_url(self._url, **{**self._options, "socket_timeout": None})
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.ssubscribe(*map(channel, self._tags))

            async def topics() -> AsyncIterator[str]:
                while True:
                    message = await pubsub.get_message(timeout=None)
                    if message and message["type"] in ("smessage", "message"):
                        for topic in message["data"].decode().split("\0"):
                            yield topic

            yield topics()
        except _LOST as error:
            raise Unavailable(f"the store gave no answer: {error}") from error
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            await client.aclose()

    async def now_ms(self) -> int:
        """The store's clock (on a cluster that of one of its nodes), or the one that a test has set.

        Raises:
            Unavailable: no answer.
        """
        fixed = self._now_ms()
        if fixed is not None:
            return fixed
        seconds, micros = await self.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def _now_text(self) -> str:
        now_ms = self._now_ms()
        return "" if now_ms is None else str(now_ms)


def _translate(error: redis_errors.ResponseError) -> HooklineError:
    # redis-py takes the code off the text of those errors that it knows.
    text = str(error)
    word = error.status_code or text.split(" ", 1)[0]
    if word in _NOT_NOW:
        return Unavailable(f"the store cannot take writes now: {text}")
    if isinstance(error, redis_errors.NoPermissionError):
        return Incompatible(f"the store's user lacks a permission: {text}")
    return HooklineError(f"the store refused a call that it should take: {text}")


def _read_info(answer: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in answer.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


def _check_server(info: dict[str, str]) -> None:
    valkey = info.get("valkey_version")
    name, text, oldest = (
        ("Valkey", valkey, VALKEY_MIN) if valkey else ("Redis", info.get("redis_version", "0"), REDIS_MIN)
    )
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version < oldest:
        raise Incompatible(
            f"the store is {name} {text}; Hookline needs Redis >= 7.0 or Valkey >= 7.2: upgrade it, or start without"
            " --store to use the embedded one"
        )


def _check_policy(info: dict[str, str]) -> None:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Incompatible(
            f"the store's maxmemory-policy is {policy}, under which it may drop items: set it to noeviction, e.g."
            " CONFIG SET maxmemory-policy noeviction"
        )
    if info.get("maxmemory") == "0":
        log.info("the store has no maxmemory: it may use all memory of its machine")
