"""When a rule runs: its ticks, by an interval or by cron in a time zone. No store, no clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain, count, islice, pairwise, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from hookline.clock import parse_duration
from hookline.errors import Flaw, Invalid

EVERY_MIN_MS = 1000
CRON_MAX = 200
"""Characters of a cron expression."""
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
_COMPARED, _COMPARED_FROM = 100, datetime(2024, 1, 1)  # noqa: DTZ001 - cron counts without a zone
"""So many ticks by cron are compared, the first ones of a leap year."""


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

    def ahead(self, tick: int, most: int, until: float = math.inf) -> list[int]:
        """So many ticks, of which ``tick`` is the first; none later than ``until``."""
        ticks = count(tick, self.every) if self.every else chain([tick], self._crons(tick))
        return list(islice(takewhile(lambda each: each <= until, ticks), most))

    def distance(self) -> int:
        """The shortest time between two ticks, in ms; of cron as if clocks were never put forward or back."""
        if self.every:
            return self.every
        found = islice(CronSim(self.cron, _COMPARED_FROM), _COMPARED)
        return min(round((later - tick).total_seconds() * 1000) for tick, later in pairwise(found))

    def passed(self, tick: int, now: int, most: int) -> list[int]:
        """The ticks from this one until now; of more than so many the last."""
        if self.every:
            last = (now - tick) // self.every
            return [tick + number * self.every for number in range(max(0, last - most + 1), last + 1)]
        # Cron only runs forwards: look at longer and longer times before now.
        reach = _HOUR_MS
        while True:
            begin = max(tick, now - reach)
            found = deque([tick] if begin == tick else [], most)
            for each in self._crons(begin):
                if each > now:
                    break
                found.append(each)
            if begin == tick or len(found) == most:
                return list(found)
            reach *= 8

    def local(self, tick: int) -> str:
        """A tick by the clock on the wall, as RFC 3339 with the offset."""
        return datetime.fromtimestamp(tick // 1000, self.zone or ZoneInfo("UTC")).isoformat()

    def _crons(self, since: int) -> Iterator[int]:
        begin = datetime.fromtimestamp(since // 1000, self.zone)
        for moment in CronSim(self.cron, begin):
            tick = round(moment.timestamp()) * 1000
            # Where clocks go back or forward, times on the wall come twice.
            if tick > since:
                yield tick
                since = tick


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
        if not _occurs(" ".join(part if at == place else "*" for at in range(len(parts))), zone):
            return f"expected {field}, got {part}"
    return "" if _occurs(cron, zone) else "expected a day that there is in one of the months"


def _occurs(cron: str, zone: ZoneInfo) -> bool:
    try:
        return next(CronSim(cron, datetime.now(zone)), None) is not None
    except (CronSimError, OverflowError, ValueError):
        return False
