"""The settings of a key: how its items are claimed, retried and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hookline.clock import format_duration, parse_duration
from hookline.codec import encode_lock
from hookline.errors import Flaw, Invalid

ATTEMPTS_MAX = 1_000_000
LENGTH_MAX = 1_000_000_000
BACKOFFS_MAX = 64
_EXPECTED_BACKOFF = 'expected a duration, a list of 1 to 64 of them, or {"first": "5s", "longest": "1h"}'

DEFAULTS = {"max_attempts": "10", "lock_ms": "600000", "backoff": "exponential 5000 3600000"}
"""What holds where a key has no setting of its own; ``lib/settings.lua`` says the same."""


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
    generation: int

    def to_dict(self) -> dict[str, Any]:
        """As users write them, each with its value."""
        return {
            "maxAttempts": self.max_attempts,
            "lockFor": format_duration(self.lock_ms),
            "backoff": _describe_backoff(self.backoff),
            "paused": self.paused,
            "maxLength": self.max_length,
            "generation": self.generation,
        }


def decode_settings(fields: Mapping[bytes, bytes], partitions: int) -> KeySettings:
    """The fields of a key's settings hash -> the settings."""
    stored = DEFAULTS | {name.decode(): value.decode() for name, value in fields.items()}
    return KeySettings(
        max_attempts=int(stored["max_attempts"]),
        lock_ms=int(stored["lock_ms"]),
        backoff=stored["backoff"],
        paused="paused" in stored,
        max_length=int(stored["length_max"]) * partitions if "length_max" in stored else None,
        generation=int(stored.get("generation", 0)),
    )


def encode_settings(changes: Mapping[str, Any], partitions: int) -> tuple[dict[str, str], list[str]]:
    """Changes by name -> what to set and what to remove; None brings the default back.

    Raises:
        Invalid: a setting cannot have the value given for it; every flaw is named.
    """
    values: dict[str, str] = {}
    gone: list[str] = []
    flaws: list[Flaw] = []
    for name, value in changes.items():
        shown, stored, encode = _ENCODERS[name]
        try:
            text = None if value is None else encode(value, f"/{shown}", partitions)
        except Invalid as invalid:
            flaws += invalid.flaws
            continue
        if text is None:
            gone.append(stored)
        else:
            values[stored] = text
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
    return encode_lock(value, pointer) or 0


def _encode_attempts(value: object, pointer: str, _: int) -> str:
    if type(value) is not int or not 0 <= value <= ATTEMPTS_MAX:
        raise Invalid.at(pointer, f"expected a whole number from 0 (no limit) to {ATTEMPTS_MAX}")
    return str(value)


def _encode_lock(value: object, pointer: str, _: int) -> str:
    lock_ms = _milliseconds(value, pointer)
    if not lock_ms:
        raise Invalid.at(pointer, "expected a duration above 0")
    return str(lock_ms)


def _encode_pause(value: object, pointer: str, _: int) -> str | None:
    if not isinstance(value, bool):
        raise Invalid.at(pointer, "expected true or false")
    return "1" if value else None


def _encode_length(value: object, pointer: str, partitions: int) -> str:
    """Each partition has its share, rounded up: they fill about evenly."""
    if type(value) is not int or not 1 <= value <= LENGTH_MAX:
        raise Invalid.at(pointer, f"expected a whole number from 1 to {LENGTH_MAX}, or null for no limit")
    return str(-(-value // partitions))


_ENCODERS: dict[str, tuple[str, str, Any]] = {
    "max_attempts": ("maxAttempts", "max_attempts", _encode_attempts),
    "lock_for": ("lockFor", "lock_ms", _encode_lock),
    "backoff": ("backoff", "backoff", lambda value, pointer, _: encode_backoff(value, pointer)),
    "paused": ("paused", "paused", _encode_pause),
    "max_length": ("maxLength", "length_max", _encode_length),
}
"""Argument -> how the setting is called outside, its field in the store, and how its value is written there."""
