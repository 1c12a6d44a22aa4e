"""Figures as Prometheus reads them. Loaded at the first scrape: the library takes longer to load than a page takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from hookline.figures import FAMILIES, Family, Labels, Row

Rows = Mapping[str, Mapping[Labels, Row]]


class _Page(Collector):
    """The families of one page; made anew for each, so nothing is registered for good."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def collect(self) -> Iterable[Metric]:
        return [_metric(family, self._rows.get(name, {})) for name, family in FAMILIES.items()]


def negotiate(accept: str) -> tuple[Callable[[Rows], bytes], str]:
    """What writes a page that this Accept header takes (OpenMetrics, or the text format 0.0.4), and its media type."""
    encode, media_type = choose_encoder(accept)
    return lambda rows: encode(_Page(rows)), media_type


def _metric(family: Family, rows: Mapping[Labels, Row]) -> Metric:
    name, text, labels = family.name, family.text, family.labels
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, text, labels=labels)
        bounds = [*(f"{bound:g}" for bound in family.bounds), "+Inf"]
        for values, (seen, *buckets) in rows.items():
            histogram.add_metric(values, list(zip(bounds, accumulate(buckets), strict=True)), seen)
        return histogram
    kind = GaugeMetricFamily if family.kind == "gauge" else CounterMetricFamily
    metric = kind(name, text, labels=labels)
    for values, (value,) in rows.items():
        metric.add_metric(values, value)
    return metric
