"""One job's whole life: the guide's own commands, against ``hookline serve`` as a process, with a real receiver."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import aiohttp

from guide import CLAIM, COMPLETE, CREATE, QUERY_EXPIRED, QUERY_WAITING
from process import serving
from receiver import receiving


async def command(session: aiohttp.ClientSession, url: str, text: str) -> tuple[int, Any]:
    async with session.post(
        f"{url}/v1/command", data=text.encode(), headers={"Content-Type": "text/plain"}
    ) as response:
        return response.status, await response.json(content_type=None)


def guides_port() -> int:
    """The port that the guide's texts name, or another one where somebody has that."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 9000))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_guides_commands(tmp_path: Path) -> None:
    port = guides_port()
    create = CREATE.replace("9000", str(port))
    async with receiving(port) as receiver, serving(tmp_path / "data") as server, aiohttp.ClientSession() as session:
        status, answer = await command(session, server.url, create)
        assert status == 200, answer
        created = answer["results"][0]["item"]
        assert created["version"] == created["metadata"]["version"] == 1
        assert created["metadata"]["created_at"] == "2024-03-15T09:00:00Z"
        assert created["triggerUrls"] == [{"url": receiver.url, "events": ["updated"], "hasApiKey": True}]

        _, answer = await command(session, server.url, QUERY_WAITING)
        assert [item["sortField"] for item in answer["results"][0]["items"]] == ["job-2024-03-15-001"]

        status, answer = await command(session, server.url, CLAIM)
        assert status == 200, answer
        claimed = answer["results"][0]
        assert claimed["item"]["metadata"]["started_at"] == "2024-03-15T10:00:00Z"
        assert claimed["item"]["metadata"]["locked_until"] == "2024-03-15T10:10:00Z"
        assert claimed["item"]["token"].startswith("2.")
        assert claimed["warnings"], "locked_until is in the past"

        (post,) = await receiver.wait_for(1)
        assert post.headers["x-api-key"] == "your-api-key"
        assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(post.headers)
        assert post.data["dataChanged"]["metadata"]["status"] == "started"
        dataset = post.data["newDataset"]
        assert (dataset["key"], dataset["sortField"]) == ("jobs", "job-2024-03-15-001")
        assert dataset["content"] == {"report_type": "monthly", "department": "sales"}
        assert dataset["metadata"]["type"] == "report_generation"
        assert dataset["metadata"]["worker_id"] == "worker-123"

        status, answer = await command(session, server.url, CLAIM)
        assert (status, answer["code"]) == (409, "version_conflict")
        assert answer["item"]["version"] == 2, "the current item comes with the refusal"
        _, answer = await command(session, server.url, QUERY_EXPIRED)
        (expired,) = answer["results"][0]["items"]
        assert expired["version"] == 2, "the refused update has changed nothing"
        assert "token" not in expired

        status, answer = await command(session, server.url, COMPLETE)
        assert status == 200, answer
        completed = answer["results"][0]["item"]
        assert completed["metadata"]["status"] == "completed"
        assert completed["metadata"]["completed_at"] == "2024-03-15T10:05:00Z"
        assert completed["metadata"]["result"] == {"success": True, "records_processed": 1000}
        assert "locked_until" not in completed["metadata"]

        _, answer = await command(session, server.url, create.replace("001", "002") + CLAIM.replace("001", "002"))
        assert len(answer["results"]) == 2
        await receiver.wait_for(2)
        assert len(receiver.posts) == 2, "completing with triggers off has fired nothing"


async def test_stopped_and_started_again_it_has_every_item(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with aiohttp.ClientSession() as session:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            async with serving(data) as server:
                await command(session, server.url, f"create item with:\nkey: jobs\nsortField: {signum}\n")
                assert await server.stop(signum) == 0
        async with serving(data) as server:
            _, answer = await command(session, server.url, "get items with key: jobs")
            assert [item["sortField"] for item in answer["results"][0]["items"]] == ["1", "15", "2"]


async def test_an_acknowledged_item_survives_the_death_of_server_and_store(tmp_path: Path) -> None:
    data = tmp_path / "data"
    kept: list[str] = []

    async def write(session: aiohttp.ClientSession, url: str) -> None:
        while True:
            async with session.post(
                f"{url}/v1/items", json={"key": "jobs", "metadata": {"status": "not_started"}}
            ) as response:
                if response.status == 201:
                    kept.append((await response.json())["sortField"])

    async with serving(data) as server, aiohttp.ClientSession() as session:
        writers = [asyncio.create_task(write(session, server.url)) for _ in range(8)]
        async with asyncio.timeout(20):
            while len(kept) < 300:
                await asyncio.sleep(0.01)
        await server.kill()
        await asyncio.gather(*writers, return_exceptions=True)
    async with serving(data) as server, aiohttp.ClientSession() as session:
        found: set[str] = set()
        cursor = ""
        while True:
            async with session.get(f"{server.url}/v1/items/jobs?limit=1000&format=light{cursor}") as response:
                page = await response.json()
            found |= {item["sortField"] for item in page["items"]}
            if not page["cursor"]:
                break
            cursor = f"&cursor={page['cursor']}"
        assert set(kept) <= found
