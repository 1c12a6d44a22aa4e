"""What is in memory at one time is bounded, and what is free again goes back to the system."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import types
import zlib
from functools import partial

import pytest

from api import Api
from conftest import wait_until
from hookline_server.cycle import Cycle
from hookline_server.gate import Gate
from hookline_server.memory import give_back
from hookline_server.problem import Problem
from hookline_server.usage import resident
from hookline_server.wire import Wire
from rawhttp import Line, dialled, request
from server.conftest import MakeKey

KIB, MIB = 1 << 10, 1 << 20
pytestmark = pytest.mark.settings(bodies_max=300 * KIB)
SENT = 200 * KIB


LENGTH = str(250 * KIB)
"""Of a body that is not sent to its end."""
JSON = request("POST", "/v1/items", Content_Type="application/json", Content_Length=LENGTH)
LINES = request("POST", "/v1/items", Content_Type="application/x-ndjson", Content_Length=LENGTH)
GZIP = request("POST", "/v1/items", Content_Encoding="gzip", Content_Length=LENGTH)
WAYS = {
    "json": (JSON, b" " * SENT),
    "lines": (LINES, b" " * SENT),
    "gzip": (GZIP, zlib.compress(b" " * SENT, wbits=31)[:-8]),
}


async def send_half(line: Line, api: Api, way: str) -> None:
    held = api.app.state.bodies.held
    await line.send(*WAYS[way])
    await wait_until(lambda: api.app.state.bodies.held >= held + SENT)


@pytest.mark.parametrize("way", WAYS)
async def test_bodies_are_in_memory_up_to_a_bound(api: Api, way: str) -> None:
    async with dialled(api.port) as first:
        await send_half(first, api, way)
        async with dialled(api.port) as second:
            await second.send(*WAYS["json"])
            refused = await second.answer()
        assert (refused.status, refused.data["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
        # Who sends little is served all the while.
        assert (await api("POST", "/v1/items", {"key": "jobs"})).status == 201
    await wait_until(lambda: api.app.state.bodies.held == 0)
    large = {"key": "jobs", "content": "x" * SENT}
    assert (await api("POST", "/v1/items", large)).status == 201
    assert api.app.state.bodies.held == 0


async def test_one_caller_leaves_memory_for_the_bodies_of_others(api: Api, gate: Gate, make_key: MakeKey) -> None:
    def begun(header: dict[str, str]) -> bytes:
        return request("POST", "/v1/items", Content_Length=LENGTH, Authorization=header["Authorization"])

    one, other = await make_key("one"), await make_key("other")
    async with dialled(api.port) as first, dialled(api.port) as second, dialled(api.port) as third:
        for number, line in enumerate((first, second), 1):
            await line.send(begun(one), b" " * 100 * KIB)
            await wait_until(partial(holds, api, number * 100 * KIB))
        await third.send(begun(one), b" " * 50 * KIB)
        refused = await third.answer()
        assert (refused.status, refused.data["code"]) == (503, "overloaded")
        assert "your share" in refused.data["detail"]
        async with dialled(api.port) as neighbour:
            await neighbour.send(begun(other), b" " * 90 * KIB)
            await wait_until(partial(holds, api, 290 * KIB))
    await wait_until(partial(holds, api, 0))
    # What has gone is counted no more: alone a body may be larger than a share.
    async with dialled(api.port) as alone:
        await alone.send(begun(one), b" " * 240 * KIB)
        await wait_until(partial(holds, api, 240 * KIB))
    await wait_until(partial(holds, api, 0))


def holds(api: Api, size: int) -> bool:
    return bool(api.app.state.bodies.held == size)


LEFT = {
    "answered": request("GET", "/livez", close=True),
    "not there": request("GET", "/v1/items/jobs/none", close=True),
    "not JSON": request("POST", "/v1/items", close=True, Content_Type="application/json", Content_Length=str(SENT))
    + b"[" * SENT,
    "too large a head": request("GET", "/livez", X="y" * 60_000),
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "half a body": JSON + b" " * SENT,
}


@pytest.mark.parametrize("sent", LEFT.values(), ids=LEFT)
async def test_nothing_of_a_request_waits_for_the_garbage_collector(api: Api, sent: bytes) -> None:
    def left() -> int:
        """Frames are those that an exception holds, with the body in them."""
        kinds = (Wire, Cycle, Problem, types.FrameType)
        return sum(isinstance(each, kinds) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = left()
        for _ in range(20):
            async with dialled(api.port) as line:
                await line.send(sent)
                if not sent.startswith(JSON):
                    await line.rest()
        await wait_until(lambda: left() <= before + 10)
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs the GNU C library")
async def test_free_memory_goes_back_to_the_system() -> None:
    giving = asyncio.create_task(give_back(look=0.01))
    await asyncio.sleep(0)
    # One in fifty stays, so that the C library cannot give back all the rest by itself.
    blocks = [bytearray(60 * KIB) for _ in range(4000)]
    kept, most = blocks[::50], resident()
    del blocks
    await wait_until(lambda: resident() < most - 150 * MIB)
    assert len(kept) == 80
    giving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await giving
