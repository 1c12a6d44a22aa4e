"""Idempotency-Key: a write that is sent again takes effect once, and is answered as it was the first time."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from hookline.errors import HooklineError
from hookline_server import body, head
from hookline_server.caller import CALLER, caller_of, datastore_of
from hookline_server.command import TEXT_MAX
from hookline_server.problem import RETRY_AFTER, Problem

HEADER = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")
WHOLE_MAX = 262_144
"""Bytes of an answer that is kept as a whole; where it is longer, a repeat of its request is served anew."""
# A structured field's string (RFC 9651), or the same without its quotation marks.
_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([!#-+\--~]{1,255})', re.ASCII)

Endpoint = Callable[[Request], Awaitable[Response]]


def repeatable(endpoint: Endpoint) -> Endpoint:
    """The endpoint of a write, which honours Idempotency-Key; without one nothing is done for it."""

    async def dispatch(request: Request) -> Response:
        written = head.field(request, HEADER)
        return await (endpoint(request) if written is None else _serve(endpoint, request, written))

    return dispatch


async def whole(request: Request, work: Callable[[], Awaitable[Any]]) -> Any:
    """What the work gives, a value for JSON; of a request that comes again, what it gave the first time.

    For work that is not one write of an item, or that may be done twice: what it gave is kept after it is done.

    Raises:
        IdempotencyKeyReused: the key came with another request before.
    """
    datastore = datastore_of(request)
    if datastore.marks is None:
        return await work()
    kept = await datastore.begin()
    if kept is not None:
        datastore.marks.replays += 1
        return msgspec.msgpack.decode(kept)
    value = await work()
    datastore.marks.effects += 1
    encoded = msgspec.msgpack.encode(value)
    if len(encoded) <= WHOLE_MAX:
        # What was done is told, whether or not it could be noted.
        with contextlib.suppress(HooklineError):
            await datastore.finish(encoded)
    return value


async def _serve(endpoint: Endpoint, request: Request, written: str) -> Response:
    key = _read(written)
    asked = None if body.is_lines(request) else await _digest(request)
    caller = caller_of(request)
    under_way: set[tuple[str, str, str]] = request.app.state.under_way
    name = (caller.namespace, caller.id, key)
    if name in under_way:
        detail = "a request with this Idempotency-Key is being served: wait for its answer, or send it again later"
        raise Problem("idempotency_key_in_use", detail, {"Retry-After": RETRY_AFTER})
    under_way.add(name)
    try:
        limited = caller.datastore.once(key, caller=caller.id, body=asked)
        unlimited = caller.whole.once(key, caller=caller.id, body=asked)
        # One request, however it comes at its datastore.
        unlimited.marks = limited.marks
        request.scope[CALLER] = replace(caller, datastore=limited, whole=unlimited)
        response = await endpoint(request)
    finally:
        under_way.discard(name)
    if limited.marks and limited.marks.replays and not limited.marks.effects:
        return _Replayed(response)
    return response


def _read(written: str) -> str:
    match = _KEY.fullmatch(written.strip())
    if match is None:
        raise Problem(
            "invalid_header", 'Idempotency-Key: expected 1 to 255 characters such as "8e03978e-40d5", quoted or bare'
        )
    return match[2] or re.sub(r"\\(.)", r"\1", match[1])


async def _digest(request: Request) -> bytes:
    """What the request asks for: method, path, query and body."""
    raw = await body.keep_bytes(request, max(request.app.state.datastore.settings.body_max, TEXT_MAX))
    scope = request.scope
    parts = (scope["method"].encode(), scope["raw_path"], scope["query_string"], raw)
    return hashlib.sha256(b"\0".join(parts)).digest()


class _Replayed(Response):
    """A response, with the header that says that nothing was done for it."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append(REPLAYED)
            await send(message)

        await self._response(scope, receive, send_more)
