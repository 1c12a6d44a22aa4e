"""Rules that a server keeps: ``orchestrations`` and ``schedules``, the same commands for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from hookline_server.cli.asking import Asked, ask, pages
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url, seconds_too
from hookline_server.cli.output import say_items, say_none, say_one, say_rows
from hookline_server.cli.value import EXPECTED, read_optional
from hookline_server.table import of_rule, of_run

PANEL = "Use a server"
app = typer.Typer()

Name = Annotated[str, typer.Argument(help="What it is called.")]
Key = Annotated[str, typer.Option(help="Key of the items.")]
Every = Annotated[str | None, typer.Option(callback=seconds_too, help="How often, e.g. 30s, 5m, 1h.")]
Cron = Annotated[str | None, typer.Option(help="Minute, hour, day, month and weekday, e.g. '30 2 * * MON-FRI'.")]
TimeZone = Annotated[str | None, typer.Option(help="IANA time zone of --cron; left out: UTC.")]
Jitter = Annotated[str | None, typer.Option(callback=seconds_too, help="Start up to so much later, at random.")]


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one kind on a server."""

    kind: str

    def ask(self, server: Asked, method: str, *parts: str, **options: Any) -> Any:
        """What the server answers; a refusal ends the process."""
        return ask(server, method, self.kind, *parts, seen=f"hookline {self.kind} list", **options)

    def list(self, server: Asked, as_json: bool) -> None:
        """Show them all."""
        found = pages(server, self.kind, seen=f"hookline {self.kind} list")
        if not say_items(found, as_json=as_json, row=of_rule):
            say_none("none", as_json=as_json)

    def put(self, server: Asked, name: str, as_json: bool, **fields: Any) -> None:
        """Store a rule of the fields that are given, and show it."""
        given = {field: value for field, value in fields.items() if value is not None}
        say_one(self.ask(server, "PUT", name, body=given), as_json=as_json)
        if "every" not in given and "cron" not in given:
            say_none(f"without --every or --cron it is run by hand: hookline {self.kind} run {name}", as_json=as_json)


ORCHESTRATIONS, SCHEDULES = Rules("orchestrations"), Rules("schedules")
orchestrations = typer.Typer(no_args_is_help=True)
schedules = typer.Typer(no_args_is_help=True)
app.add_typer(
    orchestrations,
    name=ORCHESTRATIONS.kind,
    help="Rules of a server that claim items, so that their workers are called.",
    rich_help_panel=PANEL,
)
app.add_typer(
    schedules, name=SCHEDULES.kind, help="Rules of a server that create items at their times.", rich_help_panel=PANEL
)


@orchestrations.command("create")
def create_orchestration(
    name: Name,
    key: Key,
    where: Annotated[str | None, typer.Option(help='Filters: JSON, @FILE or -, such as {"type": "report"}.')] = None,
    limit: Annotated[int | None, typer.Option(help="Items per run, at most; left out: 10.")] = None,
    lock_for: Annotated[
        str | None, typer.Option(callback=seconds_too, help="How long a worker has; left out: 10m.")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="So many of its items are kept started at once, and no more.")
    ] = None,
    every: Every = None,
    cron: Cron = None,
    time_zone: TimeZone = None,
    jitter: Jitter = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Store an orchestration, in place of the one of this name.

    Examples:
      hookline orchestrations create reports --key jobs --limit 10 --every 5m
      hookline orchestrations create push --key jobs --every 1s --max-in-flight 20
    """
    fields = {"every": every, "cron": cron, "timeZone": time_zone, "jitter": jitter}
    fields |= {"key": key, "where": read_optional(where, "--where"), "lockFor": lock_for}
    ORCHESTRATIONS.put((url, api_key), name, as_json, limit=limit, maxInFlight=max_in_flight, **fields)


@schedules.command("create")
def create_schedule(
    name: Name,
    key: Key,
    content: Annotated[str | None, typer.Option(help=f"Of the items: {EXPECTED}.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="An object: JSON, @FILE or -; without a status they are jobs.")
    ] = None,
    sort_field: Annotated[str | None, typer.Option(help="Their sortField, with {schedule.tick} in it.")] = None,
    trigger_urls: Annotated[
        str | None, typer.Option(help="URLs that changes of the items call: JSON, @FILE or -.")
    ] = None,
    catch_up: Annotated[
        Literal["skip", "one", "all"] | None, typer.Option(help="What of times that were missed.")
    ] = None,
    every: Every = None,
    cron: Cron = None,
    time_zone: TimeZone = None,
    jitter: Jitter = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Store a schedule, in place of the one of this name.

    Examples:
      hookline schedules create nightly --key jobs --cron '30 2 * * *' --time-zone Europe/Berlin
      hookline schedules create poll --key jobs --every 1m --content '{"at": "{schedule.tick}"}'
    """
    fields = {"every": every, "cron": cron, "timeZone": time_zone, "jitter": jitter}
    fields |= {"key": key, "sortField": sort_field, "catchUp": catch_up, "content": read_optional(content, "--content")}
    templates = {
        "metadata": read_optional(metadata, "--metadata"),
        "triggerUrls": read_optional(trigger_urls, "--trigger-urls"),
    }
    SCHEDULES.put((url, api_key), name, as_json, **fields, **templates)


def _add(group: typer.Typer, rules: Rules) -> None:
    """The commands that are the same for every kind of rules."""
    noun = rules.kind.removesuffix("s")

    def command(function: Any, name: str, does: str, example: str) -> None:
        function.__doc__ = f"{does}\n\nExamples:\n  hookline {rules.kind} {name}{example}"
        group.command(name)(function)

    def show_all(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
        rules.list((url, api_key), as_json)

    def show(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
        say_one(rules.ask((url, api_key), "GET", name), as_json=as_json)

    def delete(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
        rules.ask((url, api_key), "DELETE", name)
        if as_json:
            say_one({"name": name}, as_json=as_json)
        say_none(f"deleted {name}", as_json=as_json)

    def run_now(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
        answer = rules.ask((url, api_key), "POST", name, "run")
        if "items" in answer:
            if not say_items([answer["items"]], as_json=as_json):
                say_none("nothing was claimed", as_json=as_json)
        else:
            say_one(answer, as_json=as_json)

    def enable(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
        say_one(rules.ask((url, api_key), "POST", name, "enable"), as_json=as_json)

    def disable(name: Name, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
        say_one(rules.ask((url, api_key), "POST", name, "disable"), as_json=as_json)

    def upcoming(
        name: Name,
        count: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 5,
        url: Url = DEFAULT_URL,
        api_key: ApiKey = None,
        as_json: Json = False,
    ) -> None:
        say_rows(rules.ask((url, api_key), "GET", name, "next", query={"count": count})["ticks"], as_json=as_json)

    def runs(
        name: Name,
        limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
        url: Url = DEFAULT_URL,
        api_key: ApiKey = None,
        as_json: Json = False,
    ) -> None:
        found = rules.ask((url, api_key), "GET", name, "runs", query={"limit": limit})["items"]
        say_rows(found if as_json else [of_run(run) for run in found], as_json=as_json)

    command(show_all, "list", f"Show all {rules.kind}.", "")
    command(show, "show", f"Show one {noun}, with its next and its last run.", " nightly")
    command(run_now, "run", f"Run one {noun} now, also if it is disabled.", " nightly")
    command(
        upcoming, "next", "Show when it is due next, in UTC and by the clocks of its time zone.", " nightly --count 10"
    )
    command(runs, "runs", "Show what became of its runs, the last ones first.", " nightly --json")
    command(enable, "enable", "Let it run at its times again; one with --every at once.", " nightly")
    command(disable, "disable", "Let it run by hand alone.", " nightly")
    command(delete, "delete", "Delete it. What it claimed or created stays as it is.", " nightly")


_add(orchestrations, ORCHESTRATIONS)
_add(schedules, SCHEDULES)
