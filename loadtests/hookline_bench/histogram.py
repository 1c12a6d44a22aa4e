"""Latencies as HdrHistograms: exact to three digits, whatever their number, and they add up over processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hdrh.histogram import HdrHistogram

MOST_US = 120_000_000
DIGITS = 3
SHOWN = (50.0, 90.0, 99.0, 99.9)


def encoded(seconds: Iterable[float]) -> str:
    """Latencies as the text of a histogram of microseconds."""
    histogram = HdrHistogram(1, MOST_US, DIGITS)
    for each in seconds:
        histogram.record_value(max(1, min(MOST_US, round(each * 1e6))))
    text: str = histogram.encode().decode()
    return text


def merged(texts: Iterable[str]) -> str:
    """One histogram of several."""
    whole = HdrHistogram(1, MOST_US, DIGITS)
    for text in texts:
        whole.add(HdrHistogram.decode(text.encode()))
    together: str = whole.encode().decode()
    return together


def percentiles(text: str) -> dict[str, float]:
    """The usual percentiles and the largest, in milliseconds; none of an empty histogram."""
    histogram: Any = HdrHistogram.decode(text.encode())
    if not histogram.get_total_count():
        return {}
    shown = {f"p{percent:g}": histogram.get_value_at_percentile(percent) / 1000 for percent in SHOWN}
    return shown | {"max": histogram.get_max_value() / 1000}
