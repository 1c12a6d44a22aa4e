"""When a rule runs: its ticks, by an interval or by cron in a time zone. No store, no clock."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from calendar import isleap
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import chain, count, pairwise, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from hookline.clock import parse_duration
from hookline.errors import Flaw, Invalid

EVERY_MIN_MS = 1000
CRON_MAX = 200
"""Characters of a cron expression."""
YEARS_MAX = 12
"""Years from one with a tick by cron to the next: a date may have to wait so long for its weekday, 29 February 8."""
STEP = 5
"""Ticks that are looked for at once, each in a tenth of a millisecond or two: in between others have a turn."""
_CRON_FIELDS = (
    "a minute from 0 to 59",
    "an hour from 0 to 23",
    "a day of the month from 1 to 31, or L",
    "a month from 1 to 12, or JAN to DEC",
    "a weekday from 0 to 7, or SUN to SAT",
)
_OF_THE_MACHINE = ("localtime", "posixrules")
"""Names of the database of time zones that are another zone from server to server."""
_HOUR_MS = 3_600_000
_ANY = datetime(2024, 1, 1)  # noqa: DTZ001 - cron counts without a zone
_COMPARED = range(2024, 2024 + 28 + YEARS_MAX)
"""Years of which the days are compared: in 28 of them dates have met all weekdays."""
_CYCLE = 400
"""Years after which the calendar is the same."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Ticks, in whole milliseconds since 1970: ``every`` so many of them, or by ``cron`` as Debian's reads it.

    Of cron a time of day that a zone skips comes right after the gap, and one that it has twice comes once; where
    the minute or the hour begins with ``*`` it goes on by the clock on the wall.
    """

    every: int | None = None
    cron: str = ""
    zone: ZoneInfo | None = None

    def first(self, now: int) -> int:
        """The first tick of a rule that is stored now: an interval begins at once."""
        return now if self.every else self.after(now, now)

    def after(self, tick: int, since: int) -> int:
        """The first tick later than ``since``, of those of which ``tick`` is one."""
        if self.every:
            return tick + (max(0, since - tick) // self.every + 1) * self.every
        return next(self._crons(since))

    async def ahead(self, tick: int, most: int, until: float = math.inf) -> list[int]:
        """So many ticks, of which ``tick`` is the first; none later than ``until``."""
        ticks = count(tick, self.every) if self.every else chain([tick], self._crons(tick))
        found = list[int]()
        for each in takewhile(lambda each: each <= until, ticks):
            found.append(each)
            if len(found) == most:
                break
            if len(found) % STEP == 0:
                await asyncio.sleep(0)
        return found

    def distance(self) -> int:
        """The shortest time between two ticks, in ms; of cron as if clocks were never put forward or back."""
        if self.every:
            return self.every
        cron = _Cron(self.cron, _ANY)
        times = [hour * 60 + minute for hour in sorted(cron.hours) for minute in sorted(cron.minutes)]
        days = [date(year, 1, 1).toordinal() + day for year in _COMPARED for day in _days(cron.day_fields, _kind(year))]
        over_night = min(later - day for day, later in pairwise(days)) * 1440 - times[-1] + times[0]
        return 60_000 * min([over_night, *(later - each for each, later in pairwise(times))])

    async def passed(self, tick: int, now: int, most: int) -> list[int]:
        """The ticks from this one until now; of more than so many the last."""
        if self.every:
            last = (now - tick) // self.every
            return [tick + number * self.every for number in range(max(0, last - most + 1), last + 1)]
        # Cron only runs forwards: look at longer and longer times before now.
        reach = _HOUR_MS
        while True:
            begin = max(tick, now - reach)
            found = deque([tick] if begin == tick else [], most)
            for place, each in enumerate(takewhile(lambda each: each <= now, self._crons(begin)), 1):
                found.append(each)
                if place % STEP == 0:
                    await asyncio.sleep(0)
            if begin == tick or len(found) == most:
                return list(found)
            reach *= 8

    def local(self, tick: int) -> str:
        """A tick by the clock on the wall, as RFC 3339 with the offset."""
        return datetime.fromtimestamp(tick // 1000, self.zone or ZoneInfo("UTC")).isoformat()

    def _crons(self, since: int) -> Iterator[int]:
        begin = datetime.fromtimestamp(since // 1000, self.zone)
        for moment in _Cron(self.cron, begin):
            tick = round(moment.timestamp()) * 1000
            # Where clocks go back or forward, times on the wall come twice.
            if tick > since:
                yield tick
                since = tick


class _Cron(CronSim):
    """Looks its days up, where the original walks from day to day: 29 February is some 160 steps away.

    And misses nothing where a zone puts its clocks by half an hour, as Australia/Lord_Howe does.
    Ends where there is no day within :data:`YEARS_MAX` years.
    """

    @property
    def day_fields(self) -> str:
        """Which days they are: day, month and weekday."""
        return " ".join(self.parts[3:])

    def advance_month(self) -> None:
        """Nothing: the day is looked for in all months."""

    def advance_day(self) -> bool:
        """Go to the next day that there is -> whether that is another one."""
        today = self.dt.date()
        if today.month in self.months and self.match_day(today):
            return False
        for year in range(today.year, today.year + YEARS_MAX + 1):
            begin, days = date(year, 1, 1), _days(self.day_fields, _kind(year))
            place = bisect_left(days, (today - begin).days)
            if place < len(days):
                self.dt = datetime.combine(begin + timedelta(days[place]), time(), tzinfo=self.dt.tzinfo)
                return True
        raise StopIteration

    def advance_hour(self) -> bool:
        """Go to the next hour that there is -> whether that is another one; from whole hour to whole hour.

        The original goes on by 60 minutes, and so past half an hour where a zone puts its clocks by as much.
        """
        if self.dt.hour in self.hours:
            return False
        while self.dt.hour not in self.hours:
            self.tick(3600 - 60 * self.dt.minute - self.dt.second)
            if self.dt.hour == 0:
                break  # which may be another day
        return True

    def advance_minute(self) -> bool:
        """Go towards the next minute that there is, to the next half hour at most: there clocks may be put."""
        minute = self.dt.minute
        if minute in self.minutes:
            return False
        later = min((each - minute) % 60 for each in self.minutes)
        self.tick(60 * min(later, 30 - minute % 30) - self.dt.second)
        return True


_Kind = tuple[bool, int]


def _kind(year: int) -> _Kind:
    """Which days a year has: of two alike, each date is on the same weekday."""
    return isleap(year), date(year, 1, 1).weekday()


_YEARS = {_kind(year): year for year in range(2000, 2000 + _CYCLE)}
"""One year of each kind."""


@lru_cache(maxsize=1024)
def _days(day_fields: str, kind: _Kind) -> tuple[int, ...]:
    """The days of cron in a year, of which the first is 0."""
    return tuple(_each_day(CronSim(f"0 0 {day_fields}", _ANY), kind))


def _each_day(cron: CronSim, kind: _Kind) -> Iterator[int]:
    begin = date(_YEARS[kind], 1, 1)
    days = (begin + timedelta(day) for day in range(365 + kind[0]))
    return (place for place, day in enumerate(days) if day.month in cron.months and cron.match_day(day))


def read_recurrence(every: object, cron: object, time_zone: str) -> Recurrence | None:
    """The ticks that a rule asks for; None if it runs by hand alone.

    Raises:
        Invalid: it cannot be read.
    """
    flaws = []
    if every is not None and cron is not None:
        raise Invalid.at("/cron", "expected either every or cron")
    if every is not None:
        try:
            if (every_ms := parse_duration(every)) < EVERY_MIN_MS:
                flaws.append(Flaw("/every", "expected at least 1 second"))
        except ValueError as error:
            flaws.append(Flaw("/every", str(error)))
    zone = None
    try:
        zone = _zone(time_zone)
    except (OSError, ValueError, KeyError):
        flaws.append(Flaw("/timeZone", "expected the IANA name of a time zone such as Europe/Berlin"))
    if isinstance(cron, str) and zone and (wrong := _wrong_with(cron, zone)):
        flaws.append(Flaw("/cron", wrong))
    if flaws:
        raise Invalid(*flaws)
    if every is not None:
        return Recurrence(every=every_ms, zone=zone)
    return Recurrence(cron=cron, zone=zone) if isinstance(cron, str) else None


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    if name in _OF_THE_MACHINE:
        raise ValueError(name)
    return ZoneInfo(name)


@lru_cache(maxsize=256)
def _wrong_with(cron: str, zone: ZoneInfo) -> str:
    """What was expected in place of a cron expression; nothing if it has a tick."""
    parts = cron.split()
    if len(cron) > CRON_MAX or len(parts) != len(_CRON_FIELDS):
        aliases = "; aliases such as @daily are not taken" if cron.startswith("@") else ""
        return f"expected minute, hour, day, month and weekday, such as 0 9 * * MON-FRI{aliases}"
    for place, (part, field) in enumerate(zip(parts, _CRON_FIELDS, strict=True)):
        if not _read_cron(" ".join(part if at == place else "*" for at in range(len(parts))), zone):
            return f"expected {field}, got {part}"
    read = _read_cron(cron, zone)
    kinds = {kind for kind in _YEARS if read and any(True for _ in _each_day(read, kind))}
    if not read or not kinds:
        return "expected a day that there is in one of the months"
    years = [year for year in range(2000, 2000 + 2 * _CYCLE) if _kind(year) in kinds]
    if max(later - year for year, later in pairwise(years)) > YEARS_MAX:
        return f"expected a day that there is every {YEARS_MAX} years or more often"
    return "" if next(read, None) else "expected a time that the clocks of the zone do not always skip"


def _read_cron(cron: str, zone: ZoneInfo) -> _Cron | None:
    try:
        return _Cron(cron, datetime.now(zone))
    except (CronSimError, OverflowError, ValueError):
        return None
