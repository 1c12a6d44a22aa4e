"""msgpack read as strictly as JSON: it may hold what JSON can hold, and each name once in an object."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgpack

from hookline.errors import Flaw, Invalid, below
from hookline.item import DEPTH_MAX, FLAWS_MAX
from hookline_server.problem import Problem

MEMBERS_MAX = 100_000
"""Members of one list or object. Room for as many as are declared is made at once, at each of hundreds of levels."""
_PLAIN = (str, int, bool, type(None))
_KINDS = {
    bytes: "binary data",
    msgpack.Timestamp: "a timestamp: write it as RFC 3339 text",
    msgpack.ExtType: "an extension",
}


def decode(raw: bytes) -> Any:
    """The bytes -> their value.

    Raises:
        Invalid: nothing there, nested too deeply, a name twice, binary data, a type of extension, no finite number.
        Problem: not msgpack.
    """
    if not raw:
        raise Invalid.at("", "expected a msgpack body")
    try:
        most = min(len(raw), MEMBERS_MAX)
        value = msgpack.unpackb(
            raw, strict_map_key=False, object_pairs_hook=_object, max_array_len=most, max_map_len=most
        )
    except msgpack.StackError:
        raise _too_deep() from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Problem("invalid_msgpack", _explain(error)) from None
    if not _is_sound(value):
        raise Invalid(*islice(_flaws(value), FLAWS_MAX))
    return value


def _explain(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "expected text in UTF-8"
        case msgpack.ExtraData():
            return "expected one value, and nothing after it"
        case ValueError() if "max_" in str(error):
            return f"expected lists and objects of at most {MEMBERS_MAX} members, all of them there"
    return "expected msgpack; it is cut off, or no msgpack at all"


class _Odd(dict[str, Any]):
    """An object that JSON could not hold: a name is not text, or stands twice."""

    twice: str | None = None


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    if not pairs:
        return {}
    members = {name: value for name, value in pairs if type(name) is str}
    if len(members) == len(pairs):
        return members
    odd = _Odd(members)
    counts = Counter(name for name, _ in pairs if type(name) is str)
    odd.twice = next((name for name, count in counts.items() if count > 1), None)
    return odd


def _is_sound(value: Any) -> bool:
    """Whether JSON could hold the value. Level by level, since a parser of msgpack goes deeper than Python can follow.

    Raises:
        Invalid: it is nested too deeply for any request; how deep a content may be is checked with the content.
    """
    level = [value]
    for _ in range(2 * DEPTH_MAX):
        below_it: list[Any] = []
        for member in level:
            kind = type(member)
            if kind is dict:
                below_it += member.values()
            elif kind is list:
                below_it += member
            elif kind not in _PLAIN and not (kind is float and math.isfinite(member)):
                return False
        if not below_it:
            return True
        level = below_it
    raise _too_deep()


def _flaws(value: Any, pointer: str = "", depth: int = 0) -> Iterator[Flaw]:
    if depth > 2 * DEPTH_MAX:
        yield Flaw(pointer, f"expected at most {DEPTH_MAX} levels of nesting")
    elif isinstance(value, _Odd):
        if value.twice is None:
            yield Flaw(pointer, "expected text as names of an object")
        else:
            yield Flaw(below(pointer, value.twice), "expected each name once in an object")
    elif isinstance(value, dict | list):
        for name, member in value.items() if isinstance(value, dict) else enumerate(value):
            if type(member) not in _PLAIN:
                yield from _flaws(member, below(pointer, name), depth + 1)
    elif type(value) is not float:
        yield Flaw(pointer, f"expected a value that JSON can hold, not {_KINDS.get(type(value), 'this')}")
    elif not math.isfinite(value):
        yield Flaw(pointer, "expected a finite number")


def _too_deep() -> Invalid:
    return Invalid.at("", f"expected at most {DEPTH_MAX} levels of nesting")
