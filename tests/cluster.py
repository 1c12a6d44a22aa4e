"""A cluster of three primaries on loopback, of the server that the embedded store runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import wait_until
from hookline.embedded import find_server
from hookline.keys import SLOTS
from process import Store, running_store

NODES = 3
OPTIONS: dict[str, str | int] = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": 1000,
    "cluster-allow-replica-migration": "no",
    "cluster-require-full-coverage": "no",
}


@dataclass
class Node(Store):
    """One primary, and its id in the cluster."""

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
        return self.nodes[0].url

    async def flush(self) -> None:
        """Empty every node."""
        for node in self.nodes:
            await node.client.flushall()

    async def calls(self) -> list[int]:
        """How many script calls each node has answered."""
        stats = [await node.client.info("commandstats") for node in self.nodes]
        return [each.get("cmdstat_fcall", {"calls": 0})["calls"] for each in stats]

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
    async with contextlib.AsyncExitStack() as stack:
        cluster = Cluster()
        for number in range(NODES):
            started = running_store(str(find_server()), directory / str(number), **OPTIONS)
            store = await stack.enter_async_context(started)
            cluster.nodes.append(Node(store.port, store.process, store.client))
        await _join(cluster)
        yield cluster


async def _join(cluster: Cluster) -> None:
    for number, node in enumerate(cluster.nodes):
        node.id = (await node.cluster("MYID")).decode()
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
