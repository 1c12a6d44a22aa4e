"""What a server answers, as the values and errors that a datastore gives and raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hookline.clock import parse_duration, parse_time
from hookline.errors import (
    REFUSALS,
    Flaw,
    HooklineError,
    Incompatible,
    Invalid,
    InvalidApiKey,
    KeyNotAllowed,
    MissingScope,
    OutcomeUnknown,
    Overloaded,
    ReservedKey,
    StoppedAt,
    StoreFull,
    Unavailable,
    UnknownApiKey,
)
from hookline.index import Index
from hookline.item import PLAIN, Item, Options, Trigger
from hookline.keysettings import KeySettings, Retention, encode_backoff
from hookline.outcome import Claimed, Outcome
from hookline.query import Explanation

_FAILURES: dict[str, type[HooklineError]] = {
    kind.code: kind for kind in (Unavailable, StoreFull, Overloaded, OutcomeUnknown, Incompatible)
}
_REFUSALS = REFUSALS | {
    kind.code: kind for kind in (ReservedKey, MissingScope, KeyNotAllowed, InvalidApiKey, UnknownApiKey)
}
_REFUSALS["missing_api_key"] = InvalidApiKey


def read_error(problem: Mapping[str, Any], status: int = 0) -> HooklineError:
    """A problem document -> the error that a datastore raises for the same."""
    error = _read_error(problem, status)
    if "line" in problem:
        error.stopped = StoppedAt(problem.get("results", []), problem.get("index"), problem["line"], problem["column"])
    return error


def _read_error(problem: Mapping[str, Any], status: int) -> HooklineError:
    code, detail = str(problem.get("code", "")), str(problem.get("detail", "the server gave no reason"))
    if code == Invalid.code:
        flaws = [Flaw(flaw["pointer"], flaw["detail"]) for flaw in problem.get("errors", ())]
        return Invalid(*(flaws or [Flaw("", detail)]))
    if code in _REFUSALS:
        item = problem.get("item")
        return _REFUSALS[code](detail, read_item(item) if item else None)
    if code == "idempotency_key_in_use":  # what it was sent for first may take effect yet
        return OutcomeUnknown(detail)
    if code in _FAILURES:
        return _FAILURES[code](detail)
    status = problem.get("status", status)
    if status in (429, 503, 502, 504):
        return Unavailable(detail)
    return Invalid.at("", detail) if status in (400, 413, 415, 422) else HooklineError(f"{detail} ({code or status})")


def read_item(shown: Mapping[str, Any]) -> Item:
    """An item as it reads over HTTP -> the item."""
    metadata = shown["metadata"]
    locked_until = metadata.get("locked_until")
    return Item(
        key=shown["key"],
        sort_field=shown["sortField"],
        content=shown.get("content"),
        metadata=metadata,
        triggers=read_triggers(shown["triggerUrls"]) if shown["triggerUrls"] else (),
        version=shown["version"],
        created_at=shown["createdAt"],
        updated_at=shown["updatedAt"],
        locked_until_ms=parse_time(locked_until) if locked_until else None,
        token=shown.get("token"),
    )


def read_triggers(shown: Any) -> tuple[Trigger, ...]:
    """TriggerUrls as they read over HTTP."""
    return tuple(
        Trigger(entry["url"], tuple(entry["events"]), entry["hasApiKey"], _read_options(entry)) for entry in shown
    )


def _read_options(shown: Mapping[str, Any]) -> Options:
    """What a trigger says beyond that. Its filters stay as written: a newer server may know more of them."""
    if not shown.keys() & _OPTIONS:
        return PLAIN
    retry = shown.get("retry")
    return Options(
        where=shown.get("where"),
        retry=None if retry is None else tuple(map(parse_duration, retry)),
        ordered=bool(shown.get("ordered")),
        format=shown.get("format"),
        sealed=(b"",) if shown.get("hasSecret") else (),
    )


_OPTIONS = {"where", "retry", "ordered", "format", "hasSecret"}


def read_written(shown: Mapping[str, Any]) -> Outcome:
    """The item of an accepted write, with its warnings, -> the outcome."""
    item = read_item(shown)
    return Outcome(
        "ok",
        item.key,
        item.sort_field,
        item=item,
        warnings=tuple(shown.get("warnings", ())),
        version=item.version,
        status=item.status,
        locked_until_ms=item.locked_until_ms,
    )


def read_result(key: str, sort_field: str, result: Mapping[str, Any]) -> Outcome:
    """One of the ``results`` of many writes -> its outcome."""
    if "problem" in result:
        return refused(key, sort_field, read_error(result["problem"], result["status"]))
    return read_written(result["item"]) if "item" in result else Outcome("ok", key, sort_field)


def refused(key: str, sort_field: str, error: HooklineError) -> Outcome:
    """The outcome of an operation that was not accepted."""
    if error.code in REFUSALS:
        item = getattr(error, "item", None)
        return Outcome(error.code, key, sort_field, item=item, detail=str(error))
    return Outcome(error.code, key, sort_field, failure=error)


def read_settled(key: str, shown: Mapping[str, Any]) -> Outcome:
    """What became of one claim."""
    sort_field, locked_until = shown["sortField"], shown.get("lockedUntil")
    if "problem" in shown:
        return refused(key, sort_field, read_error(shown["problem"]))
    return Outcome(
        "ok",
        key,
        sort_field,
        version=shown.get("version"),
        status=shown.get("status"),
        locked_until_ms=parse_time(locked_until) if locked_until else None,
    )


def read_claimed(shown: Mapping[str, Any]) -> Claimed:
    """What a claim took."""
    due, problem = shown.get("nextAt"), shown.get("problem")
    return Claimed(
        [read_item(item) for item in shown["items"]],
        parse_time(due) if due else None,
        failure=read_error(problem) if problem else None,
        paused=shown.get("paused", False),
    )


def read_explanation(shown: Mapping[str, Any]) -> Explanation:
    """How a query was answered."""
    return Explanation(shown["index"], shown["examined"], shown["candidates"])


def read_settings(shown: Mapping[str, Any]) -> KeySettings:
    """The settings of a key."""
    return KeySettings(
        max_attempts=shown["maxAttempts"],
        lock_ms=parse_duration(shown["lockFor"]),
        backoff=encode_backoff(shown["backoff"], "/backoff"),
        paused=shown["paused"],
        max_length=shown["maxLength"],
        indexes=tuple(Index(name, kind) for name, kind in shown["indexes"].items()),
        retention={
            status: Retention(parse_duration(kept["age"]) if "age" in kept else None, kept.get("count"))
            for status, kept in shown["retention"].items()
        },
        record_deliveries=shown.get("recordDeliveries", False),
        triggers=read_triggers(shown["triggerUrls"]),
        generation=shown["generation"],
    )
