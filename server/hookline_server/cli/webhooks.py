"""Commands for those who receive webhooks: ``receive``, ``signing-secret``."""

from __future__ import annotations

from typing import Annotated

import typer

from hookline_server.cli.ending import FAILED, checked, fail, run
from hookline_server.cli.options import Data, settings

PANEL = "Receive webhooks"
app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def receive(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port, 0 for a free one.")] = 9000,
) -> None:
    """Show the webhooks that arrive on this machine, each answered with 204, until Ctrl-C.

    Examples:
      hookline receive
      hookline receive --port 9001
    """
    from hookline_server import receiver

    run(receiver.receive(port, typer.echo))


@app.command("signing-secret", rich_help_panel=PANEL)
def signing_secret(data: Data = None) -> None:
    """Print the secret that webhooks are signed with, for receivers to verify them (Standard Webhooks).

    Examples:
      hookline signing-secret
      hookline signing-secret --data /var/lib/hookline
    """
    from hookline.secret import SECRET_FILE, SecretBox, load_key
    from hookline_server.signature import format_secret

    found = settings(data=data)
    if found.secret_key is None and not (found.data / SECRET_FILE).exists():
        fail(f"there is no secret in {found.data} yet: name the server's --data, or start it")
        raise typer.Exit(FAILED)
    box = checked(lambda: SecretBox(load_key(found.secret_key, found.data)))
    typer.echo(format_secret(box.derive(f"webhook-signing:{found.namespace}")))
