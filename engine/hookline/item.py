"""The item: the one object that is at once a document, a versioned record and a job."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from hookline.clock import format_duration
from hookline.errors import Flaw, Invalid, below

SCHEDULED, NOT_STARTED, STARTED = "scheduled", "not_started", "started"
COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"
TERMINAL = frozenset({COMPLETED, FAILED, CANCELLED})

DEPTH_MAX = 64
"""Deepest nesting of a value: far above real documents, far below any parser's recursion limit."""
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1
"""What msgpack can hold exactly."""
FLAWS_MAX = 20
"""Flaws of one value that are listed: a large one can have any number of them."""
METADATA_FIELDS_MAX = 256
"""One HSET carries them all; the store's Lua cannot unpack more than 8,000 arguments."""
FIELDS_MAX = 1024
"""Metadata fields of the user's own that an item may come to have: each later write reads them all, in 0.6 ms."""
TRIGGERS_MAX = 16
SORT_FIELD_MAX = 512
EVENTS = ("created", "updated", "deleted")
STATUS_EVENT = "status:"
"""``status:<word>``: the item has come into this status, by a creation or an update."""
RESERVED_PREFIX = "hookline."

_NAMESPACE = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Options:
    """What a trigger may say beyond where, with which API key and for which events.

    ``where`` are filters that the changed item must meet, ``conditions`` the same compiled. ``retry`` are the waits
    between attempts in ms, None where the server's hold. ``ordered``: the events of an item arrive one after the
    other. ``format`` is None or ``cloudevents``. ``secrets`` sign in place of the namespace's, as written (None: those
    that are stored stay); ``sealed`` are the same where they were read.
    """

    where: Mapping[str, Any] | None = None
    conditions: tuple[dict[str, Any], ...] = ()
    retry: tuple[int, ...] | None = None
    ordered: bool = False
    format: str | None = None
    secrets: tuple[str, ...] | None = field(default=None, repr=False)
    sealed: tuple[bytes, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As it reads outside: what is not the default."""
        retry = None if self.retry is None else [format_duration(wait) for wait in self.retry]
        shown = {"where": self.where, "retry": retry, "ordered": self.ordered or None, "format": self.format}
        shown["hasSecret"] = bool(self.sealed) or None
        return {name: value for name, value in shown.items() if value is not None}


PLAIN = Options()


class Trigger(msgspec.Struct, frozen=True):
    """A URL that is called when the item changes. API key and secrets themselves are never read back."""

    url: str
    events: tuple[str, ...] = ("updated",)
    has_api_key: bool = False
    options: Options = PLAIN

    def to_dict(self) -> dict[str, Any]:
        """As it reads outside: ``{url, events, hasApiKey}``, and what else it says."""
        shown = {"url": self.url, "events": list(self.events), "hasApiKey": self.has_api_key}
        return shown if self.options is PLAIN else shown | self.options.to_dict()


@dataclass(frozen=True, slots=True)
class TriggerChange:
    """A trigger as it is written. ``api_key`` None keeps the key that is stored for the same URL."""

    url: str
    api_key: str | None
    events: tuple[str, ...]
    options: Options = PLAIN


_NOT_SHOWN = ("token", "sealed_triggers")


class Item(msgspec.Struct, frozen=True, eq=False):
    """One item as it stood at one moment.

    ``token`` is set only on what a claiming call returned; ``created_at`` and ``updated_at`` are RFC 3339.
    ``sealed_triggers`` are the triggers as stored, API keys encrypted, for the relay.
    """

    key: str
    sort_field: str
    content: Any
    metadata: dict[str, Any]
    triggers: tuple[Trigger, ...]
    version: int
    created_at: str
    updated_at: str
    locked_until_ms: int | None = None
    token: str | None = None
    sealed_triggers: bytes = b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item) and self._shown() == other._shown() and self.token == other.token

    def __repr__(self) -> str:
        return f"Item({', '.join(f'{name}={value!r}' for name, value in self._shown().items())})"

    def _shown(self) -> dict[str, Any]:
        """All but what is secret, or is sealed anew by every write."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name not in _NOT_SHOWN}

    @property
    def status(self) -> str | None:
        """The item's status, or None for a plain document."""
        return self.metadata.get("status")

    @property
    def etag(self) -> str:
        """``"<version>.<locked_until ms>"``, so that a lock extension changes it and a version names it."""
        return f'"{self.version}.{self.locked_until_ms or 0}"'

    def to_dict(self) -> dict[str, Any]:
        """The item as it reads over HTTP."""
        shown = {
            "key": self.key,
            "sortField": self.sort_field,
            "content": self.content,
            "metadata": self.metadata,
            "triggerUrls": [trigger.to_dict() for trigger in self.triggers],
            "version": self.version,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }
        if self.token is not None:
            shown["token"] = self.token
        return shown


def check_namespace(namespace: object) -> str:
    """The namespace, if it is one.

    Raises:
        Invalid: it is not.
    """
    if isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace):
        return namespace
    raise Invalid.at("/namespace", "expected 1 to 64 characters of a-z 0-9 _ -")


def check_key(key: object, pointer: str = "/key") -> str:
    """The key, if it is one.

    Raises:
        Invalid: it is not.
    """
    if isinstance(key, str) and is_key(key):
        return key
    raise Invalid.at(pointer, "expected 1 to 128 characters of A-Z a-z 0-9 . _ -")


@lru_cache(maxsize=1024)
def is_key(key: str) -> bool:
    """Whether it has the form of a key. A process works with few keys, and sees each of them with every operation."""
    return _KEY.fullmatch(key) is not None


def check_sort_field(sort_field: object, pointer: str = "/sortField") -> str:
    """The sortField, if it is one.

    Raises:
        Invalid: it is not.
    """
    if isinstance(sort_field, str) and sort_field and "\0" not in sort_field:
        if sort_field.isascii() and len(sort_field) <= SORT_FIELD_MAX:
            return sort_field
        try:
            if len(sort_field.encode()) <= SORT_FIELD_MAX:
                return sort_field
        except UnicodeEncodeError:
            pass
    raise Invalid.at(pointer, f"expected 1 to {SORT_FIELD_MAX} bytes of UTF-8 text without NUL")


def check_value(value: object, pointer: str) -> None:
    """Refuse what JSON and msgpack cannot both hold exactly.

    Raises:
        Invalid: nested deeper than :data:`DEPTH_MAX`, an integer beyond 64 bits, NaN or an infinity, text that is
            not UTF-8, an object with a name that is not text, or a value of no JSON type; the first few are listed.
    """
    if not _is_sound(value, 0):
        raise Invalid(*islice(_flaws(value, pointer, 0), FLAWS_MAX))


def _is_sound(value: object, depth: int) -> bool:
    """Whether :func:`_flaws` would find nothing: the same rules without the words, since most values are sound."""
    if type(value) is str:
        return value.isascii() or _is_utf8(value)
    if type(value) is dict:
        for name in value:
            if type(name) is not str or not (name.isascii() or _is_utf8(name)):
                return False
        return _are_sound(value.values(), depth)
    if type(value) is list:
        return _are_sound(value, depth)
    if type(value) is int:
        return INTEGER_MIN <= value <= INTEGER_MAX
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) is bool


def _are_sound(members: Iterable[object], depth: int) -> bool:
    if depth >= DEPTH_MAX:
        return False
    for member in members:
        # Text is most of what there is: it needs no call.
        if not (type(member) is str and member.isascii()) and not _is_sound(member, depth + 1):
            return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _flaws(value: object, pointer: str, depth: int) -> Iterator[Flaw]:
    if type(value) is str:
        if not _is_utf8(value):
            yield Flaw(pointer, "expected text without unpaired surrogates")
    elif type(value) is dict:
        if depth == DEPTH_MAX:
            yield Flaw(pointer, f"expected at most {DEPTH_MAX} levels of nesting")
            return
        for name, member in value.items():
            if type(name) is not str:
                yield Flaw(pointer, "expected text as names of an object")
                return
            yield from _flaws(name, pointer, depth + 1)
            yield from _flaws(member, below(pointer, name), depth + 1)
    elif type(value) is list:
        if depth == DEPTH_MAX:
            yield Flaw(pointer, f"expected at most {DEPTH_MAX} levels of nesting")
            return
        for place, member in enumerate(value):
            yield from _flaws(member, f"{pointer}/{place}", depth + 1)
    elif type(value) is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            yield Flaw(pointer, "expected an integer of at most 64 bits")
    elif type(value) is float:
        if not math.isfinite(value):
            yield Flaw(pointer, "expected a finite number")
    elif value is not None and type(value) is not bool:
        yield Flaw(pointer, f"expected a JSON value, not {type(value).__name__}")
