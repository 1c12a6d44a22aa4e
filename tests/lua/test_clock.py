"""The clock of the scripts: its times read and write as those of hookline/clock.py do."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis

from composed import call, composed
from conftest import wait_until
from hookline import Datastore
from hookline.clock import format_time, parse_time
from hookline.codec import pack_request

TIMES = composed("""#!lua
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock
return function()
  local parsed = request.text and clock.parse(request.text)
  local written = request.ms and clock.rfc3339(request.ms)
  return { parsed and clock.text(parsed) or false, written or false, clock.text(clock.ms) }
end
""")
DAY = 86_400_000


async def run(raw: aioredis.Redis, now: str = "0", **request: object) -> list[bytes | None]:
    """Milliseconds of request.text, text of request.ms, and the clock itself."""
    answer: list[bytes | None] = await call(raw, TIMES, now, pack_request(request))
    return answer


@pytest.mark.parametrize(
    "ms",
    [
        0, 1, 999, 1000, DAY - 1, DAY, 951_782_399_999, 951_782_400_000, 951_868_800_000, 1_709_164_800_000,
        1_709_251_199_999, 1_709_251_200_000, 1_735_689_599_999, 1_735_689_600_000, 1_800_000_000_000,
        4_107_542_399_000, 4_107_542_400_000, 253_402_300_799_999,
        *range(1_700_000_000_123, 1_740_000_000_000, 997 * DAY // 10),
    ],
)  # fmt: skip
async def test_there_and_back(raw: aioredis.Redis, ms: int) -> None:
    text = format_time(ms)
    assert (await run(raw, text=text, ms=ms))[:2] == [str(ms).encode(), text.encode()]


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-15T10:00:00Z", "2024-03-15t10:00:00z", "2024-03-15 10:00:00Z", "2024-02-29T23:59:59.999Z",
        "2024-03-15T10:00:00.5Z", "2024-03-15T10:00:00.123456789Z", "2024-03-15T10:00:00.0009Z",
        "2024-03-15T10:00:00+05:30", "2024-03-15T00:10:00+14:00", "2024-03-15T23:50:00-11:45",
        "1970-01-01T00:00:00-00:00",
        "2024-03-15T10:00:00.29Z", "2024-03-15T10:00:00.001Z", "2024-03-15T10:00:00.57Z",
    ],
)  # fmt: skip
async def test_parse(raw: aioredis.Redis, text: str) -> None:
    assert (await run(raw, text=text))[0] == str(parse_time(text)).encode()


@pytest.mark.parametrize(
    "text",
    ["", "x", "2024", "2024-03-15", "2024-03-15T10:00:00", "2024-03-15T10:00Z", "2024-03-15T10:00:00+0530",
     "2024-03-15T10:00:00Z ", "+2024-03-15T10:00:00Z", "2024-03-15T10:00:00,5Z", "2024-3-15T10:00:00Z"],
)  # fmt: skip
async def test_what_is_no_time(raw: aioredis.Redis, text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)
    assert (await run(raw, text=text))[0] is None


async def test_the_clock_is_the_given_one(raw: aioredis.Redis) -> None:
    assert (await run(raw, "1800000000123"))[2] == b"1800000000123"


async def test_else_the_stores_own(raw: aioredis.Redis) -> None:
    async def between() -> bool:
        before, during, after = await raw.time(), (await run(raw, ""))[2], await raw.time()
        assert during is not None
        first, last = (seconds * 1000 + micros // 1000 for seconds, micros in (before, after))
        return first <= int(during) <= last

    assert await wait_until(between)


async def test_items_in_line_by_the_stores_own_clock(datastore: Datastore) -> None:
    for name in "abcdefgh":
        await datastore.create("jobs", name, metadata={"status": "not_started"})
    assert [item.sort_field for item in (await datastore.claim("jobs", worker_id="w", limit=8)).items] == list(
        "abcdefgh"
    )
