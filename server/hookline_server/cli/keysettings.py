"""The settings of a key: ``settings show | set``."""

from __future__ import annotations

from typing import Annotated

import typer

from hookline_server.cli.asking import Key, ask
from hookline_server.cli.ending import MISUSED, fail
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url, seconds_too
from hookline_server.cli.output import say_one
from hookline_server.cli.value import read_optional

PANEL = "Operate"
app = typer.Typer()
settings = typer.Typer(no_args_is_help=True)
app.add_typer(
    settings,
    name="settings",
    help="How the items of a key are claimed, retried, indexed and kept: show, set.",
    rich_help_panel=PANEL,
)


@settings.command()
def show(key: Key, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Show the settings of a key as they hold, defaults included.

    Example:
      hookline settings show jobs
    """
    say_one(ask((url, api_key), "GET", "keys", key, "settings", seen="hookline settings show KEY"), as_json=as_json)


@settings.command("set")
def change(
    key: Key,
    max_attempts: Annotated[
        int | None, typer.Option(help="Claims of an item; 0: no limit.", show_default=False)
    ] = None,
    lock_for: Annotated[
        str | None, typer.Option(callback=seconds_too, help="How long a claim holds, e.g. 10m.", show_default=False)
    ] = None,
    backoff: Annotated[
        str | None,
        typer.Option(
            callback=seconds_too, help="Before a failed item is claimed again: 30s, or JSON.", show_default=False
        ),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Items that it may hold.", show_default=False)] = None,
    indexes: Annotated[str | None, typer.Option(help="Field -> kind: JSON, @FILE or -.", show_default=False)] = None,
    retention: Annotated[
        str | None, typer.Option(help="Status -> age and count: JSON, @FILE or -.", show_default=False)
    ] = None,
    record_deliveries: Annotated[
        bool | None,
        typer.Option("--record-deliveries/--no-record-deliveries", help="Tell of webhooks that succeed at once too."),
    ] = None,
    trigger_urls: Annotated[
        str | None, typer.Option(help="URLs called for all its items: JSON, @FILE or -.", show_default=False)
    ] = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(help="Bring the default of lock-for, backoff, ... back; may be repeated.", show_default=False),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Change settings of a key, and show them all. What is not named stays; 'jobs pause' pauses it.

    Examples:
      hookline settings set jobs --max-attempts 5 --lock-for 15m
      hookline settings set jobs --backoff '{"first": "5s", "longest": "1h"}' --indexes '{"type": "string"}'
      hookline settings set jobs --retention '{"completed": {"age": "7d"}}' --reset max-attempts
    """
    given = {
        "maxAttempts": max_attempts,
        "lockFor": lock_for,
        "backoff": read_optional(backoff, "--backoff") if (backoff or "")[:1] in ("[", "{") else backoff,
        "maxLength": max_length,
        "indexes": read_optional(indexes, "--indexes"),
        "retention": read_optional(retention, "--retention"),
        "recordDeliveries": record_deliveries,
        "triggerUrls": read_optional(trigger_urls, "--trigger-urls"),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    for name in reset or ():
        if _camel(name) not in given:
            fail(f"--reset: expected an option of this command without its dashes, such as lock-for, and not {name}")
            raise typer.Exit(MISUSED)
        if changes.get(_camel(name)) is not None:
            fail(f"expected either --{name}, or --reset {name}")
            raise typer.Exit(MISUSED)
        changes[_camel(name)] = None
    if not changes:
        fail("expected what to change, such as --lock-for 15m or --reset lock-for; 'hookline settings show' shows all")
        raise typer.Exit(MISUSED)
    seen = f"hookline settings show {key}"
    say_one(ask((url, api_key), "PATCH", "keys", key, "settings", seen=seen, body=changes), as_json=as_json)


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(word.capitalize() for word in rest)
