"""A receiver of webhooks that does as little as there can be: it counts them, and answers GET with the counts."""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

_ids: set[bytes] = set()
_total = 0


class _Receiver(asyncio.Protocol):
    """Answers each POST with 204 as soon as it is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._held = cast("asyncio.WriteTransport", transport), b""

    def data_received(self, data: bytes) -> None:
        global _total
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            if head.startswith(b"get"):
                text = f"{len(_ids)} {_total}".encode()
                said = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text) + text
                self._held = b""
                self._transport.write(said)
                self._transport.close()
                return
            whole = end + 4 + int(_field(head, b"content-length:"))
            if len(self._held) < whole:
                return
            self._held = self._held[whole:]
            _ids.add(_field(head, b"webhook-id:"))
            _total += 1
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def _field(head: bytes, name: bytes) -> bytes:
    return head[head.index(name) + len(name) :].split(b"\r\n", 1)[0].strip()


async def main() -> None:
    """Serve until ended."""
    server = await asyncio.get_running_loop().create_server(_Receiver, "127.0.0.1", 0, backlog=1024)
    print(f"listens on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
