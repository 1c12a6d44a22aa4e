"""Words that are nearly the engine's: which of them are warned of."""

from __future__ import annotations

import pytest

from hookline.codec import NATIVE, encode_metadata
from hookline.item import CANCELLED, COMPLETED, FAILED, NOT_STARTED, SCHEDULED, STARTED
from hookline.spelling import misspelt


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        *(("status", status, "not_started") for status in ("not-started", "notStarted", "Not_Started", "NOT STARTED")),
        *(("status", status, "cancelled") for status in ("cancel", "canceled", "Cancelled")),
        *(("status", status, "completed") for status in ("complete", "COMPLETED")),
        ("status", "fail", "failed"),
        ("maxAttempts", 3, "max_attempts"),
        ("scheduledAt", "2027-01-15T08:00:00Z", "scheduled_at"),
        ("Status", "started", "status"),
        ("locked-until", None, ""),  # to remove a field harms nothing
        *(("status", status, "") for status in (SCHEDULED, NOT_STARTED, STARTED, COMPLETED, FAILED, CANCELLED)),
        *(("status", status, "") for status in ("pending", "done", "incomplete", "restarted", "_", None)),
        *((name, "started", "") for name in ("type", "state", "cancel", "startedBy", "m:a")),
    ],
)
def test_warned_of(name: str, value: object, meant: str) -> None:
    warnings = misspelt(encode_metadata({name: value}).values)
    assert [warning.partition("did you mean ")[2] for warning in warnings] == ([f"{meant}?"] if meant else [])


def test_none_of_the_engines_own_names() -> None:
    assert misspelt(dict.fromkeys((stored for stored, _ in NATIVE.values()), "1")) == ()
