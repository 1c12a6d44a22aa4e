"""The URLs that webhooks go to: ``endpoints list | show | limit | pause | activate | disable``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from hookline_server.cli.asking import Asked, ask, pages
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url
from hookline_server.cli.output import columns, say_items, say_none, say_one

PANEL = "Operate"
SEEN = "hookline endpoints list"
app = typer.Typer()
endpoints = typer.Typer(no_args_is_help=True)
app.add_typer(
    endpoints,
    name="endpoints",
    help="The URLs that webhooks of a server go to: list, show, limit, pause, activate, disable.",
    rich_help_panel=PANEL,
)

Endpoint = Annotated[str, typer.Argument(help="Its id, or its URL.")]
Reason = Annotated[str | None, typer.Option(help="Why, for people.", show_default=False)]


@endpoints.command("list")
def show_all(
    status: Annotated[
        Literal["active", "paused", "disabled"] | None, typer.Option(help="Those alone.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Show the endpoints that failed or were configured, and how many deliveries each has by status.

    Examples:
      hookline endpoints list
      hookline endpoints list --status disabled --json
    """
    found = pages((url, api_key), "endpoints", seen=SEEN, query={"status": status})
    if not say_items(found, as_json=as_json, row=_row):
        say_none(as_json=as_json)


@endpoints.command()
def show(endpoint: Endpoint, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Show one endpoint.

    Example:
      hookline endpoints show https://worker.example/run
    """
    say_one(_get((url, api_key), endpoint), as_json=as_json)


@endpoints.command()
def limit(
    endpoint: Endpoint,
    rate: Annotated[float | None, typer.Option(help="Attempts a second, of each server.", show_default="any")] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Attempts at once, of each server.", show_default="the server's")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Bound what an endpoint gets. A bound that is not given is taken away; what is above one waits in its lane.

    Examples:
      hookline endpoints limit https://worker.example/run --rate 5 --concurrency 2
      hookline endpoints limit https://worker.example/run
    """
    _set((url, api_key), endpoint, {"rate": rate, "concurrency": concurrency}, as_json=as_json)


@endpoints.command()
def pause(
    endpoint: Endpoint, reason: Reason = None, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Send no webhooks there for now; they are kept until it is active again. A URL may be one that never failed.

    Example:
      hookline endpoints pause https://worker.example/run --reason maintenance
    """
    _set((url, api_key), endpoint, {"status": "paused", "reason": reason}, as_json=as_json)


@endpoints.command()
def activate(endpoint: Endpoint, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Send webhooks there again, what was kept first; what is known of its failures is forgotten.

    Example:
      hookline endpoints activate https://worker.example/run
    """
    _set((url, api_key), endpoint, {"status": "active", "reason": None}, as_json=as_json)


@endpoints.command()
def disable(
    endpoint: Endpoint, reason: Reason = None, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False
) -> None:
    """Take an endpoint for gone, as its receiver may ask by 410; webhooks are kept all the same.

    Example:
      hookline endpoints disable https://worker.example/run --reason 'moved away'
    """
    _set((url, api_key), endpoint, {"status": "disabled", "reason": reason}, as_json=as_json)


def _get(server: Asked, endpoint: str) -> Any:
    from hookline_server.event import endpoint_of

    return ask(server, "GET", "endpoints", endpoint_of(endpoint) if "://" in endpoint else endpoint, seen=SEEN)


def _set(server: Asked, endpoint: str, wanted: dict[str, Any], *, as_json: bool) -> None:
    """What else was decided of it stays."""
    if "://" in endpoint:
        known = ask(server, "POST", "endpoints", seen=SEEN, body={"url": endpoint})
    else:
        known = _get(server, endpoint)
    body = {name: known[name] for name in ("status", "reason", "concurrency", "rate")} | wanted
    say_one(ask(server, "PUT", "endpoints", known["id"], seen=SEEN, body=body), as_json=as_json)


def _row(endpoint: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "url", "status", "reason", "since", "breaker", "retryAt", "concurrency", "rate", "deliveries")
    return columns(endpoint, *names)
