"""Large bodies: read beside the loop, and not from a caller who has just sent one that could not be read."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hookline_server.problem import Problem

HEAVY_FROM = 65_536
"""Bytes of a body from which it is read in the thread. On the loop so many take up to 16 ms, in which all others would
wait. To hand it over costs 0.5 ms: a tenth of reading plain objects of this size, a fifth of half of it."""
REST = 100
"""How many times as long as its body took to be refused a caller rests: so it takes a hundredth of the time at most."""
REST_MAX = 60.0
"""Seconds of rest at most."""
CALLERS_MAX = 10_000

Decode = Callable[[bytes], Any]
Made = TypeVar("Made")
# One: several would take turns with the loop, and it would have fewer.
_reader = ThreadPoolExecutor(1, "heavy")
_rests: dict[str, float] = {}


async def read(decode: Decode, raw: bytes, caller: str) -> Any:
    """The value of a body.

    Raises:
        Problem: the caller rests.
        Exception: whatever ``decode`` raises.
    """
    check_rest(caller)
    seconds: list[float] = []
    try:
        return await asyncio.get_running_loop().run_in_executor(_reader, _timed, decode, raw, seconds)
    except Exception:
        _let_rest(caller, sum(seconds))
        raise


async def run(work: Callable[[], Made]) -> Made:
    """What comes of work that takes as long as reading a large body, done beside the loop.

    Raises:
        Exception: whatever it raises.
    """
    return await asyncio.get_running_loop().run_in_executor(_reader, work)


def check_rest(caller: str) -> None:
    """Let pass who may send a heavy body.

    Raises:
        Problem: the caller rests.
    """
    left = _rests.get(caller, 0.0) - time.monotonic()
    if left > 0:
        detail = f"the last body of {HEAVY_FROM} bytes or more could not be read; expected no other one for now"
        raise Problem("rate_limited", detail, {"Retry-After": str(math.ceil(left))})


def _let_rest(caller: str, seconds: float) -> None:
    now = time.monotonic()
    until = min(max(_rests.pop(caller, now), now) + REST * seconds, now + REST_MAX)
    while len(_rests) >= CALLERS_MAX:
        del _rests[next(iter(_rests))]
    _rests[caller] = until


def _timed(decode: Decode, raw: bytes, seconds: list[float]) -> Any:
    """The value; ``seconds`` gets how many of this thread that took.

    What is raised passes through: kept here it would hold this frame, and with it the body, for the garbage collector.
    """
    began = time.thread_time()
    try:
        return decode(raw)
    finally:
        seconds.append(time.thread_time() - began)
