"""The server: ``serve``; ``demo``, which shows it; ``openapi``, which describes it."""

from __future__ import annotations

from typing import Any

import typer

from hookline_server.cli import configuration
from hookline_server.cli.ending import DONE, FAILED, run
from hookline_server.cli.options import Json, settings
from hookline_server.cli.output import say_documents

PANEL = "Run a server"
app = typer.Typer()


def serve(**given: Any) -> None:
    """Run the server until Ctrl-C.

    Each option has a variable too: --call-timeout is HOOKLINE_CALL_TIMEOUT, --store
    is HOOKLINE_STORE_URL; HOOKLINE_SECRET_KEY has no option. Options win over the
    environment, and that over the file of --config. Durations may have a unit, such
    as 500ms or 30s. docs/configuration.md has all of this on one page.

    Examples:
      hookline serve
      hookline serve --port 9090 --data /var/lib/hookline
      hookline serve --store redis://127.0.0.1:6379/0 --workers 4 --drain 5s
      hookline serve --store redis://127.0.0.1:6379/0 --roles relay,orchestrator
    """
    from hookline_server import logs
    from hookline_server.serve import serve as serve_forever

    chosen = settings(**given)
    logs.set_up(chosen)
    run(serve_forever(chosen, typer.echo))


serve.__signature__ = configuration.signature()  # type: ignore[attr-defined]
app.command(rich_help_panel=PANEL)(serve)


@app.command(rich_help_panel=PANEL)
def demo(as_json: Json = False) -> None:
    """Play a job's whole life: server, worker and webhooks, all real and all on this machine. Ends within 30 s.

    Ends with 1 if a promise was not held.

    Examples:
      hookline demo
      hookline demo --json
    """
    from rich.console import Console

    from hookline_server.demo import play

    played = run(play(Console(quiet=as_json)))
    if as_json:
        say_documents([played])
    raise typer.Exit(DONE if played["held"] else FAILED)


@app.command(rich_help_panel=PANEL)
def openapi() -> None:
    """Print the API's document (OpenAPI 3.1), as the server has it at /openapi.json.

    Example:
      hookline openapi > openapi.json
    """
    import msgspec

    from hookline_server.app import ROUTES
    from hookline_server.openapi import build

    typer.echo(msgspec.json.format(msgspec.json.encode(build(ROUTES))))
