"""Webhooks per second of one relay, beside a bare aiohttp loop that posts the same bodies to the same receiver."""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import multiprocessing
import resource
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline_server.egress import Egress
from hookline_server.relay import Relay

CONCURRENCY = 64


class _Receiver(asyncio.Protocol):
    """Answers each POST with 204 as soon as it is whole; as little work as there can be."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._held = transport, b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            at = head.index(b"content-length:") + 15
            whole = end + 4 + int(head[at:].split(b"\r\n", 1)[0])
            if len(self._held) < whole:
                return
            self._held = self._held[whole:]
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")  # type: ignore[attr-defined]


def _receive(pipe: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Receiver, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def bare(url: str, bodies: list[bytes]) -> float:
    """Posts per second without a relay."""
    waiting = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def post() -> None:
            for body in waiting:
                async with session.post(url, data=io.BytesIO(body), headers={"webhook-id": "x"}) as response:
                    await response.read()

        begun = time.perf_counter()
        await asyncio.gather(*(post() for _ in range(CONCURRENCY)))
        return len(bodies) / (time.perf_counter() - begun)


async def relayed(datastore: Datastore, url: str, count: int) -> float:
    """Posts per second from a full outbox until it is empty."""
    trigger = [{"url": url, "apiKey": "k", "events": ["created"]}]
    content = {"text": "x" * 200}
    for begin in range(0, count, 500):
        names = (f"{time.time_ns()}-{n}" for n in range(min(500, count - begin)))
        await datastore.run([datastore.calls.create("load", n, content=content, trigger_urls=trigger) for n in names])
    egress = Egress(allow_loopback=True)
    begun = time.perf_counter()
    relay = asyncio.create_task(Relay(datastore, egress, "bench").run())
    while (await datastore.stats()).outbox:
        await asyncio.sleep(0.02)
    rate = count / (time.perf_counter() - begun)
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
    await egress.close()
    return rate


async def main(count: int, rounds: int) -> None:
    """Measure both by turns, and print the middle of each."""
    ours, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs,), daemon=True)
    receiver.start()
    url = f"http://127.0.0.1:{ours.recv()}/run"
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedStore(Path(directory), fsync="no") as store:
            settings = Settings(data=Path(directory), lane_concurrency=CONCURRENCY, relay_concurrency=CONCURRENCY)
            async with Datastore(store.url, settings, SecretBox(bytes(32))) as datastore:
                rates: list[tuple[float, float]] = []
                for _ in range(rounds):
                    relay = await relayed(datastore, url, count)
                    rates.append((relay, await bare(url, [b"x" * 700] * count)))
    relay, loop = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"relay {relay:,.0f}/s   bare aiohttp loop {loop:,.0f}/s   ratio {relay / loop:.2f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    receiver.terminate()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=5000)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(given.events, given.rounds))
