"""A client of the server that a command asks, and how its writes may be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from hookline.errors import HooklineError, NotFound, OutcomeUnknown
from hookline.sortfield import new_sort_field
from hookline_server.cli.ending import ending

if TYPE_CHECKING:
    from hookline import SyncClient

Mark = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        help="A command that is repeated with the same key takes effect once, for a day. Left out: a new one.",
        show_default=False,
    ),
]
Key = Annotated[str, typer.Argument(help="The key, such as jobs.")]
SortField = Annotated[str, typer.Argument(help="The item's sortField, its name within the key.")]


def new_mark(given: str | None) -> str:
    """The idempotency key of a command."""
    return new_sort_field() if given is None else given


@contextmanager
def asking(url: str, api_key: str | None, mark: str | None = None) -> Iterator[SyncClient]:
    """A client, whose writes go under the idempotency key ``mark``; what fails ends the process with the next step."""
    from hookline import SyncClient

    def hint(error: HooklineError) -> str:
        if mark and isinstance(error, OutcomeUnknown):
            return f"the same command with --idempotency-key {mark} does it if it was not done, and not twice"
        if isinstance(error, NotFound):
            return "'hookline items query KEY' shows what is there"
        return ""

    with ending(hint), SyncClient(url, api_key=api_key) as client:
        yield client.once(mark) if mark else client
