"""Webhooks: a relay on a full outbox, and the bare loop of posts that it is held against."""

from __future__ import annotations

import asyncio
import io

import aiohttp

from hookline import Datastore
from hookline_bench.works import PAUSE, Stage, Tally
from hookline_server.egress import Egress
from hookline_server.relay import Relay

POSTS = 64
"""Posts under way at once."""


async def relay(stage: Stage) -> Tally:
    """A relay, until the outbox is empty and all that is kept for later is sent."""
    assert isinstance(stage.source, Datastore)
    egress = Egress(allow_loopback=True)
    running = asyncio.create_task(Relay(stage.source, egress, f"bench-{stage.index}").run())
    while not running.done() and (await _left(stage.source) or await _kept(stage.source)):
        await asyncio.sleep(PAUSE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await egress.close()
    return Tally()


async def _left(source: Datastore) -> int:
    """Events in the outbox: asked for as cheaply as can be, for the process that asks is what is measured."""
    names = [f"{source.connection.tag(partition)}:outbox" for partition in range(source.calls.partitions)]
    return sum([await source.connection.command_on(name, "XLEN", name) for name in names])


async def _kept(source: Datastore) -> int:
    """Deliveries that are to be sent later."""
    rows = (await source.stats("hookline.deliveries.")).rows
    return sum(row.count for row in rows if row.status in ("not_started", "scheduled", "started"))


async def post(stage: Stage) -> Tally:
    """Posts of so many bytes by aiohttp alone."""
    tally, body = Tally(), b"x" * stage.more["bytes"]
    numbers = iter(range(stage.more["posts"]))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=stage.clients)) as session:

        async def client() -> None:
            for number in numbers:
                headers = {"webhook-id": f"{stage.index}-{number}"}
                async with session.post(stage.more["receiver"], data=io.BytesIO(body), headers=headers) as response:
                    await response.read()
                tally.done += 1

        await asyncio.gather(*(client() for _ in range(stage.clients)))
    return tally
