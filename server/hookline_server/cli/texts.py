"""Commands that ask a running server: ``run``, ``shell``, ``orchestrate``."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from hookline_server.cli.ending import MISUSED, checked, fail, run
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Output, Url

PANEL = "Use a server"
app = typer.Typer()


@app.command("run", rich_help_panel=PANEL)
def run_text(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="The text; - is standard input.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    output: Output = "json",
    as_json: Json = False,
) -> None:
    """Run a text of commands: FILE, or - for standard input.

    Examples:
      hookline run commands.txt
      echo '/datastore get items with key: jobs' | hookline run --output table -
    """
    from hookline_server import remote

    text = checked(lambda: file.read().decode(), file.name)
    run(remote.run_text(remote.Server(url, api_key), text, typer.echo, "lines" if as_json else output))


@app.command(rich_help_panel=PANEL)
def shell(url: Url = DEFAULT_URL, api_key: ApiKey = None, output: Output = "table") -> None:
    """A prompt for commands, with history, completion and colours; 'help' there lists them.

    The history is kept in $XDG_STATE_HOME/hookline/history, without texts that may
    have secrets in them.

    Examples:
      hookline shell
      hookline shell --url http://127.0.0.1:9090
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        fail("a shell needs a terminal; 'hookline run -' reads commands from a pipe")
        raise typer.Exit(MISUSED)
    from hookline_server.remote import Server
    from hookline_server.shell.session import Shell

    run(Shell(Server(url, api_key), output).run())


@app.command(rich_help_panel=PANEL)
def orchestrate(
    key: Annotated[str, typer.Option(help="Key whose items are claimed.")],
    limit: Annotated[int, typer.Option(min=1, max=500, help="Items per run, at most.")] = 10,
    every: Annotated[str, typer.Option(help="How often, e.g. 30s, 5m, 1h.")] = "5m",
    lock_for: Annotated[str, typer.Option(help="How long a worker has before its lock expires.")] = "10m",
    where: Annotated[str, typer.Option(help='Filters as JSON, e.g. {"type": "report"}.')] = "{}",
    once: Annotated[bool, typer.Option("--once", help="Run once and stop.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Claim waiting jobs of a key, and those whose lock has expired, with triggers on; again and again.

    Examples:
      hookline orchestrate --key jobs --limit 10 --every 5m --lock-for 10m
      hookline orchestrate --key jobs --where '{"type": "report"}' --once
    """
    from hookline.clock import parse_duration
    from hookline_server import remote

    checked(lambda: parse_duration(every), "--every")
    checked(lambda: parse_duration(lock_for), "--lock-for")
    filters: Any = checked(lambda: json.loads(where), "--where")
    run(
        remote.orchestrate(
            remote.Server(url, api_key),
            key=key,
            limit=limit,
            every=every,
            lock_for=lock_for,
            where=filters,
            once=once,
            say=typer.echo,
        )
    )
