"""Commands for those who receive webhooks: ``listen``, ``signing-secret``, ``rotate-signing-secret``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from hookline_server.cli.ending import FAILED, checked, fail, run
from hookline_server.cli.options import Data, Json, Store, duration, settings
from hookline_server.cli.output import say_documents

PANEL = "Receive webhooks"
app = typer.Typer()

Namespace = Annotated[str | None, typer.Option(help="Whose secret; left out: the server's own namespace.")]


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

    Without --secret, that of the server in --data is taken, once it runs.

    Examples:
      hookline listen
      hookline listen --status 500
      hookline listen --port 9001 --wait never --secret whsec_...
    """
    from hookline.embedded import running
    from hookline.secret import SECRET_FILE
    from hookline_server import receiver, signing
    from hookline_server.signature import read_secret

    seconds = None if wait == "never" else duration(wait, "--wait") / 1000
    given = [checked(partial(read_secret, text), "--secret") for text in secret or ()]
    found = None if given else settings(data=data)

    async def find() -> Sequence[bytes]:
        # A store that does not run is not started for what arrives: its server may be about to.
        if found is None or not (found.store_url or running(found.data)):
            return given
        if found.secret_key is None and not (found.data / SECRET_FILE).exists():
            return given
        return await signing.secrets(found, found.namespace)

    run(receiver.listen(port, typer.echo, find, status=status, wait=seconds, as_json=as_json))


@app.command("signing-secret", rich_help_panel=PANEL)
def signing_secret(namespace: Namespace = None, store: Store = None, data: Data = None, as_json: Json = False) -> None:
    """Print the secret that webhooks are signed with, for receivers to verify them (Standard Webhooks).

    Examples:
      hookline signing-secret
      hookline signing-secret --data /var/lib/hookline
    """
    from hookline.secret import SECRET_FILE
    from hookline_server import signing
    from hookline_server.signature import format_secret

    found = settings(store_url=store, data=data)
    if found.secret_key is None and not (found.data / SECRET_FILE).exists():
        fail(f"there is no secret in {found.data} yet: name the server's --data, or start it")
        raise typer.Exit(FAILED)
    _say(format_secret(run(signing.secrets(found, namespace or found.namespace))[0]), as_json=as_json)


@app.command("rotate-signing-secret", rich_help_panel=PANEL)
def rotate_signing_secret(
    grace: Annotated[str, typer.Option(help="For how long the one before signs as well.")] = "24h",
    force: Annotated[bool, typer.Option("--force", help="Also while one before signs still, which then ends.")] = False,
    namespace: Namespace = None,
    store: Store = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Replace the secret that webhooks are signed with, and print the new one.

    Running servers sign with both until the grace is over, so give receivers the
    new one before. Triggers with a secret of their own are not concerned.
    While that lasts another rotation is refused: two secrets sign, not three.
    Where a secret is known to others, --grace 0s --force ends all but the new one.

    Examples:
      hookline rotate-signing-secret
      hookline rotate-signing-secret --grace 7d --namespace acme
      hookline rotate-signing-secret --grace 0s --force
    """
    from hookline_server import signing
    from hookline_server.signature import format_secret

    found, seconds = settings(store_url=store, data=data), duration(grace, "--grace") / 1000
    rotated = signing.rotate(found, namespace or found.namespace, seconds, force=force)
    _say(format_secret(run(rotated)), as_json=as_json)


def _say(secret: str, *, as_json: bool) -> None:
    if as_json:
        say_documents([{"signingSecret": secret}])
    else:
        typer.echo(secret)
