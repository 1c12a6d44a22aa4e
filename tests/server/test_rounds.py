"""Bodies that take some milliseconds each leave room for others between them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api import Api
from hookline_server import rounds, strictjson

BODIES = 12


@pytest.fixture
def read_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each body that is read its size, and how often the loop had come round by then."""
    come = 0
    seen: list[tuple[int, int]] = []
    decode = strictjson.decode

    def come_round() -> None:
        nonlocal come
        come += 1
        asyncio.get_running_loop().call_soon(come_round)

    def decoded(raw: bytes) -> Any:
        if not seen:
            come_round()
        seen.append((len(raw), come))
        return decode(raw)

    monkeypatch.setattr(strictjson, "decode", decoded)
    return seen


@pytest.mark.parametrize("path", ["/v1/items", "/v1/items:batch"])
async def test_one_is_read_in_each_round_of_the_loop(api: Api, read_in: list[tuple[int, int]], path: str) -> None:
    item = {"key": "jobs", "content": "x" * rounds.ROUND_FROM}
    body = item if path == "/v1/items" else {"operations": [{"op": "create", **item}]}
    answers = await asyncio.gather(*(api("POST", path, body) for _ in range(BODIES)))
    assert {answer.status for answer in answers} <= {201, 207}
    of_each = [come for size, come in read_in if size >= rounds.ROUND_FROM]
    assert len(of_each) == len(set(of_each)) == BODIES


async def test_whoever_has_gone_takes_no_round() -> None:
    given, order = rounds.Rounds(), list[int]()

    async def take(place: int) -> None:
        await given.take()
        order.append(place)

    tasks = [asyncio.create_task(take(place)) for place in range(5)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2, 4]
    await asyncio.wait_for(given.take(), 1)
