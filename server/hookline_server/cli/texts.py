"""Commands that ask a running server: ``run``, ``shell``, ``orchestrate``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from hookline_server.cli.ending import MISUSED, checked, fail, run
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Output, Url, duration, seconds_too, server
from hookline_server.cli.value import read_value

PANEL = "Use a server"
app = typer.Typer()


@app.command("run", rich_help_panel=PANEL)
def run_text(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="A file with the text; - is standard input.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    output: Output = "json",
    as_json: Json = False,
) -> None:
    """Run a text of commands: in FILE, or piped to - as the second example has it.

    Examples:
      hookline run commands.txt
      echo '/datastore get items with key: jobs' | hookline run --output table -
    """
    from hookline_server import remote

    text = checked(lambda: file.read().decode(), file.name)
    run(remote.run_text(server(url, api_key), text, typer.echo, "lines" if as_json else output))


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
    from hookline_server.shell.session import Shell

    run(Shell(server(url, api_key), output).run())


@app.command(rich_help_panel=PANEL)
def orchestrate(
    key: Annotated[str, typer.Option(help="Key whose items are claimed.")],
    limit: Annotated[int, typer.Option(min=1, max=500, help="Items per run, at most.")] = 10,
    every: Annotated[
        str | None, typer.Option(callback=seconds_too, help="How often, e.g. 30s, 5m, 1h; left out: 5m.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help="In place of --every: when, e.g. '30 2 * * MON-FRI'.")] = None,
    time_zone: Annotated[str, typer.Option(help="IANA time zone of --cron.")] = "UTC",
    jitter: Annotated[str, typer.Option(help="Start each run up to so much later, at random.")] = "0s",
    lock_for: Annotated[
        str, typer.Option(callback=seconds_too, help="How long a worker has before its lock expires.")
    ] = "10m",
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, max=1000, help="So many of its items may be started at once.")
    ] = None,
    where: Annotated[str, typer.Option(help='Filters: JSON, @FILE or -, such as {"type": "report"}.')] = "{}",
    once: Annotated[bool, typer.Option("--once", help="Run once and stop.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Claim waiting jobs of a key, and those whose lock has expired, with triggers on; again and again.

    Nothing of it is stored: 'hookline orchestrations create' has the server do it.
    With --max-in-flight each run claims as many as are free then.

    Examples:
      hookline orchestrate --key jobs --limit 10 --every 5m --lock-for 10m
      hookline orchestrate --key jobs --cron '30 2 * * *' --time-zone Europe/Berlin --jitter 1m
      hookline orchestrate --key jobs --every 1s --max-in-flight 20 --json
      hookline orchestrate --key jobs --where '{"type": "report"}' --once
    """
    from hookline.recurrence import read_recurrence
    from hookline_server.foreground import Foreground
    from hookline_server.progress import tell

    claim: dict[str, Any] = {"workerId": "orchestrate", "limit": limit, "lockFor": lock_for, "triggers": "on"}
    duration(lock_for, "--lock-for")
    claim["where"] = read_value(where, "--where")
    if max_in_flight is not None:
        claim["maxInFlight"] = max_in_flight
    if every is not None:
        duration(every, "--every")
    jitter_ms = duration(jitter, "--jitter")
    every = every or (None if cron else "5m")
    recurrence = checked(lambda: read_recurrence(every, cron, time_zone))
    ticks = None if once else recurrence
    if ticks:
        tell(f"claims {f'every {every}' if every else f'at {cron}'} until Ctrl-C; --once claims once")
    run(Foreground(server(url, api_key), key, claim, ticks, jitter_ms, typer.echo, as_json).run())
