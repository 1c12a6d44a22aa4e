"""The heads of commands as the shell offers and explains them."""

from __future__ import annotations

import re

from hookline_server.command.verbs import VERBS, WORDS

HEADS: dict[str, tuple[str, ...]] = {
    "create": ("create item with:", "create item with triggers off:"),
    "update": ("update item with:", "update item with triggers off:"),
    "query": ("query items where:",),
    "count": ("count items where:",),
    "get": ("get item with", "get items with"),
    "delete": ("delete item with", "delete item with triggers off"),
    "delete items": ("delete items where:", "delete items with triggers off where:"),
    "claim": ("claim items where:",),
    "complete": ("complete item with:",),
    "fail": ("fail item with:",),
    "release": ("release item with:",),
    "extend": ("extend item with:",),
    "cancel": ("cancel item with", "cancel item with triggers off"),
    "cancel items": ("cancel items where:",),
    "redrive": ("redrive item with", "redrive item with triggers off"),
    "redrive items": ("redrive items where:",),
    "wait": ("wait for item with",),
    "pause": ("pause",),
    "resume": ("resume",),
    "show keys": ("show keys",),
    "show settings": ("show settings of",),
    "change settings": ("change settings of:",),
    **{f"create {noun}": (f"create {noun} with:",) for noun in ("orchestration", "schedule")},
    **{
        f"{word} {noun}": (f"{word} {noun} with",)
        for word in ("show", "delete", "run", "enable", "disable")
        for noun in ("orchestration", "schedule")
    },
    "show orchestrations": ("show orchestrations",),
    "show schedules": ("show schedules",),
}
"""Verb -> its heads. Behind one without a colon its fields follow on the line."""
LOOP = "for each job in [items]:"

_LEAD = r"\s*(?:/(?:selected-)?datastore\s+)?"
_HEAD = re.compile(
    rf"{_LEAD}({'|'.join(WORDS)})\b(?!\s*:)(?:\s+(?:a\s+|new\s+|for\s+)*(items?|settings|keys|orchestrations?|schedules?)\b)?",
    re.IGNORECASE,
)
LEAD = re.compile(_LEAD)


def verb_of(line: str) -> str | None:
    """The verb whose head a line begins with."""
    match = _HEAD.match(line)
    if match is None:
        return None
    word, noun = match[1].lower(), (match[2] or "").lower()
    return next((name for name in (f"{word} {noun}", word) if name in VERBS), None)
