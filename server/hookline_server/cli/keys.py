"""API keys: ``keys create | list | rotate | revoke``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hookline_server.cli.ending import run
from hookline_server.cli.options import Data, Json, Store, duration, settings
from hookline_server.cli.output import say_documents

PANEL = "Operate"
app = typer.Typer()
keys = typer.Typer(no_args_is_help=True)
app.add_typer(
    keys,
    name="keys",
    help="API keys: who may ask a server for what. (The keys of items: 'show keys' in the shell.)",
    rich_help_panel=PANEL,
)

Id = Annotated[str, typer.Argument(help="Its id: what stands between the first two _ of the key, as list shows it.")]
Lasts = Annotated[str | None, typer.Option(help="After how long it ends by itself, e.g. 90d; left out: never.")]


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    namespace: Annotated[
        str | None, typer.Option(help="The namespace that it is for; left out: the server's own namespace.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write, work or admin; may be repeated. Left out: all but admin.")
    ] = None,
    pattern: Annotated[
        list[str] | None, typer.Option(help="Item keys that it is limited to, such as reports.*; may be repeated.")
    ] = None,
    lasts: Lasts = None,
    store: Store = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an API key, and print it, which can be done only now.

    Safe beside running servers, which notice the first key within seconds: from
    then on they ask everybody for one.

    Examples:
      hookline keys create --name ops --scope admin
      hookline keys create --name reports --namespace acme --scope work --pattern 'reports.*'
    """
    from hookline import Settings
    from hookline_server import issuing

    limits = {"scopes": scope or ["read", "write", "work"], "patterns": pattern or []}
    found = settings(store_url=store, data=data)
    made = issuing.create(found, namespace or found.namespace, name=name, lasts=_seconds(lasts, "--lasts"), **limits)
    key, text = run(made)
    if namespace is None and found.namespace != Settings().namespace and not as_json:
        typer.echo(f"for namespace {key.namespace}:", err=True)
    _say(text, key.to_dict() | {"apiKey": text}, as_json=as_json)


@keys.command("list")
def show(store: Store = None, data: Data = None, as_json: Json = False) -> None:
    """Show the API keys of all namespaces, without their secrets.

    When one was last used is told to about a minute. A revoked one is shown for 30
    days, or until its namespace has 1,000.

    Examples:
      hookline keys list
      hookline keys list --store redis://127.0.0.1:6379/0 --data /var/lib/hookline
    """
    from hookline_server import issuing

    found = run(issuing.show(settings(store_url=store, data=data)))
    if as_json:
        say_documents(key.to_dict() for key in found)
    else:
        typer.echo("\n".join(issuing.lines(found)))


@keys.command()
def rotate(
    key_id: Id,
    grace: Annotated[str, typer.Option(help="For how long the one before is good.")] = "24h",
    lasts: Lasts = None,
    store: Store = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give an API key a new secret, and print the key. Its id and what it allows stay.

    Examples:
      hookline keys rotate 3f9c2a7d1b04
      hookline keys rotate 3f9c2a7d1b04 --grace 10m
    """
    from hookline_server import issuing

    found, seconds = settings(store_url=store, data=data), _seconds(grace, "--grace") or 0.0
    text = run(issuing.rotate(found, key_id, grace=seconds, lasts=_seconds(lasts, "--lasts")))
    _say(text, {"id": key_id, "apiKey": text}, as_json=as_json)


@keys.command()
def revoke(key_id: Id, store: Store = None, data: Data = None, as_json: Json = False) -> None:
    """End an API key: within five seconds no server takes it.

    Examples:
      hookline keys revoke 3f9c2a7d1b04
    """
    from hookline_server import issuing

    run(issuing.revoke(settings(store_url=store, data=data), key_id))
    _say(f"revoked {key_id}", {"id": key_id, "revoked": True}, as_json=as_json)


def _say(text: str, document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_documents([document])
    else:
        typer.echo(text)


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else duration(text, option) / 1000
