"""The real server, in this process, over real HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from api import Api, asking
from conftest import beside
from hookline import Datastore
from hookline.keyring import Keyring
from hookline_server import heavy
from hookline_server.app import create_app
from hookline_server.egress import Egress
from hookline_server.gate import Gate
from hookline_server.namespaces import Namespaces
from hookline_server.orchestrator import Orchestrator
from receiver import Receiver, receiving

MakeKey = Callable[..., Awaitable[dict[str, str]]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Api]:
    """One server for the session, since starting and stopping one takes a tenth of a second."""
    nothing: Any = None
    egress = Egress(allow_loopback=True, deadline=5)
    async with asking(create_app(nothing, egress=egress)) as api:
        yield api
    await egress.close()


@pytest_asyncio.fixture(loop_scope="session")
async def api(served: Api, datastore: Datastore) -> Api:
    """The server on the datastore under test, which asks nobody for an API key."""
    served.app.state.datastore = datastore
    served.app.state.ready = None
    served.app.state.gate = None
    heavy._rests.clear()
    return served


@pytest_asyncio.fixture(loop_scope="session")
async def namespaces(datastore: Datastore) -> AsyncIterator[Namespaces]:
    """The namespaces of the store under test."""
    async with Namespaces(datastore) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def gate(api: Api, keyring: Keyring, namespaces: Namespaces) -> AsyncIterator[Gate]:
    """The server asks for an API key."""
    gate = api.app.state.gate = Gate(keyring, namespaces.open)
    yield gate
    await gate.close()


@pytest.fixture
def make_key(keyring: Keyring) -> MakeKey:
    """Makes an API key of a namespace, which may do everything unless it is told otherwise -> the header with it."""

    async def make(namespace: str, **limits: Any) -> dict[str, str]:
        _, text = await keyring.create(namespace, **({"scopes": ["admin"]} | limits))
        return {"Authorization": f"Bearer {text}"}

    return make


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    """Where webhooks arrive."""
    async with receiving() as opened:
        yield opened


@contextlib.asynccontextmanager
async def orchestrating(datastore: Datastore) -> AsyncIterator[Orchestrator]:
    """An orchestrator that runs."""
    orchestrator = Orchestrator(datastore)
    async with beside(orchestrator.run()):
        yield orchestrator
