"""Over HTTP, by a client that does as little as a client can: then the figures are the server's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from hookline_bench.direct import WORKER
from hookline_bench.job import CONTENT, METADATA, PAGE, Held

ANSWER = "bench-answer"
"""Header that names the kind of the request, by which a floor finds the answer to give."""
_encode, _decode = msgspec.json.encode, msgspec.json.decode
Answers = dict[str, tuple[int, str]]
"""Status and body by the kind of the request."""


class OverHttp:
    """A :class:`Way` over some connections to one server on loopback; ``answers`` notes one answer of each kind.

    Raises:
        ValueError: the address is not on loopback.
    """

    def __init__(self, url: str, connections: int, more: dict[str, Any] | None = None) -> None:
        self._address = urlsplit(url)
        if self._address.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("expected an address on loopback")
        self._fields: dict[str, Any] = {"content": CONTENT, "metadata": METADATA, **(more or {})}
        self._number = connections
        self._idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
        self._writers: list[asyncio.StreamWriter] = []
        self.answers: Answers = {}

    async def __aenter__(self) -> Self:
        for _ in range(self._number):
            line = await asyncio.open_connection(self._address.hostname, self._address.port)
            self._writers.append(line[1])
            self._idle.put_nowait(line)
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, method: str, path: str, kind: str, body: bytes = b"") -> bytes:
        """One request on a connection that is idle -> the body of its answer.

        Raises:
            RuntimeError: the answer is not 2xx.
        """
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._address.netloc}\r\ncontent-type: application/json\r\n"
            f"{ANSWER}: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        reader, writer = line = await self._idle.get()
        writer.write(head.encode() + body)
        answered = await reader.readuntil(b"\r\n\r\n")
        length = int(answered.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        said = await reader.readexactly(length)
        self._idle.put_nowait(line)
        if not answered.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path} was answered {answered[9:12].decode()}: {said[:300].decode()}")
        if kind not in self.answers:
            self.answers[kind] = int(answered[9:12]), said.decode()
        return said

    async def create(self, key: str, names: Sequence[str]) -> int:
        """One as itself, many as a list."""
        if len(names) == 1:
            body = {"key": key, "sortField": names[0], **self._fields}
            await self.send("POST", "/v1/items", "create-1", _encode(body))
            return 1
        items = [{"key": key, "sortField": name, **self._fields} for name in names]
        said = await self.send("POST", "/v1/items", f"create-{len(names)}", _encode({"items": items}))
        return sum(result["status"] in (200, 201) for result in _decode(said)["results"])

    async def claim(self, key: str, limit: int) -> list[Held]:
        """Claim jobs."""
        body = _encode({"workerId": WORKER, "limit": limit})
        return _held(_decode(await self.send("POST", f"/v1/jobs/{key}/claim", f"claim-{limit}", body)))

    async def exchange(self, key: str, done: Sequence[Held], failed: Sequence[Held], limit: int) -> list[Held]:
        """Settle, and claim in the same request."""
        body: dict[str, Any] = {"complete": [{"sortField": name, "token": token} for name, token in done]}
        if failed:
            given = {"error": "on purpose", "retryAfter": 0}
            body["fail"] = [{"sortField": name, "token": token, **given} for name, token in failed]
        if limit:
            body |= {"workerId": WORKER, "claim": {"limit": limit}}
        kind = f"settle-{len(done)}-{len(failed)}-{limit}"
        answer = _decode(await self.send("POST", f"/v1/jobs/{key}/settle", kind, _encode(body)))
        for result in (*answer["complete"], *answer["fail"]):
            if result["outcome"] != "ok":
                raise RuntimeError(f"expected a settled claim, got {result}")
        return _held(answer["claimed"]) if limit else []

    async def get(self, key: str, name: str) -> None:
        """Read one."""
        await self.send("GET", f"/v1/items/{key}/{name}", "get")

    async def update(self, key: str, name: str) -> None:
        """Note progress."""
        await self.send("PATCH", f"/v1/items/{key}/{name}", "update", _encode({"metadata": {"progress": 50}}))

    async def query(self, key: str, kind: str) -> int:
        """A page by an index, if the key has one."""
        body = _encode({"where": {"type": kind}, "limit": PAGE})
        return len(_decode(await self.send("POST", f"/v1/items/{key}/query", "query", body))["items"])


def _held(answer: dict[str, Any]) -> list[Held]:
    return [(item["sortField"], item["token"]) for item in answer["items"]]
