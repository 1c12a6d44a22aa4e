"""Idempotency keys: the marks by which the store knows the operations of a request that comes again. No store."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

import msgspec

from hookline import codec
from hookline.call import Call
from hookline.errors import Invalid
from hookline.outcome import Claimed, Outcome

KEY_MAX = 255
"""Characters of an idempotency key."""
_RANDOM = ("nonce", "jitter", "in_flight", "ballot", "after")
"""Of an operation what may be another with each repeat: it is made of chance, or of what was found before."""


@dataclass(slots=True)
class Once:
    """The operations of one request, in the order of their effects: the n-th of it is the n-th of each repeat.

    ``caller`` is whose key it is. ``body`` stands for what the request asks for; without one each operation is told by
    what it is itself. ``everywhere``: a claim looks at all partitions, and leaves a record in each; and a repeat may
    ask for something else than the first did, as a rule does that was changed since. ``effects`` and ``replays`` count
    what became of the operations. ``came_ms`` is when the first of the repeats came, once known.
    """

    secret: bytes
    caller: str
    key: str
    body: bytes | None
    keep_ms: int
    partitions: int
    everywhere: bool = False
    place: int = 0
    effects: int = 0
    replays: int = 0
    begun: bool = False
    came_ms: int | None = None
    recalled: bool = False

    def __post_init__(self) -> None:
        key = self.key
        if not (isinstance(key, str) and 0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
            raise Invalid.at("/idempotencyKey", f"expected 1 to {KEY_MAX} printable characters of ASCII")

    def id(self, place: object) -> str:
        """The id of an operation, which tells nobody the key or its caller."""
        name = f"once\0{self.caller}\0{self.key}\0{place}"
        return hmac.digest(self.secret, name.encode(), "sha256")[:16].hex()

    def partition(self, ahead: int = 0) -> int:
        """Where the next operation goes (or one so many later) that has no place of its own, as a claim has none."""
        return int(self.id(self.place + ahead), 16) % self.partitions

    def mark(self, call: Call, ahead: int = 0, *, always: bool = False) -> Call:
        """The call as the next operation, or as one so many later.

        ``always``: its answer is kept also if it is a claim that finds nothing.
        """
        mark = {
            "id": self.id(self.place + ahead),
            "body": self._fingerprint(call, always),
            "keep_ms": self.keep_ms,
            "named": call.generated,
            "lean": call.script == "delete",
            "whole": self.recalled,
            "always": always,
        }
        return msgspec.structs.replace(
            call, request={**call.request, "once": {name: value for name, value in mark.items() if value}}
        )

    def count(self, outcome: Outcome | Claimed, *, always: bool = False) -> None:
        """Note what became of the next operation. If it had no effect, its id is that of the one that follows."""
        effect = bool(outcome.items or outcome.gone) if isinstance(outcome, Claimed) else outcome.ok
        self.place += always or effect
        self.effects += effect and not outcome.replayed
        self.replays += outcome.replayed
        self.recalled &= not effect

    def pass_over(self) -> None:
        """The next operation is not made now: its id stays its own, should a repeat make it."""
        self.place += 1

    def whole(self) -> dict[str, Any]:
        """The request as a whole, as the script ``once`` reads it."""
        whole = {"id": self.id("whole"), "body": self._digest(self.body or b""), "keep_ms": self.keep_ms}
        # Where there is one partition, a request of a single operation has noted nothing but that.
        return whole | ({"first": self.id(0)} if self.partitions == 1 else {})

    def whole_partition(self) -> int:
        """Where that is noted."""
        return int(self.id("whole"), 16) % self.partitions

    def _fingerprint(self, call: Call, goes_on: bool) -> bytes:
        if self.everywhere:
            return self._digest(b"")
        name = f"{call.key}\0{'' if call.generated else call.sort_field}\0"
        operation = name.encode() + (_asked(call, goes_on=goes_on) if self.body is None else b"")
        return self._digest(self.body or b"") + self._digest(operation)

    def _digest(self, text: bytes) -> bytes:
        return hmac.digest(self.secret, text, "sha256")[:12]


def _asked(call: Call, *, goes_on: bool = False) -> bytes:
    """What an operation asks for, the same in each repeat: without these."""
    # A claim that goes on where others were before it asks for what those have left.
    others = (*_RANDOM, "limit") if goes_on else _RANDOM
    asked = {name: value for name, value in call.request.items() if name not in others}
    if call.generated:
        del asked["sort"]
    if "new" in asked:
        # A repeat may come to another release than the first: what is digested keeps its form.
        asked["new"] = [part for pair in _fields(asked["new"]) for part in pair]
    if "set" in asked:
        asked["set"] = dict(_fields(asked["set"]))
    return codec.pack_request(asked)


def _fields(written: dict[str, Any]) -> list[tuple[str, Any]]:
    """The fields that are written, in one order; of triggers without what is sealed anew each time."""
    if written.get("t"):
        triggers = codec.unpack_answer(written["t"])
        plain = [[url, events, *(each[:-1] for each in options)] for url, _, events, *options in triggers]
        written = {**written, "t": codec.pack_request(plain)}
    return sorted(written.items())
