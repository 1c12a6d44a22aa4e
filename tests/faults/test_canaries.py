"""Strings that must not get out: put wherever users put theirs, looked for wherever something is written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest_asyncio
import redis.asyncio as aioredis
from aiohttp import web

from conftest import wait_until
from hookline.embedded import find_server
from process import Process, Store, hookline, running_store, serving

PASSWORD, API_KEY, CONTENT, METADATA, BEARER, ONCE, QUERY, PATH = (
    f"canary-{word}" for word in ("password", "api-key", "content", "metadata", "bearer", "once", "query", "path")
)
NOWHERE = (PASSWORD, API_KEY, BEARER, ONCE)
"""In no answer of ours, whatever is asked."""
NOT_LOGGED = (*NOWHERE, CONTENT, METADATA, QUERY, PATH)
HEADERS = {"Authorization": f"Bearer {BEARER}"}


class Echo:
    """A receiver that sends all that it gets back, in header and body, with statuses in turn; one endpoint is gone."""

    def __init__(self) -> None:
        self.statuses = [500, 400, 204]
        self.tokens: list[str] = []
        self.calls = 0

    async def take(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.tokens.append(json.loads(body).get("token", ""))
        status = 410 if request.query["item"] == "d" else self.statuses[self.calls % len(self.statuses)]
        self.calls += 1
        told = f"{dict(request.headers)} {request.url} {body}"
        return web.Response(status=status, text=None if status == 204 else told, headers={"Retry-After": API_KEY})


@pytest_asyncio.fixture(loop_scope="session")
async def echo() -> AsyncIterator[tuple[Echo, str]]:
    receiver = Echo()
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield receiver, f"http://127.0.0.1:{port}/{PATH}?token={QUERY}"
    await runner.cleanup()


class Client:
    """Asks, and keeps every answer."""

    def __init__(self, session: aiohttp.ClientSession, server: Process) -> None:
        self._session = session
        self._server = server
        self.answers: list[str] = []

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        headers = {**HEADERS, "Idempotency-Key": f"{ONCE}-{len(self.answers)}", **options.pop("headers", {})}
        if body is not None:
            options["json"] = body
        async with self._session.request(method, f"{self._server.url}{path}", headers=headers, **options) as response:
            text = await response.text()
            self.answers.append(f"{dict(response.headers)} {text}")
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text


async def use(ask: Client, url: str) -> None:
    """Every kind of write, with canaries in all that a user may choose; none of them fails."""
    for name in ("a", "b", "c", "d"):
        item = {
            "key": "jobs",
            "sortField": name,
            "content": {"text": CONTENT},
            "metadata": {"status": "not_started", "note": METADATA},
            "triggerUrls": [
                {"url": f"{url}&item={name}", "apiKey": API_KEY, "events": ["created", "updated", "deleted"]}
            ],
        }
        assert (await ask("POST", "/v1/items", item))[0] == 201
    assert (await ask("PATCH", "/v1/items/jobs/a", {"metadata": {"note": f"{METADATA}2", "status": "started"}}))[
        0
    ] == 200
    _, claimed = await ask("POST", "/v1/jobs/jobs/claim", {"workerId": "w", "limit": 2, "triggers": "on"})
    first, second = claimed["items"]
    complete = {"sortField": first["sortField"], "token": first["token"], "metadata": {"result": METADATA}}
    fail = {"sortField": second["sortField"], "token": second["token"], "error": METADATA}
    assert (await ask("POST", "/v1/jobs/jobs/settle", {"workerId": "w", "complete": [complete], "fail": [fail]}))[
        0
    ] == 200
    text = f'update item with:\nkey: jobs\nsortField: a\nmetadata: {{"note": "{METADATA}3"}}\n'
    assert (await ask("POST", "/v1/command", data=text, headers={"Content-Type": "text/plain"}))[0] == 200


async def misuse(ask: Client) -> list[int]:
    """Requests that are refused, with canaries in what they are refused for -> the statuses."""
    wrong = [
        ("POST", "/v1/items", {"key": "jobs", "triggerUrls": {f"ftp://a.example/{PATH}": API_KEY}}),
        ("POST", "/v1/items", {"key": "jobs", "triggerUrls": [{"url": "http://a.example", "apiKey": {"x": API_KEY}}]}),
        ("POST", "/v1/items", {"key": "jobs", "metadata": {"locked_until": METADATA, "attempts": METADATA}}),
        ("POST", "/v1/items", {"key": "jobs", "sortField": "a", "content": CONTENT}),
        ("POST", "/v1/items", {"key": 7, "content": CONTENT}),
        ("PATCH", "/v1/items/jobs/a", {"metadata": {"version": 99, "note": METADATA}}),
        ("POST", "/v1/jobs/jobs/settle", {"workerId": "w", "complete": [{"sortField": "a", "token": f"1.{ONCE}"}]}),
        ("POST", "/v1/items/jobs/query", {"where": {"note": {"like": METADATA}}}),
        ("GET", f"/v1/items/jobs?cursor={QUERY}", None),
        ("GET", f"/v1/nothing/{PATH}?x={QUERY}", None),
    ]
    statuses = [(await ask(method, path, body))[0] for method, path, body in wrong]
    statuses.append((await ask("POST", "/v1/items", data=f'{{"key": "{CONTENT}'.encode()))[0])
    text = {"Content-Type": "text/plain"}
    statuses.append((await ask("POST", "/v1/command", data=f"create {CONTENT} with:\n", headers=text))[0])
    statuses.append((await ask("GET", "/v1/items/jobs/a", headers={"If-None-Match": BEARER}))[0])
    statuses.append((await ask("PATCH", "/v1/items/jobs/a", {"metadata": {}}, headers={"If-Match": BEARER}))[0])
    return statuses


@contextlib.asynccontextmanager
async def guarded_store(directory: Path, password: str) -> AsyncIterator[tuple[Store, aioredis.Redis]]:
    """A store that asks for a password, and a client that knows it."""
    async with running_store(str(find_server()), directory) as store:
        await store.client.config_set("requirepass", password)
        async with aioredis.Redis(host="127.0.0.1", port=store.port, password=password, protocol=2) as client:
            yield store, client


async def spoil(client: aioredis.Redis) -> None:
    """Spoil an item, so that reading it fails in a way that nobody expects."""
    await client.hset("hl:{default/0}:i:jobs:c", mapping={"c": b"\xc1" + CONTENT.encode(), "m:note": b"\xc1"})
    await client.hset("hl:{default/0}:i:jobs:d", mapping={"v": CONTENT, "ca": METADATA})


async def test_no_canary_gets_out(tmp_path: Path, echo: tuple[Echo, str]) -> None:
    receiver, url = echo
    async with AsyncExitStack() as stack:
        store, client = await stack.enter_async_context(guarded_store(tmp_path / "store", PASSWORD))
        environ = {
            "HOOKLINE_STORE_URL": f"redis://:{PASSWORD}@127.0.0.1:{store.port}",
            "HOOKLINE_LOG_FORMAT": "json",
            "HOOKLINE_LOG_LEVEL": "debug",
            "HOOKLINE_LOG_REQUESTS": "debug",
            "HOOKLINE_DELIVERY_SCHEDULE": "50ms,50ms,50ms",
            "HOOKLINE_CALL_TIMEOUT": "500ms",
            "HOOKLINE_TICK": "50ms",
        }
        server = await stack.enter_async_context(serving(tmp_path / "data", port=0, **environ))
        ask = Client(await stack.enter_async_context(aiohttp.ClientSession()), server)
        await use(ask, url)
        await wait_until(lambda: receiver.calls >= 8)
        lanes: Any = await client.keys("hl:{default/0}:k:hookline.deliveries.*")
        for lane in lanes:  # what is kept of deliveries
            await ask("GET", f"/v1/items/{lane.decode().partition(':k:')[2]}")
        statuses = await misuse(ask)
        assert all(400 <= status < 500 or status == 200 for status in statuses), statuses
        await spoil(client)
        broken = [(await ask("GET", f"/v1/items/jobs/{name}"))[0] for name in ("c", "d")]
        assert 500 in broken
        _, page = await ask("GET", "/metrics")
        store.process.kill()
        await store.process.wait()
        assert (await ask("POST", "/v1/items", {"key": "jobs", "content": CONTENT, "metadata": {"note": METADATA}}))[
            0
        ] == 503
        assert (await ask("GET", "/readyz"))[0] == 503
        await ask("GET", "/metrics")
        await wait_until(lambda: any("a look at" in line for line in server.said))
        await server.stop()

    tokens = {token for token in receiver.tokens if token}
    assert len(tokens) >= 2
    logged = "\n".join(server.said)
    lines = [json.loads(line) for line in server.said if line.startswith("{")]
    assert {"debug", "warning", "error"} <= {line["level"] for line in lines}
    assert {201, 422, 500, 503} <= {line.get("status") for line in lines}
    assert [word for word in (*NOT_LOGGED, *tokens) if word in logged] == []
    assert [word for word in NOT_LOGGED if word in page] == []
    assert [answer for answer in ask.answers if any(word in answer for word in NOWHERE)] == []
    problems = [answer for answer in ask.answers if "problem+json" in answer]
    assert [word for word in tokens for answer in problems if word in answer] == []


async def test_a_wrong_password_is_not_said(tmp_path: Path) -> None:
    async with guarded_store(tmp_path / "store", "right") as (store, _):
        url = f"redis://:{PASSWORD}@127.0.0.1:{store.port}"
        code, said = await hookline("serve", "--port", "0", "--data", str(tmp_path / "data"), "--store", url)
    assert code == 3
    assert "refuses the user or password" in said
    assert PASSWORD not in said
