"""Commands for those who receive webhooks: ``listen``, ``signing-secret``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hookline_server.cli.ending import FAILED, checked, fail, run
from hookline_server.cli.options import Data, Json, settings
from hookline_server.cli.output import say_documents

if TYPE_CHECKING:
    from hookline import Settings

PANEL = "Receive webhooks"
app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def listen(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port, 0 for a free one.")] = 9000,
    secret: Annotated[
        list[str] | None, typer.Option(help="A secret (whsec_...) that may have signed; can be given again.")
    ] = None,
    data: Data = None,
    status: Annotated[int, typer.Option(min=200, max=599, help="What each webhook is answered with.")] = 204,
    wait: Annotated[str, typer.Option(help="How long after it came: 10s, or never.")] = "0s",
    as_json: Json = False,
) -> None:
    """Show the webhooks that arrive on this machine, and whether they are signed, until Ctrl-C.

    Without --secret, that of the server in --data is taken, if there is one.

    Examples:
      hookline listen
      hookline listen --status 500
      hookline listen --port 9001 --wait never --secret whsec_...
    """
    from hookline.clock import parse_duration
    from hookline.secret import SECRET_FILE
    from hookline_server import receiver
    from hookline_server.signature import read_secret

    seconds = None if wait == "never" else checked(lambda: parse_duration(wait) / 1000)
    secrets = [checked(partial(read_secret, text)) for text in secret or ()]
    if not secrets:
        found = settings(data=data)
        if found.secret_key is not None or (found.data / SECRET_FILE).exists():
            secrets = [_signing_secret(found)]
    run(receiver.listen(port, typer.echo, secrets=secrets, status=status, wait=seconds, as_json=as_json))


@app.command("signing-secret", rich_help_panel=PANEL)
def signing_secret(data: Data = None, as_json: Json = False) -> None:
    """Print the secret that webhooks are signed with, for receivers to verify them (Standard Webhooks).

    Examples:
      hookline signing-secret
      hookline signing-secret --data /var/lib/hookline
    """
    from hookline.secret import SECRET_FILE
    from hookline_server.signature import format_secret

    found = settings(data=data)
    if found.secret_key is None and not (found.data / SECRET_FILE).exists():
        fail(f"there is no secret in {found.data} yet: name the server's --data, or start it")
        raise typer.Exit(FAILED)
    secret = format_secret(_signing_secret(found))
    if as_json:
        say_documents([{"signingSecret": secret}])
    else:
        typer.echo(secret)


def _signing_secret(found: Settings) -> bytes:
    from hookline.secret import SecretBox, load_key

    box = checked(lambda: SecretBox(load_key(found.secret_key, found.data)))
    return box.derive(f"webhook-signing:{found.namespace}")
