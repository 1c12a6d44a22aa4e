"""When rules run: intervals, cron, time zones, and the days on which clocks go forward or back."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import islice, pairwise
from random import Random
from time import thread_time
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from hookline.errors import Invalid
from hookline.recurrence import Recurrence, read_recurrence

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def cron(expression: str, zone: str = "UTC") -> Recurrence:
    found = read_recurrence(None, expression, zone)
    assert found
    return found


async def ticks(recurrence: Recurrence, since: str, most: int) -> list[str]:
    first = recurrence.after(ms(since), ms(since))
    return [recurrence.local(tick) for tick in await recurrence.ahead(first, most)]


async def test_an_interval_goes_on_from_its_first_tick_however_late_it_is_asked() -> None:
    recurrence = read_recurrence("90s", None, "UTC")
    assert recurrence
    assert recurrence.first(1000) == 1000
    assert [recurrence.after(1000, since) for since in (999, 1000, 90_999, 91_000, 10**9)] == [
        91_000,
        91_000,
        91_000,
        181_000,
        1000 + 11112 * 90_000,
    ]
    assert await recurrence.passed(1000, 181_500, 10) == [1000, 91_000, 181_000]
    assert await recurrence.passed(1000, 181_500, 2) == [91_000, 181_000]


@pytest.mark.parametrize(
    ("expression", "zone", "since", "expected"),
    [
        # Spring: 02:00 to 03:00 is not there. What is due in it comes right after, once.
        ("30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]),
        ("15,45 2 * * *", BERLIN, "2026-03-29T00:00+01:00", ["2026-03-29T03:00:00+02:00", "2026-03-30T02:15:00+02:00"]),
        ("0 * * * *", BERLIN, "2026-03-29T00:30+01:00", ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"]),
        ("30 2 * * *", NEW_YORK, "2027-03-14T00:00-05:00", ["2027-03-14T03:00:00-04:00", "2027-03-15T02:30:00-04:00"]),
        # Autumn: 02:00 to 03:00 is there twice. What has a time of day comes at the first of them.
        ("30 2 * * *", BERLIN, "2026-10-24T12:00+02:00", ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]),
        ("30 2 * * *", BERLIN, "2026-10-25T02:10+01:00", ["2026-10-26T02:30:00+01:00"]),
        # Where the minute or the hour begins with a star, it goes on by the clock: not at all in the gap, and in both.
        ("*/30 2 * * *", BERLIN, "2026-03-28T12:00+01:00", ["2026-03-30T02:00:00+02:00"]),
        (
            "*/30 2 * * *",
            BERLIN,
            "2026-10-25T02:00+02:00",
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"],
        ),
        ("0 1-3 * * *", BERLIN, "2026-10-25T01:30+02:00", ["2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"]),
        ("0 * * * *", BERLIN, "2026-10-25T01:30+02:00", ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]),
        (
            "*/30 * * * *",
            BERLIN,
            "2026-10-25T02:00+02:00",
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"],
        ),
        # Half an hour of daylight saving.
        ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00+10:30", ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
        ("0 9 * * MON-FRI", BERLIN, "2026-10-23T10:00+02:00", ["2026-10-26T09:00:00+01:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00+00:00", ["2028-02-29T00:00:00+00:00"]),
        ("0 12 L * *", "UTC", "2026-02-01T00:00+00:00", ["2026-02-28T12:00:00+00:00"]),
    ],
)
async def test_cron_by_the_clock_on_the_wall(expression: str, zone: str, since: str, expected: list[str]) -> None:
    assert await ticks(cron(expression, zone), since, len(expected)) == expected


PUT = [(LORD_HOWE, "2026-04-04"), (LORD_HOWE, "2026-10-03"), (BERLIN, "2026-03-28"), (BERLIN, "2026-10-24")]
"""Days before clocks are put."""


@pytest.mark.parametrize(("zone", "day"), PUT)
@pytest.mark.parametrize(
    "expression", ["* 2", "*/7 3", "*/10 1", "*/20 0", "*/7 2-3", "35 *", "0 *", "59 *", "5 */3", "10,40 */2"]
)
async def test_each_minute_on_the_wall_has_its_tick(expression: str, zone: str, day: str) -> None:
    recurrence, begin = cron(f"{expression} * * *", zone), ms(f"{day}T00:00+00:00")
    fields = CronSim(recurrence.cron, datetime(2026, 1, 1))  # noqa: DTZ001 - only its sets are read
    times = range(begin + 60_000, begin + 2 * 86_400_000, 60_000)
    walls = ((at, datetime.fromtimestamp(at / 1000, ZoneInfo(zone))) for at in times)
    expected = [at for at, wall in walls if wall.minute in fields.minutes and wall.hour in fields.hours]
    assert await recurrence.ahead(recurrence.after(begin, begin), 10**4, times[-1]) == expected


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("expression", ["*/10 * * * *", "30 2 * * *", "*/30 1,2 * * *", "15 * * * *"])
async def test_ticks_found_part_by_part_are_the_same(expression: str, zone: str) -> None:
    """Where clocks change: in each of these zones once in the one time and once in the other."""
    recurrence = cron(expression, zone)
    for since, till in (("2026-03-01", "2026-04-10"), ("2026-09-25", "2026-11-10")):
        begin, until = recurrence.first(ms(f"{since}T00:00+00:00")), ms(f"{till}T00:00+00:00")
        parts, left = list[int](), [begin]
        while left:
            part = await recurrence.ahead(left[0], 8, until)
            parts, left = parts + part[:7], part[7:]
        assert parts == await recurrence.passed(begin, until, 10**6)
        assert await recurrence.ahead(begin, 8, begin - 1) == []


async def test_of_many_ticks_that_passed_the_last_are_found_as_those_ahead() -> None:
    recurrence = cron("*/10 * * * *", BERLIN)
    begin, end = ms("2026-10-20T00:00+02:00"), ms("2026-11-01T00:05+01:00")
    every = [tick for tick in await recurrence.ahead(begin, 2000) if tick <= end]
    assert await recurrence.passed(begin, end, 2000) == every
    assert await recurrence.passed(begin, end, 1000) == every[-1000:]
    assert await recurrence.passed(begin, begin - 1, 1000) == [begin]
    rare = cron("0 0 1 1 *")
    assert len(await rare.passed(ms("1990-01-01T00:00+00:00"), end, 1000)) == 37


@pytest.mark.parametrize(
    ("every", "expression", "zone", "pointer"),
    [
        ("1s", "* * * * *", "UTC", "/cron"),
        ("10ms", None, "UTC", "/every"),
        ("soon", None, "UTC", "/every"),
        (None, "* * * *", "UTC", "/cron"),
        (None, "* * * * * *", "UTC", "/cron"),
        (None, "60 * * * *", "UTC", "/cron"),
        (None, "0 0 30 2 *", "UTC", "/cron"),
        (None, "@daily", "UTC", "/cron"),
        (None, "", "UTC", "/cron"),
        (None, "0 9 * * 1" + ",1" * 100, "UTC", "/cron"),
        (None, "0 0 29 2 */7", "America/St_Johns", "/cron"),
        (None, "*/30 2 * 3 0L", BERLIN, "/cron"),
        (None, "0 9 * * *", "localtime", "/timeZone"),
        (None, "0 9 * * *", "Europe/Bonn", "/timeZone"),
        (None, "0 9 * * *", "../../etc/passwd", "/timeZone"),
        (None, "0 9 * * *", "Europe", "/timeZone"),
        (None, "0 9 * * *", "", "/timeZone"),
        (None, "0 9 * * *", "a\0b", "/timeZone"),
        (None, None, "x" * 5000, "/timeZone"),
    ],
)
def test_what_gives_no_ticks_is_refused(every: object, expression: object, zone: str, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_recurrence(every, expression, zone)
    assert [flaw.pointer for flaw in refused.value.flaws] == [pointer]


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("61 * * * *", "a minute from 0 to 59, got 61"),
        ("*/0 * * * *", "a minute from 0 to 59, got */0"),
        ("0 24 * * *", "an hour from 0 to 23, got 24"),
        ("0 0 0 * *", "a day of the month from 1 to 31, or L, got 0"),
        ("0 0 1 1,DEZ *", "a month from 1 to 12, or JAN to DEC, got 1,DEZ"),
        ("0 9 * * MO-FR", "a weekday from 0 to 7, or SUN to SAT, got MO-FR"),
        ("0 0 30 2 *", "a day that there is in one of the months"),
        ("0 0 */31 * MON#2", "a day that there is in one of the months"),
        ("* * 31 2 *", "a day that there is in one of the months"),
        ("0 0 29 2 */7", "a day that there is every 12 years or more often"),
        ("*/30 2 * 3 0L", "a time that the clocks of the zone do not always skip"),
        ("often", "minute, hour, day, month and weekday, such as 0 9 * * MON-FRI"),
        (
            "@daily",
            "minute, hour, day, month and weekday, such as 0 9 * * MON-FRI; aliases such as @daily are not taken",
        ),
    ],
)
def test_the_field_that_is_wrong_is_named(expression: str, wanted: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_recurrence(None, expression, BERLIN)
    assert [flaw.detail for flaw in refused.value.flaws] == [f"expected {wanted}"]


RARE = ["0 0 29 2 *", "1,58 1,23 29 2 *", "0 0 31 12 */7", "*/30 2 29,30,31 2,3 */7", "59 23 31 * */7", "0 0 L * 5L"]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, "UTC"])
@pytest.mark.parametrize("expression", RARE)
async def test_rare_ticks_hold_nobody_up(expression: str, zone: str) -> None:
    recurrence, begin = cron(expression, zone), ms("2027-01-01T00:00+00:00")
    first, longest = recurrence.first(begin), 0.0
    for found in (recurrence.ahead(first, 100), recurrence.passed(first, first + 10**12, 100)):
        looking = asyncio.ensure_future(found)
        while not looking.done():
            since = thread_time()
            await asyncio.sleep(0)
            longest = max(longest, thread_time() - since)
        assert await looking
    since = thread_time()
    recurrence.distance()
    assert max(longest, thread_time() - since) < 0.05


@pytest.mark.parametrize("seed", range(8))
async def test_days_that_are_looked_up_are_those_that_cron_walks_to(seed: int) -> None:
    drawn = Random(seed)

    def some(low: int, high: int, *words: str) -> str:
        listed = ",".join(str(drawn.randint(low, high)) for _ in range(drawn.randint(1, 3)))
        return drawn.choice(["*", f"*/{drawn.randint(1, high)}", listed, *words])

    compared = 0
    while compared < 25:
        days = (some(1, 31, "L", "LW", "29", "31"), some(1, 12, "2", "2,3"), some(0, 7, "MON#5", "0L"))
        expression = " ".join((some(0, 59), some(0, 23), *days))
        zone = drawn.choice([BERLIN, NEW_YORK, LORD_HOWE, "Africa/Casablanca", "UTC"])
        try:
            recurrence = cron(expression, zone)
        except Invalid:
            continue
        begin = ms("2026-01-01T00:00+00:00") + drawn.randrange(10**12)
        walked = CronSim(expression, datetime.fromtimestamp(begin // 1000, ZoneInfo(zone)))
        expected = [round(tick.timestamp()) * 1000 for tick in islice(walked, 20)]
        assert await recurrence.ahead(recurrence.first(begin), 20) == sorted(set(expected)), (expression, zone)
        compared += 1


@pytest.mark.parametrize(
    "expression", [*RARE[:3], "1,30,58 0-20/3,22 * * *", "0 1,23 * * *", "0 1,23 1 * *", "*/7 * * * *", "0 12 13 * */5"]
)
def test_the_shortest_time_between_two_ticks(expression: str) -> None:
    walked = list(islice(CronSim(expression, datetime.fromisoformat("2024-01-01")), 300))
    shortest = min(later - tick for tick, later in pairwise(walked))
    assert cron(expression).distance() == shortest / timedelta(milliseconds=1)
