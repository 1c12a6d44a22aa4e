"""What the results of commands bind, and the values that placeholders take from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from hookline.errors import HooklineError, cut
from hookline_server.command.parser import Command
from hookline_server.command.placeholder import ITEM, Placeholder, Template
from hookline_server.command.value import expected, fits
from hookline_server.command.verbs import TEXTS, VERBS

NAMES_SHOWN = 10
"""Names that an error lists."""
FILTERS = ("where", "if", "until")
"""Fields that are filters; ``metadata`` is one where a verb takes ``where`` as well."""


class Unfit(HooklineError):
    """A placeholder stands for nothing, or for nothing that fits its place. Line and column are its own."""

    code = "unfit_placeholder"

    def __init__(self, placeholder: Placeholder, detail: str) -> None:
        self.line = placeholder.line
        self.column = placeholder.column
        super().__init__(f"{cut(str(placeholder))}: {cut(detail)}")


class Names:
    """Name -> value, as the results of a text bind them one after the other; ``fixed`` are those of loops around."""

    def __init__(self, values: Mapping[str, Any] | None = None, fixed: frozenset[str] = frozenset()) -> None:
        self.values = dict(values or {})
        self._fixed = fixed

    def within(self, name: str, member: Any) -> Names:
        """The names inside one round of a loop, which are gone after it."""
        inside = Names(self.values, self._fixed)
        if isinstance(member, dict) and {"key", "sortField", "version"} <= member.keys():
            inside._bind(_of_item(member))
        inside.values[name] = member
        inside._fixed |= {name}
        return inside

    def take(self, command: Command, result: Mapping[str, Any]) -> None:
        """Bind what the result of a command gives.

        A result that could have had an item and has none takes the item of before away: what follows must not act on
        another one by mistake. A token stays with its item: only a claim shows one.
        """
        found: dict[str, Any] = {"result": dict(result)}
        if "items" in result:
            found["items"] = result["items"]
            found |= _of_item(next((item for item in result["items"] if item is not None), None))
        elif "item" in result:
            found |= _of_item(result["item"])
        elif "version" in result:
            found["current_version"] = result["version"]
        if command.name is not None:
            found[command.name] = result.get("items", result.get("item", found["result"]))
        self._bind(found)

    def _bind(self, found: dict[str, Any]) -> None:
        if found.get("token", _GONE) is _GONE and _identity(found.get("item")) == _identity(self.values.get("item")):
            found.pop("token", None)
        for name, value in found.items():
            if name in self._fixed:
                continue
            if value is _GONE:
                self.values.pop(name, None)
            else:
                self.values[name] = value

    def find(self, placeholder: Placeholder) -> Any:
        """The value that a placeholder stands for.

        Raises:
            Unfit: there is none.
        """
        if placeholder.root not in self.values:
            raise Unfit(placeholder, f"the result before it has no {placeholder.root}")
        value, walked = self.values[placeholder.root], placeholder.root
        for step in placeholder.path:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
                value = value[int(step[:9])]
            else:
                raise Unfit(placeholder, f"{walked} has no '{step}'; {_has(value)}")
            walked += f".{step}"
        return value

    def bind(self, command: Command, size_max: int) -> Command:
        """The command with values in place of its placeholders. Values are never read as language again.

        Raises:
            Unfit: one stands for nothing, for what its place does not take, or for more than ``size_max`` bytes.
        """
        if not command.placeholders:
            return command
        binding = _Binding(self, size_max)
        kinds = VERBS[command.verb].fields
        same = {"metadata": "where"} if "where" in kinds else {}
        fields = {
            name: binding.field(same.get(name, name), value, kinds[name]) for name, value in command.fields.items()
        }
        return replace(command, fields=fields)


_GONE = object()
"""Stands for what a name no longer stands for."""


def _of_item(item: Any) -> dict[str, Any]:
    if item is None:
        return dict.fromkeys(ITEM, _GONE)
    return {"item": item, "job": item, "current_version": item["version"], "token": item.get("token") or _GONE}


def _identity(item: Any) -> tuple[Any, Any] | None:
    return (item.get("key"), item.get("sortField")) if isinstance(item, dict) else None


def _has(value: Any) -> str:
    if isinstance(value, dict):
        names = sorted(value)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return f"it has {', '.join(names[:NAMES_SHOWN])}{more}" if names else "it is empty"
    return f"it has {len(value)} members, from 0 on" if isinstance(value, list) else "it is no object"


class _Binding:
    """Puts values in place for one command, up to so many bytes of JSON."""

    def __init__(self, names: Names, size_max: int) -> None:
        self._names = names
        self._left = self._size_max = size_max

    def field(self, name: str, value: Any, kind: str) -> Any:
        if not isinstance(value, Template):
            bound = self._inside(value)
            if name in FILTERS:
                return _operands(value, bound)
            return _triggers(value, bound) if name == "triggerUrls" and isinstance(value, list) else bound
        if kind in TEXTS or value.whole is None:
            return self._text(value)
        bound = self._find(value.whole)
        if not fits(bound, kind):
            raise Unfit(value.whole, f"expected {expected(kind)}")
        return bound

    def _inside(self, value: Any) -> Any:
        if isinstance(value, Template):
            return self._text(value) if value.whole is None else self._find(value.whole)
        if isinstance(value, dict):
            return {name: self._inside(member) for name, member in value.items()}
        return [self._inside(member) for member in value] if isinstance(value, list) else value

    def _text(self, template: Template) -> str:
        return "".join(part if isinstance(part, str) else self._as_text(part) for part in template.parts)

    def _as_text(self, placeholder: Placeholder) -> str:
        value = self._find(placeholder)
        if isinstance(value, str):
            return value
        if value is None or isinstance(value, dict | list):
            raise Unfit(placeholder, "expected text, a number, true or false, to stand in text")
        return msgspec.json.encode(value).decode()

    def _find(self, placeholder: Placeholder) -> Any:
        value = self._names.find(placeholder)
        self._left -= len(msgspec.json.encode(value))
        if self._left < 0:
            raise Unfit(placeholder, f"expected at most {self._size_max} bytes in place of all placeholders")
        return value


def _operands(written: dict[str, Any], bound: dict[str, Any]) -> dict[str, Any]:
    """Filters. An object that was inserted is what a field shall equal: its names are no operators."""
    return {
        name: {"eq": wanted} if isinstance(written[name], Template) and isinstance(wanted, dict) else wanted
        for name, wanted in bound.items()
    }


def _triggers(written: list[Any], bound: list[Any]) -> list[Any]:
    """The same for the filters of triggers."""
    for entry, found in zip(written, bound, strict=True):
        if isinstance(entry, dict) and isinstance(entry.get("where"), dict):
            found["where"] = _operands(entry["where"], found["where"])
    return bound
