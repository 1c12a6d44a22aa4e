"""Charts of a run, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from hdrh.histogram import HdrHistogram
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullFormatter

from hookline_bench.figure import Figure, Results
from hookline_bench.soak import Sample

mpl.use("agg")
_OURS, _FLOOR = "#1f6feb", "#c9d1d9"
_PERCENTS = (50, 75, 90, 95, 99, 99.5, 99.9)


def draw(results: Results, out: Path) -> list[Path]:
    """What there is to draw -> the files."""
    rates = [figure for figure in results.figures if figure.rises]
    charts = [_rates(rates, way, out) for way in ("store", "http") if any(figure.way == way for figure in rates)]
    latencies = [figure for figure in results.figures if figure.rate is not None]
    return charts + ([_latencies(latencies, out)] if latencies else [])


def _rates(figures: list[Figure], way: str, out: Path) -> Path:
    """Bars of each figure before those of its lowest floor."""
    shown = [figure for figure in figures if figure.way == way]
    drawing = Drawing(figsize=(9, 2 + 0.34 * len(shown)), layout="constrained")
    axes = drawing.subplots()
    names = [f"{figure.scenario} {figure.name}, {figure.processes}" for figure in shown]
    places = range(len(shown))
    axes.barh(places, [figure.floors[-1].value for figure in shown], 0.8, color=_FLOOR, label="floor")
    axes.barh(places, [figure.value for figure in shown], 0.45, color=_OURS, label="Hookline")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("a second")
    axes.set_title(f"{'Straight to the store' if way == 'store' else 'Over HTTP'}, by number of processes")
    axes.legend(loc="lower right")
    return _saved(drawing, out / f"rates-{way}.png")


def _latencies(figures: list[Figure], out: Path) -> Path:
    """Latency by percentile, a line for each rate."""
    drawing = Drawing(figsize=(9, 5), layout="constrained")
    axes = drawing.subplots()
    for figure in figures:
        histogram = HdrHistogram.decode(figure.histogram.encode())
        times = [histogram.get_value_at_percentile(percent) / 1000 for percent in _PERCENTS]
        label = f"{figure.way}, {figure.rate:g} a second, processes: {figure.processes}"
        axes.plot([f"{percent:g}" for percent in _PERCENTS], times, marker="o", label=label)
    axes.set_yscale("log")
    axes.set_xlabel("percentile")
    axes.set_ylabel("ms since the job was due to be created")
    axes.set_title("Latency at fixed arrival rates")
    axes.legend()
    return _saved(drawing, out / "latency.png")


def draw_soak(samples: Sequence[Sample], path: Path) -> Path:
    """Memory and latency over the time of a soak."""
    drawing = Drawing(figsize=(9, 6), layout="constrained")
    memory, latency = drawing.subplots(2, sharex=True)
    minutes = [sample.minute for sample in samples]
    memory.plot(minutes, [sample.store_mib for sample in samples], label="store")
    memory.plot(minutes, [sample.server_mib for sample in samples], label="server")
    memory.set_ylabel("MiB")
    latency.plot(minutes, [sample.p50 for sample in samples], label="p50")
    latency.plot(minutes, [sample.p99 for sample in samples], label="p99")
    latency.set_ylabel("ms")
    latency.set_yscale("log")
    latency.set_xlabel("minutes")
    for axes in (memory, latency):
        axes.legend()
    return _saved(drawing, path)


def _saved(drawing: Drawing, path: Path) -> Path:
    drawing.savefig(path, dpi=110)
    return path
