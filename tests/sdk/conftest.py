"""What workers and users have: the store itself, or a server before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from api import Api, asking
from hookline import Client, Datastore, Settings
from hookline_server.app import create_app


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Api]:
    """One server for the session."""
    nothing: Any = None
    async with asking(create_app(nothing)) as api:
        yield api


@pytest.fixture
def url(served: Api, datastore: Datastore) -> str:
    """The server on the datastore under test."""
    served.app.state.datastore = datastore
    served.app.state.gate = None
    return f"http://127.0.0.1:{served.port}"


@pytest_asyncio.fixture(loop_scope="session")
async def client(url: str) -> AsyncIterator[Client]:
    async with Client(url) as client:
        yield client


@pytest.fixture(params=["datastore", "client"])
def source(request: pytest.FixtureRequest, datastore: Datastore, client: Client) -> Datastore | Client:
    """What a worker works on."""
    return datastore if request.param == "datastore" else client


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A stall of the machine must not make an outcome unknown: then a job waits for the end of its lock."""
    return replace(settings, call_timeout=30.0)
