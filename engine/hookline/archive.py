"""The lines of an archive: a namespace as JSON objects, one a line. No store, no clock.

The first line is the header, the last the end, which says how many there were of each; in between stand the settings of
keys and items. API keys stay sealed as they are in the store, so they open only under the same secret, in the same
namespace: by the header's ``secret`` it is known whether they do. Tokens of claims are left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hookline import codec
from hookline.clock import format_time, parse_time
from hookline.codec import Fields
from hookline.errors import Flaw, Invalid, below
from hookline.item import FIELDS_MAX, METADATA_FIELDS_MAX, PLAIN, TriggerChange, check_key, check_sort_field
from hookline.keysettings import ARGUMENTS, decode_settings, encode_settings
from hookline.secret import SecretBox
from hookline.trigger import read_triggers

FORMAT = 1
_EXPECTED_TIME = "expected an RFC 3339 time such as 2024-03-15T10:00:00Z"
_ITEM = {
    "key",
    "sortField",
    "version",
    "createdAt",
    "updatedAt",
    "readyAt",
    "place",
    "content",
    "metadata",
    "triggerUrls",
}
_TIMES = {"createdAt": "ca", "updatedAt": "ua", "readyAt": "at"}
_LATER = {"lu": "locked_until", "sd": "scheduled_at"}
PLACES = 1000
"""How many places there are in line in one millisecond."""
_VERSION_END = 2**52
"""The store counts up to 2^53: there each further update would have the same version, and fire nothing."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line says. ``secret`` is the mark of the secret and namespace of its API keys, None: it has none.

    ``items`` is how many items there were when it was begun.
    """

    namespace: str
    at: str
    items: int
    secret: str | None

    def line(self) -> bytes:
        """The first line."""
        shown = {"hookline": "archive", "format": FORMAT, "namespace": self.namespace, "at": self.at}
        return line(shown | {"items": self.items, "secret": self.secret})


@dataclass(frozen=True, slots=True)
class Entry:
    """One item, or the settings of a key if ``sort_field`` is None: what to write into its hash.

    ``gone`` are settings that are removed before that. ``place`` is that in line among items of the same ``readyAt``.
    """

    key: str
    sort_field: str | None
    fields: dict[str, bytes | str]
    gone: tuple[str, ...] = ()
    place: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """What the last line says: how many lines came before it, without the header."""

    entries: int

    def line(self) -> bytes:
        """The last line."""
        return line({"end": {"entries": self.entries}})


def mark(secrets: SecretBox, namespace: str) -> str:
    """What tells whether sealed API keys open: it tells nothing of the secret itself."""
    return secrets.derive(f"archive:{namespace}").hex()[:32]


def line(value: object) -> bytes:
    """One JSON object as a line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def item_line(key: str, sort_field: str, fields: Fields, place: int = 0, *, api_keys: bool) -> bytes:
    """The line of an item; for its ``place`` see :class:`Entry`.

    Raises:
        codec.UNREADABLE: the hash can be no item.
    """
    metadata = codec.decode_metadata({name: fields[name] for name in sorted(fields)})
    shown: dict[str, Any] = {"key": key, "sortField": sort_field, "version": metadata.pop("version")}
    times = {name: fields.get(stored.encode()) for name, stored in _TIMES.items()}
    shown |= {name: format_time(int(stored)) for name, stored in times.items() if stored is not None}
    shown |= {"place": place} if place else {}
    shown |= {"content": codec.unpack(fields[b"c"]), "metadata": metadata}
    if b"t" in fields:
        shown["triggerUrls"] = _show_triggers(fields[b"t"], api_keys)
    return line(shown)


def settings_line(key: str, fields: Mapping[bytes, bytes], partitions: int, *, api_keys: bool) -> bytes:
    """The line of a key's settings: those that are not the default; empty where all are.

    Raises:
        codec.UNREADABLE: the hash can be none of settings.
    """
    usual = decode_settings({}, partitions).to_dict()
    given = decode_settings(fields, partitions).to_dict()
    shown = {name: value for name, value in given.items() if value != usual[name] and name in ARGUMENTS}
    if b"t" in fields:
        shown["triggerUrls"] = _show_triggers(fields[b"t"], api_keys)
    return line({"key": key, "settings": shown}) if shown else b""


def _show_triggers(packed: bytes, api_keys: bool) -> list[dict[str, Any]]:
    """Triggers as stored. A delivery's has whose API key it is as well, and a token, which is left out."""
    shown = []
    for url, sealed, events, *more in codec.unpack_answer(packed):
        trigger: dict[str, Any] = {"url": url.decode()}
        delivery, written = (more, more[2:]) if len(more) > 1 else ([], more)
        options = codec.decode_options(written[0]) if written else PLAIN
        trigger |= {name: value for name, value in options.to_dict().items() if name != "hasSecret"}
        if options.sealed and api_keys:
            trigger["sealedSecrets"] = [base64.b64encode(secret).decode() for secret in options.sealed]
        if events:
            trigger["events"] = [event.decode() for event in events]
        if sealed and api_keys:
            trigger["sealedApiKey"] = base64.b64encode(sealed).decode()
        if delivery:
            trigger["ofKey"] = any(delivery[1:])
        shown.append(trigger)
    return shown


def read_header(raw: bytes) -> Header:
    """The first line.

    Raises:
        Invalid: it is no header, or of a format that this release does not read.
    """
    found = _read(raw)
    if found.get("hookline") != "archive":
        raise Invalid.at("", 'expected the header that hookline export writes first: {"hookline": "archive", ...}')
    if found.get("format") != FORMAT:
        raise Invalid.at("/format", f"expected {FORMAT}: other formats are read by other releases")
    namespace, at, items, secret = (found.get(name) for name in ("namespace", "at", "items", "secret"))
    if not isinstance(namespace, str) or not isinstance(items, int) or not isinstance(secret, str | None):
        raise Invalid.at("", "expected namespace, items and secret as hookline export writes them")
    return Header(namespace, str(at), items, secret)


def read_line(raw: bytes, partitions: int, *, api_keys: bool) -> Entry | End:
    """Any other line. Without ``api_keys`` those in it are left out.

    Raises:
        Invalid: it is none; each bad member is named.
    """
    found = _read(raw)
    if "end" in found:
        end = found["end"]
        if not isinstance(end, dict) or type(end.get("entries")) is not int:
            raise Invalid.at("/end", 'expected an object such as {"entries": 10}')
        return End(end["entries"])
    key = check_key(found.get("key"))
    if "settings" in found:
        return _read_settings(key, found["settings"], partitions, api_keys)
    return _read_item(key, found, api_keys)


def _read(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid.at("", "expected a JSON object")
    return found


def _read_settings(key: str, settings: object, partitions: int, api_keys: bool) -> Entry:
    if not isinstance(settings, dict):
        raise Invalid.at("/settings", "expected an object")
    unknown = sorted(set(settings) - set(ARGUMENTS))
    if unknown:
        raise Invalid.at(below("/settings", unknown[0]), f"expected one of {', '.join(ARGUMENTS)}")
    changes: dict[str, Any] = {argument: settings.get(name) for name, argument in ARGUMENTS.items()}
    triggers = b""
    if "triggerUrls" in settings:
        triggers = _read_triggers(settings["triggerUrls"], "/settings/triggerUrls", api_keys)
        changes["trigger_urls"] = []

    def seal(_: list[TriggerChange]) -> bytes:
        return triggers

    try:
        values, gone = encode_settings(changes, partitions, seal)
    except Invalid as invalid:
        raise Invalid(*[Flaw("/settings" + flaw.pointer, flaw.detail) for flaw in invalid.flaws]) from None
    # An archive says all that there is of triggers, also that one has no secrets.
    return Entry(key, None, dict(values), (*gone, "t"))


def _read_item(key: str, found: dict[str, Any], api_keys: bool) -> Entry:
    sort_field = check_sort_field(found.get("sortField"))
    flaws = [
        Flaw(below("", name), f"expected one of {', '.join(sorted(_ITEM))}") for name in sorted(set(found) - _ITEM)
    ]
    fields: dict[str, bytes | str] = {}
    try:
        fields |= _read_metadata(found.get("metadata"))
    except Invalid as invalid:
        flaws += invalid.flaws
    try:
        fields["c"] = codec.encode_content(found.get("content"))
    except Invalid as invalid:
        flaws += invalid.flaws
    try:
        if "triggerUrls" in found:
            fields["t"] = _read_triggers(found["triggerUrls"], "/triggerUrls", api_keys)
    except Invalid as invalid:
        flaws += invalid.flaws
    version = found.get("version")
    if type(version) is not int or not 1 <= version < _VERSION_END:
        flaws.append(Flaw("/version", "expected a whole number from 1, below 2^52"))
    fields["v"] = str(version)
    place = found.get("place", 0)
    if type(place) is not int or not 0 <= place < PLACES:
        flaws.append(Flaw("/place", f"expected a whole number from 0, below {PLACES}"))
    for name, stored in _TIMES.items():
        if name in found or name != "readyAt":
            try:
                moment = parse_time(str(found.get(name)))
            except ValueError:
                flaws.append(Flaw(f"/{name}", _EXPECTED_TIME))
                continue
            if moment < 0:
                flaws.append(Flaw(f"/{name}", "expected a time from 1970 on"))
            fields[stored] = str(moment)
    if flaws:
        raise Invalid(*flaws)
    return Entry(key, sort_field, fields, place=place)


def _read_metadata(metadata: object) -> dict[str, bytes | str]:
    """Metadata as it was read -> fields; of an item that has gathered more than one write may bring, all of it."""
    parts = [metadata]
    if isinstance(metadata, dict) and len(metadata) > METADATA_FIELDS_MAX:
        parts = [{name: metadata[name]} for name in metadata]
    values: dict[str, bytes | str] = {}
    flaws: list[Flaw] = []
    for change in map(codec.encode_metadata, parts):
        values |= change.values
        flaws += [Flaw(below("/metadata", name[2:]), _EXPECTED_TIME) for name in change.stamped]
        if change.version is not None:
            flaws.append(Flaw("/metadata/version", "expected it beside metadata, as version"))
    for stored, name in _LATER.items():
        if str(values.get(stored, "")).startswith("+"):
            flaws.append(Flaw(f"/metadata/{name}", _EXPECTED_TIME))
    if sum(stored.startswith("m:") for stored in values) > FIELDS_MAX:
        flaws.append(Flaw("/metadata", f"expected at most {FIELDS_MAX:,} fields, the engine's own apart"))
    if flaws:
        raise Invalid(*flaws)
    return values


def _read_triggers(value: object, pointer: str, api_keys: bool) -> bytes:
    """Triggers -> as they are stored."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Invalid.at(pointer, "expected a list of objects")
    kept = ("sealedApiKey", "sealedSecrets", "ofKey")
    plain = [{name: entry[name] for name in entry if name not in kept} for entry in value]
    changes = read_triggers(plain, pointer)
    packed: list[list[Any]] = []
    for place, (entry, change) in enumerate(zip(value, changes, strict=True)):
        sealed = _unseal(entry.get("sealedApiKey", ""), f"{pointer}/{place}/sealedApiKey") if api_keys else b""
        place_of, texts = f"{pointer}/{place}/sealedSecrets", entry.get("sealedSecrets", [])
        if not isinstance(texts, list):
            raise Invalid.at(place_of, "expected a list of base64")
        secrets = [_unseal(text, place_of) for text in texts] if api_keys else []
        options = codec.pack_options(change.options, secrets)
        if "ofKey" in entry:
            packed.append([change.url, sealed, [], "", entry["ofKey"] is True, *options])
        else:
            packed.append([change.url, sealed, list(change.events), *options])
    return codec.pack_request(packed)


def _unseal(text: object, pointer: str) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise Invalid.at(pointer, "expected base64")
