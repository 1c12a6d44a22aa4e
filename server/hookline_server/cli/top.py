"""Watch a server: ``top``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hookline_server.cli.ending import MISUSED, ending, fail
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url, duration

PANEL = "Operate"
SHORTEST = 1.0
"""Seconds between two looks, at least: a server makes its page of figures anew once a second."""
app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def top(
    every: Annotated[str, typer.Option(help="Between two looks: 1s, 1m.")] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Look for as long as --every, tell, and end.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Watch a server: rates, items by status, oldest age, locks, outbox and workers, until Ctrl-C.

    While no server answers it says so, and tries again. Where API keys are asked
    for, one with scope admin, of the server's own namespace.

    Examples:
      hookline top
      hookline top --once --json | jq .rates
    """
    from rich.console import Console

    from hookline_server import top as watching
    from hookline_server.vitals import Monitor

    seconds = duration(every, "--every") / 1000
    if seconds < SHORTEST:
        fail("--every: expected at least 1s: a server counts anew once a second")
        raise typer.Exit(MISUSED)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    with ending(), Monitor(url, api_key) as monitor:
        if not once:
            watching.follow(monitor, seconds, as_json=as_json, console=console)
        vitals = watching.once(monitor, seconds)
        if as_json:
            typer.echo(watching.to_json(vitals))
        else:
            console.print(watching.render(vitals, seconds))
