"""The server: ``serve``, and ``demo``, which shows it."""

from __future__ import annotations

from typing import Annotated

import typer

from hookline_server.cli.ending import FAILED, run
from hookline_server.cli.options import Data, settings

PANEL = "Run a server"
app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def serve(
    store: Annotated[
        str | None,
        typer.Option(
            help="URL of a Redis or Valkey, or of nodes of a cluster, with commas between; left out: the embedded one."
        ),
    ] = None,
    data: Data = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; left out: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on, 0 for a free one; left out: 8080.")
    ] = None,
) -> None:
    """Run the server until Ctrl-C.

    Options win over the environment.

    Examples:
      hookline serve
      hookline serve --port 9090 --data /var/lib/hookline
      hookline serve --store redis://127.0.0.1:6379/0
    """
    import logging
    import sys

    from hookline_server.serve import serve as serve_forever

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    run(serve_forever(settings(store_url=store, data=data, host=host, port=port), typer.echo))


@app.command(rich_help_panel=PANEL)
def demo() -> None:
    """Play a job's whole life: server, worker and webhooks, all real and all on this machine. Ends within 30 s.

    Example:
      hookline demo
    """
    from hookline_server.demo import play

    raise typer.Exit(0 if run(play()) else FAILED)
