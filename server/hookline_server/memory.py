"""Memory that is free again after a burst: the C library keeps it for the process until it is told otherwise."""

from __future__ import annotations

import asyncio
import ctypes

from hookline_server.usage import resident

LOOK = 10.0
"""Seconds between looks."""
WORTH = 64 * 1024**2
"""Bytes by which the process must have grown: giving back keeps all others from allocating for some milliseconds."""


async def give_back(look: float = LOOK) -> None:
    """Give free memory back whenever the process has grown, until cancelled; does nothing without the GNU C library."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    least = resident()
    while True:
        await asyncio.sleep(look)
        if trim and resident() - least > WORTH:
            await asyncio.to_thread(trim, 0)
            least = resident()
        least = min(least, resident())
