"""The settings of a key: how its items are claimed, retried, indexed, bounded and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hookline.clock import format_duration, parse_duration
from hookline.codec import UNREADABLE, decode_triggers, encode_duration, unpack_answer
from hookline.errors import Corrupt, Flaw, Invalid, below
from hookline.index import Index, read_indexes
from hookline.item import EVENTS, FLAWS_MAX, TERMINAL, Trigger, TriggerChange
from hookline.trigger import read_triggers

ATTEMPTS_MAX = 1_000_000
LENGTH_MAX = 1_000_000_000
BACKOFFS_MAX = 64
_EXPECTED_BACKOFF = 'expected a duration, a list of 1 to 64 of them, or {"first": "5s", "longest": "1h"}'

DEFAULTS = {"max_attempts": "10", "lock_ms": "600000", "backoff": "exponential 5000 3600000"}
"""What holds where a key has no setting of its own; ``lib/settings.lua`` says the same."""
_INDEX, _KEEP = "x:", "keep:"
"""What the fields of indexes and of retention begin with; the field's name, or the status, follows."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long items of a status are kept, and how many: None is no bound."""

    age_ms: int | None = None
    count: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As users write it."""
        age = None if self.age_ms is None else format_duration(self.age_ms)
        return {name: value for name, value in (("age", age), ("count", self.count)) if value is not None}


@dataclass(frozen=True, slots=True)
class KeySettings:
    """The settings of one key as they hold now. ``generation`` counts their changes.

    ``backoff`` is text as the store keeps it: ``list <ms>,<ms>,...`` or ``exponential <first ms> <longest ms>``.
    ``max_attempts`` of 0 is no limit; ``max_length`` None as well.
    """

    max_attempts: int
    lock_ms: int
    backoff: str
    paused: bool
    max_length: int | None
    indexes: tuple[Index, ...]
    retention: Mapping[str, Retention]
    record_deliveries: bool
    triggers: tuple[Trigger, ...]
    generation: int

    def to_dict(self) -> dict[str, Any]:
        """As users write them, each with its value."""
        return {
            "maxAttempts": self.max_attempts,
            "lockFor": format_duration(self.lock_ms),
            "backoff": _describe_backoff(self.backoff),
            "paused": self.paused,
            "maxLength": self.max_length,
            "indexes": {index.name: index.kind for index in self.indexes},
            "retention": {status: kept.to_dict() for status, kept in self.retention.items()},
            "recordDeliveries": self.record_deliveries,
            "triggerUrls": [trigger.to_dict() for trigger in self.triggers],
            "generation": self.generation,
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What whoever plans a call must know of a key's settings; a partition that knows better says so."""

    generation: int = 0
    indexes: tuple[Index, ...] = ()

    @classmethod
    def decode(cls, fields: Mapping[bytes, bytes]) -> Known:
        """The fields of a key's settings hash -> what of them plans depend on."""
        return cls(int(fields.get(b"generation", 0)), decode_indexes(fields))


def read_settings(key: str, fields: Mapping[bytes, bytes], partitions: int) -> KeySettings:
    """The fields of the settings hash of a key -> the settings.

    Raises:
        Corrupt: they can be none.
    """
    try:
        settings = decode_settings(fields, partitions)
        settings.to_dict()  # a backoff is read only to be shown
    except UNREADABLE as error:
        raise Corrupt(f"the settings hash of {key} can be none") from error
    return settings


def decode_settings(fields: Mapping[bytes, bytes], partitions: int) -> KeySettings:
    """The fields of a key's settings hash -> the settings."""
    stored = {name.decode(): value for name, value in fields.items()}
    texts = DEFAULTS | {name: value.decode() for name, value in stored.items() if ":" not in name and name != "t"}
    kept = {name.removeprefix(_KEEP): value.decode() for name, value in stored.items() if name.startswith(_KEEP)}
    return KeySettings(
        max_attempts=int(texts["max_attempts"]),
        lock_ms=int(texts["lock_ms"]),
        backoff=texts["backoff"],
        paused="paused" in texts,
        max_length=int(texts["length_max"]) * partitions if "length_max" in texts else None,
        indexes=decode_indexes(fields),
        retention={status: _decode_retention(kept[status], partitions) for status in sorted(kept)},
        record_deliveries="record_deliveries" in texts,
        triggers=decode_triggers(stored.get("t")),
        generation=int(texts.get("generation", 0)),
    )


def decode_indexes(fields: Mapping[bytes, bytes]) -> tuple[Index, ...]:
    """The declared indexes that the fields of a key's settings hash name."""
    prefix = _INDEX.encode()
    return tuple(
        Index(name.removeprefix(prefix).decode(), unpack_answer(fields[name])[b"kind"].decode())
        for name in sorted(fields)
        if name.startswith(prefix)
    )


def encode_settings(
    changes: Mapping[str, Any], partitions: int, seal: Callable[[list[TriggerChange]], bytes]
) -> tuple[dict[str, str | bytes], list[str]]:
    """Changes by name -> what to set, and what to remove before that; None brings the default back.

    ``seal`` turns triggers as they are written into the form in which they are stored.

    Raises:
        Invalid: a setting cannot have the value given for it; every flaw is named.
    """
    values: dict[str, str | bytes] = {}
    gone: list[str] = []
    flaws: list[Flaw] = []
    for name, value in changes.items():
        shown, stored, encode = _ENCODERS[name]
        try:
            found = None if value is None else encode(value, f"/{shown}", partitions)
        except Invalid as invalid:
            flaws += invalid.flaws
            continue
        if isinstance(found, list):  # what they do not say of API keys and secrets stays as it is
            values[stored] = seal(found)
            continue
        gone.append(stored)
        if isinstance(found, dict):
            values |= found
        elif found is not None:
            values[stored] = found
    if flaws:
        raise Invalid(*flaws)
    return values, gone


def encode_backoff(value: object, pointer: str) -> str:
    """A backoff as users write it -> the text that the store keeps.

    Raises:
        Invalid: it is none of a duration, a list of them, and an object of ``first`` and ``longest``.
    """
    if isinstance(value, Mapping):
        if set(value) != {"first", "longest"}:
            raise Invalid.at(pointer, _EXPECTED_BACKOFF)
        first, longest = (_milliseconds(value[name], f"{pointer}/{name}") for name in ("first", "longest"))
        if not 0 < first <= longest:
            raise Invalid.at(pointer, "expected first above 0, and longest not below it")
        return f"exponential {first} {longest}"
    delays = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(delays) <= BACKOFFS_MAX:
        raise Invalid.at(pointer, _EXPECTED_BACKOFF)
    try:
        return "list " + ",".join(str(parse_duration(delay)) for delay in delays)
    except ValueError:
        raise Invalid.at(pointer, _EXPECTED_BACKOFF) from None


def _describe_backoff(text: str) -> Any:
    kind, _, numbers = text.partition(" ")
    if kind == "exponential":
        first, longest = numbers.split()
        return {"first": format_duration(int(first)), "longest": format_duration(int(longest))}
    delays = [format_duration(int(ms)) for ms in numbers.split(",")]
    return delays[0] if len(delays) == 1 else delays


def _milliseconds(value: object, pointer: str) -> int:
    if value is None:
        raise Invalid.at(pointer, "expected a duration")
    return encode_duration(value, pointer) or 0


def _encode_attempts(value: object, pointer: str, _: int) -> str:
    if type(value) is not int or not 0 <= value <= ATTEMPTS_MAX:
        raise Invalid.at(pointer, f"expected a whole number from 0 (no limit) to {ATTEMPTS_MAX}")
    return str(value)


def _encode_lock(value: object, pointer: str, _: int) -> str:
    lock_ms = _milliseconds(value, pointer)
    if not lock_ms:
        raise Invalid.at(pointer, "expected a duration above 0")
    return str(lock_ms)


def _encode_flag(value: object, pointer: str, _: int) -> str | None:
    if not isinstance(value, bool):
        raise Invalid.at(pointer, "expected true or false")
    return "1" if value else None


def _encode_length(value: object, pointer: str, partitions: int) -> str:
    """Each partition has its share, rounded up: they fill about evenly."""
    if type(value) is not int or not 1 <= value <= LENGTH_MAX:
        raise Invalid.at(pointer, f"expected a whole number from 1 to {LENGTH_MAX}, or null for no limit")
    return str(-(-value // partitions))


def _encode_indexes(value: object, pointer: str, _: int) -> dict[str, bytes]:
    return {_INDEX + index.name: index.pack() for index in read_indexes(value, pointer)}


def _encode_retention(value: object, pointer: str, partitions: int) -> dict[str, str]:
    """``<age ms, or nothing> <count, or nothing>``; of the count each partition has its share, rounded up."""
    if not isinstance(value, Mapping):
        raise Invalid.at(pointer, 'expected an object such as {"completed": {"age": "7d", "count": 100000}}')
    flaws: list[Flaw] = []
    fields: dict[str, str] = {}
    for status, bounds in value.items():
        if len(flaws) == FLAWS_MAX:
            break
        place = below(pointer, status)
        if status not in TERMINAL:
            flaws.append(Flaw(place, f"expected one of {', '.join(sorted(TERMINAL))}: other items are not removed"))
            continue
        try:
            kept = _read_retention(bounds, place)
        except Invalid as invalid:
            flaws += invalid.flaws
            continue
        share = "" if kept.count is None else -(-kept.count // partitions)
        fields[_KEEP + status] = f"{'' if kept.age_ms is None else kept.age_ms} {share}"
    if flaws:
        raise Invalid(*flaws)
    return fields


def _read_retention(value: object, pointer: str) -> Retention:
    if not isinstance(value, Mapping) or not value or not set(value) <= {"age", "count"}:
        raise Invalid.at(pointer, 'expected an object of age and count, or one of the two: {"age": "7d"}')
    age, count = value.get("age"), value.get("count")
    if count is not None and (type(count) is not int or not 0 <= count <= LENGTH_MAX):
        raise Invalid.at(f"{pointer}/count", f"expected a whole number from 0 to {LENGTH_MAX}")
    return Retention(encode_duration(age, f"{pointer}/age"), count)


def _decode_retention(text: str, partitions: int) -> Retention:
    age, _, share = text.partition(" ")
    return Retention(int(age) if age else None, int(share) * partitions if share else None)


_ENCODERS: dict[str, tuple[str, str, Any]] = {
    "max_attempts": ("maxAttempts", "max_attempts", _encode_attempts),
    "lock_for": ("lockFor", "lock_ms", _encode_lock),
    "backoff": ("backoff", "backoff", lambda value, pointer, _: encode_backoff(value, pointer)),
    "paused": ("paused", "paused", _encode_flag),
    "max_length": ("maxLength", "length_max", _encode_length),
    "indexes": ("indexes", f"{_INDEX}*", _encode_indexes),
    "retention": ("retention", f"{_KEEP}*", _encode_retention),
    "record_deliveries": ("recordDeliveries", "record_deliveries", _encode_flag),
    "trigger_urls": ("triggerUrls", "t", lambda value, pointer, _: read_triggers(value, pointer, EVENTS)),
}
"""Argument -> how the setting is called outside, its field in the store (or what its fields begin with, and ``*``), and
how its value is written there: text, fields, or triggers still to be sealed."""

ARGUMENTS = {shown: argument for argument, (shown, _, _) in _ENCODERS.items()}
"""How a setting is called outside -> the argument that sets it."""
