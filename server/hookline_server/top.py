"""``hookline top``: a server's vitals, again and again, on a terminal or as lines."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hookline.errors import Unavailable
from hookline_server.table import plain
from hookline_server.vitals import PACE, KeyVitals, Monitor, Vitals

ROWS_MAX = 20
"""Keys, and workers, that are shown: those with the most to do."""
SHOWN = {"not_started": "waiting", "started": "started", "completed": "completed", "failed": "failed"}
SHOWN |= {"scheduled": "scheduled", "cancelled": "cancelled", "other": "other"}
"""Statuses as columns."""
ALWAYS = ("waiting", "started", "done/s", "oldest", "completed")
"""Columns that come first, even if they say nothing; the others only if they do, so that 80 columns do mostly."""
WORD_MIN = 12
"""As narrow as a column of words becomes, in columns of a terminal, before those at the right are left out."""
_WORDS = ("namespace", "key", "worker", "host", "handlers")
_SIGN = re.compile(r" \((paused|quiet|stop)\)$")
"""What is said behind a name."""


@dataclass
class Away:
    """No server answers: since when (a clock of seconds), and why."""

    url: str
    since: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As it reads in JSON."""
        return {"url": self.url, "up": False, "error": self.reason}


Look = Vitals | Away


def looks(monitor: Monitor, every: float) -> Iterator[Look]:
    """The server, each ``every`` seconds, with rates from the second time on; while it is away, that it is.

    Raises:
        HooklineError: the server refused to tell, which will not change by itself.
    """
    before: Look | None = None
    while True:
        try:
            now: Look = monitor.look()
        except Unavailable as error:
            now = Away(monitor.url, before.since if isinstance(before, Away) else time.monotonic(), str(error))
        if isinstance(now, Vitals) and isinstance(before, Vitals):
            now.since(before)
        yield now
        before = now
        time.sleep(every)


def once(monitor: Monitor, every: float) -> Vitals:
    """The server, with rates over ``every`` seconds.

    Raises:
        Unavailable: no server answers.
        HooklineError: the server refused to tell.
    """
    before = monitor.look()
    time.sleep(every)
    return monitor.look().since(before)


def follow(monitor: Monitor, every: float, *, as_json: bool, console: Console) -> None:
    """Show the server until interrupted: on a terminal in place, else one after the other; ``as_json`` a line each.

    Raises:
        HooklineError: the server refused to tell.
    """
    with _screen(console, as_json=as_json) as show:
        for look in looks(monitor, every):
            show(look, every)


@contextmanager
def _screen(console: Console, *, as_json: bool) -> Iterator[Callable[[Look, float], None]]:
    if as_json:
        yield lambda look, _: print(to_json(look), flush=True)
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
            yield lambda look, every: live.update(render(look, every), refresh=True)
    else:
        yield lambda look, every: console.print(render(look, every))


def to_json(look: Look) -> str:
    """A look as one line of JSON."""
    return json.dumps(look.to_dict())


def render(look: Look, every: float) -> RenderableType:
    """A look as it is shown to people."""
    title = Text.assemble(("hookline top", "bold"), f"  {look.url}  every {_duration(every)}")
    if isinstance(look, Away):
        waited = _duration(time.monotonic() - look.since)
        again = f"Trying again every {_duration(every)}; away for {waited}."
        return Group(title, Text(plain(look.reason), style="bold red"), Text(again))
    title.append(f"  version {look.version}, processes {look.processes}")
    parts: list[RenderableType] = [title]
    parts += [
        Text(f"The store of namespace {name} does not answer: what it holds is not shown.", style="bold red")
        for name, up in look.stores.items()
        if not up
    ]
    return Group(*parts, Text(_pace(look)), Text(_webhooks(look)), *_keys(look), *_workers(look))


def _pace(look: Vitals) -> str:
    if look.rates is None:
        return "per second  as of the next look"
    return "per second  " + "  ".join(f"{verb} {look.rates[verb]:,.1f}" for verb in PACE)


def _webhooks(look: Vitals) -> str:
    states = "  ".join(f"{state} {count:,}" for state, count in look.deliveries.items())
    return f"outbox  events {look.outbox:,}  lag {_duration(look.lag)}    deliveries  {states or 'none'}"


def _keys(look: Vitals) -> list[RenderableType]:
    if not look.keys:
        return [Text("no items")] if all(look.stores.values()) else []
    several = len({key.namespace for key in look.keys}) > 1
    figures = [_figures(key) for key in look.keys[:ROWS_MAX]]
    told = [name for name in figures[0] if name not in ALWAYS and any(row[name] != "0" for row in figures)]
    shown = [*ALWAYS, *told]
    rows = [
        [*[key.namespace] * several, key.key + " (paused)" * key.paused, *(row[name] for name in shown)]
        for key, row in zip(look.keys, figures, strict=False)
    ]
    table = _Rows([*["namespace"] * several, "key", *shown], rows)
    left_out = look.keys_left_out + max(0, len(look.keys) - ROWS_MAX)
    return [table, *([Text(f"and {left_out:,} more keys")] if left_out else [])]


def _figures(key: KeyVitals) -> dict[str, str]:
    """What is told of a key, by the name of its column."""
    counts = {name: f"{key.statuses.get(status, 0):,}" for status, name in SHOWN.items()}
    done = "" if key.completed is None else f"{key.completed:,.1f}"
    locks = {word: f"{key.locks[word]:,}" for word in ("expired", "lost", "refused")}
    return {**counts, "done/s": done, "oldest": _duration(key.oldest) if key.claimable else "", **locks}


def _workers(look: Vitals) -> list[RenderableType]:
    workers = look.workers
    if not workers:
        return [Text("no workers")] if all(look.stores.values()) else []
    rows = []
    for worker in sorted(workers, key=lambda each: (-each.in_flight, each.worker_id))[:ROWS_MAX]:
        signal = f" ({worker.signal})" if worker.signal else ""
        figures = (f"{worker.in_flight:,}", f"{worker.concurrency:,}")
        rows.append([worker.worker_id + signal, worker.key, *figures, f"{worker.host}:{worker.pid}"])
        rows[-1].append(", ".join(worker.handlers))
    table = _Rows(["worker", "key", "in flight", "slots", "host", "handlers"], rows)
    left_out = workers.left_out + max(0, len(workers) - ROWS_MAX)
    least = "at least " if workers.left_out else ""
    return [table, *([Text(f"and {least}{left_out:,} more workers")] if left_out else [])]


@dataclass
class _Rows:
    """Rows under the names of their columns, the first of which is of words.

    Where the terminal is narrow words are cut, figures never: they are whole, or left out with what is right of them.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [[plain(cell) for cell in row] for row in self.rows]
        widths = [max(map(cell_len, cells)) for cells in zip(self.names, *rows, strict=True)]
        words = [place for place, name in enumerate(self.names) if name in _WORDS]
        least = [min(width, WORD_MIN) if place in words else width for place, width in enumerate(widths)]
        # Two cells stand between columns, and one at either end.
        fit = max(1, sum(needed <= options.max_width for needed in accumulate(width + 2 for width in least)))
        widths = widths[:fit]
        while sum(widths) + 2 * fit > options.max_width and max(widths) > 1:
            widths[max((place for place in words if place < fit), key=widths.__getitem__)] -= 1
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name, width in zip(self.names, widths, strict=False):
            side: JustifyMethod = "left" if name in _WORDS else "right"
            table.add_column(name, justify=side, width=width, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*map(_narrowed, row[:fit], widths))
        yield table
        if fit < len(self.names):
            yield Text(f"no room for {', '.join(self.names[fit:])}")


def _narrowed(cell: str, width: int) -> Text:
    """A cell, of which a name is cut in its middle where something is said behind it."""
    sign = _SIGN.search(cell)
    room = width - len(sign[0]) - 1 if sign else 0
    if sign and room > 1 and cell_len(cell) > width:
        name, end = cell[: sign.start()], room // 2
        cell = f"{set_cell_size(name, room - end)}…{set_cell_size(name[::-1], end)[::-1]}{sign[0]}"
    return Text(cell)


def _duration(seconds: float) -> str:
    """About how long, in the two largest units."""
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    counts = [(days, "d"), (hours, "h"), (minutes, "m"), (left, "s")]
    first = next(place for place, (count, _) in enumerate(counts) if count)
    return " ".join(f"{count}{unit}" for count, unit in counts[first : first + 2] if count)
