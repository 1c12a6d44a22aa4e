"""The outermost layer of the application: request ids, pages of other sites, names of other hosts, and every error."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Collection
from itertools import count
from time import perf_counter
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookline import trace
from hookline.errors import HooklineError
from hookline_server import logs, negotiate
from hookline_server.answer import ADDED, FIELDS, MEDIA_TYPE, Answer, Header
from hookline_server.bodies import HELD, Bodies
from hookline_server.cycle import CUT_OFF
from hookline_server.framing import fields_of
from hookline_server.gate import Gate
from hookline_server.guard import SCOPES
from hookline_server.limits import REFUSAL
from hookline_server.operation import READS
from hookline_server.problem import Problem, cut_off, problem_of
from hookline_server.traffic import Traffic

log = logging.getLogger(__name__)

_PROCESS = os.urandom(8).hex().encode()
_numbers = count()
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_OFFERED_TOO = {"/v1/command": (negotiate.TEXT,)}
"""What the answers of a path can be besides what all can."""
_ANY_KIND = frozenset({b"*/*", b"application/json"})
_PREFLIGHT_FOR = "600"
"""Seconds that a browser may keep the answer to a preflight."""
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_SENT = (
    "Accept, Authorization, Content-Encoding, Content-Type, Idempotency-Key, If-Match, If-None-Match, Prefer, "
    "traceparent, X-API-Key, X-Request-Id"
)
_SHOWN = (
    b"etag, idempotency-replayed, location, link, preference-applied, ratelimit, ratelimit-policy, retry-after, "
    b"www-authenticate, x-request-id"
)
_OPEN = frozenset(path for (_, path), scopes in SCOPES.items() if not scopes)
"""Paths that show nothing of anybody's, under whatever name they are asked."""
_LOOPBACK = r"(?:[^.:]+\.)*localhost|127(?:\.\d{1,3}){3}|\[::1\]"
_HOSTS_MAX = 100
"""Values of Host that are remembered as good."""


class Edge:
    """Plain ASGI: every request passes here, so it does no more than it must.

    Every answer carries ``X-Request-Id``: the request's own, if it brings a sane one. A browser adds ``Origin`` to
    each write, which no page of another site may make unless ``cors_origins`` names it: as long as the API asks for no
    key, such a page in the operator's own browser could otherwise write to a server on loopback. Credentials are never
    allowed to those pages, so ``*`` gives them nothing that belongs to the browser's user.

    A page whose own name was made to lead to loopback (DNS rebinding) is of the same site as the server, for a browser.
    What tells it apart is that name, in ``Host``: as long as ``gate`` asks for no key, who shows none must have asked
    for loopback or for one of ``hosts``, unless that is None.
    """

    def __init__(
        self,
        app: ASGIApp,
        traffic: Traffic,
        bodies: Bodies,
        cors_origins: Collection[str] = (),
        hosts: Collection[str] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._bodies = bodies
        self._origins = frozenset(origin.encode() for origin in cors_origins)
        self._gate = None if hosts is None else gate
        names = "|".join([_LOOPBACK, *map(re.escape, hosts or ())])
        self._host = re.compile(rf"(?:{names})(?::\d*)?[ \t]*".encode(), re.IGNORECASE)
        # No browser leaves Host out.
        self._good: set[bytes | None] = {None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields = scope.get(FIELDS)
        if fields is None:
            fields = scope[FIELDS] = fields_of(scope["headers"])
        request_id = fields.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = _new_id()
        logs.REQUEST.set(request_id)
        if b"traceparent" in fields and not trace.PARENT.get():
            trace.PARENT.set(trace.read(fields[b"traceparent"]))
        added: list[Header] = [(b"x-request-id", request_id)]
        scope[ADDED] = added
        status = sent = 0

        async def send_more(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].extend(added)
            else:
                sent += len(message.get("body", b""))
            await send(message)

        traffic, began = self._traffic, perf_counter()
        traffic.in_flight[0] += 1
        try:
            # First, so that pages of allowed sites can read whatever refusal follows.
            asks = (self._origins or b"origin" in fields) and self._cross(scope, fields, added)
            if REFUSAL in scope:
                raise scope.pop(REFUSAL)
            accept = fields.get(b"accept")
            if accept and accept not in _ANY_KIND:
                _choose(scope, accept)
            if asks:
                await _preflight()(scope, receive, send_more)
            else:
                gate = self._gate
                if gate and gate.unguarded and fields.get(b"host") not in self._good:
                    await self._check_host(gate, scope, fields[b"host"])
                await self._app(scope, receive, send_more)
        except ClientDisconnect:
            log.debug("the client went away")
        except (Exception, asyncio.CancelledError) as caught:
            error = caught if isinstance(caught, Exception) else cut_off(scope)
            problem = problem_of(error)
            if problem.status >= 500:
                said = error if isinstance(error, HooklineError | Problem) else problem.title
                raised = error if problem.code == "internal" else None
                log.log(_level(problem), "%s: %s", problem.code, said, exc_info=raised)
            if status:
                if problem.code == "internal":
                    raise
                end = send(CUT_OFF)  # what could still be told has been
            else:
                problem.members["instance"] = f"urn:hookline:request:{quote(request_id, safe='')}"
                end = problem.response()(scope, receive, send_more)
            # It has this frame in its traceback: what is left of a request must not wait for the garbage collector.
            del error, problem
            await end
        finally:
            if HELD in scope:
                self._bodies.release(scope)
            traffic.in_flight[0] -= 1
            traffic.ended(scope, status, perf_counter() - began, fields.get(b"content-length"), sent)

    def _cross(self, scope: Scope, fields: dict[bytes, bytes], added: list[Header]) -> bool:
        """Let pages of allowed sites read the answer -> whether this is their browser's question about what they may.

        Raises:
            Problem: a write from a page of another site.
        """
        origin = fields.get(b"origin", b"")
        if self._origins:
            added.append((b"vary", b"origin"))
        if allowed := self._origins & {origin, b"*"} if origin else None:
            added.append((b"access-control-allow-origin", min(allowed)))
            added.append((b"access-control-expose-headers", _SHOWN))
            return scope["method"] == "OPTIONS" and b"access-control-request-method" in fields
        own = not origin or origin.partition(b"://")[2] == fields.get(b"host")
        if not own and scope["method"] not in READS:
            raise Problem("cross_site", "expected an Origin that is this server's own address, or none")
        return False

    async def _check_host(self, gate: Gate, scope: Scope, host: bytes) -> None:
        """Let pass a request for a host that is known to be this one, and one that shows a good API key.

        Raises:
            Problem: it is neither; or what it shows is no good key.
            Unavailable: the store gave no answer.
        """
        if self._host.fullmatch(host):
            if len(self._good) < _HOSTS_MAX:
                self._good.add(host)
        elif scope["path"] not in _OPEN and await gate.identify(scope) is None:
            raise Problem(
                "unknown_host",
                "as long as no API key has been made, expected a Host of loopback, such as localhost: make a key with"
                " 'hookline keys create' and show it, or name the host in HOOKLINE_HOSTS",
            )


def _level(problem: Problem) -> int:
    """The level at which a problem of the server's is logged."""
    if problem.status == 500:
        return logging.ERROR
    # A key that is full is as its owner has set it.
    return logging.INFO if problem.code == "key_full" else logging.WARNING


def _new_id() -> bytes:
    """An id of this process that no other request has."""
    return b"%b%08x" % (_PROCESS, next(_numbers))


def _preflight() -> Answer:
    headers = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _SENT,
        "Access-Control-Max-Age": _PREFLIGHT_FOR,
    }
    return Answer(status=204, headers=headers)


def _choose(scope: Scope, accept: bytes) -> None:
    """Note what kind of answer the client wants, before anything is done for it.

    Raises:
        Problem: none that there is.
    """
    media_type = negotiate.media_type(accept, *_OFFERED_TOO.get(scope["path"], ()))
    if media_type is not None:
        scope[MEDIA_TYPE] = media_type
    elif scope["path"].startswith("/v1/"):
        kinds = f"{negotiate.JSON}, {negotiate.MSGPACK} or {negotiate.LINES}"
        raise Problem("not_acceptable", f"expected an Accept header that takes {kinds}")
