"""The command line. One module for each group of commands; each has ``app``, which is put together here.

Whatever a command runs it imports by itself: a short one should not wait for the server's modules to load.
"""

from __future__ import annotations

import codecs
import json
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from hookline_server.cli import (
    bench,
    deliveries,
    endpoints,
    items,
    jobs,
    keys,
    keysettings,
    maintenance,
    rules,
    server,
    texts,
    top,
    webhooks,
    workers,
)
from hookline_server.cli.ending import CODES, FAILED, UNREAD, UNWRITTEN, drop_output, fail

_CODES = "Exit codes: " + "; ".join(f"{code} {says}" for code, says in CODES.items()) + "."
app = typer.Typer(
    epilog=_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    # A traceback in a frame hides what an issue needs, and may show the values of variables.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_USED = (server, texts, items, jobs, rules, workers, webhooks)
_OPERATED = (top, deliveries, endpoints, keysettings, maintenance, keys, bench)
for group in (*_USED, *_OPERATED):
    app.add_typer(group.app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hookline, version {version('hookline')}")
        raise typer.Exit


@app.callback()
def _hookline(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hookline: a datastore whose items are also jobs.

    Start a server with an embedded store, and try it:

      hookline serve
      hookline demo
    """


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What the output's encoding does not have, as JSON may write it; of other kinds of errors it is no handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def main() -> None:
    """Run the command that the arguments name; it ends with one of :data:`CODES`."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        codecs.register_error("hookline.escaped", _escaped)
        sys.stdout.reconfigure(errors="hookline.escaped")
    try:
        app(prog_name="hookline")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # of which typer makes 1
            sys.exit(UNREAD)
        raise
    except OSError as error:
        if error.errno not in UNWRITTEN:
            raise
        fail(f"cannot write: {error.strerror}")
        drop_output()
        sys.exit(FAILED)
