"""Every route while the store is away, hangs or is full: 503 that says when to try again, and nothing half done."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from api import Answer, Api
from hookline import Datastore, SecretBox, Settings
from hookline.embedded import find_server
from invariants import check_invariants
from jobs import rotate
from process import Store, running_store
from scripts import snapshot
from server.probes import PROBES, Probe, fill

KEY = "jobs"
STORELESS = {"/livez", "/openapi.json", "/docs", "/metrics"}
"""Routes that answer without the store."""
GROWING = re.compile(
    r'POST /v1/(items |items:batch .*"(create|update)"|jobs/KEY/redrive|schedules/rule-KEY/run|api-keys .|.*/rotate)'
    r"|(PUT|PATCH) /v1/items/|POST /v1/command .?(create item|update|redrive|run schedule)"
)
"""What is refused at the memory limit. All else reads, frees memory, steers, or writes what is the engine's own."""


def said(probe: Probe) -> str:
    return f"{probe.method} {probe.path} {probe.body}".replace("'", '"')


async def ask(api: Api, probe: Probe, filled: Iterable[str], key: str = KEY) -> Answer:
    path, body, headers = probe.request(key, *filled)
    return await api(probe.method, path, data=body, headers=headers)


def refused(probe: Probe, answer: Answer) -> set[str]:
    """The codes with which a request, or each part of one, is refused for now."""
    if answer.status == 207:
        results = [answer.data] if "line" in answer.data else answer.data["results"]
        return {result["problem"]["code"] for result in results if result["status"] == 503}
    if answer.status != 503:
        return set()
    assert answer.headers["retry-after"].isdigit()
    return {"unavailable"} if probe.route == "/readyz" or probe.method == "HEAD" else {answer.data["code"]}


def store_at(directory: Path, name: str) -> contextlib.AbstractAsyncContextManager[Store]:
    """A store of its own, which finds there what the one before it has left."""
    options = {"dir": str(directory), "unixsocket": str(directory / "s"), "appendonly": "yes"}
    return running_store(str(find_server()), directory / name, **options)


async def test_without_the_store_every_route_says_so(api: Api, settings: Settings, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with store_at(tmp_path, "first") as store:
            opened = Datastore(f"unix://{tmp_path}/s", settings, SecretBox(bytes(range(32))))
            datastore = api.app.state.datastore = await stack.enter_async_context(opened)
            filled = await fill(datastore, KEY)
            before = await snapshot(store.client)
        async with asyncio.timeout(30):
            answers = [(said(probe), refused(probe, await ask(api, probe, filled))) for probe in PROBES]
        assert answers == [(said(probe), set() if probe.route in STORELESS else {"unavailable"}) for probe in PROBES]
        async with store_at(tmp_path, "second") as store:
            assert await snapshot(store.client) == before
            for place, probe in enumerate(PROBES):
                filled = await fill(datastore, f"{KEY}.{place}")
                # Deliveries are of all keys: what this cancels may have been sent by what came before.
                assert (await ask(api, probe, filled, f"{KEY}.{place}")).status < 400 or "canary-0-1" in probe.path
            await check_invariants(store.client)


async def test_a_store_that_hangs_keeps_nobody_waiting(api: Api, settings: Settings, tmp_path: Path) -> None:
    quick = replace(settings, call_timeout=0.2)
    async with (
        store_at(tmp_path, "first") as store,
        Datastore(f"unix://{tmp_path}/s", quick, SecretBox(bytes(range(32)))) as datastore,
    ):
        api.app.state.datastore = datastore
        filled = await fill(datastore, KEY)
        store.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(ask(api, probe, filled) for probe in PROBES))
        for probe, answer in zip(PROBES, answers, strict=True):
            reads = "read" in probe.scopes or probe.method == "GET"
            unavailable = {"unavailable"} if reads else {"unavailable", "outcome_unknown"}
            codes = refused(probe, answer)
            assert (not codes) if probe.route in STORELESS else (codes and codes <= unavailable), said(probe)
        store.process.send_signal(signal.SIGCONT)
        await check_invariants(store.client)
        assert (await api("POST", "/v1/items", {"key": KEY})).status == 201


async def test_a_store_that_asks_for_another_password(
    api: Api, datastore: Datastore, raw: aioredis.Redis, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It was rotated: until the old one is good again every route says so, and the log has a line, but no traceback."""
    filled = await fill(datastore, KEY)

    await rotate(raw, "one")
    path = raw.connection_pool.connection_kwargs["path"]
    try:
        async with Datastore(f"unix://guarded:one@{path}", settings, SecretBox(bytes(range(32)))) as guarded:
            api.app.state.datastore = guarded
            await rotate(raw, "two")
            answers = [(said(probe), refused(probe, await ask(api, probe, filled))) for probe in PROBES]
            assert answers == [
                (said(probe), set() if probe.route in STORELESS else {"unavailable"}) for probe in PROBES
            ]
            lines = [line for line in caplog.records if line.name == "hookline_server.edge"]
            assert {(line.levelname, line.exc_info) for line in lines} == {("WARNING", None)}
            assert "the store refuses the user or password of its URL" in caplog.text
            await rotate(raw, "one")
            assert (await api("POST", "/v1/items", {"key": KEY})).status == 201
    finally:
        await raw.acl_deluser("guarded")


@pytest.mark.parametrize("probe", PROBES, ids=str)
async def test_a_full_store_refuses_what_grows_alone(
    api: Api, datastore: Datastore, raw: aioredis.Redis, probe: Probe
) -> None:
    filled = await fill(datastore, KEY)
    before = await snapshot(raw)
    await raw.config_set("maxmemory", "1")
    try:
        answer = await ask(api, probe, filled)
    finally:
        await raw.config_set("maxmemory", "0")
    if not GROWING.match(said(probe)):
        assert answer.status < 400, answer.body
        assert not refused(probe, answer)
        return
    assert refused(probe, answer) == {"store_full"}
    if "schedule" not in said(probe):  # whose run is told of, also if nothing came of it
        assert await snapshot(raw) == before
    again = await ask(api, probe, filled)
    assert again.status < 400, again.body
    assert not refused(probe, again)
