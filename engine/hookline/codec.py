"""Between items as users write and read them and the fields of the hash that holds one.

A hash has short native fields for what the scripts read and move, and ``m:<name>`` with a msgpack value for every
other metadata field. Scripts never pack a user's value again, so any JSON value comes back bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgpack
import msgspec

from hookline.clock import CURRENT_TIMESTAMP, EXPECTED_DURATION, EXPECTED_TIME, format_time, parse_duration, parse_time
from hookline.errors import Corrupt, Flaw, Invalid, below
from hookline.item import METADATA_FIELDS_MAX, PLAIN, Item, Options, Trigger, TriggerChange, check_value
from hookline.secret import SecretBox

NATIVE = {
    "status": ("s", "word"),
    "worker_id": ("w", "word"),
    "started_at": ("sa", "time"),
    "completed_at": ("da", "time"),
    "locked_until": ("lu", "later"),
    "scheduled_at": ("sd", "later"),
    "attempts": ("a", "number"),
    "max_attempts": ("ma", "number"),
    "priority": ("p", "number"),
    "last_error": ("le", "text"),
    "crashed_attempts": ("cr", "number"),
    "failed_attempts": ("fa", "number"),
    "released_attempts": ("re", "number"),
}
"""Metadata field -> (hash field, kind). ``later`` is a time that may also be written as ``+10m``."""

NAMES = {stored: name for name, (stored, _) in NATIVE.items()}
_COUNT = (0, 1_000_000)
LIMITS = {
    "attempts": _COUNT,
    "max_attempts": _COUNT,
    "priority": (0, 9),
    "crashed_attempts": _COUNT,
    "failed_attempts": _COUNT,
    "released_attempts": _COUNT,
}
WORD_MAX = 128
TEXT_MAX = 8192

Fields = dict[bytes, bytes]
"""A hash as the store gives it: names and values are bytes."""
UNREADABLE = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError)
"""What is raised where a hash that can be no item is decoded."""


class Change(msgspec.Struct):
    """What a write sets (``values``), removes (``unset``) and stamps with the store's clock (``stamped``)."""

    values: dict[str, bytes | str] = {}
    unset: list[str] = []
    stamped: list[str] = []
    version: int | None = None


def pack(value: object) -> bytes:
    """A JSON value -> the msgpack that the hash keeps."""
    return _encode(value)


_encode = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode
"""The msgpack of one field -> its value."""


class Packed(msgspec.Struct, frozen=True):
    """Content that was encoded ahead, to be given in its place: what is large takes longer than a loop has time."""

    content: bytes


def encode_content(content: object) -> bytes:
    """Content, or what is :class:`Packed` of it -> the bytes of field ``c``.

    Raises:
        Invalid: content is not a JSON value of allowed depth and size of integers.
    """
    if type(content) is Packed:
        return content.content
    check_value(content, "/content")
    return pack(content)


def encode_metadata(metadata: object) -> Change:
    """Metadata as written, or what was made of it ahead -> the fields to set, remove and stamp; the caller's own.

    Raises:
        Invalid: not an object, or a field with a value that it cannot have; every bad field is named.
    """
    change = Change()
    if metadata is None:
        return change
    if not (type(metadata) is dict or isinstance(metadata, Mapping)):
        if type(metadata) is Change:
            return Change({**metadata.values}, [*metadata.unset], [*metadata.stamped], metadata.version)
        raise Invalid.at("/metadata", "expected an object")
    if len(metadata) > METADATA_FIELDS_MAX:
        raise Invalid.at("/metadata", f"expected at most {METADATA_FIELDS_MAX} fields")
    flaws: list[Flaw] = []
    for name, value in metadata.items():
        try:
            _encode_field(change, name, value)
        except Invalid as invalid:
            flaws += [Flaw(below("/metadata", name) + flaw.pointer, flaw.detail) for flaw in invalid.flaws]
    if flaws:
        raise Invalid(*flaws)
    return change


def _encode_field(change: Change, name: object, value: object) -> None:
    stored, kind = _stored(name)
    if kind == "version":
        if type(value) is not int or not 1 <= value < 2**53:
            raise Invalid.at("", "expected the current version as a whole number from 1")
        change.version = value
    elif value is None:
        change.unset.append(stored)
    elif kind:
        change.values[stored] = encode_native(str(name), kind, value, "")
    elif value == CURRENT_TIMESTAMP:
        change.stamped.append(stored)
    else:
        if not (type(value) is str and value.isascii()):
            value = str.__str__(value) if isinstance(value, str) else value
            check_value(value, "")
        change.values[stored] = _encode(value)


@lru_cache(maxsize=4096)
def _stored(name: object) -> tuple[str, str]:
    """The name of a metadata field -> the hash field that holds it, and its kind; ``""`` is any JSON value."""
    if not isinstance(name, str) or not name or "\0" in name or len(name) > WORD_MAX:
        raise Invalid.at("", f"expected field names of 1 to {WORD_MAX} characters")
    name = str.__str__(name)
    if not name.isascii():
        check_value(name, "")
    return NATIVE.get(name) or (f"m:{name}", "version" if name == "version" else "")


def encode_native(name: str, kind: str, value: object, pointer: str) -> str:
    """One of the engine's own metadata fields -> its stored text; ``+600000`` is relative to the store's clock.

    Raises:
        Invalid: the value is of another kind or out of bounds.
    """
    if kind == "number":
        low, high = LIMITS[name]
        if type(value) is not int or not low <= value <= high:
            raise Invalid.at(pointer, f"expected a whole number from {low} to {high}")
        return str(value)
    if kind in ("time", "later"):
        return encode_time(value, pointer, relative=kind == "later")
    most = WORD_MAX if kind == "word" else TEXT_MAX
    if not isinstance(value, str) or not value or len(value) > most or "\0" in value:
        raise Invalid.at(pointer, f"expected text of 1 to {most} characters")
    if type(value) is not str:
        value = str.__str__(value)  # a member of a StrEnum would be shown as that
    if not value.isascii():
        check_value(value, pointer)
    return value


def encode_time(value: object, pointer: str, *, relative: bool) -> str:
    """A time as written -> milliseconds as text, or ``+<ms>`` from the store's now.

    Raises:
        Invalid: neither RFC 3339 nor CURRENT_TIMESTAMP (nor, where allowed, a duration such as ``+10m``).
    """
    expected = f"{EXPECTED_TIME}, or +10m" if relative else EXPECTED_TIME
    if not isinstance(value, str):
        raise Invalid.at(pointer, expected)
    if value == CURRENT_TIMESTAMP:
        return "+0"
    try:
        if relative and value.startswith("+"):
            return f"+{parse_duration(value[1:])}"
        moment = parse_time(value)
    except ValueError:
        raise Invalid.at(pointer, expected) from None
    if moment < 0:
        raise Invalid.at(pointer, "expected a time from 1970 on")
    return str(moment)


def encode_duration(value: object, pointer: str) -> int | None:
    """A duration as written -> milliseconds; None stays None.

    Raises:
        Invalid: not a duration.
    """
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError:
        raise Invalid.at(pointer, EXPECTED_DURATION) from None


def identity(namespace: str, key: str, sort_field: str) -> bytes:
    """What a trigger's API key is bound to: it opens only on the item that it was written on."""
    return f"{namespace}\0{key}\0{sort_field}".encode()


def encode_triggers(changes: list[TriggerChange], secrets: SecretBox, owner: bytes) -> bytes:
    """Triggers as written -> field ``t``: ``[[url, sealed API key, events, options], ...]``.

    An API key of ``""`` is none, false keeps the stored one. The options are left out where there are none, else
    ``[conditions, filters as written, retry, ordered, format, sealed secrets]``, false for each that is not there.
    """
    return pack_request(
        [
            [
                change.url,
                False if change.api_key is None else secrets.seal(change.api_key, owner) if change.api_key else b"",
                list(change.events),
                *pack_options(change.options, _seal_secrets(change.options, secrets, owner)),
            ]
            for change in changes
        ]
    )


def _seal_secrets(options: Options, secrets: SecretBox, owner: bytes) -> list[bytes] | None:
    return None if options.secrets is None else [secrets.seal(secret, owner) for secret in options.secrets]


def pack_options(options: Options, sealed: list[bytes] | None) -> list[list[Any]]:
    """The options of a trigger as its last member: in a list, which is empty where there are none."""
    if options == PLAIN and not sealed:
        return []
    # Filters stay packed within: Lua would not pack them again as they were.
    conditions = pack_request(list(options.conditions)) if options.conditions else False
    where = pack(options.where) if options.where else False
    retry = False if options.retry is None else list(options.retry)
    return [[conditions, where, retry, options.ordered, options.format or False, False if sealed is None else sealed]]


def decode_options(written: list[Any]) -> Options:
    """The options of a stored trigger; the secrets stay sealed."""
    conditions, where, retry, ordered, form, secrets = written
    return Options(
        where=unpack(where) if where else None,
        conditions=tuple(unpack_answer(conditions)) if conditions else (),
        retry=None if retry is False else tuple(retry),
        ordered=bool(ordered),
        format=form.decode() if form else None,
        sealed=tuple(secrets or ()),
    )


def open_triggers(packed: bytes, secrets: SecretBox, owner: bytes) -> list[dict[str, Any]]:
    """Field ``t`` -> the triggers as users write them, with API keys and secrets, for who writes them on another item.

    Raises:
        Unopenable: they are sealed under another key.
    """
    opened = []
    for trigger, (_, sealed, *_) in zip(decode_triggers(packed), unpack_answer(packed) if packed else (), strict=True):
        entry = {"url": trigger.url, "events": list(trigger.events), **trigger.options.to_dict()}
        entry["apiKey"] = secrets.open(sealed, owner) if sealed else ""
        entry.pop("hasSecret", None)
        if trigger.options.sealed:
            entry["secret"] = [secrets.open(secret, owner) for secret in trigger.options.sealed]
        opened.append(entry)
    return opened


def pack_request(value: object) -> bytes:
    """A request -> msgpack without the ``bin`` type, which the store's cmsgpack does not know."""
    packed: bytes = _packer.pack(value)
    return packed


class _Packer(threading.local):
    """A packer for each thread: to make one costs as much as to pack a request."""

    def __init__(self) -> None:
        self.pack = msgpack.Packer(use_bin_type=False).pack


_packer = _Packer()


def unpack_answer(packed: bytes) -> Any:
    """A script's answer: text stays bytes, since packed values travel in it."""
    return msgpack.unpackb(packed, raw=True, strict_map_key=False)


def decode_fields(shown: Mapping[bytes, bytes | bool] | list[bytes], sent: Fields | None = None) -> Fields:
    """The fields of an answer, by name or one after the other, on top of those that were sent.

    Named, ``false`` marks what was sent and did not stay.
    """
    if isinstance(shown, list):
        parts = iter(shown)
        named = dict(zip(parts, parts, strict=True))
        return {**sent, **named} if sent else named
    return {name: value for name, value in {**(sent or {}), **shown}.items() if type(value) is bytes}


def read_item(key: str, sort_field: str, shown: Mapping[bytes, bytes | bool] | list[bytes]) -> Item:
    """The fields that a read gave -> the item.

    Raises:
        Corrupt: its hash can be no item.
    """
    try:
        return decode_item(key, sort_field, decode_fields(shown))
    except UNREADABLE as error:
        raise Corrupt(broken(key, sort_field)) from error


def broken(key: str, sort_field: str) -> str:
    """What is said of an item whose hash can be none."""
    return f"the hash of {key}/{sort_field} can be no item"


def decode_item(key: str, sort_field: str, fields: Fields) -> Item:
    """The fields of a hash -> the item."""
    locked_until, token, triggers = fields.get(b"lu"), fields.get(b"tk"), fields.get(b"t")
    metadata = decode_metadata(fields)
    return Item(
        key,
        sort_field,
        unpack(fields[b"c"]),
        metadata,
        decode_triggers(triggers) if triggers else (),
        metadata["version"],
        _read_time(fields[b"ca"]),
        _read_time(fields[b"ua"]),
        int(locked_until) if locked_until else None,
        token.decode() if token else None,
        triggers or b"",
    )


def decode_new(key: str, sort_field: str, new: Mapping[str, Any], added: Mapping[bytes, bytes]) -> Item:
    """The fields that were sent of a new item without triggers, and those that the store added -> the item."""
    content: Any = None
    metadata: dict[str, Any] = {}
    for name, stored in new.items():
        if name == "c":
            content = unpack(stored)
        elif shown := NAMES.get(name):
            metadata[shown] = int(stored) if shown in LIMITS else stored
        else:
            metadata[name[2:]] = unpack(stored)
    version = metadata["version"] = int(added[b"v"])
    created_at = _read_time(added[b"ca"])
    return Item(key, sort_field, content, metadata, (), version, created_at, created_at)


def decode_metadata(fields: Mapping[bytes, bytes | bool]) -> dict[str, Any]:
    """The metadata that a hash's fields hold, its ``version`` included; null where the field is ``false``."""
    metadata: dict[str, Any] = {}
    for name, stored in fields.items():
        if reader := _READERS.get(name):
            shown, read = reader
            metadata[shown] = read(stored) if type(stored) is bytes else None
        elif name[:2] == b"m:":
            metadata[name[2:].decode()] = unpack(stored) if type(stored) is bytes else None
    return metadata


@lru_cache(maxsize=4096)
def _read_time(stored: bytes) -> str:
    """Items of one call, and the times of one item, share most of them."""
    return format_time(int(stored))


_KINDS: dict[str, Callable[[bytes], str | int]] = {
    "number": int,
    "time": _read_time,
    "later": _read_time,
    "word": bytes.decode,
    "text": bytes.decode,
}
_READERS = {stored.encode(): (name, _KINDS[kind]) for name, (stored, kind) in NATIVE.items()} | {b"v": ("version", int)}
"""Hash field -> the metadata field that it is, and how it reads outside."""


def decode_triggers(packed: bytes | None) -> tuple[Trigger, ...]:
    """Field ``t`` -> the triggers without their API keys."""
    if not packed:
        return ()
    return tuple(
        Trigger(
            entry[0].decode(),
            tuple(event.decode() for event in entry[2]),
            bool(entry[1]),
            decode_options(entry[3]) if len(entry) == 4 else PLAIN,
        )
        for entry in unpack_answer(packed)
    )
