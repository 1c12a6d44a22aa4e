"""Words that look like the engine's and are not: no error, for they may be a user's own, but worth a warning."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from hookline.codec import NATIVE
from hookline.item import CANCELLED, COMPLETED, FAILED, NOT_STARTED, SCHEDULED, STARTED

_DROPPED = str.maketrans("", "", "-_ ")


def _bare(word: str) -> str:
    return word.translate(_DROPPED).lower()


_STATUSES = {_bare(status): status for status in (SCHEDULED, NOT_STARTED, STARTED, COMPLETED, FAILED, CANCELLED)}
# The verbs in place of what they lead to, and the other spelling of one.
_STATUSES |= {"complete": COMPLETED, "fail": FAILED, "cancel": CANCELLED, "canceled": CANCELLED}
_FIELDS = {_bare(name): name for name in NATIVE}


def misspelt(sent: Mapping[str, bytes | str]) -> tuple[str, ...]:
    """Warnings of the hash fields that a write sets: of a status or a name that is the engine's but for its form."""
    warnings = [_doubt(name) for name in sent if name[:2] == "m:"]
    if status := sent.get("s"):
        warnings.append(_doubt_status(str(status)))
    return tuple([warning for warning in warnings if warning])


@lru_cache(maxsize=4096)
def _doubt(stored: str) -> str:
    return _warning(stored[2:], _FIELDS.get(_bare(stored[2:])))


@lru_cache(maxsize=4096)
def _doubt_status(status: str) -> str:
    meant = _STATUSES.get(_bare(status))
    return "" if meant == status else _warning(f"status {status}", meant)


def _warning(word: str, meant: str | None) -> str:
    return f"{word} is a word of your own, on which the engine does not act: did you mean {meant}?" if meant else ""
