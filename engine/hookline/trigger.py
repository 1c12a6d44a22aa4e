"""Triggers as users write them: a map ``url -> API key``, or a list with what each is to be called for, and how."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hookline.clock import parse_duration
from hookline.errors import Flaw, Invalid, below
from hookline.item import EVENTS, STATUS_EVENT, TRIGGERS_MAX, Options, TriggerChange
from hookline.url import check_url
from hookline.where import compile_where, count_operands

EVENTS_MAX = 32
RETRIES_MAX = 32
OPERANDS_MAX = 256
"""Operands in the filters of all triggers of one list, a condition counted as one at least.

To unpack and ask so many takes the store 0.3 to 1 ms for each item with such a list of its own, so 30 to 100 ms for the
100 items of one script call. Those of a key are unpacked once a call, and then take 0.1 ms an item.
"""
SECRETS_MAX = 2
"""Signing secrets of one trigger: while one is replaced, receivers may still have the one before."""
CLOUDEVENTS = "cloudevents"
_FORMATS = (CLOUDEVENTS,)
_WORD = re.compile(r"[^\0]{1,64}")
_NAMES = {"url", "apiKey", "events", "where", "retry", "format", "secret", "ordered"}
_READ_ONLY = {"hasApiKey", "hasSecret"}
"""What reading shows in their place, taken back so that what was read can be written."""


def read_triggers(
    value: object, pointer: str = "/triggerUrls", events: tuple[str, ...] = ("updated",)
) -> list[TriggerChange]:
    """Read triggerUrls as a map ``url -> API key`` or a list ``[{url, apiKey, events, where, retry, ...}]``.

    ``events`` are those of an entry that names none: on an item updates alone, for a worker behind it takes every call
    as a job.

    Raises:
        Invalid: the value has neither form; each bad entry is named.
    """
    if value is None:
        return []
    if not isinstance(value, Mapping | Sequence) or isinstance(value, str | bytes):
        raise Invalid.at(pointer, 'expected an object {"url": "apiKey"} or a list [{"url", "apiKey", "events"}]')
    if len(value) > TRIGGERS_MAX:
        raise Invalid.at(pointer, f"expected at most {TRIGGERS_MAX} triggers")
    if isinstance(value, Mapping):
        entries = [({"url": url, "apiKey": api_key}, below(pointer, url)) for url, api_key in value.items()]
    else:
        entries = [(entry, f"{pointer}/{place}") for place, entry in enumerate(value)]
    flaws: list[Flaw] = []
    changes: list[TriggerChange] = []
    for entry, place in entries:
        try:
            changes.append(read_trigger(entry, place, events))
        except Invalid as invalid:
            flaws.extend(invalid.flaws)
    if len({change.url for change in changes}) != len(changes):
        flaws.append(Flaw(pointer, "expected each url once"))
    flaws += _too_many_operands(changes, [place for _, place in entries])
    if flaws:
        raise Invalid(*flaws)
    return changes


def _too_many_operands(changes: Sequence[TriggerChange], places: Sequence[str]) -> list[Flaw]:
    """What is wrong with the first of them that has more than are left, if one has."""
    left = OPERANDS_MAX
    for change, place in zip(changes, places, strict=False):
        operands = count_operands(change.options.conditions)
        if operands > left:
            expected = f"expected at most {OPERANDS_MAX} operands in the filters of all triggers together"
            return [Flaw(f"{place}/where", f"{expected}: a condition counts as its operands, one at least")]
        left -= operands
    return []


def read_trigger(entry: object, pointer: str, default: tuple[str, ...] = ("updated",)) -> TriggerChange:
    """Read one entry of the list, or take one that was read ahead.

    Raises:
        Invalid: it is not one; the first thing that is wrong is named.
    """
    if not isinstance(entry, Mapping):
        if isinstance(entry, TriggerChange):
            return entry
        raise Invalid.at(pointer, 'expected an object {"url", "apiKey", "events"}')
    unknown = sorted(set(entry) - _NAMES - _READ_ONLY, key=str)
    if unknown:
        raise Invalid.at(below(pointer, unknown[0]), f"unknown field; expected {', '.join(sorted(_NAMES))}")
    url, api_key = entry.get("url"), entry.get("apiKey")
    if not isinstance(url, str):
        raise Invalid.at(f"{pointer}/url", "expected an http or https URL")
    try:
        check_url(url)
    except ValueError as error:
        raise Invalid.at(pointer, str(error)) from None
    if api_key is not None and (not isinstance(api_key, str) or not _is_header_value(api_key)):
        raise Invalid.at(pointer, "expected the API key as up to 4096 visible ASCII characters")
    events = entry.get("events", default)
    if not isinstance(events, list | tuple) or not 1 <= len(events) <= EVENTS_MAX or not all(map(_is_event, events)):
        expected = f"expected a list of up to {EVENTS_MAX} of {', '.join(EVENTS)} and {STATUS_EVENT}<word>"
        raise Invalid.at(f"{pointer}/events", expected)
    return TriggerChange(url, api_key, tuple(dict.fromkeys(events)), _read_options(entry, pointer))


def _is_event(event: object) -> bool:
    if not isinstance(event, str):
        return False
    word = event.removeprefix(STATUS_EVENT)
    return event in EVENTS or (word != event and _WORD.fullmatch(word) is not None)


def _is_header_value(text: str) -> bool:
    return len(text) <= 4096 and text.isascii() and text.isprintable()


def _read_options(entry: Mapping[str, Any], pointer: str) -> Options:
    """What an entry says beyond URL, API key and events."""
    form, where = entry.get("format"), entry.get("where")
    conditions = compile_where(where, f"{pointer}/where").conditions
    if form is not None and form not in _FORMATS:
        raise Invalid.at(f"{pointer}/format", f"expected {', '.join(_FORMATS)}, or null for Hookline's own")
    return Options(
        where=where if conditions else None,
        conditions=conditions,
        retry=_read_retry(entry.get("retry"), f"{pointer}/retry"),
        ordered=_read_ordered(entry.get("ordered"), f"{pointer}/ordered"),
        format=form,
        secrets=_read_secrets(entry.get("secret"), f"{pointer}/secret"),
    )


def _read_retry(value: object, pointer: str) -> tuple[int, ...] | None:
    """The waits between attempts, in ms; None where the server's own hold."""
    if value is None:
        return None
    try:
        if isinstance(value, list | tuple) and len(value) <= RETRIES_MAX:
            return tuple(parse_duration(wait) for wait in value)
    except ValueError:
        pass
    raise Invalid.at(pointer, f'expected a list of up to {RETRIES_MAX} durations such as ["5s", "10m"]; [] is no retry')


def _read_ordered(value: object, pointer: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise Invalid.at(pointer, "expected true: the events of an item arrive one after the other; or false")
    return bool(value)


def _read_secrets(value: object, pointer: str) -> tuple[str, ...] | None:
    """The signing secrets, the newest first; None keeps what is stored, an empty text is none."""
    if value is None:
        return None
    if value == "":
        return ()
    written = [value] if isinstance(value, str) else value
    if isinstance(written, list | tuple) and 1 <= len(written) <= SECRETS_MAX and all(map(_is_secret, written)):
        return tuple(written)
    expected = f"expected whsec_ and the base64 of 24 to 64 bytes, or a list of up to {SECRETS_MAX} such texts"
    raise Invalid.at(pointer, expected)


def _is_secret(text: object) -> bool:
    if not isinstance(text, str) or not text.startswith("whsec_"):
        return False
    try:
        return 24 <= len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) <= 64
    except (binascii.Error, ValueError):
        return False
