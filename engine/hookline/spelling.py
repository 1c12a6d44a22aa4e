"""Words that look like the engine's and are not: no error, for they may be a user's own, but worth a warning."""

from __future__ import annotations

from collections.abc import Mapping

from hookline.codec import NATIVE
from hookline.item import CANCELLED, COMPLETED, FAILED, NOT_STARTED, SCHEDULED, STARTED

SOUND_MAX = 10_000
"""Words that are remembered at one time."""
_DROPPED = str.maketrans("", "", "-_ ")


def _bare(word: str) -> str:
    return word.translate(_DROPPED).lower()


_STATUSES = {_bare(status): status for status in (SCHEDULED, NOT_STARTED, STARTED, COMPLETED, FAILED, CANCELLED)}
# The verbs in place of what they lead to, and the other spelling of one.
_STATUSES |= {"complete": COMPLETED, "fail": FAILED, "cancel": CANCELLED, "canceled": CANCELLED}
_FIELDS = {_bare(name): name for name in NATIVE}


_sound: set[str | bytes | None] = {None}
"""Names of hash fields, and statuses, that are known to be no such words: a write is checked for each item."""


def misspelt(sent: Mapping[str, bytes | str]) -> tuple[str, ...]:
    """Warnings of the hash fields that a write sets: of a status or a name that is the engine's but for its form."""
    status = sent.get("s")
    if status in _sound and sent.keys() <= _sound:
        return ()
    doubts = {name: _warning(name[2:], _FIELDS.get(_bare(name[2:]))) for name in sent if name[:2] == "m:"}
    if status is not None:
        meant = _STATUSES.get(_bare(str(status)))
        doubts[str(status)] = "" if meant == status else _warning(f"status {status!s}", meant)
    if len(_sound) >= SOUND_MAX:
        _sound.clear()
    _sound.update(name for name in (None, *sent, status) if not doubts.get(str(name)))
    return tuple(doubt for doubt in doubts.values() if doubt)


def _warning(word: str, meant: str | None) -> str:
    return f"{word} is a word of your own, on which the engine does not act: did you mean {meant}?" if meant else ""
