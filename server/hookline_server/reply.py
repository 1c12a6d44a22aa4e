"""What comes back from one post, noted as it comes: an answer that breaks off is known as far as it came."""

from __future__ import annotations

import time

import msgspec


class Trouble(Exception):
    """Why a post has no whole answer, in one word of :class:`hookline_server.egress.Answer`."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Timing(msgspec.Struct, eq=False):
    """How many ms after the start of a post these were done; None where a connection was there, or it came not so far.

    ``connect`` includes TLS, ``first_byte`` is that of the answer's head.
    """

    resolve: int | None = None
    connect: int | None = None
    first_byte: int | None = None
    begun: float = msgspec.field(default_factory=time.monotonic)

    def now(self) -> int:
        """Milliseconds since the start."""
        return round((time.monotonic() - self.begun) * 1000)


class Reply(msgspec.Struct):
    """Status and headers of an answer, and the bytes of its body, at most ``most`` and those that came with them.

    ``cut`` is whether there were more.
    """

    most: int
    status: int | None = None
    retry_after: str | None = None
    wish: str | None = None
    body: bytearray = msgspec.field(default_factory=bytearray)
    cut: bool = False
    timing: Timing = msgspec.field(default_factory=Timing)
