"""Whether the process runs, and whether it can serve."""

from __future__ import annotations

import asyncio

import pytest

from api import Api
from hookline import Datastore
from hookline.errors import Unavailable
from hookline_server.routes import health


async def test_livez_asks_nobody(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: object) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(datastore.connection, "command", broken)
    answer = await api("GET", "/livez")
    assert (answer.status, answer.data, answer.headers["cache-control"]) == (200, {"status": "ok"}, "no-store")


async def test_readyz_asks_the_store(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await api("GET", "/readyz")
    assert (answer.status, answer.data) == (200, {"status": "ok", "checks": {"store": "ok"}})
    assert answer.headers["cache-control"] == "no-store"

    async def broken(*args: object) -> None:
        raise Unavailable("cannot reach /secret/store.sock")

    monkeypatch.setattr(datastore.connection, "ready", broken)
    answer = await api("GET", "/readyz")
    assert answer.status == 503
    assert answer.data == {"status": "unavailable", "checks": {"store": "no answer"}}
    assert answer.headers["cache-control"] == "no-store"
    assert "retry-after" in answer.headers


async def test_readyz_does_not_wait_for_ever(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(datastore.connection, "ready", hangs)
    monkeypatch.setattr(health, "_PATIENCE", 0.05)
    assert (await api("GET", "/readyz")).status == 503


async def test_readyz_asks_the_other_parts_too(api: Api) -> None:
    relay = "ok"

    async def ready() -> dict[str, str]:
        return {"relay": relay}

    api.app.state.ready = ready
    assert (await api("GET", "/readyz")).data["checks"] == {"store": "ok", "relay": "ok"}
    relay = "stopped"
    answer = await api("GET", "/readyz")
    assert (answer.status, answer.data["checks"]) == (503, {"store": "ok", "relay": "stopped"})
