"""Trace context from a request to its webhook, with spans exported and without."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio as aioredis
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from api import Api, asking
from conftest import wait_until
from hookline import Datastore, trace
from hookline_server.app import create_app
from hookline_server.traces import Spans
from process import hookline, serving
from rawhttp import dialled, request
from receiver import Receiver
from relays import relaying

pytestmark = pytest.mark.settings(tick=0.05, delivery_schedule=(0.05, 0.05), delivery_timeout=2.0)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """The spans that end while they are exported."""
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.exporter = Spans(provider)
    yield memory
    trace.exporter = None
    provider.shutdown()


async def create(api: Api, url: str, name: str = "a", traceparent: str = TRACEPARENT) -> None:
    item = {"key": "jobs", "sortField": name, "triggerUrls": [{"url": url, "events": ["created"]}]}
    assert (await api("POST", "/v1/items", item, headers={"traceparent": traceparent})).status == 201


def of(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def ids(span: ReadableSpan) -> tuple[str, str | None]:
    """The trace, and the span above."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else None


def own(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


async def test_without_an_exporter_the_context_is_passed_on(api: Api, datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [500]
    async with relaying(datastore):
        await create(api, receiver.url)
        first, again = await receiver.wait_for(2)
    assert first.headers["traceparent"] == again.headers["traceparent"] == TRACEPARENT
    assert first.body == again.body
    assert TRACE.encode() not in first.body


async def test_requests_on_one_connection_have_a_trace_each(api: Api, datastore: Datastore, receiver: Receiver) -> None:
    """Also where they are sent ahead of their answers."""
    given = {"a": TRACEPARENT, "b": f"00-{'b' * 32}-{SPAN}-01", "c": None}
    async with relaying(datastore), dialled(api.port) as line:
        for name, traceparent in given.items():
            item = {"key": "jobs", "sortField": name, "triggerUrls": [{"url": receiver.url, "events": ["created"]}]}
            headers: Any = {"traceparent": traceparent} if traceparent else {}
            line.writer.write(request("POST", "/v1/items", item, **headers))
        posts = await receiver.wait_for(3)
    assert {post.data["newDataset"]["sortField"]: post.headers.get("traceparent") for post in posts} == given


async def test_of_a_later_version_what_is_known_is_passed_on(
    api: Api, datastore: Datastore, receiver: Receiver
) -> None:
    """As the version that we speak, with the one flag that is sure to mean the same."""
    later = {f"cc-{TRACE}-{SPAN}-01-more-of-it": "01", f"01-{TRACE}-{SPAN}-02": "00", f"fe-{TRACE}-{SPAN}-ff-": "01"}
    async with relaying(datastore):
        for n, (traceparent, flags) in enumerate(later.items()):
            await create(api, receiver.url, str(n), traceparent)
            post = (await receiver.wait_for(n + 1))[-1]
            assert post.headers["traceparent"] == f"00-{TRACE}-{SPAN}-{flags}"
    for bad in (
        f"01-{TRACE}-{SPAN}-01x",
        f"ff-{TRACE}-{SPAN}-01-x",
        f"01-{TRACE}-{SPAN}",
        f"01-{TRACE}-{'0' * 16}-01-x",
    ):
        assert trace.read(bad.encode()) == ""


async def test_where_there_is_none_nothing_is_carried(
    api: Api, datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "triggerUrls": [{"url": receiver.url, "events": ["created"]}]})
    for n, bad in enumerate(("nonsense", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"{TRACEPARENT}-x")):
        await create(api, receiver.url, str(n), bad)
    entries: Any = await raw.xrange("hl:{default/0}:outbox")
    assert len(entries) == 5
    assert not any(b"trace" in fields for _, fields in entries)
    async with relaying(datastore):
        posts = await receiver.wait_for(5)
    assert not any("traceparent" in post.headers for post in posts)


async def test_spans_from_the_request_to_the_webhook(
    datastore: Datastore, receiver: Receiver, spans: InMemorySpanExporter
) -> None:
    receiver.statuses = [503]
    async with asking(create_app(datastore, traces=True)) as api, relaying(datastore):
        await create(api, receiver.url)
        first, again = await receiver.wait_for(2)
        await wait_until(lambda: len(of(spans, "POST")) == 2)
        assert (await api("GET", "/v1/items/jobs/none", headers={"traceparent": TRACEPARENT})).status == 404
        await api("GET", "/metrics")
    (request,) = of(spans, "POST /v1/items")
    assert ids(request) == (TRACE, SPAN)
    assert request.kind is SpanKind.SERVER
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST", "http.route": "/v1/items", "http.response.status_code": 201,
    }  # fmt: skip
    (call,) = of(spans, "create")
    assert ids(call) == (TRACE, own(request))
    (event,) = of(spans, "event")
    assert ids(event) == (TRACE, own(request))
    assert (event.attributes or {})["hookline.event"] == first.headers["webhook-id"]
    failed, taken = of(spans, "POST")
    assert ids(failed) == (TRACE, own(event))
    assert ids(taken)[0] == TRACE
    assert (failed.attributes or {})["http.response.status_code"] == 503
    assert (failed.status.status_code, taken.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert first.headers["traceparent"] == f"00-{TRACE}-{own(failed)}-01"
    assert again.headers["traceparent"] == f"00-{TRACE}-{own(taken)}-01"
    (missing,) = of(spans, "GET /v1/items/{key}/{sort_field:path}")
    assert missing.status.status_code is StatusCode.UNSET
    (found,) = of(spans, "find")
    assert ids(found) == (TRACE, own(missing))
    assert {name for name in ("sweep", "relay_take", "depth", "GET /metrics") if of(spans, name)} == set()


async def test_a_batch_is_linked_to_all_that_it_works_for(datastore: Datastore, spans: InMemorySpanExporter) -> None:
    async def create(n: int) -> None:
        trace.PARENT.set(f"00-{TRACE}-{n + 1:016x}-01")
        await datastore.create("jobs", f"{n}")

    await asyncio.gather(*(create(n) for n in range(10)))
    calls = of(spans, "create")
    linked = [link.context.span_id for call in calls for link in call.links]
    alone = [call.parent.span_id for call in calls if call.parent]
    assert sorted(linked + alone) == list(range(1, 11))
    assert linked


async def test_what_is_not_sampled_stays_so(
    datastore: Datastore, receiver: Receiver, spans: InMemorySpanExporter
) -> None:
    async with asking(create_app(datastore, traces=True)) as api, relaying(datastore):
        await create(api, receiver.url, traceparent=f"00-{TRACE}-{SPAN}-00")
        (post,) = await receiver.wait_for(1)
    assert post.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert post.headers["traceparent"].endswith("-00")
    assert [span.name for span in spans.get_finished_spans() if ids(span)[0] == TRACE] == []


async def test_a_failing_call_says_why(datastore: Datastore, spans: InMemorySpanExporter, raw: aioredis.Redis) -> None:
    trace_of_test = trace.PARENT.set(TRACEPARENT)
    await raw.config_set("maxmemory", "1")
    try:
        with pytest.raises(Exception, match="memory limit"):
            await datastore.create("jobs", "a", content="CANARY")
    finally:
        await raw.config_set("maxmemory", "0")
        trace.PARENT.reset(trace_of_test)
    (call,) = of(spans, "create")
    assert (call.attributes or {})["error.type"] == "store_full"
    assert call.status.status_code is StatusCode.ERROR
    assert "CANARY" not in call.to_json()


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ({}, b"service.name\x12\n\n\x08hookline"),
        ({"OTEL_SERVICE_NAME": "of acme"}, b"service.name\x12\t\n\x07of acme"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=acme"}, b"service.name\x12\x06\n\x04acme"),
    ],
)
async def test_spans_are_sent_by_otlp(tmp_path: Path, named: dict[str, str], name: bytes) -> None:
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"} | named
    try:
        async with serving(tmp_path / "data", "--traces", "otlp", port=0, **environ) as server:
            code = "import sys, urllib.request as r; r.urlopen(sys.argv[1]).read()"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, f"{server.url}/v1/items/jobs")
            assert await process.wait() == 0
            assert await server.stop() == 0
    finally:
        await runner.cleanup()
    sent = b"".join(bodies)
    assert b"GET /v1/items/{key}" in sent
    assert name in sent


async def test_a_collector_that_hangs_prolongs_no_stop(tmp_path: Path) -> None:
    connected = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as collector:
        port = collector.sockets[0].getsockname()[1]
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
        async with serving(tmp_path / "data", "--traces", "otlp", "--grace", "3s", port=0, **environ) as server:
            async with aiohttp.ClientSession() as session:
                await session.get(f"{server.url}/v1/items/jobs")
            stopping = asyncio.create_task(server.stop())
            await asyncio.wait_for(connected.wait(), 20)
            assert await asyncio.wait_for(stopping, 15) == 0


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    package = tmp_path / "modules/opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError")
    path = {"PYTHONPATH": str(tmp_path / "modules")}
    code, said = await hookline("serve", "--data", str(tmp_path / "data"), "--port", "0", "--traces", "otlp", **path)
    assert (code, "install hookline[otel]" in said) == (3, True)
