"""The settings of a key in all partitions: the first has each change before the others, and counts their generations.

Where a node failed before it had told its replica, the first can have lost a change that others have. Then theirs go
to the first, as the first generation of a new term, and what is to change goes on top.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from hookline.connection import Connection
from hookline.errors import Corrupt, OutcomeUnknown, Unavailable

Stored = dict[bytes, bytes]
"""Settings as they are stored, their generation among them."""
TERM = 1_000_000
"""Generations of a term: from one to the next, a change can be lost that had reached the first partition alone."""
_NO_CHANGE: dict[str, Any] = {"set": {}, "unset": ()}


async def held(connection: Connection, partitions: int, key: str) -> list[Stored]:
    """The settings of a key in each partition.

    Raises:
        Corrupt, Unavailable
    """
    looks = (connection.read("configure", each, {"key": key, **_NO_CHANGE}) for each in range(partitions))
    return [_decode(answer) for answer in await asyncio.gather(*looks)]


async def change(
    connection: Connection, partitions: int, key: str, values: Mapping[str, str | bytes], gone: Sequence[str]
) -> Stored:
    """Change settings of a key in all partitions, and make the same what differs -> all of its settings.

    Raises:
        Corrupt, Unavailable
        OutcomeUnknown: no answer; or the change has not reached all partitions.
    """
    whole = await _configure(connection, 0, key, set=values, unset=gone)
    try:
        ahead = await _spread(connection, partitions, key, whole)
        if ahead and await _advance(connection, key, ahead) // TERM > _generation(whole) // TERM:
            whole = await _configure(connection, 0, key, set=values, unset=gone)
            await _spread(connection, partitions, key, whole)
    except Unavailable as error:
        if not (values or gone):
            raise
        raise OutcomeUnknown("the change has not reached all partitions: ask for the key's settings") from error
    return whole


async def _spread(connection: Connection, partitions: int, key: str, whole: Stored) -> Stored | None:
    """Write what the first partition has to the others -> the newest of what one has that is no older, but another."""
    rest = await asyncio.gather(*(_configure(connection, each, key, whole=whole) for each in range(1, partitions)))
    return max((each for each in rest if each != whole), key=_generation, default=None)


async def _advance(connection: Connection, key: str, ahead: Stored) -> int:
    """Give the first partition what it lost, unless it has that or a later change -> its generation then."""
    first = _decode(await connection.read("configure", 0, {"key": key, **_NO_CHANGE}))
    if first != ahead and _generation(first) <= _generation(ahead):
        whole = ahead | {b"generation": b"%d" % ((_generation(ahead) // TERM + 1) * TERM)}
        first = await _configure(connection, 0, key, whole=whole, over=_generation(first))
    return _generation(first)


async def _configure(connection: Connection, partition: int, key: str, **change: Any) -> Stored:
    """Write, unless a partition has a later generation -> what it has then."""
    return _decode(await connection.change("configure", partition, {"key": key, **change}))


def _decode(answer: list[Any]) -> Stored:
    word, fields = answer
    if word != b"ok":
        raise Corrupt
    return dict(fields)  # an empty table comes as a list


def _generation(settings: Stored) -> int:
    text = settings.get(b"generation", b"")
    return int(text) if text.isdigit() else 0
