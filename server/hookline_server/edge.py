"""The outermost layer of the application: request ids, pages of other sites, and every error that was raised."""

from __future__ import annotations

import logging
import os
import re

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookline_server.problem import Problem, problem_of

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=-]{1,128}")
_READS = frozenset({"GET", "HEAD"})


class Edge:
    """Plain ASGI: every request passes here, so it does no more than it must.

    Every answer carries ``X-Request-Id``: the request's own, if it brings a sane one. A browser adds ``Origin`` to
    each write, which no page of another site may make: as long as the API asks for no key, such a page in the
    operator's own browser could otherwise write to a server on loopback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = origin = host = b""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                request_id = value
            elif name == b"origin":
                origin = value
            elif name == b"host":
                host = value
        request_id = request_id or os.urandom(12).hex().encode()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"].append((b"x-request-id", request_id))
            await send(message)

        try:
            if origin and origin.partition(b"://")[2] != host and scope["method"] not in _READS:
                raise Problem("cross_site", "expected an Origin that is this server's own address, or none")
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.debug("request %s: the client went away", request_id.decode())
        except Exception as error:
            problem = problem_of(error)
            if problem.status >= 500:
                bug = error if problem.code == "internal" else None
                log.error("request %s: %s", request_id.decode(), error, exc_info=bug)
            if started:
                raise
            await problem.response()(scope, receive, send_with_id)
