"""``hookline bench``: measure, compare, soak."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hookline_bench.figure import Results
from hookline_bench.run import SCENARIOS, WAYS, Options, Say, run
from hookline_bench.scenarios import Sizes
from hookline_server.cli.ending import FAILED, INTERRUPTED, MISUSED, Result, checked, fail
from hookline_server.cli.ending import run as until_done

app = typer.Typer(pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
OUT = Path("hookline-bench")
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="URL of a store on this machine, its namespace bench empty; else embedded."),
]

FSYNCS = ("always", "everysec", "no")
Fsync = Annotated[str, typer.Option(help=f"Of the embedded store: {', '.join(FSYNCS)}.")]
Out = Annotated[Path, typer.Option(file_okay=False, help="Directory of the results.")]


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    scenarios: Annotated[str, typer.Option(help="Which, with commas between.")] = ",".join(SCENARIOS),
    ways: Annotated[str, typer.Option(help="store (straight to it), http, or both.")] = ",".join(WAYS),
    processes: Annotated[str, typer.Option(help="Numbers of load and server processes, with commas between.")] = "1,2",
    seconds: Annotated[float, typer.Option(min=0.05, max=60, help="Of each turn that goes by time.")] = 1.0,
    jobs: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of each turn that goes by number.")] = 5000,
    rates: Annotated[str, typer.Option(help="Arrivals a second of the scenario latency.")] = "500,1000",
    turns: Annotated[int, typer.Option(min=1, max=25, help="Of which the median counts.")] = 1,
    store: StoreUrl = None,
    fsync: Fsync = "always",
    out: Out = OUT,
) -> None:
    """Measure this machine: each figure beside its floor, which is the same work without Hookline.

    Writes results.json, report.md and charts. Nothing but this machine is
    loaded, and all of it ends by itself.

    Examples:
      hookline bench
      hookline bench --scenarios enqueue,drain --ways store --turns 3
      hookline bench compare before/results.json after/results.json
    """
    if context.invoked_subcommand:
        return
    from hookline_bench.report import write

    options = Options(
        scenarios=_words(scenarios, SCENARIOS, "--scenarios"),
        ways=_words(ways, WAYS, "--ways"),
        processes=_counts(processes, "--processes"),
        sizes=Sizes(seconds, jobs, _rates(rates, "--rates")),
        turns=turns,
        store=store,
        fsync=_words(fsync, FSYNCS, "--fsync")[0],
    )
    with showing(options.steps()) as say:
        results = until_done(_endable(run(options, say)))
    _keep(results, out, write)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Results of one run.")],
    after: Annotated[Path, typer.Argument(help="Those of another.")],
) -> None:
    """Show what became of each figure from one run to another, as they are and as shares of their floors.

    Where machines or their load differ, only the shares say something.
    """
    from hookline_bench.compare import compared

    typer.echo(compared(checked(lambda: Results.read(before)), checked(lambda: Results.read(after))))


@app.command()
def scale(
    connections: Annotated[str, typer.Option(help="Numbers of clients over HTTP.")] = "1,10,100,1000,10000",
    partitions: Annotated[str, typer.Option(help="Numbers of partitions of a namespace.")] = "1,4,16,64",
    seconds: Annotated[float, typer.Option(min=0.05, max=60, help="Of each turn that goes by time.")] = 3.0,
    jobs: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of each turn that goes by number.")] = 10_000,
    turns: Annotated[int, typer.Option(min=1, max=25, help="Of which the median counts.")] = 3,
    out: Out = OUT / "scale",
) -> None:
    """Measure how figures change with connections, partitions and durability.

    Each figure is beside that of the first size. Writes results.json,
    report.md and charts. Ends by itself, after some minutes.

    Examples:
      hookline bench scale
      hookline bench scale --connections 1,5000 --partitions 1,16 --turns 1
    """
    from hookline_bench.report import write
    from hookline_bench.scale import Options as Sweeps
    from hookline_bench.scale import scale as sweep

    options = Sweeps(
        _counts(connections, "--connections", 10_000),
        _counts(partitions, "--partitions"),
        Sizes(seconds, jobs, ()),
        turns,
    )
    with showing(options.steps()) as say:
        results = until_done(_endable(sweep(options, say)))
    _keep(results, out, write)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.01, max=600, help="How long.")] = 30.0,
    store: StoreUrl = None,
    fsync: Fsync = "always",
    out: Out = OUT,
) -> None:
    """Load a server with the mixed blend for long: memory and latency every 10 seconds, the doctor at the end.

    Writes soak.json and soak.png. Ends with 1 if a job was lost, an index
    differs from its items, or memory has grown by more than a fifth.
    """
    from hookline_bench.charts import draw_soak
    from hookline_bench.soak import soak as load

    mode = _words(fsync, FSYNCS, "--fsync")[0]
    soaked = until_done(_endable(load(minutes, store, mode, typer.echo)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.json").write_text(json.dumps(asdict(soaked), indent=1) + "\n")
    draw_soak(soaked.samples, out / "soak.png")
    for flaw in soaked.flaws:
        fail(flaw)
    typer.echo(f"{soaked.created:,} jobs, flaws: {len(soaked.flaws)}; wrote {out / 'soak.json'} and its chart")
    raise typer.Exit(FAILED if soaked.flaws else 0)


async def _endable(work: Coroutine[Any, Any, Result]) -> Result:
    """Work that SIGTERM ends as Ctrl-C does: with the processes that it has started."""
    doing = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, doing.cancel)
    try:
        return await doing
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def showing(steps: int) -> Iterator[Say]:
    """A progress bar on stderr; where that is no terminal, a line for each step."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        began = time.monotonic()
        yield lambda text: print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=steps)
        yield lambda text: progress.update(task, advance=1, description=text)


def _keep(results: Results, out: Path, write: Callable[[Results, Path], Path]) -> None:
    """The results in a directory, and the report on standard output."""
    out.mkdir(parents=True, exist_ok=True)
    results.write(out / "results.json")
    report = write(results, out)
    Console().print(report.read_text(), markup=False, highlight=False, soft_wrap=True)
    typer.echo(f"Wrote {out / 'results.json'}, {report} and its charts", err=True)


def _words(text: str, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in known:
            fail(f"{option}: expected of {', '.join(known)}, got {word}")
            raise typer.Exit(MISUSED)
    return words


def _rates(text: str, option: str) -> tuple[float, ...]:
    """Arrivals a second."""

    def read() -> tuple[float, ...]:
        found = tuple(float(word) for word in text.split(","))
        if not all(0 < rate < math.inf for rate in found):
            raise ValueError("expected numbers above 0")
        return found

    return checked(read, option)


def _counts(text: str, option: str, most: int = 64) -> tuple[int, ...]:
    """Whole numbers from 1 on, each once, in order."""

    def read() -> tuple[int, ...]:
        found = tuple(sorted({int(word) for word in text.split(",")}))
        if not 1 <= found[0] <= found[-1] <= most:
            raise ValueError(f"expected 1 to {most:,}")
        return found

    return checked(read, option)
