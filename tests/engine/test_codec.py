"""Between items and the fields of a hash."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from hookline import codec
from hookline.errors import Invalid
from hookline.item import TriggerChange
from hookline.secret import SecretBox
from values import FIELD_NAMES, JSON, same

T = "2024-03-15T10:00:00Z"
T_MS = "1710496800000"


@limits(max_examples=50)
@given(JSON)
def test_content_comes_back(content: object) -> None:
    assert same(codec.unpack(codec.encode_content(content)), content)


@limits(max_examples=40)
@given(st.dictionaries(FIELD_NAMES, JSON, max_size=4))
def test_metadata_comes_back(metadata: dict[str, Any]) -> None:
    change = codec.encode_metadata(metadata)
    stored = {name.encode(): value for name, value in change.values.items() if isinstance(value, bytes)}
    assert len(stored) == len(change.values)
    assert same(codec.decode_metadata(stored), {n: v for n, v in metadata.items() if v is not None})
    assert change.unset == [f"m:{name}" for name, value in metadata.items() if value is None]


@pytest.mark.parametrize(
    ("name", "value", "stored", "reads"),
    [
        ("status", "not_started", "not_started", "not_started"),
        ("status", "in review", "in review", "in review"),
        ("worker_id", "é" * 128, "é" * 128, "é" * 128),
        ("started_at", T, T_MS, T),
        ("completed_at", "2024-03-15T12:00:00.250+02:00", "1710496800250", "2024-03-15T10:00:00.250Z"),
        ("locked_until", T, T_MS, T),
        ("scheduled_at", "1970-01-01T00:00:00Z", "0", "1970-01-01T00:00:00Z"),
        ("attempts", 0, "0", 0),
        ("max_attempts", 1_000_000, "1000000", 1_000_000),
        ("priority", 9, "9", 9),
        ("last_error", "x" * 8192, "x" * 8192, "x" * 8192),
    ],
)
def test_native_fields(name: str, value: object, stored: str, reads: object) -> None:
    field = codec.NATIVE[name][0]
    assert codec.encode_metadata({name: value}).values == {field: stored}
    assert codec.decode_metadata({field.encode(): stored.encode()}) == {name: reads}
    assert codec.encode_metadata({name: None}).unset == [field]


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("started_at", "CURRENT_TIMESTAMP", "+0"),
        ("locked_until", "CURRENT_TIMESTAMP", "+0"),
        ("locked_until", "+10m", "+600000"),
        ("scheduled_at", "+500ms", "+500"),
    ],
)
def test_times_from_the_stores_now(name: str, value: str, stored: str) -> None:
    assert list(codec.encode_metadata({name: value}).values.values()) == [stored]


def test_stamps_and_version() -> None:
    change = codec.encode_metadata({"at": "CURRENT_TIMESTAMP", "version": 3, "deep": ["CURRENT_TIMESTAMP"]})
    assert (change.stamped, change.version, list(change.values)) == (["m:at"], 3, ["m:deep"])
    assert codec.encode_metadata(None) == codec.Change()


@pytest.mark.parametrize(
    ("metadata", "at"),
    [
        ([], ["/metadata"]),
        ("x", ["/metadata"]),
        ({f"{n}": n for n in range(257)}, ["/metadata"]),
        ({"": 1}, ["/metadata/"]),
        ({"a\0": 1}, ["/metadata/a\0"]),
        ({"x" * 129: 1}, ["/metadata/" + "x" * 129]),
        ({"\ud800": 1}, ["/metadata/\ud800"]),
        ({1: 1}, ["/metadata/1"]),
        ({"a/b": math.nan}, ["/metadata/a~1b"]),
        ({"x": [1, {"y": 2**64}]}, ["/metadata/x/1/y"]),
        ({"status": ""}, ["/metadata/status"]),
        ({"status": 1}, ["/metadata/status"]),
        ({"status": "a\0b"}, ["/metadata/status"]),
        ({"status": "x" * 129}, ["/metadata/status"]),
        ({"status": "\ud800"}, ["/metadata/status"]),
        ({"worker_id": []}, ["/metadata/worker_id"]),
        ({"last_error": "x" * 8193}, ["/metadata/last_error"]),
        ({"version": 0}, ["/metadata/version"]),
        ({"version": None}, ["/metadata/version"]),
        ({"version": "1"}, ["/metadata/version"]),
        ({"version": 1.0}, ["/metadata/version"]),
        ({"version": True}, ["/metadata/version"]),
        ({"version": 2**53}, ["/metadata/version"]),
        ({"attempts": -1, "max_attempts": 1.5, "priority": 10}, [
            "/metadata/attempts", "/metadata/max_attempts", "/metadata/priority",
        ]),
        ({"priority": True}, ["/metadata/priority"]),
        ({"attempts": 1_000_001}, ["/metadata/attempts"]),
        ({"started_at": "+10m"}, ["/metadata/started_at"]),
        ({"started_at": 5, "completed_at": "soon"}, ["/metadata/started_at", "/metadata/completed_at"]),
        ({"locked_until": "+10 minutes"}, ["/metadata/locked_until"]),
        ({"locked_until": "+-5s"}, ["/metadata/locked_until"]),
        ({"locked_until": "1969-12-31T23:59:59Z"}, ["/metadata/locked_until"]),
        ({"locked_until": "9999-12-31T23:59:59-23:59"}, ["/metadata/locked_until"]),
        ({"scheduled_at": 1_710_496_800}, ["/metadata/scheduled_at"]),
    ],
)  # fmt: skip
def test_bad_metadata(metadata: object, at: list[str]) -> None:
    with pytest.raises(Invalid) as invalid:
        codec.encode_metadata(metadata)
    assert [flaw.pointer for flaw in invalid.value.flaws] == at


@pytest.mark.parametrize(("value", "ms"), [(None, None), (0, 0), ("10m", 600_000), (1.5, 1500)])
def test_locks(value: object, ms: int | None) -> None:
    assert codec.encode_duration(value, "/lockFor") == ms


@pytest.mark.parametrize("value", ["", "10", -1, True, [], "11y"])
def test_bad_locks(value: object) -> None:
    with pytest.raises(Invalid, match="/lockFor: expected seconds"):
        codec.encode_duration(value, "/lockFor")


def test_triggers_are_sealed_for_their_owner() -> None:
    box, owner = SecretBox(bytes(32)), codec.identity("default", "jobs", "a")
    changes = [
        TriggerChange("http://a", "canary", ("updated",)),
        TriggerChange("http://b", "", ("created", "deleted")),
        TriggerChange("http://c", None, ("updated",)),
    ]
    packed = codec.encode_triggers(changes, box, owner)
    assert b"canary" not in packed
    (_, sealed, _), (_, none, _), (_, keep, _) = codec.unpack_answer(packed)
    assert (box.open(sealed, owner), none, keep) == ("canary", b"", False)
    assert [trigger.to_dict() for trigger in codec.decode_triggers(packed)] == [
        {"url": "http://a", "events": ["updated"], "hasApiKey": True},
        {"url": "http://b", "events": ["created", "deleted"], "hasApiKey": False},
        {"url": "http://c", "events": ["updated"], "hasApiKey": False},
    ]
    assert codec.decode_triggers(None) == codec.decode_triggers(b"") == ()
