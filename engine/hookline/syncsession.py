"""The connections of a :class:`SyncClient` to its server, by httpx."""

from __future__ import annotations

import os
import threading
import time

import httpx

from hookline.flow import Answer, Request
from hookline.transport import KEEP_ALIVE, Http, admit, explain, none_free, read, room, trusted, write

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)

_forked = threading.Lock()
"""Held while a process that was forked makes connections of its own; never by its parent, which has some."""


class SyncSession:
    """At most so many connections. Threads may share one, and so may processes that are forked."""

    def __init__(self, server: Http, most: int) -> None:
        self._server = server
        self._most = most
        self._process, self._http = os.getpid(), self._made()
        self._free = threading.Semaphore(most)

    def _made(self) -> httpx.Client:
        # No proxies and passwords out of the environment: the API key goes to this server alone.
        return httpx.Client(
            base_url=self._server.url,
            headers=self._server.headers,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=self._most, keepalive_expiry=KEEP_ALIVE
            ),
            trust_env=False,
            verify=trusted(self._server.url),
        )

    def _own(self) -> httpx.Client:
        """The connections of this process: a fork has those of its parent, which would get each other's answers."""
        if self._process != os.getpid():
            with _forked:  # its threads, too, may be many
                if self._process != os.getpid():
                    http = self._made()
                    if self._http.is_closed:
                        http.close()
                    self._http, self._free, self._process = http, threading.Semaphore(self._most), os.getpid()
        return self._http

    def close(self) -> None:
        """Close every connection."""
        self._own().close()

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._own().is_closed

    def send(self, request: Request) -> Answer:
        """Send a request once -> its answer, as :meth:`Session.send` does.

        Raises:
            Unavailable, OutcomeUnknown, HooklineError
        """
        return read(request, self._server.url, *self.ask(request))

    def ask(self, request: Request) -> tuple[int, bytes]:
        """Send a request once -> the status and body of its answer, whatever they are.

        Raises:
            Unavailable, OutcomeUnknown
        """
        http, free, began = self._own(), self._free, time.monotonic()
        if not free.acquire(timeout=room(request, self._server.timeout)):
            raise none_free(request, self._most)
        try:
            return self._ask(http, admit(request, time.monotonic() - began))
        finally:
            free.release()

    def _ask(self, http: httpx.Client, request: Request) -> tuple[int, bytes]:
        body, headers = write(request)
        timeout = httpx.Timeout(self._server.timeout + request.patience, connect=self._server.timeout)
        if http.is_closed:
            raise explain("the client was closed", request, self._server.url, sent=False)
        try:
            response = http.request(request.method, request.target, content=body, headers=headers, timeout=timeout)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = str(error) or type(error).__name__
            raise explain(told, request, self._server.url, sent=not isinstance(error, _NOT_SENT)) from error
        response.stream = httpx.ByteStream(b"")  # its own refers to it: until that was collected, the body would stay
        return response.status_code, response.content
