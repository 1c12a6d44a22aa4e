"""A server under attack: whoever behaves is served, whoever does not is cut off, and memory stays bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from attackers import attacked, large_items
from conftest import wait_until
from process import serving
from rawhttp import dialled

SLOW = 60
ROUNDS = 8
MIB = 1 << 20


def resident(pid: int) -> int:
    """Bytes of memory that a process has had at most, from /proc (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def job(session: aiohttp.ClientSession, url: str, key: str) -> None:
    """One job's whole life; every step must succeed."""
    item = {"key": key, "metadata": {"status": "not_started"}}
    async with session.post(f"{url}/v1/items", json=item) as made:
        assert made.status == 201, await made.text()
        name = (await made.json())["sortField"]
    async with session.post(f"{url}/v1/jobs/{key}/claim", json={"workerId": "w"}) as claimed:
        assert claimed.status == 200, await claimed.text()
        (got,) = (await claimed.json())["items"]
    done = {"complete": [{"sortField": got["sortField"], "token": got["token"]}]}
    async with session.post(f"{url}/v1/jobs/{key}/settle", json=done) as settled:
        assert (await settled.json())["complete"][0]["outcome"] == "ok"
    async with session.get(f"{url}/v1/items/{key}/{name}") as found:
        assert (await found.json())["metadata"]["status"] == "completed"


async def test_who_behaves_is_served_while_others_attack(tmp_path: Path) -> None:
    serve = serving(tmp_path / "data", HOOKLINE_HEAD_TIMEOUT="1", HOOKLINE_STALL_TIMEOUT="1")
    async with serve as server, aiohttp.ClientSession() as session:
        port = int(server.url.rsplit(":", 1)[1])
        for asked in large_items(1):
            async with dialled(port) as line:
                await line.send(asked)
                assert (await line.answer()).status == 201
        before = resident(server.process.pid)

        async def client(key: str) -> None:
            for _ in range(ROUNDS):
                await job(session, server.url, key)
                await asyncio.sleep(0.05)

        async with attacked(port, SLOW) as ends:
            await asyncio.gather(*(client(f"jobs{number}") for number in range(8)))
            kinds = ("slow head: 408", "slow body: 408", "slow reader: closed", "large head: 431", "corpus: 400")
            await wait_until(lambda: all(ends[kind] for kind in kinds), seconds=30)
            await wait_until(
                lambda: sum(count for end, count in ends.items() if end.startswith("bomb")) > 11, seconds=60
            )
        assert not [end for end in ends if end.endswith(("kept", " 500", "503"))], ends
        async with session.get(f"{server.url}/readyz") as ready:
            assert ready.status == 200
        assert resident(server.process.pid) - before < 700 * MIB
    assert not [line for line in server.said if "Traceback" in line]
