"""Items of a server: ``items create | get | query | update | delete``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hookline_server.cli.asking import Key, Mark, Page, SortField, asking, in_pages, new_mark
from hookline_server.cli.ending import MISUSED, fail
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url
from hookline_server.cli.output import say_items, say_none, say_one
from hookline_server.cli.value import EXPECTED, read_optional

PANEL = "Use a server"
app = typer.Typer()
items = typer.Typer(no_args_is_help=True)
app.add_typer(items, name="items", help="Items of a server: create, get, query, update, delete.", rich_help_panel=PANEL)

Content = Annotated[str | None, typer.Option(help=f"{EXPECTED}.", show_default=False)]
Metadata = Annotated[str | None, typer.Option(help="An object: JSON, @FILE or -.", show_default=False)]
TriggerUrls = Annotated[
    str | None, typer.Option(help="URLs that changes call, a list: JSON, @FILE or -.", show_default=False)
]
Triggers = Annotated[bool, typer.Option("--triggers/--no-triggers", help="Whether the change calls triggers.")]
Version = Annotated[int | None, typer.Option(min=1, help="Only if this is its version now.", show_default=False)]
Token = Annotated[str | None, typer.Option(help="Of the claim that holds it.", show_default=False)]
OnlyIf = Annotated[
    str | None, typer.Option("--if", help="Filters that its metadata must meet: JSON.", show_default=False)
]
Where = Annotated[
    str | None, typer.Option(help='Filters: JSON, @FILE or -, such as {"type": "report"}.', show_default=False)
]


@items.command()
def create(
    key: Key,
    sort_field: Annotated[
        str | None, typer.Argument(help="Its name within the key; left out: a new one, ordered by time.")
    ] = None,
    content: Content = None,
    metadata: Metadata = None,
    status: Annotated[
        str | None, typer.Option(help="Its metadata status, beside --metadata: not_started makes a job.")
    ] = None,
    trigger_urls: TriggerUrls = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Replace the one that is there, whole.")] = False,
    triggers: Triggers = True,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Create an item, and show it. With metadata status not_started it is a job.

    Without SORT_FIELD but with --idempotency-key, that is its sortField.

    Examples:
      hookline items create jobs --status not_started
      hookline items create jobs --metadata '{"status": "not_started", "type": "report"}'
      hookline items create docs readme --content @readme.json --upsert
      date +'"%c"' | hookline items create logs --content - --json
    """
    mark = new_mark(idempotency_key)
    given = {
        "content": read_optional(content, "--content"),
        "metadata": _with_status(read_optional(metadata, "--metadata"), status, "--metadata"),
        "trigger_urls": read_optional(trigger_urls, "--trigger-urls"),
    }
    with asking(url, api_key, mark) as client:
        made = client.create(key, mark if sort_field is None else sort_field, upsert=upsert, triggers=triggers, **given)
        say_one(_described(made), as_json=as_json)


@items.command()
def get(key: Key, sort_field: SortField, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Show one item.

    Examples:
      hookline items get jobs job-001
      hookline items get jobs job-001 --json | jq .metadata.status
    """
    with asking(url, api_key) as client:
        say_one(client.get(key, sort_field).to_dict(), as_json=as_json)


@items.command()
def query(
    key: Key,
    where: Where = None,
    status: Annotated[str | None, typer.Option(help="Only those with this status.", show_default=False)] = None,
    order: Annotated[
        str | None, typer.Option(help="sortField, status or a field with an index; :desc reverses.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default="all")] = None,
    count: Annotated[bool, typer.Option("--count", help="Say how many match, not which.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Show the items of a key that match, a page at a time, however many there are.

    Examples:
      hookline items query jobs --status failed --limit 20
      hookline items query jobs --json > jobs.ndjson
      hookline items query jobs --where '{"size": {"gt": 3}}' --count
    """
    if count and (order is not None or limit is not None):
        fail("expected either --count, or --order and --limit")
        raise typer.Exit(MISUSED)
    filters = _with_status(read_optional(where, "--where"), status, "--where")
    with asking(url, api_key) as client:

        def read(most: int, cursor: str | None) -> Page:
            page = client.query(key, where=filters, order=order, limit=most, cursor=cursor)
            return [item.to_dict() for item in page.items], page.cursor

        if count:
            found = client.count(key, where=filters)
            number = found.count
            while found.cursor:
                found = client.count(key, where=filters, cursor=found.cursor)
                number += found.count
            say_one({"count": number}, as_json=as_json)
        elif not say_items(in_pages(read, limit), as_json=as_json):
            say_none(as_json=as_json)


@items.command()
def update(
    key: Key,
    sort_field: SortField,
    content: Content = None,
    metadata: Metadata = None,
    trigger_urls: TriggerUrls = None,
    version: Version = None,
    token: Token = None,
    only_if: OnlyIf = None,
    triggers: Triggers = True,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Update an item, and show it: metadata is merged (null removes), content and trigger URLs are replaced.

    Examples:
      hookline items update jobs job-001 --metadata '{"priority": 9}'
      hookline items update docs readme --content @readme.json --version 3
      hookline items update jobs job-001 --metadata '{"status": "not_started"}' --if '{"status": "cancelled"}'
    """
    from hookline.calls import UNSET

    given = {
        "content": read_optional(content, "--content", UNSET),
        "metadata": read_optional(metadata, "--metadata"),
        "trigger_urls": read_optional(trigger_urls, "--trigger-urls", UNSET),
        "only_if": read_optional(only_if, "--if"),
    }
    with asking(url, api_key, new_mark(idempotency_key)) as client:
        made = client.update(key, sort_field, version=version, token=token, triggers=triggers, **given)
        say_one(_described(made), as_json=as_json)


@items.command()
def delete(
    key: Key,
    sort_field: Annotated[str | None, typer.Argument(help="The item's sortField; left out: those of --where.")] = None,
    where: Where = None,
    version: Version = None,
    token: Token = None,
    only_if: OnlyIf = None,
    triggers: Triggers = True,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Delete an item, or all that match --where, and say how many.

    Examples:
      hookline items delete jobs job-001
      hookline items delete jobs --where '{"status": "completed"}' --no-triggers
      hookline items delete jobs --where '{}'
    """
    if (sort_field is None) == (where is None) or (where and (version or token or only_if)):
        fail("expected either a SORT_FIELD, or --where without --version, --token and --if")
        raise typer.Exit(MISUSED)
    filters, condition = read_optional(where, "--where"), read_optional(only_if, "--if")
    done, passed_over = 1, 0
    with asking(url, api_key, new_mark(idempotency_key)) as client:
        if sort_field is None:
            changed = client.delete_all(key, where=filters, triggers=triggers)
            done, passed_over = changed.done, changed.passed_over
        else:
            client.delete(key, sort_field, version=version, token=token, only_if=condition, triggers=triggers)
        say_one({"done": done, "passedOver": passed_over}, as_json=as_json)


def _with_status(given: Any, status: str | None, option: str) -> Any:
    """Metadata, or filters, with the status of an option of its own; one that is given twice ends the process."""
    if status is None or not isinstance(given, dict | None):
        return given  # what is no object the verb refuses
    if given and "status" in given:
        fail(f"--status: expected it either here or in {option}")
        raise typer.Exit(MISUSED)
    return {**(given or {}), "status": status}


def _described(made: Any) -> dict[str, Any]:
    shown: dict[str, Any] = made.item.to_dict()
    return shown | ({"warnings": list(made.warnings)} if made.warnings else {})
