"""The event loop that everything runs on."""

from __future__ import annotations

import asyncio


def runner() -> asyncio.Runner:
    """A runner of uvloop's loop, or where there is none of asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
