"""Compressed bodies, inflated in small pieces: whoever reads them stops a bomb before it goes off."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

from hookline_server.problem import Problem

PIECE = 65_536
"""Bytes of one piece at most."""
_EMPTY_MAX = 16
"""Members in a row that may hold nothing: each costs more to begin than it is long."""


async def inflate(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The content of gzip members that follow one another (RFC 1952), in pieces.

    Raises:
        Problem: it is not gzip, or ends before its end.
    """
    member, begun, empty = _member(), False, 0
    async for chunk in chunks:
        rest = chunk
        while rest:
            begun = True
            try:
                piece = member.decompress(rest, PIECE)
            except zlib.error:
                raise _broken("byte for byte what gzip makes") from None
            rest = member.unconsumed_tail
            if piece:
                empty = 0
                yield piece
                # What a bomb makes of one chunk is a thousand times as long: others are served in between.
                await asyncio.sleep(0)
            if member.eof:
                rest, empty = member.unused_data, empty + 1
                if empty > _EMPTY_MAX:
                    raise _broken(f"at most {_EMPTY_MAX} empty members in a row")
                member, begun = _member(), False
    if begun:
        raise _broken("a whole gzip stream; it ends too early")


def _member() -> zlib._Decompress:
    return zlib.decompressobj(wbits=31)


def _broken(expected: str) -> Problem:
    return Problem("invalid_gzip", f"expected {expected}")
