"""How far a long command is: a bar on a terminal, else a line now and then. On stderr, so it mixes with no output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Say = Callable[[str], None]
Advance = Callable[[int, int | None], None]
"""Takes how much is done, and of how much (None: nobody knows)."""
SAY_EVERY_S = 5.0


def tell(line: str) -> None:
    """Say a line that is no output."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def showing(title: str, say: Say) -> Iterator[tuple[Advance, Say]]:
    """Show progress -> how to tell of it, and how to say a line meanwhile without breaking a bar."""
    # Not with the module: also a server has it, which must not wait for rich to load.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(title), say
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task(title, total=None)

        def advance(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        def say_above(line: str) -> None:
            progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        # What goes to the same terminal belongs above the bar.
        yield advance, say_above if say is tell or sys.stdout.isatty() else say


def _lines(title: str) -> Advance:
    last = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SAY_EVERY_S:
            last = time.monotonic()
            tell(f"{title}: {done}" + ("" if total is None else f" of {total}"))

    return advance
