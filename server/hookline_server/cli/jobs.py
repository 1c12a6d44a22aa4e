"""Jobs of a server: ``jobs claim | complete | fail | release | extend | cancel | redrive | pause | resume``."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hookline.clock import format_time
from hookline_server.cli.asking import Asked, Key, Mark, SortField, asking, new_mark
from hookline_server.cli.ending import MISSING, MISUSED, fail
from hookline_server.cli.items import Metadata, Where
from hookline_server.cli.options import DEFAULT_URL, ApiKey, Json, Url, duration, seconds_too
from hookline_server.cli.output import say_items, say_one
from hookline_server.cli.value import read_optional

if TYPE_CHECKING:
    from hookline import Outcome

PANEL = "Use a server"
app = typer.Typer()
jobs = typer.Typer(no_args_is_help=True)
app.add_typer(
    jobs,
    name="jobs",
    help="Jobs of a server: claim, complete, fail, release, extend; cancel, redrive; pause, resume.",
    rich_help_panel=PANEL,
)

Token = Annotated[str, typer.Argument(help="The token that the claim gave.")]
LockFor = Annotated[
    str | None,
    typer.Option(callback=seconds_too, help="How long it holds, e.g. 10m.", show_default="the key's lockFor"),
]
OneSortField = Annotated[str | None, typer.Argument(help="One item's sortField; left out: those of --where.")]


@jobs.command()
def claim(
    key: Key,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 1,
    worker_id: Annotated[
        str | None, typer.Option(help="Who holds them.", show_default="cli@ and the host's name")
    ] = None,
    lock_for: LockFor = None,
    wait: Annotated[str, typer.Option(help="How long to wait for the first, e.g. 30s.")] = "0s",
    where: Where = None,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Claim jobs, and show them with their tokens. Exit code 4: there is nothing to claim.

    Examples:
      hookline jobs claim jobs --limit 10 --lock-for 10m
      hookline jobs claim jobs --wait 30s --where '{"type": "report"}' --json
    """
    seconds = duration(wait, "--wait") / 1000
    options: dict[str, Any] = {"lock_for": lock_for, "where": read_optional(where, "--where")}
    worker = f"cli@{socket.gethostname()}" if worker_id is None else worker_id
    with asking(url, api_key, new_mark(idempotency_key)) as client:
        claimed = client.claim(key, worker_id=worker, limit=limit, wait=seconds, **options)
        if say_items([[item.to_dict() for item in claimed.items]], as_json=as_json):
            return
        due = "" if claimed.next_ms is None else f"; the next is due at {format_time(claimed.next_ms)}"
        why = ": it is paused; 'hookline jobs resume' lets it be claimed again" if claimed.paused else due
        fail(f"there is nothing to claim in {key}{why}")
        raise typer.Exit(MISSING)


@jobs.command()
def complete(
    key: Key,
    sort_field: SortField,
    token: Token,
    metadata: Metadata = None,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """End a claim: the job is completed; results go into its metadata.

    Example:
      hookline jobs complete jobs job-001 2.0f3a --metadata '{"rows": 1000}'
    """
    given = {"metadata": read_optional(metadata, "--metadata")}
    _settle("complete", (key, sort_field, token), given, (url, api_key, new_mark(idempotency_key)), as_json=as_json)


@jobs.command("fail")
def fail_job(
    key: Key,
    sort_field: SortField,
    token: Token,
    error: Annotated[str | None, typer.Option(help="What went wrong.", show_default=False)] = None,
    retry_after: Annotated[
        str | None,
        typer.Option(
            callback=seconds_too, help="When it may be claimed again, e.g. 5m.", show_default="the key's backoff"
        ),
    ] = None,
    metadata: Metadata = None,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """End a claim: this attempt failed, so the job waits for the next, if it has any left.

    Example:
      hookline jobs fail jobs job-001 2.0f3a --error 'the printer is out of paper' --retry-after 5m
    """
    given = {"error": error, "retry_after": retry_after, "metadata": read_optional(metadata, "--metadata")}
    _settle("fail", (key, sort_field, token), given, (url, api_key, new_mark(idempotency_key)), as_json=as_json)


@jobs.command()
def release(
    key: Key,
    sort_field: SortField,
    token: Token,
    delay: Annotated[
        str | None,
        typer.Option(callback=seconds_too, help="Not before so long may it be claimed, e.g. 30s.", show_default=False),
    ] = None,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """End a claim: the job goes back, and the attempt does not count.

    Example:
      hookline jobs release jobs job-001 2.0f3a --delay 30s
    """
    _settle(
        "release",
        (key, sort_field, token),
        {"delay": delay},
        (url, api_key, new_mark(idempotency_key)),
        as_json=as_json,
    )


@jobs.command()
def extend(
    key: Key,
    sort_field: SortField,
    token: Token,
    lock_for: LockFor = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Prolong a claim, from now on.

    Example:
      hookline jobs extend jobs job-001 2.0f3a --lock-for 10m
    """
    _settle("extend", (key, sort_field, token), {"lock_for": lock_for}, (url, api_key, None), as_json=as_json)


@jobs.command()
def cancel(
    key: Key,
    sort_field: OneSortField = None,
    where: Where = None,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Cancel an item that has not ended, or all that match --where, and say how many.

    --where takes those with status not_started alone, unless it names another one:
    scheduled ones are not among '{}'. Who holds a job learns of it when it extends
    its claim.

    Examples:
      hookline jobs cancel jobs job-001
      hookline jobs cancel jobs --where '{"type": "report"}'
      hookline jobs cancel jobs --where '{"status": {"in": ["scheduled", "not_started"]}}'
    """
    _change("cancel", key, sort_field, where, (url, api_key, new_mark(idempotency_key)), as_json=as_json)


@jobs.command()
def redrive(
    key: Key,
    sort_field: OneSortField = None,
    where: Where = None,
    idempotency_key: Mark = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Put an item with status failed back in line, or all that match --where, and say how many.

    --where takes those with status failed alone.

    Examples:
      hookline jobs redrive jobs job-001
      hookline jobs redrive jobs --where '{"last_error": {"prefix": "timeout"}}'
      hookline jobs redrive jobs --where '{}'
    """
    _change("redrive", key, sort_field, where, (url, api_key, new_mark(idempotency_key)), as_json=as_json)


@jobs.command()
def pause(key: Key, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Let no job of a key be claimed until it is resumed; who holds one goes on.

    Example:
      hookline jobs pause jobs
    """
    _set_paused(key, (url, api_key), paused=True, as_json=as_json)


@jobs.command()
def resume(key: Key, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: Json = False) -> None:
    """Let the jobs of a key be claimed again.

    Example:
      hookline jobs resume jobs
    """
    _set_paused(key, (url, api_key), paused=False, as_json=as_json)


Marked = tuple[str, str | None, str | None]
"""URL, API key and idempotency key of a command; none where it may be repeated without one."""


def _settle(verb: str, claim: tuple[str, str, str], given: dict[str, Any], asked: Marked, *, as_json: bool) -> None:
    with asking(*asked) as client:
        outcome: Outcome = client.settle([getattr(client.calls, verb)(*claim, **given)])[0]
        if not outcome.ok:
            raise outcome.error()
        locked_until = outcome.locked_until_ms
        shown = {
            "key": outcome.key,
            "sortField": outcome.sort_field,
            "version": outcome.version,
            "status": outcome.status,
            "lockedUntil": None if locked_until is None else format_time(locked_until),
        }
        say_one(shown, as_json=as_json)


_ALL = {
    "cancel": """'{}' is all with status not_started, '{"status": "scheduled"}' all with another""",
    "redrive": "'{}' is all with status failed",
}
"""Verb -> what --where takes."""


def _change(verb: str, key: str, sort_field: str | None, where: str | None, asked: Marked, *, as_json: bool) -> None:
    if (sort_field is None) == (where is None):
        fail(f"expected either a SORT_FIELD, or --where; {_ALL[verb]}")
        raise typer.Exit(MISUSED)
    filters = read_optional(where, "--where")
    done, passed_over = 1, 0
    with asking(*asked) as client:
        if sort_field is None:
            changed = getattr(client, verb)(key, where=filters)
            done, passed_over = changed.done, changed.passed_over
        else:
            # The command says when it is refused, and why. As names its values are no text that is read.
            text = f"{verb} item with key: [key] and sortField: [sortField]"
            client.command(text, {"key": key, "sortField": sort_field})
        say_one({"done": done, "passedOver": passed_over}, as_json=as_json)


def _set_paused(key: str, asked: Asked, *, paused: bool, as_json: bool) -> None:
    with asking(*asked) as client:
        (client.pause if paused else client.resume)(key)
        say_one({"key": key, "paused": paused}, as_json=as_json)
