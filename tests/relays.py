"""A relay in this process, and jobs whose start calls a webhook."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from conftest import beside
from hookline import Datastore
from hookline_server.egress import Egress
from hookline_server.relay import Relay


@contextlib.asynccontextmanager
async def relaying(
    datastore: Datastore, consumer: str = "relay", grace: float = 5.0, **limits: Any
) -> AsyncIterator[Relay]:
    """A relay that runs; it may reach loopback."""
    egress = Egress(allow_loopback=True, deadline=datastore.settings.delivery_timeout, **limits)
    relay = Relay(datastore, egress, consumer, grace=grace)
    try:
        async with beside(relay.run()):
            yield relay
    finally:
        await egress.close()


async def create_job(datastore: Datastore, url: str, name: str = "a", **trigger: Any) -> None:
    """A job that calls the URL once it starts; ``trigger`` is what else its trigger says."""
    triggers: Any = [{"url": url, "apiKey": "api-key", **trigger}] if trigger else {url: "api-key"}
    metadata = {"status": "not_started", "type": "r"}
    await datastore.create("jobs", name, content={"n": 1}, metadata=metadata, trigger_urls=triggers)


async def start_job(datastore: Datastore, url: str, name: str = "a", **trigger: Any) -> None:
    """Create a job and start it."""
    await create_job(datastore, url, name, **trigger)
    await datastore.update("jobs", name, metadata={"status": "started", "worker_id": "w"})
