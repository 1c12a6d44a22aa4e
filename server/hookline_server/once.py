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
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from hookline.errors import HooklineError
from hookline_server import body, head
from hookline_server.answer import FIELDS, Answer
from hookline_server.caller import CALLER, caller_of
from hookline_server.command import TEXT_MAX
from hookline_server.operation import READS
from hookline_server.problem import RETRY_AFTER, Problem

HEADER = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")
OPERATIONS = frozenset(
    {
        "/v1/items",
        "/v1/items/{key}/{sort_field:path}",
        "/v1/items:batch",
        "/v1/jobs/{key}/claim",
        "/v1/jobs/{key}/settle",
        "/v1/orchestrations/{name}",
        "/v1/orchestrations/{name}/run",
        "/v1/schedules/{name}",
    }
)
"""Paths whose answers come of operations that are kept one by one. Of all others that write, the answer is kept as a
whole once it is there; what they do may be done twice, or keeps its operations as well.
"""
BESIDE = ("/v1/items/{key}/query", "/v1/triggers/test", "/v1/api-keys")
"""Beginnings of paths that pay no heed to it: they do not write, or answer with a secret, which is kept nowhere."""
WHOLE_MAX = 262_144
"""Bytes of an answer that is kept as a whole; where it is longer, a repeat of its request is served anew."""
# A structured field's string (RFC 9651), or the same without its quotation marks.
_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([!#-+\--~]{1,255})', re.ASCII)

Endpoint = Callable[[Request], Awaitable[Response]]


def honours(method: str, path: str) -> bool:
    """Whether a method of a route with this path honours the header."""
    return method not in READS and not path.startswith(BESIDE)


def repeatable(route: Route) -> Endpoint:
    """The endpoint of a route, honouring Idempotency-Key where it writes; without one nothing is done for it."""
    endpoint: Endpoint = route.endpoint
    path = route.path
    if not any(honours(method, path) for method in route.methods or ()):
        return endpoint
    one_by_one = path in OPERATIONS

    async def dispatch(request: Request) -> Response:
        if HEADER not in request.scope[FIELDS] or request.method in READS:
            return await endpoint(request)
        written = head.field(request, HEADER) or ""
        return await _serve(endpoint if one_by_one else _whole(endpoint), request, written)

    return dispatch


def _whole(endpoint: Endpoint) -> Endpoint:
    """An endpoint whose answer is kept, and given again without asking it."""

    async def dispatch(request: Request) -> Response:
        datastore = caller_of(request).whole
        kept = await datastore.begin()
        if kept is not None and datastore.marks:
            datastore.marks.replays += 1
            return _restore(msgspec.msgpack.decode(kept))
        response = await endpoint(request)
        packed = _pack(response)
        if datastore.marks and packed is not None:
            # A repeat that came while the first was served elsewhere has had the answers of its operations.
            datastore.marks.effects += not datastore.marks.replays
            # What was done is told, whether or not it could be noted.
            with contextlib.suppress(HooklineError):
                kept = await datastore.finish(packed)
        # A repeat that was served elsewhere at the same time may have been sooner: all tell the same.
        return response if kept in (None, packed) else _restore(msgspec.msgpack.decode(kept))

    return dispatch


def _pack(response: Response) -> bytes | None:
    """What is kept of a response: its value, to be encoded anew, or its text; None where it is too long."""
    kept: dict[str, Any] = {"status": response.status_code}
    if isinstance(response, Answer):
        kept |= {"headers": response.more}
        kept |= {} if response.value is msgspec.UNSET else {"value": response.value}
    else:
        kept |= {"text": bytes(response.body), "type": response.media_type}
    packed = msgspec.msgpack.encode(kept)
    return packed if len(packed) <= WHOLE_MAX else None


def _restore(kept: dict[str, Any]) -> Response:
    if "text" in kept:
        return Response(kept["text"], kept["status"], media_type=kept["type"])
    return Answer(kept.get("value", msgspec.UNSET), kept["status"], kept["headers"])


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
