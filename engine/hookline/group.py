"""Which operations of a request go to the store in one call, and which wait for others. No store.

Operations on one item run in order, whatever becomes of single calls: they go in the same call, or one after the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from hookline.call import Call
from hookline.calls import GIVEN_MAX
from hookline.errors import HooklineError
from hookline.outcome import Claimed, Outcome
from hookline.row import Row
from hookline.trace import PARENT

OPERATIONS_MAX = GIVEN_MAX
"""Operations of one script call, a claim counted as the items that it may give: about 4 ms of the store."""
HALF_MIN = 32
"""Operations at least of each half that :func:`share` makes: with fewer, what a call costs by itself outweighs it."""
BYTES_MAX = 262_144
"""Bytes of one script call's operations; a larger operation goes alone."""

AT_ONCE_MAX = 10_000
"""Operations that are looked at together. What waits for others is looked at again when those have their answers."""

Result = Outcome | Claimed | Call
"""What became of an operation; or the one that is to be sent in its place."""
Read = Callable[[Call, list[Any]], Result]
Pack = Callable[[Call, str], bytes | Row]
"""A call, and the trace context that it belongs to -> what is sent."""
Placed = tuple[int, Call]
"""An operation, and its place in the request."""


def share(operations: int) -> int:
    """How many one call takes of the operations that are there.

    Half of them, if that is enough: then the store works on one half while this process packs or reads the other.
    """
    if 2 * HALF_MIN <= operations < 2 * OPERATIONS_MAX:
        return (operations + 1) // 2
    return OPERATIONS_MAX


class Group:
    """Operations of one script and partition that go in one call. ``weight`` is how many operations they count as."""

    __slots__ = ("_read", "members", "operations", "parent", "partition", "script", "size", "weight")

    def __init__(self, script: str, partition: int, read: Read) -> None:
        """None yet; ``read`` makes of an operation's answer what became of it."""
        self.script = script
        self.partition = partition
        self.parent = PARENT.get()
        self._read = read
        self.members: list[Placed] = []
        self.operations: list[bytes | Row] = []
        self.weight = self.size = 0

    def add(self, member: Placed, packed: bytes | Row) -> bool:
        """One more, unless that is too much for one call."""
        weight, size = self.weight + member[1].weight, self.size + len(packed)
        if self.operations and (weight > OPERATIONS_MAX or size > BYTES_MAX):
            return False
        self.members.append(member)
        self.operations.append(packed)
        self.weight, self.size = weight, size
        return True

    def pack(self) -> None:
        """They are packed: how large they are decides which go together."""

    def read(self, answers: Sequence[Any]) -> list[Result]:
        """What became of each member by its answer, one that cannot be read included."""
        return [_read(self._read, call, answer) for (_, call), answer in zip(self.members, answers, strict=True)]

    async def told(self, submitted: Awaitable[list[Result]]) -> list[Result]:
        """What became of each member, the failure of the whole call included."""
        try:
            return await submitted
        except HooklineError as error:
            return [call.failed(error) for _, call in self.members]


class Alone:
    """A group of one operation, which is packed as it leaves."""

    __slots__ = ("_call", "_pack", "_read", "operations", "parent", "partition", "script", "size", "weight")

    def __init__(self, call: Call, pack: Pack, read: Read) -> None:
        """As of a :class:`Group`."""
        self.script = call.script
        self.partition = call.partition
        self.parent = PARENT.get()
        self._call = call
        self._pack = pack
        self._read = read
        self.operations: Sequence[bytes | Row] = ()
        self.weight = call.weight
        self.size = 0

    def pack(self) -> None:
        """Pack it, now that it leaves."""
        if not self.operations:
            packed = self._pack(self._call, self.parent)
            self.operations = (packed,)
            self.size = len(packed)

    def read(self, answers: Sequence[Any]) -> list[Result]:
        """What became of it."""
        return [_read(self._read, self._call, answers[0])]


def _read(read: Read, call: Call, answer: list[Any]) -> Result:
    try:
        return read(call, answer)
    except HooklineError as error:
        return call.failed(error)


def grouped(placed: Sequence[Placed], pack: Pack, read: Read, later: list[Placed]) -> Iterator[Group]:
    """Groups that may go at the same time, each as soon as it is full.

    ``later`` is given what waits for them, as an operation before it is on the same item.
    """
    filling: dict[tuple[str, int], Group] = {}
    of_item: dict[tuple[str, str], Group | None] = {}
    for member in placed:
        call = member[1]
        name, lane = (call.key, call.sort_field), (call.script, call.partition)
        group, added = filling.get(lane) or Group(*lane, read), False
        if of_item.get(name, group) is group:
            packed = pack(call, group.parent)
            added = group.add(member, packed)
            if not added and name not in of_item:
                yield filling.pop(lane)
                group = Group(*lane, read)
                added = group.add(member, packed)
        if added:
            of_item[name] = filling[lane] = group
        else:
            of_item[name] = None  # what comes after this one waits too
            later.append(member)
    yield from filling.values()
