"""Filters: ``{"status": "not_started", "size": {"gt": 3}}`` -> conditions that the scripts test.

A field is a metadata name, or a dotted path into a nested object; ``sortField``, ``createdAt`` and ``updatedAt`` are
the item's own. Its wanted value stands for equality; an object of operators (``eq ne lt lte gt gte in exists prefix``)
stands for itself. All conditions must hold. An operand that is an RFC 3339 time compares with times alone, as instants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from hookline.clock import CURRENT_TIMESTAMP, OutOfYears, parse_time
from hookline.codec import NATIVE, encode_time, pack
from hookline.errors import Flaw, Invalid, below
from hookline.item import check_value

OPERATORS = ("eq", "ne", "lt", "lte", "gt", "gte", "in", "exists", "prefix")
CONDITIONS_MAX = 32
IN_MAX = 100
OPERAND_MAX = 4096
"""Bytes of JSON that lists and objects of one condition have at most: a large one would be walked for too long."""
OWN = {"version": ("v", "number"), "createdAt": ("ca", "time"), "updatedAt": ("ua", "time"), "sortField": ("v", "word")}
"""What can be filtered beside metadata -> (hash field, kind), as in :data:`hookline.codec.NATIVE`. The sortField is not
in the hash: its condition says so by ``sort``."""

_NUMERIC = {"number", "time", "later"}


@dataclass(frozen=True, slots=True)
class Where:
    """Compiled filters. ``status`` is the one status they ask for, if they ask for one."""

    conditions: tuple[dict[str, Any], ...] = ()
    status: str | None = None


def count_operands(conditions: Iterable[Mapping[str, Any]]) -> int:
    """The operands of compiled conditions, one at least of each."""
    return sum([len(condition.get("operands", "1")) for condition in conditions])


def compile_where(where: object, pointer: str = "/where") -> Where:
    """Compile filters as users write them; what was compiled ahead stays as it is.

    Raises:
        Invalid: not an object, an unknown operator, or an operand that the field cannot have; every flaw is named.
    """
    if where is None:
        return Where()
    if not isinstance(where, Mapping):
        if isinstance(where, Where):
            return where
        raise Invalid.at(pointer, 'expected an object such as {"status": "not_started"}')
    if len(where) > CONDITIONS_MAX:
        raise _too_many(pointer)
    conditions: list[dict[str, Any]] = []
    flaws: list[Flaw] = []
    for name, wanted in where.items():
        try:
            conditions.extend(_compile_field(name, wanted, below(pointer, name)))
        except Invalid as invalid:
            flaws.extend(invalid.flaws)
    if len(conditions) > CONDITIONS_MAX:
        flaws += _too_many(pointer).flaws
    if flaws:
        raise Invalid(*flaws)
    statuses = [c["operand"]["value"] for c in conditions if c["field"] == "s" and c["test"] == "eq"]
    return Where(tuple(conditions), statuses[0] if statuses else None)


def require_where(where: object) -> None:
    """Refuse None for filters where all that match is not to be everything unless that is said.

    Raises:
        Invalid: it is None.
    """
    if where is None:
        raise Invalid.at("/where", "expected filters; {} is every item of the key")


def _too_many(pointer: str) -> Invalid:
    return Invalid.at(pointer, f"expected at most {CONDITIONS_MAX} conditions")


def _compile_field(name: object, wanted: object, pointer: str) -> list[dict[str, Any]]:
    if not isinstance(name, str) or not name:
        raise Invalid.at(pointer, "expected the name of a metadata field")
    check_value(str.__str__(name), pointer)
    check_path(name, pointer)
    if not isinstance(wanted, Mapping):
        return [_condition(name, "eq", wanted, pointer)]
    if not wanted or not all(operator in OPERATORS for operator in wanted):
        raise Invalid.at(pointer, f"expected a value, or an object of operators: {', '.join(OPERATORS)}")
    return [_condition(name, test, operand, f"{pointer}/{test}") for test, operand in wanted.items()]


def _condition(name: str, test: str, operand: object, pointer: str) -> dict[str, Any]:
    condition = {"test": test, **locate(name)}
    if test == "exists":
        if not isinstance(operand, bool):
            raise Invalid.at(pointer, "expected true or false")
        condition["wanted"] = operand
    elif test == "prefix":
        if not isinstance(operand, str) or condition["native"] == "number":
            raise Invalid.at(pointer, "expected text, for a field that holds text")
        check_value(operand, pointer)
        condition["operand"] = {"value": operand}
    elif test == "in":
        if not isinstance(operand, list | tuple) or not 1 <= len(operand) <= IN_MAX:
            raise Invalid.at(pointer, f"expected a list of 1 to {IN_MAX} values")
        _check_size([value for value in operand if type(value) in (list, dict)], pointer)
        condition["operands"] = [_operand(name, value, f"{pointer}/{place}") for place, value in enumerate(operand)]
    else:
        if type(operand) in (list, dict):
            _check_size(operand, pointer)
        condition["operand"] = _operand(name, operand, pointer)
        if test in ("lt", "lte", "gt", "gte") and type(operand) not in (str, int, float):
            raise Invalid.at(pointer, "expected a number, text, or a time")
    return condition


def _check_size(operand: object, pointer: str) -> None:
    """Refuse a list or an object that is too long to be walked.

    Raises:
        Invalid: it is, or too deep even to be measured.
    """
    if not operand:
        return
    try:
        fits = len(_encode(operand)) <= OPERAND_MAX
    except RecursionError:
        fits = False
    except (TypeError, ValueError):
        return  # no JSON, as whoever walks it will say
    if not fits:
        raise Invalid.at(pointer, f"expected lists and objects of at most {OPERAND_MAX} bytes of JSON")


_encode = msgspec.json.Encoder().encode


def check_path(name: str, pointer: str) -> None:
    """Refuse the form that only a query string has: taken for a path, it would quietly match nothing.

    Raises:
        Invalid: it begins with ``metadata.``.
    """
    if name.startswith("metadata."):
        raise Invalid.at(pointer, f"leave out 'metadata.': expected {name.removeprefix('metadata.') or 'a field'}")


def kind_of(name: str) -> str:
    """The kind of one of the engine's own fields (``number time later word text``), or "" for a user's."""
    return (OWN.get(name) or NATIVE.get(name) or ("", ""))[1]


def locate(name: str) -> dict[str, Any]:
    """Where the scripts find a field's value: one of the engine's own fields, or a path into a user's."""
    kind = kind_of(name)
    if kind:
        stored = (OWN.get(name) or NATIVE[name])[0]
        place: dict[str, Any] = {"field": stored, "native": "number" if kind in _NUMERIC else "word", "path": []}
        return place | {"sort": True} if name == "sortField" else place
    first, *path = name.split(".")
    return {"field": f"m:{first}", "native": False, "path": path}


def _operand(name: str, value: object, pointer: str) -> dict[str, Any]:
    value = str.__str__(value) if isinstance(value, str) else value
    check_value(value, pointer)
    kind = kind_of(name)
    if kind in ("time", "later"):
        return {"time": encode_time(value, pointer, relative=True)}
    if kind == "number":
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Invalid.at(pointer, "expected a number")
        return {"value": float(value) if abs(value) >= 2**63 else value}
    if kind in ("word", "text"):
        if not isinstance(value, str):
            raise Invalid.at(pointer, "expected text")
        return {"value": value}
    if isinstance(value, dict | list) and "." in name:
        raise Invalid.at(pointer, "expected a number, text, true, false or null: a path leads to a single value")
    if value == CURRENT_TIMESTAMP:
        return {"time": "+0"}
    # Lua has doubles, and its cmsgpack would read the upper half of 64 bits as negative.
    operand = {"packed": pack(value), "value": float(value) if type(value) is int and value >= 2**63 else value}
    if isinstance(value, str):
        try:
            operand["time"] = str(parse_time(value))
        except OutOfYears as error:
            raise Invalid.at(pointer, str(error)) from None
        except ValueError:
            pass
    return operand
