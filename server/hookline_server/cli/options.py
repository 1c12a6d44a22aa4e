"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hookline_server.cli.ending import checked

if TYPE_CHECKING:
    from hookline import Settings

DEFAULT_URL = f"http://127.0.0.1:{os.environ.get('HOOKLINE_PORT') or 8080}"

Url = Annotated[str, typer.Option(envvar="HOOKLINE_URL", help="Address of the server.")]
ApiKey = Annotated[
    str | None, typer.Option(envvar="HOOKLINE_API_KEY", show_envvar=True, help="API key that is shown to the server.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Say results as JSON, one document a line, in place of text for people.")
]
Output = Annotated[Literal["json", "table"], typer.Option(help="How results are shown.")]
Store = Annotated[
    str | None, typer.Option("--store", help="URL of a Redis or Valkey; left out: the embedded store in --data.")
]
Data = Annotated[Path | None, typer.Option(file_okay=False, help="Directory of the data.")]


def settings(**given: Any) -> Settings:
    """The settings of a command: what was given, else what the environment says; a bad one ends the process."""
    from hookline import Settings

    return checked(lambda: Settings.from_env(**given))
