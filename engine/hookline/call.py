"""One operation as a value: which script and partition, what it sends, how its answer reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from hookline import codec
from hookline.codec import Fields
from hookline.errors import Corrupt, HooklineError
from hookline.item import Item
from hookline.keysettings import Known
from hookline.outcome import WARNINGS, Claimed, Outcome
from hookline.plan import declared
from hookline.row import Row, pack_row
from hookline.spelling import misspelt
from hookline.where import Where, count_operands

_ADDED = frozenset({b"v", b"ca", b"ua", b"at"})
"""What the store adds to a new item of which it was sent all else."""
FILTERED_LEAST = 10
"""Operations that a claim by filters counts as, at least. Claims share the work of a script call: at most ten of these
do so, and each comes far in it."""
OPERANDS_OF_ONE = 25
"""Operands of filters that take the store as long as one operation: 1.2 us each, of times from now on twice that."""


class Call(msgspec.Struct, frozen=True):
    """One operation for one partition. ``request`` is what the script gets, but for what depends on the key's settings.

    ``where`` are the filters of a claim, which indexes may answer. ``generated``: nobody chose the sortField.
    ``elsewhere`` is in how many other partitions it is tried where its own is full, each time by another sortField;
    None of what belongs where it is.
    """

    script: str
    partition: int
    key: str
    sort_field: str
    request: dict[str, Any]
    where: Where | None = None
    generated: bool = False
    elsewhere: int | None = None

    def __repr__(self) -> str:
        return f"Call({self.script}, partition={self.partition}, key={self.key!r}, sort_field={self.sort_field!r})"

    @property
    def weight(self) -> int:
        """How many operations of a script call it counts as: a claim, as the items that it may give; filters more."""
        request = self.request
        where, limit = request.get("where"), request.get("limit", 0)
        weight: int = max(limit, FILTERED_LEAST if where else 1)
        if conditions := where or request.get("only_if"):
            weight += count_operands(conditions) // OPERANDS_OF_ONE
        return weight

    def failed(self, error: HooklineError) -> Outcome:
        """What became of it where the store has given no answer."""
        return Outcome(error.code, self.key, self.sort_field, failure=error)

    def pack(self, known: Known, parent: str = "") -> bytes | Row:
        """The request as the script reads it, for a partition whose settings of the key are as known.

        ``parent`` is the trace context that what it writes goes on with.
        """
        request = {**self.request, "generation": known.generation}
        if parent:
            request["trace"] = parent
        if "new" in request:
            return pack_row(request)
        if self.where and known.indexes:
            request["walks"] = [walk.request() for walk in declared(self.where, known.indexes)]
        return codec.pack_request(request)

    def decode(self, answer: list[Any]) -> Outcome | Claimed:
        """A script's answer ``[word, fields | false, extra | false]`` -> what became of the operation.

        Where the item that it shows can be none, that is told in its place: word ``corrupt``.
        """
        try:
            return self._decode(answer)
        except codec.UNREADABLE:
            done = "; the operation is done all the same" if answer[0] == b"ok" else ""
            return Outcome(
                Corrupt.code, self.key, self.sort_field, detail=codec.broken(self.key, self.sort_field) + done
            )

    def _decode(self, answer: list[Any]) -> Outcome | Claimed:
        word, shown, extra = answer[0].decode(), answer[1], answer[2] or {}
        verb = self.request.get("verb")
        if verb == "claim" and word == "ok":
            return self._decode_claim(extra)
        sort_field, replayed = self.sort_field, False
        warnings: tuple[str, ...] = ()
        if extra:
            sort_field = extra[b"sort"].decode() if b"sort" in extra else sort_field
            warnings = tuple(WARNINGS[name.decode()] for name in extra.get(b"warnings", ()))
            replayed = b"replayed" in extra
        if word == "ok" and (sent := self.request.get("set") or self.request.get("new")):
            warnings += misspelt(sent)
        if not shown:
            return Outcome(word, self.key, sort_field, None, warnings, replayed=replayed)
        if verb is not None and word == "ok":
            return Outcome(word, self.key, sort_field, None, warnings, *_decode_state(shown), replayed=replayed)
        if word == "ok" and "new" in self.request and _ADDED.issuperset(shown):
            item = codec.decode_new(self.key, sort_field, self.request["new"], shown)
        else:
            fields = codec.decode_fields(shown, self._sent() if word == "ok" else None)
            item = codec.decode_item(self.key, sort_field, fields)
        version = int(extra[b"version"]) if b"version" in extra else item.version
        state = version, item.status, item.locked_until_ms
        return Outcome(word, self.key, sort_field, item, warnings, *state, replayed=replayed)

    def _sent(self) -> Fields:
        """The fields that were sent, as the store would give them back."""
        sent = self.request.get("set") or self.request.get("new", {})
        return {name.encode(): value.encode() if type(value) is str else value for name, value in sent.items()}

    def _decode_claim(self, extra: Mapping[bytes, Any]) -> Claimed:
        given = extra.get(b"given", {})  # the same to all of them
        items: list[Item] = []
        broken: list[tuple[str, str]] = []
        for sort, shown in extra.get(b"items") or ():
            fields = codec.decode_fields(shown) | given
            try:
                items.append(codec.decode_item(self.key, sort.decode(), fields))
            except codec.UNREADABLE:
                broken.append((sort.decode(), fields[b"tk"].decode()))
        failure = Corrupt(f"{codec.broken(self.key, broken[0][0])}; it becomes a dead letter") if broken else None
        due, after = extra.get(b"next_ms"), extra.get(b"after")
        return Claimed(
            items,
            int(due) if due is not None else None,
            bool(extra.get(b"more")),
            list(after) if after else None,
            examined=extra.get(b"examined", 0),
            failure=failure,
            broken=tuple(broken),
            replayed=b"replayed" in extra,
            gone=extra.get(b"gone", 0),
            expired=extra.get(b"expired", 0),
            buried=extra.get(b"buried", 0),
            lost=extra.get(b"lost", 0),
            held=tuple(sort.decode() for sort in extra.get(b"held") or ()),
            paused=b"paused" in extra,
            empty=b"empty" in extra,
            left=b"left" in extra,
            barred=extra[b"barred"].decode() if b"barred" in extra else None,
        )


def _decode_state(fields: Mapping[bytes, bytes]) -> tuple[int, str | None, int | None]:
    """Version, status, and until when it is locked, in ms."""
    status, locked_until = fields.get(b"s"), fields.get(b"lu")
    return int(fields[b"v"]), status.decode() if status else None, int(locked_until) if locked_until else None
