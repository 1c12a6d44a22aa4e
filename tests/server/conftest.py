"""The real server, in this process, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from api import Api, asking
from hookline import Datastore
from hookline_server.app import create_app


@pytest_asyncio.fixture(loop_scope="session")
async def api(datastore: Datastore) -> AsyncIterator[Api]:
    """A server on the datastore under test."""
    async with asking(create_app(datastore)) as served:
        yield served
