"""Memory that is free again after a burst: the C library keeps it for the process until it is told otherwise."""

from __future__ import annotations

import asyncio
import ctypes

from hookline_server.usage import resident

LOOK = 10.0
"""Seconds between looks."""
WORTH = 64 * 1024**2
"""Bytes beyond the least that the process ever had: below, giving back is not worth what it keeps others waiting."""


async def give_back(look: float = LOOK) -> None:
    """Give free memory back while the process has much, until cancelled; does nothing without the GNU C library.

    How much of it is free cannot be told from outside. Where little is, it takes a millisecond to find out.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    least = resident()
    while True:
        await asyncio.sleep(look)
        if trim and resident() - least > WORTH:
            await asyncio.to_thread(trim, 0)
        least = min(least, resident())
