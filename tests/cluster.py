"""A cluster of three primaries on loopback, of the server that the embedded store runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis

from conftest import wait_until
from hookline.embedded import find_server
from hookline.keys import SLOTS
from process import free_port

NODES = 3


@dataclass
class Node:
    """One primary: its process, a client, its id in the cluster."""

    port: int
    process: asyncio.subprocess.Process
    client: aioredis.Redis
    id: str = ""

    async def cluster(self, *args: Any) -> Any:
        """``CLUSTER ...`` on this node."""
        return await self.client.execute_command(" ".join(("CLUSTER", str(args[0]))), *args[1:])  # type: ignore[no-untyped-call]


@dataclass
class Cluster:
    """All nodes; a partition p of P is in the p-th P-th of the slots, so node n has those of the n-th third."""

    nodes: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The first node, by which the others are found."""
        return f"redis://127.0.0.1:{self.nodes[0].port}"

    async def flush(self) -> None:
        """Empty every node."""
        for node in self.nodes:
            await node.client.flushall()

    async def calls(self) -> list[int]:
        """How many script calls each node has answered."""
        stats = [await node.client.info("commandstats") for node in self.nodes]
        return [each.get("cmdstat_evalsha", {"calls": 0})["calls"] for each in stats]

    async def owner(self, slot: int) -> Node:
        """The node that has a slot, as the first one sees it."""
        for first, last, primary, *_ in await self.nodes[0].client.execute_command("CLUSTER SLOTS"):  # type: ignore[no-untyped-call]
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"nobody has slot {slot}")

    async def move(self, first: int, last: int, source: Node, target: Node) -> None:
        """Move slots as a whole, and wait until everybody knows."""
        await source.cluster("MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target.id)

        async def moved() -> bool:
            return (await self.owner(first)).port == target.port

        await wait_until(moved, seconds=30)


@contextlib.asynccontextmanager
async def clustering(directory: Path) -> AsyncIterator[Cluster]:
    """Start the nodes and make them a cluster."""
    cluster = Cluster()
    try:
        for number in range(NODES):
            cluster.nodes.append(await _start(directory / str(number)))
        await _join(cluster)
        yield cluster
    finally:
        for node in cluster.nodes:
            await node.client.aclose()
            with contextlib.suppress(ProcessLookupError):
                node.process.kill()
            await node.process.wait()


async def _start(directory: Path) -> Node:
    directory.mkdir(parents=True)
    port, bus = free_port(), free_port()
    options = {
        "port": port, "cluster-port": bus, "bind": "127.0.0.1", "dir": directory, "save": "", "appendonly": "no",
        "cluster-enabled": "yes", "cluster-node-timeout": 1000, "cluster-allow-replica-migration": "no",
        "cluster-require-full-coverage": "no",
    }  # fmt: skip
    args = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        str(find_server()), *args, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    client = aioredis.Redis(host="127.0.0.1", port=port, protocol=2)
    node = Node(port, process, client)

    async def answers() -> bool:
        with contextlib.suppress(aioredis.ConnectionError):
            return bool(await client.ping())
        return False

    await wait_until(answers)
    node.id = (await node.cluster("MYID")).decode()
    return node


async def _join(cluster: Cluster) -> None:
    for number, node in enumerate(cluster.nodes):
        first, last = number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1
        await node.cluster("ADDSLOTSRANGE", first, last)
        bus = int((await node.client.config_get("cluster-port"))["cluster-port"] or 0)
        await cluster.nodes[0].cluster("MEET", "127.0.0.1", node.port, bus)

    async def joined() -> bool:
        infos = [await node.client.execute_command("CLUSTER INFO") for node in cluster.nodes]  # type: ignore[no-untyped-call]
        return all(map(_is_ok, infos))

    await wait_until(joined, seconds=30)


def _is_ok(info: Any) -> bool:
    if isinstance(info, dict):
        return info.get("cluster_state") == "ok" and int(info.get("cluster_known_nodes", 0)) == NODES
    text = info.decode() if isinstance(info, bytes) else str(info)
    return "cluster_state:ok" in text and f"cluster_known_nodes:{NODES}" in text
