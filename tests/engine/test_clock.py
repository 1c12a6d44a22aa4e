"""Times and durations, and that the scripts read them alike."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import redis.asyncio as aioredis
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from composed import call, composed
from hookline.clock import DURATION_MAX_MS, format_duration, format_time, parse_duration, parse_time
from hookline.codec import pack_request, unpack_answer

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
LAST_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""
AGREE = composed("""#!lua
-- keys: partition
-- args: now_ms:int request:msgpack
-- use: clock
return function()
  local answers = {}
  for place, question in ipairs(request) do
    if type(question) == 'string' then
      local ms = clock.parse(question)
      answers[place] = ms and clock.text(ms) or false
    else
      answers[place] = clock.rfc3339(question)
    end
  end
  return cmsgpack.pack(answers)
end
""")


async def ask_lua(raw: aioredis.Redis, *questions: str | int) -> list[str | None]:
    """What the scripts make of texts (milliseconds, or nothing) and of milliseconds (text)."""
    answers = unpack_answer(await call(raw, AGREE, "0", pack_request(questions)))
    return [answer.decode() if answer else None for answer in answers]


def parsed(text: str) -> str | None:
    try:
        return str(parse_time(text))
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-03-15T10:00:00Z", 1_710_496_800_000),
        ("2024-03-15t10:00:00z", 1_710_496_800_000),
        ("2024-03-15 10:00:00Z", 1_710_496_800_000),
        ("2024-03-15T12:30:00+02:30", 1_710_496_800_000),
        ("2024-03-15T08:00:00-02:00", 1_710_496_800_000),
        ("2024-03-15T10:00:00.5Z", 1_710_496_800_500),
        ("2024-03-15T10:00:00.001Z", 1_710_496_800_001),
        ("2024-03-15T10:00:00.999999999Z", 1_710_496_800_999),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ("1969-12-31T23:59:59.25Z", -750),
        ("9999-12-31T23:59:59.999Z", LAST_MS),
    ],
)
async def test_times(raw: aioredis.Redis, text: str, ms: int) -> None:
    assert parse_time(text) == ms
    assert await ask_lua(raw, text) == [str(ms)]


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2024-03-15", "2024-03-15T10:00:00", "2024-03-15T10:00Z", "2024-03-15T10:00:00.Z",
        "2024-03-15T10:00:00.1234567890Z", "2024-03-15T10:00:00,5Z", "2024-03-15T10:00:00+0200",
        "2024-03-15T10:00:00 Z",
        "2024-13-01T00:00:00Z", "2024-00-01T00:00:00Z", "2023-02-29T00:00:00Z", "2024-04-31T00:00:00Z",
        "2024-03-15T24:00:00Z", "2024-03-15T10:60:00Z", "2024-03-15T10:00:60Z", "2024-03-15T10:00:00+24:00",
        "2024-03-15T10:00:00+02:60", "0000-03-15T10:00:00Z", "2024-03-15T10:00:00Z\n",
        "\uff12\uff10\uff12\uff14-03-15T10:00:00Z",
        "2024-03-00T00:00:00Z", "2024-03-15T10:00:00.1.2Z", "20240315T100000Z", "1900-02-29T00:00:00Z",
    ],
)  # fmt: skip
async def test_no_times(raw: aioredis.Redis, text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)
    assert await ask_lua(raw, text) == [None]


@given(st.integers(-62_135_596_800_000, LAST_MS))
def test_milliseconds_come_back(ms: int) -> None:
    text = format_time(ms)
    assert parse_time(text) == ms
    assert text.endswith("Z")
    assert ("." in text) == bool(ms % 1000)


@limits(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, LAST_MS), min_size=20, max_size=100))
async def test_the_scripts_write_times_alike(raw: aioredis.Redis, moments: list[int]) -> None:
    assert await ask_lua(raw, *moments) == [format_time(ms) for ms in moments]


moments = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.integers(1, 9999), st.integers(0, 13), st.integers(0, 32), st.sampled_from("Tt "),
    st.integers(0, 24), st.integers(0, 60), st.integers(0, 60),
    st.sampled_from(["", ".", ".0", ".9", ".29", ".123", ".0009", ".9999999", ".999999999", ".9999999999"]),
    st.sampled_from(["Z", "z", "+00:00", "-00:01", "+23:59", "-14:00", "+24:00", "+01:60", "", "+0100"]),
)  # fmt: skip


@limits(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(moments, min_size=20, max_size=60))
async def test_the_scripts_read_times_alike(raw: aioredis.Redis, texts: list[str]) -> None:
    texts = [text for text in texts if text[:4] not in ("0001", "9999")]  # where Python's range ends
    if texts:
        assert dict(zip(texts, await ask_lua(raw, *texts), strict=True)) == {text: parsed(text) for text in texts}


@given(st.datetimes(EPOCH, datetime(9999, 12, 30)), st.integers(-1439, 1439))  # noqa: DTZ001
def test_offsets(moment: datetime, offset: int) -> None:
    sign, (hours, minutes) = "-" if offset < 0 else "+", divmod(abs(offset), 60)
    text = f"{moment.isoformat(timespec='milliseconds')}{sign}{hours:02}:{minutes:02}"
    assert parse_time(text) == (moment - EPOCH) // timedelta(milliseconds=1) - offset * 60_000


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (0, 0), (1, 1000), (0.5, 500), (0.0004, 0), ("500ms", 500), ("30s", 30_000), ("10m", 600_000),
        ("2h", 7_200_000), ("7d", 604_800_000), ("1.5h", 5_400_000), (" 10 m ", 600_000), ("0s", 0),
        ("3650d", DURATION_MAX_MS),
    ],
)  # fmt: skip
def test_durations(value: object, ms: int) -> None:
    assert parse_duration(value) == ms


@pytest.mark.parametrize(
    "value",
    [
        None, True, [], {}, "", "10", "m", "10 minutes", "-10m", "+10m", "1e3s", "10M", "٣s", ".5s", -1, -0.5,
        float("nan"), float("inf"), 10**400, -(10**400), "3651d", "9" * 400 + "s", 3650 * 86_400 + 1,
    ],
)  # fmt: skip
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="expected seconds as a number"):
        parse_duration(value)


@given(st.integers(0, DURATION_MAX_MS) | st.integers(0, 1000).map(lambda n: n * 60_000))
def test_durations_come_back(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms
