"""A server killed between a webhook's POST and its acknowledgement delivers it again under the same id."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from process import free_port, serving
from receiver import receiving


async def test_redelivery_has_the_same_id_and_body(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    async with receiving() as receiver, aiohttp.ClientSession() as session:
        receiver.hang = asyncio.Event()
        item = {"key": "jobs", "sortField": "a", "metadata": {"status": "not_started"}}
        async with serving(data, port=port) as server:
            await session.post(f"{server.url}/v1/items", json={**item, "triggerUrls": {receiver.url: "k"}})
            await session.patch(f"{server.url}/v1/items/jobs/a", json={"metadata": {"status": "started"}})
            await receiver.wait_for(1)
            await server.kill()
        receiver.hang.set()
        async with serving(data, port=port):
            first, second = await receiver.wait_for(2, seconds=30)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
