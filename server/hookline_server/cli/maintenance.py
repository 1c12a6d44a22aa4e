"""What an operator does to a whole namespace: ``doctor``, ``export``, ``import``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hookline_server.cli.ending import FAILED, MISUSED, fail, run
from hookline_server.cli.options import Data, Json, Store, settings
from hookline_server.cli.output import say_documents

PANEL = "Operate"
app = typer.Typer()
Namespace = Annotated[
    str | None, typer.Option(help="The namespace that is meant; left out: the server's own namespace.")
]
WithoutApiKeys = Annotated[bool, typer.Option("--without-api-keys", help="Leave the API keys of triggers out.")]


@app.command(rich_help_panel=PANEL)
def doctor(
    store: Store = None,
    data: Data = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what differs; the items themselves are the truth.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hold every index against every item, and tell what differs. Safe beside running servers.

    Ends with 0 if nothing differs (any more), with 1 if something does. The last line of
    --json has the sums.

    Examples:
      hookline doctor
      hookline doctor --repair --store redis://127.0.0.1:6379/0
    """
    from hookline_server import maintenance

    found = settings(store_url=store, data=data)
    _end(run(maintenance.doctor(found, repair, typer.echo, as_json=as_json)))


@app.command("export", rich_help_panel=PANEL)
def write_archive(
    namespace: Namespace = None, store: Store = None, data: Data = None, without_api_keys: WithoutApiKeys = False
) -> None:
    """Write all items and settings of a namespace to standard output, as JSON lines. Safe beside running servers.

    API keys stay sealed: they open only where the same secret is, in the same
    namespace. No token is written.

    Examples:
      hookline export > items.ndjson
      hookline export --without-api-keys --store redis://127.0.0.1:6379/0 > items.ndjson
    """
    if sys.__stdout__ is None:  # it was closed as we began: what stands in its place would swallow the archive
        fail("standard output is closed: name a file for the archive, as in 'hookline export > items.ndjson'")
        raise typer.Exit(MISUSED)
    from hookline_server import maintenance

    found = settings(store_url=store, data=data, namespace=namespace)
    _end(run(maintenance.write_archive(found, sys.stdout.buffer, api_keys=not without_api_keys)))


@app.command("import", rich_help_panel=PANEL)
def read_archive(
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="What export wrote; - is standard input.")],
    namespace: Namespace = None,
    store: Store = None,
    data: Data = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace items and settings that are there; without, they stay.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first line that can't be taken.")] = False,
    without_api_keys: WithoutApiKeys = False,
    as_json: Json = False,
) -> None:
    """Read what export wrote: FILE, or - for standard input. A repeat goes on where one was interrupted.

    No triggers fire. Started items keep worker and lock; the tokens of before are
    void, so such an item can be claimed once its lock has passed. Ends with 0 if
    all of the file is there now.

    Examples:
      hookline import items.ndjson
      hookline export | hookline import --namespace copy --without-api-keys -
    """
    from hookline_server import maintenance

    found = settings(store_url=store, data=data, namespace=namespace)
    work = maintenance.read_archive(found, file, replace=replace, api_keys=not without_api_keys, strict=strict)
    whole, sums = run(work)
    if as_json:
        say_documents([sums])
    _end(whole)


def _end(well: bool) -> None:
    raise typer.Exit(0 if well else FAILED)
