"""The wire: one connection of a client, read strictly and within limits of size and time.

uvicorn has no deadline but that of idle connections, and no bound of a head. So this takes its place between the
socket and the parser, and decides what becomes of the connection. ASGI itself stays uvicorn's, but for how an answer is
written (:mod:`hookline_server.cycle`).
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from hookline_server.answer import FIELDS, encode
from hookline_server.cycle import Cycle
from hookline_server.framing import FRAMING, check_framing, check_host, fields_of, malformed, origin_form
from hookline_server.limits import ALWAYS, REFUSAL, Limits, Pace, network_of
from hookline_server.negotiate import JSON
from hookline_server.problem import Problem

IDLE, HEAD, BODY, DEAF, LINGER = range(5)
"""What a client is doing: nothing, sending a head, sending a body; or it is not heard any more, and going."""
PIPELINE_MAX = 32
"""Requests that may wait for the one before them on the same connection."""
DRY_MAX = 16_384
"""Bytes in a row that a chunked body may have around its content: extensions, and trailers, which nobody reads."""
LINGER_FOR = 5.0
"""Seconds for which what still comes is thrown away: a connection that ends at once can take the answer with it."""
_END = b"\r\n\r\n"

log = logging.getLogger(__name__)


class Wire(HttpToolsProtocol):
    """One connection. As ``cycle.transport`` of a request that is not whole yet it also hears how its answer ends."""

    def __init__(
        self,
        limits: Limits,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.address: str | None = None
        self._limits = limits
        self._settings = limits.settings
        self._phase = IDLE
        self._since = 0.0
        self._chunk = self._head_size = self._body_size = self._counted = self._dry = 0
        self._active: RequestResponseCycle | None = None
        self._keep_alive = self._wishes = False
        self._last: Problem | None = None
        self._taking: Pace | None = None
        self._giving: Pace | None = None
        self._host: bytes | None = None

    # The socket

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self.address = network_of(self.client[0]) if self.client else None
        problem = self._limits.enter(self)
        if problem:
            self._limits.refused["connection"] += 1
            self._phase = DEAF
            self.transport.write(self._written(problem))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone: whatever is under way for it hears so, the request before the last one included."""
        self._limits.leave(self)
        if self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()
        super().connection_lost(exc)
        # Each of them leads back here, and the garbage collector comes too seldom for what they hold.
        self.cycle = self._active = self._last = None  # type: ignore[assignment]
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        phase = self._phase
        if phase >= DEAF:
            return
        self._chunk = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            self._ignore_wish(data[wish.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_cause(error))
        if self._phase == BODY:
            self._await_body()
        elif self._phase == HEAD:
            self._await_head(phase, data)

    def _ignore_wish(self, rest: bytes) -> None:
        """Read the body of a request that asks for another protocol: the parser has stopped before it.

        Nothing is read after that, since it may be in the other protocol all the same.
        """
        fields, framing = self.scope[FIELDS], (b"content-length", b"transfer-encoding")  # type: ignore[literal-required]
        head = [b"%b: %b\r\n" % (name, fields[name]) for name in framing if name in fields]
        self._wishes = False
        self.parser = httptools.HttpRequestParser(
            SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
        )
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\nConnection: close\r\n" + b"".join(head) + b"\r\n" + rest)
        except httptools.HttpParserError as error:
            self._refuse(_cause(error))

    def resume_writing(self) -> None:
        """The client has read a good part of what waited for it."""
        self._giving = None
        super().resume_writing()

    def shutdown(self) -> None:
        """End after the request under way."""
        self._keep_alive = False
        super().shutdown()

    # The parser

    def on_message_begin(self) -> None:
        """A request begins."""
        if len(self.pipeline) >= PIPELINE_MAX:
            raise malformed(f"expected at most {PIPELINE_MAX} requests ahead of their answers")
        super().on_message_begin()
        self._phase = HEAD
        self._since = self.loop.time()
        self._head_size = 0

    def on_headers_complete(self) -> None:
        """The head is there: serve the request, or say what is wrong with it."""
        headers, scope, version = self.headers, self.scope, self.parser.get_http_version()
        self._check_size()
        fields = scope[FIELDS] = fields_of(headers)  # type: ignore[literal-required]
        if version != "1.1" or len(fields) < len(headers) or not fields.keys().isdisjoint(FRAMING):
            check_framing(headers, fields, version)
        host = fields.get(b"host")
        if host is None or host != self._host:
            check_host(host, version)
            self._host = host
        path, _, query = origin_form(self.url, host).partition(b"?")
        text = path.decode("ascii")
        scope["http_version"] = version
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"] = unquote(text) if "%" in text else text
        scope["raw_path"] = path
        scope["query_string"] = query
        if len(self.tasks) >= self._settings.requests_max and path not in ALWAYS:
            scope[REFUSAL] = self._limits.overload()  # type: ignore[literal-required]
        # Trailers come as headers do. Nobody has asked for any, and they must not become part of a head that was read.
        self.headers = []
        self._phase = BODY
        self._taking = None
        self._body_size, self._counted = 0, -1
        self._serve(version)

    def _serve(self, version: str) -> None:
        self._wishes = self.parser.should_upgrade()
        self._keep_alive = version != "1.0" and not self._wishes and self.parser.should_keep_alive()
        cycle = self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and version != "1.0",
            keep_alive=self._keep_alive,
            on_response=self.on_response_complete,
        )
        if self._active is None:
            self._start_asgi_task(cycle, self.app)
        else:
            # Reading goes on: it is how the end of the connection is noticed.
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        cycle = self.cycle
        self._body_size += len(body)
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._wishes:
            return
        cycle = self.cycle
        self._phase = IDLE
        if not cycle.response_started:
            cycle.keep_alive = self._keep_alive
        cycle.more_body = False
        cycle.message_event.set()

    def _check_size(self) -> None:
        """Raises Problem: a head that is larger than it may be."""
        settings = self._settings
        if len(self.url) > settings.target_max:
            raise Problem("target_too_long", f"expected a path and query of at most {settings.target_max} bytes")
        if len(self.headers) > settings.headers_max:
            raise Problem("headers_too_large", f"expected at most {settings.headers_max} headers")
        if self._head_size + self._chunk > settings.head_max:  # Otherwise all that came is not too much.
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > settings.head_max:
                raise self._too_large()

    def _too_large(self) -> Problem:
        return Problem("headers_too_large", f"expected headers of at most {self._settings.head_max} bytes")

    # What is not whole yet

    def _await_head(self, before: int, data: bytes) -> None:
        """Measure a part of a head, of which the parser tells nothing yet."""
        end = data.rfind(_END)
        if end >= 0:
            self._head_size = len(data) - end - len(_END)
        elif before != BODY:
            self._head_size += len(data)
        if self._head_size > self._settings.head_max:
            self._refuse(self._too_large())

    def _await_body(self) -> None:
        """Close after an answer that comes before the end of the body: what follows may be the body, or not."""
        cycle = self.cycle
        if cycle.more_body and not cycle.response_started:
            cycle.keep_alive = False
            cycle.transport = self  # type: ignore[assignment]
        self._dry = self._dry + self._chunk if self._body_size == self._counted else 0
        self._counted = self._body_size
        if self._dry > DRY_MAX:
            self._refuse(malformed("expected content in the chunks of the body, not only around it"))

    # The answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        # Begun by the request before it on the connection, it would belong to that one's trace.
        task = self.loop.create_task(cycle.run_asgi(app), context=Context())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """A request has its answer: the next one, or what ends the connection."""
        self.server_state.total_requests += 1
        self._active = None
        if self._phase == LINGER or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last:
            self._say(self._last)
        elif self._phase == IDLE:
            self._since = self.loop.time()

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        self.transport.write(data)

    def is_closing(self) -> bool:
        """Whether no more can be sent."""
        return self.transport.is_closing()

    def close(self) -> None:
        """End after the answer; at once only if the client has nothing more to say."""
        if self._phase == BODY:
            self._linger()
        else:
            self.transport.close()

    # Refusing

    def look(self, now: float) -> int:
        """Refuse or close what has taken too long -> bytes of answers that the client has not read."""
        settings, unread = self._settings, self.transport.get_write_buffer_size()
        if not unread:
            self._giving = None
        elif self._is_stalled(now, unread):
            self.abort()
            return 0
        if self._phase == HEAD:
            if now - self._since > settings.head_timeout:
                self._refuse(Problem("request_timeout", f"expected the headers within {settings.head_timeout:g} s"))
        elif self._phase == BODY:
            if self._is_slow(now):
                detail = f"expected a body of at least {settings.transfer_rate} bytes a second"
                self._refuse(Problem("request_timeout", detail))
        elif self._phase == LINGER:
            if now - self._since > LINGER_FOR:
                self.transport.abort()
        elif self._phase == IDLE and self._active is None:
            # Who has come and says nothing has no more time than who begins to.
            patience = settings.head_timeout if self.cycle is None else settings.keep_alive
            if now - self._since > patience:
                self.transport.close()
        return unread

    def abort(self) -> None:
        """Give up a client that does not read its answers."""
        self._limits.refused["stalled"] += 1
        self.transport.abort()

    def _is_slow(self, now: float) -> bool:
        """Whether the body comes too slowly: as far as it waits for the client, not for us.

        It waits for us when nothing more is read, or what had come by the last look has not been taken by now.
        """
        still = self._taking is not None and self._taking.seen == self._body_size
        if self.flow.read_paused or (still and self.cycle.body):
            self._taking = None
            return False
        if self._taking is None:
            self._taking = self._pace(now, self._body_size)
        return not self._taking.holds(now, self._body_size)

    def _is_stalled(self, now: float, unread: int) -> bool:
        """Whether the client reads its answer too slowly. What waits to be sent grows only if it is not too much."""
        if self._active is not None and not self.flow.write_paused and not self.transport.is_closing():
            self._giving = None
            return False
        if self._giving is None:
            self._giving = self._pace(now, -unread)
        return not self._giving.holds(now, -unread)

    def _pace(self, now: float, seen: int) -> Pace:
        settings = self._settings
        return Pace(now, seen, settings.transfer_rate, settings.stall_timeout)

    def _refuse(self, problem: Problem) -> None:
        """Hear no more, and say why once what came before has its answer."""
        self._limits.refused[problem.code] += 1
        cycle, in_body = self.cycle, self._phase == BODY
        self._phase = DEAF
        self._last = problem
        if in_body:
            # Half a body is none: whoever reads it is told that the client went away.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle is self._active:
                self._active = None
            else:
                self.pipeline.popleft()
        if in_body and cycle.response_started:
            self.transport.abort()
        elif self._active is None:
            self._say(problem)

    def _say(self, problem: Problem) -> None:
        self.transport.write(self._written(problem))
        self._linger()

    def _linger(self) -> None:
        self._phase = LINGER
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _written(self, problem: Problem) -> bytes:
        """An answer without the application, which nothing follows."""
        body = encode(problem.document(), JSON)
        headers = [*self.server_state.default_headers, (b"content-type", b"application/problem+json")]
        headers += [(name.lower().encode(), text.encode()) for name, text in problem.headers.items()]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return STATUS_LINE[problem.status] + lines + b"\r\n" + body


def _cause(error: httptools.HttpParserError) -> Problem:
    """What the parser has stopped for: what we found wrong, or what it did."""
    cause = error.__context__
    if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, Problem):
        log.error("a request could not be read", exc_info=cause)
    return cause if isinstance(cause, Problem) else malformed(f"expected HTTP/1.1: {error}")


def configure(app: Any, limits: Limits, **options: Any) -> Config:
    """The configuration by which uvicorn serves an application over such wires, and adds nothing of its own."""
    wire: Any = partial(Wire, limits)
    return Config(
        app,
        http=wire,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        **options,
    )
