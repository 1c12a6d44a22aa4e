"""Spans for OpenTelemetry: of requests, of calls of the store, of events and their webhooks.

Needs the extra ``hookline[otel]`` and the setting ``traces``; the standard ``OTEL_*`` variables say where spans go, and
how many of them. Nothing that users store is in a span: names of routes, scripts and statuses, and ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hookline import trace
from hookline.trace import Attributes, Kind, Note
from hookline_server.traffic import METHODS, OTHER_METHOD, Traffic

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}
_UNTRACED = ("/livez", "/readyz", "/metrics")
"""What is asked every few seconds for as long as a server runs."""
_FLUSH_S = 3.0
"""Seconds that the last spans may take when the server stops."""


class Spans:
    """Makes spans by OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("hookline", version("hookline"))

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: str, attributes: Attributes, links: Sequence[str] = ()
    ) -> Iterator[Note]:
        """As :meth:`hookline.trace.Exporter.span` says."""
        span = self._tracer.start_span(
            name,
            set_span_in_context(NonRecordingSpan(_context(parent)), Context()) if parent else Context(),
            _KINDS[kind],
            attributes,
            [Link(_context(link)) for link in links],
            record_exception=False,  # its text may quote what users store
        )

        def note(more: Attributes) -> None:
            span.set_attributes(more)
            if "error.type" in more:
                span.set_status(Status(StatusCode.ERROR))
            if "http.route" in more:
                span.update_name(f"{name} {more['http.route']}")

        before = trace.PARENT.set(_traceparent(span.get_span_context()))
        try:
            yield note
        finally:
            trace.PARENT.reset(before)
            span.end()


class Traced:
    """Plain ASGI around all the rest: a span for each request, below the one that the client names."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in _UNTRACED:
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_more(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        parent = next((trace.read(value) for name, value in scope["headers"] if name == b"traceparent"), "")
        with trace.span(method, "server", parent, {"http.request.method": method}) as note:
            try:
                await self._app(scope, receive, send_more)
            finally:
                told: dict[str, str | int] = {"http.route": self._traffic.template(scope)}
                told["http.response.status_code"] = status
                note(told if 0 < status < 500 else {**told, "error.type": str(status)})


@asynccontextmanager
async def exporting(left: Callable[[], float]) -> AsyncIterator[None]:
    """Export spans by OTLP over HTTP for the time being. ``left`` gives the seconds that are left for the last ones."""
    named = OTELResourceDetector().detect().attributes
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "hookline", **named}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.exporter = Spans(provider)
    try:
        yield
    finally:
        trace.exporter = None
        await _shut_down(provider, min(_FLUSH_S, left()))


async def _shut_down(provider: TracerProvider, seconds: float) -> None:
    """Send the last spans, for so long. The SDK knows no such bound, so what goes on after it ends with the process."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    Thread(target=shut_down, daemon=True).start()
    with suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), seconds)


def _context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
