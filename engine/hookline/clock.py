"""Points in time and durations, as they are written outside and as they are kept: whole milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

Duration = str | int | float
"""Seconds as a number, or text such as ``500ms 30s 10m 2h 7d``."""
CURRENT_TIMESTAMP = "CURRENT_TIMESTAMP"
"""Stands for the store's clock at the moment the operation runs."""

# The hours are bounded here: Python reads 24:00 from 3.14 on, RFC 3339 and the scripts do not.
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ]((?:[01]\d|2[0-3]):\d{2}:\d{2})(\.\d{1,9})?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION_MAX_MS = 3650 * 86_400_000
"""Ten years: a longer lock or delay is a mistake in units."""

EXPECTED_TIME = "expected an RFC 3339 time such as 2024-03-15T10:00:00Z, or CURRENT_TIMESTAMP"
EXPECTED_DURATION = "expected seconds as a number, or a duration such as 500ms, 30s, 10m, 2h, 7d"


class OutOfYears(ValueError):
    """A time that is written as such, and in UTC is before the year 1 or after 9999."""


def parse_time(text: str) -> int:
    """RFC 3339 text -> milliseconds since 1970 (UTC); finer digits are cut off.

    Raises:
        OutOfYears: it is of none of the years 1 to 9999 in UTC.
        ValueError: the text is not an RFC 3339 time.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(EXPECTED_TIME)
    day, clock, fraction, sign, hours, minutes = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}+00:00")
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError(EXPECTED_TIME)
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        try:
            moment = moment - offset if sign == "+" else moment + offset
        except OverflowError:
            raise OutOfYears("expected a time of the years 1 to 9999 in UTC") from None
    millis = int((fraction or ".0")[1:4].ljust(3, "0"))
    return int((moment - _EPOCH).total_seconds()) * 1000 + millis


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_time(ms: int) -> str:
    """Milliseconds since 1970 -> RFC 3339 in UTC, with milliseconds only where they are not zero."""
    seconds, millis = divmod(ms, 1000)
    return f"{_format_second(seconds)}.{millis:03d}Z" if millis else f"{_format_second(seconds)}Z"


@lru_cache(maxsize=4096)
def _format_second(seconds: int) -> str:
    """The part that most times of a moment share."""
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def parse_duration(value: object) -> int:
    """Seconds as a number, or text such as ``500ms 30s 10m 2h 7d`` -> milliseconds.

    Raises:
        ValueError: the value is neither, is negative, or is longer than ten years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(EXPECTED_DURATION)
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError(EXPECTED_DURATION)
        millis = float(match[1]) * _UNIT_MS[match[2]]
    else:
        # Compared before it is multiplied: an integer of hundreds of digits is beyond any float.
        millis = value * 1000 if -1 < value < DURATION_MAX_MS else -1
    if not 0 <= millis <= DURATION_MAX_MS:
        raise ValueError(f"{EXPECTED_DURATION}, not negative and at most 3650d")
    return round(millis)


def format_duration(ms: int) -> str:
    """Milliseconds -> the shortest text that :func:`parse_duration` reads back, e.g. ``600000 -> 10m``."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _UNIT_MS[unit] == 0:
            return f"{ms // _UNIT_MS[unit]}{unit}"
    return f"{ms}ms"
