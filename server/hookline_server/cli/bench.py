"""``bench``: the load tests, a package of its own."""

from __future__ import annotations

from importlib import import_module

import typer

from hookline_server.cli.ending import FAILED, fail

PANEL = "Operate"
app = typer.Typer()


@app.command(
    rich_help_panel=PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def bench(context: typer.Context) -> None:
    r"""Measure this machine, and compare runs: 'hookline bench --help'. Needs hookline\[bench]."""
    try:
        # By its name: the server depends on nothing that measures it.
        measuring = import_module("hookline_bench.cli")
    except ImportError as error:
        fail(f"measuring needs more packages ({error.name} is missing): install hookline[bench]")
        raise typer.Exit(FAILED) from None
    measuring.app(context.args, prog_name="hookline bench")
