"""The report of a run: Markdown, and charts beside it."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from hookline_bench.charts import draw
from hookline_bench.figure import Figure, Results

_COSTS = {"store_us": "store", "server_us": "server", "load_us": "load"}


def write(results: Results, out: Path) -> Path:
    """The report and its charts in a directory -> the report's file."""
    charts = draw(results, out)
    path = out / "report.md"
    lines = [*head(results), *tables(results.figures), *_memory(results), *_pictures(charts)]
    path.write_text("\n".join(lines) + "\n")
    return path


def head(results: Results) -> list[str]:
    """Where and how it was made."""
    made = results.made
    machine, versions, options = made["machine"], made["versions"], made["options"]
    return [
        "# Measured",
        "",
        f"{made['made']}, commit {made['commit']}, {made['took']:.0f} s. Nothing was lost: each turn checks.",
        "",
        f"- Machine: {machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB",
        f"- System: {machine['system']}; load before: {machine['load_before']}",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
        f"- Durability: {made['durability']}, for the floors too",
        f"- Turns: {options['turns']}, of {options['seconds']:g} s or {options['jobs']:,} jobs of 200 bytes",
        "",
        "*Share* is of the floor: the same work without Hookline, in the same run; 1.00 is as good, whatever the unit.",
        "Machines are shared and noisy: compare shares, not figures. Processor time is in microseconds for each unit.",
    ]


def tables(figures: list[Figure]) -> list[str]:
    """A table for each scenario."""
    lines: list[str] = []
    for scenario, group in groupby(sorted(figures, key=lambda figure: figure.scenario), lambda figure: figure.scenario):
        lines += [
            "",
            f"## {scenario}",
            "",
            "| what | way | processes | value | floor | share | processor time | p50 / p99 / p99.9 / max ms |",
            "|---|---|--:|--:|---|---|---|---|",
        ]
        lines += [_row(figure) for figure in group]
    return lines


def _row(figure: Figure) -> str:
    floors = "; ".join(f"{floor.name} {number(floor.value)}" for floor in figure.floors)
    shares = "; ".join(f"{figure.share(floor):.2f}" for floor in figure.floors)
    costs = ", ".join(f"{word} {figure.cost[name]:.0f}" for name, word in _COSTS.items() if name in figure.cost)
    latency = figure.latency
    times = " / ".join(f"{latency[name]:.2f}" for name in ("p50", "p99", "p99.9", "max")) if latency else ""
    value = f"{number(figure.value)} {figure.unit}"
    return f"| {figure.name} | {figure.way} | {figure.processes} | {value} | {floors} | {shares} | {costs} | {times} |"


def number(value: float) -> str:
    """As few digits as say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _memory(results: Results) -> list[str]:
    """What the server needed at each number of connections, if there was more than one."""
    found = results.made.get("server_mib", {})
    shown = ", ".join(f"{mib:.0f} with {size}" for size, mib in found.items())
    return ["", f"Memory of the server process in MiB, by connections: {shown}"] if found else []


def _pictures(charts: list[Path]) -> list[str]:
    return [line for chart in charts for line in ("", f"![{chart.stem}]({chart.name})")]
