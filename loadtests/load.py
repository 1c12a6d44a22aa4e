"""A closed-loop HTTP load on loopback: so many connections, each with one request under way, for so long."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Load:
    """What one turn gave: latencies in seconds, sorted."""

    elapsed: float
    latencies: list[float]
    errors: int

    @property
    def rate(self) -> float:
        """Answers with 2xx a second."""
        return len(self.latencies) / self.elapsed

    def percentile(self, percent: float) -> float:
        """A latency in milliseconds."""
        if not self.latencies:
            return float("nan")
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * percent / 100))] * 1000


async def drive(base: str, path: str, body: object, seconds: float, connections: int, *, pause: float = 0) -> Load:
    """POST the body over and over, with so many seconds between an answer and the next request -> the load.

    Raises:
        ValueError: the address is not on loopback.
    """
    address = urlsplit(base)
    if address.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("expected an address on loopback")
    payload = json.dumps(body).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    ).encode() + payload
    latencies: list[float] = []
    errors = 0
    began = time.perf_counter()
    until = began + seconds

    async def client() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            while (sent := time.perf_counter()) < until:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if head.startswith(b"HTTP/1.1 2"):
                    latencies.append(time.perf_counter() - sent)
                else:
                    errors += 1
                if pause:
                    await asyncio.sleep(pause)
        finally:
            writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return Load(time.perf_counter() - began, sorted(latencies), errors)
