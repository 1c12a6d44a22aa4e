"""Webhooks that did not succeed at once: ``deliveries list | show | redrive | cancel``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hookline_server.cli.asking import Asked, ask, pages
from hookline_server.cli.ending import MISUSED, fail
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url
from hookline_server.cli.output import columns, say_items, say_none, say_one

PANEL = "Operate"
SEEN = "hookline deliveries list"
app = typer.Typer()
deliveries = typer.Typer(no_args_is_help=True)
app.add_typer(
    deliveries,
    name="deliveries",
    help="Webhooks of a server that did not succeed at once: list, show, redrive, cancel.",
    rich_help_panel=PANEL,
)

Id = Annotated[str, typer.Argument(help="Its id, as list shows it.", metavar="ID")]
OneId = Annotated[str | None, typer.Argument(help="Of one delivery; left out: those selected.", metavar="ID")]
Endpoint = Annotated[str | None, typer.Option(help="Those to this endpoint: its id, or its URL.", show_default=False)]
Event = Annotated[str | None, typer.Option(help="Of this event: created, updated or deleted.", show_default=False)]
Key = Annotated[str | None, typer.Option(help="Those of items of this key.", show_default=False)]
SortField = Annotated[str | None, typer.Option(help="Those of items of this sortField.", show_default=False)]
Since = Annotated[str | None, typer.Option(help="Those of events from this time on, RFC 3339.", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Those of events before this time, RFC 3339.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of them, where nothing else selects some.")]


@deliveries.command("list")
def show_all(
    status: Annotated[
        str | None,
        typer.Option(help="scheduled, not_started, started, failed, cancelled or completed.", show_default=False),
    ] = None,
    endpoint: Endpoint = None,
    event: Event = None,
    key: Key = None,
    sort_field: SortField = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default="all")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Show webhooks that did not succeed at once, endpoint by endpoint.

    Examples:
      hookline deliveries list --status failed
      hookline deliveries list --endpoint https://worker.example/run --limit 20 --json
    """
    selected = _selected(endpoint, event, key, sort_field, since, until) | {"status": status}
    found = pages((url, api_key), "deliveries", seen=SEEN, limit=limit, query=selected)
    if not say_items(found, as_json=as_json, row=_row):
        say_none(as_json=as_json)


@deliveries.command()
def show(delivery: Id, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Show one, with what came of its last attempts, and the body that it posts.

    Example:
      hookline deliveries show 8c1f0e5f2a6b4d7c9e03.msg_01
    """
    say_one(ask((url, api_key), "GET", "deliveries", delivery, seen=SEEN), as_json=as_json)


@deliveries.command()
def redrive(
    delivery: OneId = None,
    endpoint: Endpoint = None,
    event: Event = None,
    key: Key = None,
    sort_field: SortField = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Put a delivery that failed or was cancelled back in line, or all that failed of those selected, and say how many.

    Examples:
      hookline deliveries redrive 8c1f0e5f2a6b4d7c9e03.msg_01
      hookline deliveries redrive --endpoint https://worker.example/run --since 2027-01-01T00:00:00Z
      hookline deliveries redrive --all
    """
    selected = _selected(endpoint, event, key, sort_field, since, until)
    _change("redrive", delivery, selected, (url, api_key), everything=everything, as_json=as_json)


@deliveries.command()
def cancel(
    delivery: OneId = None,
    endpoint: Endpoint = None,
    event: Event = None,
    key: Key = None,
    sort_field: SortField = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Attempt a delivery that has not ended no more, or all those selected, and say how many.

    An attempt under way may still arrive.

    Examples:
      hookline deliveries cancel 8c1f0e5f2a6b4d7c9e03.msg_01
      hookline deliveries cancel --key jobs
    """
    selected = _selected(endpoint, event, key, sort_field, since, until)
    _change("cancel", delivery, selected, (url, api_key), everything=everything, as_json=as_json)


def _selected(
    endpoint: str | None, event: str | None, key: str | None, sort_field: str | None, *times: str | None
) -> dict[str, str | None]:
    """What selects deliveries, by the names that the server has for it."""
    from hookline_server.event import endpoint_of

    endpoint_id = endpoint_of(endpoint) if endpoint and "://" in endpoint else endpoint
    named = {"endpoint": endpoint_id, "event": event, "key": key, "sortField": sort_field}
    return named | dict(zip(("since", "until"), times, strict=True))


def _change(
    verb: str, delivery: str | None, selected: dict[str, str | None], server: Asked, *, everything: bool, as_json: bool
) -> None:
    given = {name: value for name, value in selected.items() if value is not None}
    if [delivery is not None, bool(given), everything].count(True) != 1:
        fail("expected either an ID, or what selects deliveries, such as --endpoint, or --all")
        raise typer.Exit(MISUSED)
    done, passed_over = 1, 0
    if delivery is not None:
        ask(server, "POST", "deliveries", delivery, verb, seen=SEEN)
    else:
        done, cursor = 0, None
        while True:
            body = given | ({"cursor": cursor} if cursor else {})
            changed = ask(server, "POST", "deliveries", verb, seen=SEEN, body=body)
            done, passed_over = done + changed["done"], passed_over + changed["passedOver"]
            cursor = changed["cursor"]
            if cursor is None:
                break
    say_one({"done": done, "passedOver": passed_over}, as_json=as_json)


def _row(delivery: dict[str, Any]) -> dict[str, Any]:
    item = f"{delivery['item']['key']}/{delivery['item']['sortField']}"
    return columns(
        {**delivery, "item": item}, "id", "status", "event", "url", "item", "attempts", "nextAt", "lastError"
    )
