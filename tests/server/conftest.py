"""The real server, in this process, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from api import Api, asking
from hookline import Datastore
from hookline_server.app import create_app


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Api]:
    """One server for the session, since starting and stopping one takes a tenth of a second."""
    nothing: Any = None
    async with asking(create_app(nothing)) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="session")
async def api(served: Api, datastore: Datastore) -> Api:
    """The server on the datastore under test."""
    served.app.state.datastore = datastore
    served.app.state.ready = None
    served.app.state.gate = None
    return served
