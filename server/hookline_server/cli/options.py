"""Options that several commands have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.main import get_current_context  # type: ignore[attr-defined]  # whose click is its own

from hookline_server.cli.ending import MISUSED, checked, fail

if TYPE_CHECKING:
    from hookline import Settings
    from hookline.transport import Http


def _default_url() -> str:
    """Where the server of this environment listens, as seen from its own machine."""
    context = get_current_context(silent=True)
    if context and context.resilient_parsing:  # words are completed, and nothing is asked
        return ""
    return f"http://127.0.0.1:{settings().port}"


DEFAULT_URL: Any = _default_url
"""Called where no URL is given, for the settings may be in a file."""
Url = Annotated[
    str, typer.Option(envvar="HOOKLINE_URL", help="Address of the server.", show_default="http://127.0.0.1:8080")
]
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


def server(url: str, api_key: str | None) -> Http:
    """The server that a command asks; an address or an API key that is none ends the process."""
    from hookline.transport import Http

    return checked(lambda: Http(url, api_key=api_key))


def seconds_too(text: str | None) -> str | None:
    """The callback of an option that is a duration: a bare number is seconds, which a server takes only as a number."""
    return f"{text}s" if text and re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else text


def duration(text: str, option: str) -> int:
    """The milliseconds that an option says; one that is no duration ends the process."""
    from hookline.clock import parse_duration

    try:
        return parse_duration(seconds_too(text))
    except ValueError as error:
        fail(f"{option}: {error}")
        raise typer.Exit(MISUSED) from None


def settings(**given: Any) -> Settings:
    """The settings of a command: what was given, else what the environment says; a bad one ends the process."""
    from hookline import Settings

    return checked(lambda: Settings.from_env(**given))
