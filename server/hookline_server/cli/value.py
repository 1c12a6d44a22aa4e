"""JSON that is given as an argument: itself, in a file, or on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from hookline_server.cli.ending import checked

EXPECTED = "JSON, or @FILE with JSON in it, or - for standard input"


def read_value(text: str, option: str) -> Any:
    """What an argument means; one that is no JSON ends the process with a sentence that names the option."""
    return checked(lambda: _read(text), option)


def read_optional(text: str | None, option: str, default: Any = None) -> Any:
    """The same of an option that may be left out."""
    return default if text is None else read_value(text, option)


def _read(text: str) -> Any:
    try:
        # As bytes: JSON is UTF-8, whatever the encoding of the locale is.
        raw = sys.stdin.buffer.read() if text == "-" else Path(text[1:]).read_bytes() if text[:1] == "@" else text
        raw = raw.decode() if isinstance(raw, bytes) else raw
    except OSError as error:
        raise ValueError(f"cannot read {text[1:]}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("expected JSON in UTF-8") from None
    try:
        return json.loads(raw, parse_constant=_refuse, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("expected JSON that is nested less deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected {EXPECTED}: {error}") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"expected JSON, which has no {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"expected each name once in an object: {next(name for name in names if names.count(name) > 1)}"
        )
    return found
