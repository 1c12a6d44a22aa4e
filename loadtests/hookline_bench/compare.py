"""Two runs beside each other."""

from __future__ import annotations

from hookline_bench.figure import Figure, Results
from hookline_bench.report import number


def compared(before: Results, after: Results) -> str:
    """A table of the figures that both have, as Markdown: change is by how much the later is better, 1.00 no change."""
    earlier = {figure.id: figure for figure in before.figures}
    lines = [
        f"Before: {_which(before)}",
        f"After:  {_which(after)}",
        "",
        "| figure | unit | before | after | change | share before | share after | change |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [_row(earlier[figure.id], figure) for figure in after.figures if figure.id in earlier]
    alone = [figure.id for figure in after.figures if figure.id not in earlier]
    gone = sorted(set(earlier) - {figure.id for figure in after.figures})
    lines += [f"Only {where}: {'; '.join(names)}" for where, names in (("before", gone), ("after", alone)) if names]
    return "\n".join(lines)


def _which(results: Results) -> str:
    made = results.made
    return f"{made['made']}, commit {made['commit']}, {made['durability']}, {made['machine']['processor']}"


def _row(before: Figure, after: Figure) -> str:
    change = after.value / before.value if after.rises else before.value / after.value
    cells = [after.id, after.unit, number(before.value), number(after.value), f"{change:.2f}"]
    if before.floors and after.floors:
        shares = before.share(before.floors[0]), after.share(after.floors[0])
        cells += [f"{shares[0]:.2f}", f"{shares[1]:.2f}", f"{shares[1] / shares[0]:.2f}"]
    else:
        cells += [""] * 3
    return f"| {' | '.join(cells)} |"
