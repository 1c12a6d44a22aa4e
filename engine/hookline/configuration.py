"""Where a setting comes from: a flag, the environment or a file; what it is called there, and how it is read."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hookline.clock import parse_duration
from hookline.errors import Flaw

PREFIX = "HOOKLINE_"
FILE = "config"
"""The setting that names the file."""


def variable(setting: Field[Any]) -> str:
    """The environment's name for a setting, such as ``HOOKLINE_CALL_TIMEOUT``."""
    return PREFIX + setting.name.upper()


def flag(setting: Field[Any]) -> str:
    """The option of ``hookline serve``, such as ``--call-timeout``; empty if there is none."""
    named: str | None = setting.metadata["flag"]
    return f"--{setting.name.replace('_', '-')}" if named is None else named


def found(
    settings: Sequence[Field[Any]], environ: Mapping[str, str], given: Mapping[str, Any], flaws: list[Flaw]
) -> Iterator[tuple[Field[Any], str, Any]]:
    """Each setting of which anything says something -> what it is called there, and what is said, not yet read.

    What cannot be used of the file is added to ``flaws``.
    """
    file = given.get(FILE) or environ.get(PREFIX + FILE.upper())
    filed = _filed(Path(file), {setting.name for setting in settings} - {FILE}, flaws) if file else {}
    for setting in settings:
        if (value := given.get(setting.name)) is not None:
            yield setting, (isinstance(value, str) and flag(setting)) or variable(setting), value
        elif text := environ.get(variable(setting)):
            yield setting, variable(setting), text
        elif setting.name in filed:
            yield setting, f"{file}: {setting.name}", filed[setting.name]


def _filed(path: Path, names: set[str], flaws: list[Flaw]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        flaws.append(Flaw(f"/{path}", f"expected a file that can be read: {error.strerror}"))
        return {}
    except ValueError as error:
        detail = "no UTF-8" if isinstance(error, UnicodeDecodeError) else error
        flaws.append(Flaw(f"/{path}", f"expected TOML, such as port = 8080: {detail}"))
        return {}
    for name in values.keys() - names:
        near = get_close_matches(name, names, 1)
        hint = f"perhaps {near[0]}" if near else "docs/configuration.md lists them"
        flaws.append(Flaw(f"/{path}: {name if name.isidentifier() else ascii(name)}", f"expected a setting: {hint}"))
    return values


def read(setting: Field[Any], raw: Any) -> Any:
    """The value of a setting from a text, from what TOML makes of one, or from a value of its own kind.

    Raises:
        ValueError: it is none; the text says what was expected, not what was there, which may be a secret.
    """
    kind = str(setting.type).removesuffix(" | None")
    if kind.startswith("tuple["):
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple):
            raise ValueError(f"expected a list: {setting.metadata['help']}")
        part_of = _READERS[kind[len("tuple[") : -len(", ...]")]]
        parts = [part.strip() if isinstance(part, str) else part for part in parts]
        return tuple(part_of(part) for part in parts if part != "")
    try:
        return _READERS[kind](raw)
    except _Unlike as error:
        raise ValueError(f"{error}: {setting.metadata['help']}") from None


class _Unlike(ValueError):
    """Something of another kind altogether, so that the meaning of the setting helps."""


def _int(raw: Any) -> int:
    try:
        if isinstance(raw, int | str) and not isinstance(raw, bool):
            return int(raw)
    except ValueError:
        pass
    raise _Unlike("expected a whole number")


def _seconds(raw: Any) -> float:
    if isinstance(raw, str):
        raw = raw.strip()
        if raw.isascii() and raw.replace(".", "", 1).isdigit():
            raw = float(raw)
    return parse_duration(raw) / 1000


def _truth(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = raw.strip().lower() if isinstance(raw, str) else ""
    if text not in ("true", "false"):
        raise _Unlike("expected true or false")
    return text == "true"


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise _Unlike("expected a text")
    return raw


def _path(raw: Any) -> Path:
    return raw if isinstance(raw, Path) else Path(_text(raw))


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _int,
    "float": _seconds,
    "bool": _truth,
    "str": _text,
    "Path": _path,
}
