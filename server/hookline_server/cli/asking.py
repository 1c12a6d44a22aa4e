"""A client of the server that a command asks, and how its writes may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from hookline.errors import HooklineError, NotFound, OutcomeUnknown, PreconditionFailed
from hookline.sortfield import new_sort_field
from hookline_server.cli.ending import ending
from hookline_server.cli.options import server as server_of

if TYPE_CHECKING:
    from hookline import SyncClient

PAGE = 250
"""Items of one request of a list."""
Mark = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        help="A command that is repeated with the same key takes effect once, for a day. Left out: a new one.",
        show_default=False,
    ),
]
Key = Annotated[str, typer.Argument(help="The key, such as jobs.")]
Asked = tuple[str, str | None]
"""URL and API key of the server that a command asks."""
Page = tuple[list[dict[str, Any]], str | None]
"""Some items, and the cursor to go on with."""
SortField = Annotated[str, typer.Argument(help="The item's sortField, its name within the key.")]


def new_mark(given: str | None) -> str:
    """The idempotency key of a command."""
    return new_sort_field() if given is None else given


@contextmanager
def asking(url: str, api_key: str | None, mark: str | None = None) -> Iterator[SyncClient]:
    """A client, whose writes go under the idempotency key ``mark``; what fails ends the process with the next step.

    Without ``mark`` it is for what may be repeated as it is.
    """
    from hookline import SyncClient

    def hint(error: HooklineError) -> str:
        if isinstance(error, OutcomeUnknown) and not mark:
            return "the same command again: a repeat of it does no harm"
        if isinstance(error, OutcomeUnknown):
            return f"the same command with --idempotency-key {mark} does it if it was not done, and not twice"
        if isinstance(error, NotFound):
            return "'hookline items query KEY' shows what is there"
        return ""

    with ending(hint), SyncClient(url, api_key=api_key) as client:
        yield client.once(mark) if mark else client


def ask(
    server: Asked, method: str, *parts: str, seen: str, body: Any = None, query: Mapping[str, Any] | None = None
) -> Any:
    """What a server answers at the path of these parts; a refusal ends the process.

    ``seen`` is the command that shows what is there. What is None in ``query`` is left out.
    """
    from hookline.flow import path
    from hookline_server import remote
    from hookline_server.loop import runner

    def hint(error: HooklineError) -> str:
        return f"'{seen}' shows what is there" if isinstance(error, NotFound | PreconditionFailed) else ""

    given = {name: value for name, value in (query or {}).items() if value is not None}
    with ending(hint), runner() as running:
        target = path(*parts) + (f"?{urlencode(given)}" if given else "")
        return running.run(remote.ask(server_of(*server), method, target, body))


def pages(
    server: Asked, *parts: str, seen: str, limit: int | None = None, query: Mapping[str, Any] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The items of a list, as they are read, at most ``limit`` of them."""

    def read(most: int, cursor: str | None) -> Page:
        page = ask(server, "GET", *parts, seen=seen, query={**(query or {}), "limit": most, "cursor": cursor})
        return page["items"], page["cursor"]

    return in_pages(read, limit)


def in_pages(read: Callable[[int, str | None], Page], limit: int | None) -> Iterator[list[dict[str, Any]]]:
    """Items page by page, at most ``limit`` of them: no more are held than one request gives."""
    left, cursor = limit, None
    while left is None or left > 0:
        items, cursor = read(PAGE if left is None else min(PAGE, left), cursor)
        yield items
        left = None if left is None else left - len(items)
        if cursor is None:
            return
