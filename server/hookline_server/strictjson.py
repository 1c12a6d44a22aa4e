"""JSON read strictly: what two readers could understand differently is refused, at its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn

import msgspec

from hookline.errors import Flaw, Invalid, below
from hookline.item import DEPTH_MAX, FLAWS_MAX, INTEGER_MAX, check_value
from hookline_server.problem import Problem


def decode(raw: bytes) -> Any:
    """JSON -> its value.

    msgspec keeps the last of two members of one name. So the value is encoded again, which is far cheaper than a
    walk in Python: where names were dropped, colons are missing. Only then does the slow reader look for the place.

    Raises:
        Invalid: nothing there, nested too deeply, a name twice, a number beyond 64 bits, half a surrogate pair.
        Problem: not JSON.
    """
    if not raw:
        raise Invalid.at("", "expected a JSON body")
    try:
        value = msgspec.json.decode(raw)
        alike = _colons(raw) == msgspec.json.encode(value).count(b":")
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, OverflowError) as error:
        _explain(raw, error)
    if not alike:
        if len(raw) <= EXPLAINED_MAX:
            _read_slowly(raw)
        raise Invalid.at("", "expected each name once in an object")
    return value


EXPLAINED_MAX = 65_536
"""Bytes of a body in which the place of a flaw is looked for: reading it slowly takes twenty times as long."""
_ESCAPED_COLON = re.compile(rb"(?<!\\)(?:\\\\)*\\u003[aA]")


def _colons(raw: bytes) -> int:
    """How many the value has in all, also those that are written as escapes."""
    escaped = len(_ESCAPED_COLON.findall(raw)) if b"\\u003" in raw else 0
    return raw.count(b":") + escaped


def _too_deep() -> Invalid:
    return Invalid.at("", f"expected at most {DEPTH_MAX} levels of nesting")


def _explain(raw: bytes, error: Exception) -> NoReturn:
    """Say what is wrong with a body that msgspec refuses: its own messages often do not tell the place."""
    if len(raw) > EXPLAINED_MAX:
        raise Problem("invalid_json", str(error))
    try:
        check_value(_read_slowly(raw), "")
    except UnicodeDecodeError as flaw:
        raise Problem("invalid_json", f"expected UTF-8; byte {flaw.start} is not") from None
    except json.JSONDecodeError as flaw:
        detail = f"line {flaw.lineno}, column {flaw.colno}: {flaw.msg[:1].lower()}{flaw.msg[1:]}"
        raise Problem("invalid_json", detail, line=flaw.lineno, column=flaw.colno) from None
    except _NotFinite as flaw:
        place = re.search(r"byte \d+", str(error))
        at = f"{place[0]}: " if place else ""
        raise Problem("invalid_json", f"{at}{flaw} is not JSON; expected a finite number, or null") from None
    raise Problem("invalid_json", str(error))


class _NotFinite(Exception):
    """NaN, Infinity or -Infinity, which Python reads and JSON does not have."""


class _Repeating(dict[str, Any]):
    """An object in which a name stands twice."""

    name = ""


def _read_slowly(raw: bytes) -> Any:
    """The value as Python's own reader sees it: slower, and to the end.

    Raises:
        Invalid: nested too deeply, or a name stands twice; the first few are named.
        UnicodeDecodeError, JSONDecodeError, _NotFinite: not JSON.
    """
    text = raw.decode()
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_bounded, parse_constant=_refuse_constant)
        flaws = list(islice(_repetitions(value, ""), FLAWS_MAX))
    except RecursionError:
        raise _too_deep() from None
    if flaws:
        raise Invalid(*flaws)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    repeating, seen = _Repeating(members), set()
    for name, _ in pairs:
        if name in seen:
            repeating.name = name
        seen.add(name)
    return repeating


def _repetitions(value: Any, pointer: str) -> Iterator[Flaw]:
    if isinstance(value, _Repeating):
        yield Flaw(below(pointer, value.name), "expected each name once in an object")
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _repetitions(member, below(pointer, name))
    elif isinstance(value, list):
        for place, member in enumerate(value):
            yield from _repetitions(member, below(pointer, place))


def _bounded(digits: str) -> int:
    """Python itself refuses thousands of digits; any number beyond the bounds will do to be refused for that."""
    return int(digits) if len(digits) <= 20 else INTEGER_MAX + 1


def _refuse_constant(name: str) -> NoReturn:
    raise _NotFinite(name)
