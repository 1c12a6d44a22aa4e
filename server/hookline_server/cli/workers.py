"""Commands for those who work on jobs: ``worker``; and for who looks after them: ``workers list | quiet | stop``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookline.errors import HooklineError, InvalidApiKey
from hookline_server.cli.asking import Asked, Key, ask
from hookline_server.cli.ending import MISUSED, ending, fail, run
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url
from hookline_server.cli.output import columns, say_one, say_rows

if TYPE_CHECKING:
    from hookline import Worker

PANEL = "Work on jobs"
SEEN = "hookline workers list"
app = typer.Typer()
workers = typer.Typer(no_args_is_help=True)
app.add_typer(workers, name="workers", help="The workers that live: list, quiet, stop.", rich_help_panel="Operate")

WorkerId = Annotated[str, typer.Argument(help="Its workerId, as list shows it.")]


@app.command(rich_help_panel=PANEL)
def worker(
    target: Annotated[str, typer.Argument(help="The worker: MODULE:NAME, found from the current directory on.")],
    processes: Annotated[int, typer.Option(min=1, max=256, help="Processes, each with a worker of its own.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a Python file changes here.")] = False,
) -> None:
    """Run a worker until Ctrl-C or SIGTERM: then it finishes what runs, or gives it back once its grace is over.

    A process that dies is started again, but not after 2 and 5. Exit codes: 0 stopped, 1 it could not work, 2 there is
    no such worker or its module breaks (file and line are said), 3 it works straight on a store that is away as it
    starts, 5 its API key is not good, or not for this key, 7 a handler would not end.

    Examples:
      hookline worker reports:worker
      hookline worker reports:worker --processes 4
      hookline worker reports:worker --reload
    """
    if processes > 1 or reload:
        from hookline_server.crew import Crew

        crew = Crew(
            target, processes, reload=Path.cwd() if reload else None, say=lambda line: typer.echo(line, err=True)
        )
        raise typer.Exit(run(crew.run()))
    import logging

    from hookline.runner import LOG_FORMAT
    from hookline.work import work
    from hookline_server.crew import MEMBER

    found = _load(target)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # of a handler's SyncClient: it tells every request
    with ending(_next_step):
        work(found, with_parent=os.environ.pop(MEMBER, None) is not None)


def _next_step(error: HooklineError) -> str:
    """What helps a worker, whose API key comes from its own code."""
    return "give its Client a good one: Client(url, api_key=...)" if isinstance(error, InvalidApiKey) else ""


@workers.command("list")
def show_all(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Show the workers that were heard of in the last 20 seconds.

    Examples:
      hookline workers list
      hookline workers list --json | jq .inFlight
    """
    names = ("key", "workerId", "host", "pid", "handlers", "concurrency", "inFlight", "seenAt", "signal")
    answer = ask((url, api_key), "GET", "workers", seen=SEEN)
    found, left_out = answer["workers"], answer.get("leftOut", 0)
    say_rows(found if as_json else [columns(each, *names) for each in found], as_json=as_json)
    if left_out:
        typer.echo(f"and at least {left_out:,} more", err=True)


@workers.command()
def quiet(key: Key, worker_id: WorkerId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Ask a worker to claim no more, and to finish what it holds; it learns of it within seconds.

    Example:
      hookline workers quiet jobs web-1-4711-9f3a0c12
    """
    _signal((url, api_key), (key, worker_id), "quiet", as_json=as_json)


@workers.command()
def stop(key: Key, worker_id: WorkerId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Ask a worker to stop, as SIGTERM does; it learns of it within seconds.

    Example:
      hookline workers stop jobs web-1-4711-9f3a0c12
    """
    _signal((url, api_key), (key, worker_id), "stop", as_json=as_json)


def _signal(server: Asked, worker: tuple[str, str], signal: str, *, as_json: bool) -> None:
    ask(server, "POST", "workers", *worker, seen=SEEN, body={"signal": signal})
    say_one({"key": worker[0], "workerId": worker[1], "signal": signal}, as_json=as_json)


def _load(target: str) -> Worker:
    """The worker that MODULE:NAME names; where there is none the process ends."""
    from importlib import import_module

    from hookline import Worker

    module, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), name or "worker")
    except Exception as error:  # whatever the module does when it is imported
        fail(f"{target}: {_where(error)}{_what(error)}")
    else:
        if isinstance(found, Worker):
            return found
        fail(f"{target}: expected a Worker, not {type(found).__name__}")
    raise typer.Exit(MISUSED)


def _where(error: Exception) -> str:
    """File and line at which an import broke: the innermost of those below the current directory, if there are any."""
    import traceback

    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    code = [place for place in places if place[0].is_file() and place[0] != Path(__file__)]
    code = [place for place in code if place[0].parent.name != "importlib"]
    own = [place for place in code if Path.cwd() in place[0].parents] or code
    return f"{own[-1][0]}, line {own[-1][1]}: " if own else ""


def _what(error: Exception) -> str:
    """What broke; where there is no value before it, Python's word for that as well."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
