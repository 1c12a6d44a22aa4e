"""The settings of a key in all partitions: the first has each change before the others, and counts their generations.

Where a node failed before it had told its replica, the first can have lost changes that others have. So a change takes
the newest along, and the first partition goes on from that if it has none as new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from hookline.connection import Connection
from hookline.errors import Corrupt, Incompatible, OutcomeUnknown, Unavailable

Stored = dict[bytes, bytes]
"""Settings as they are stored, their generation among them."""
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
    found = await held(connection, partitions, key) if partitions > 1 else [{}]
    # Looked at before the first is written, so that without a failure it is never behind them.
    newest = max(found, key=lambda each: (_generation(each), each != found[0]))
    ahead = {"ahead": newest} if _generation(newest) else {}
    whole = await _configure(connection, 0, key, set=values, unset=gone, **ahead)
    rest = (_configure(connection, each, key, whole=whole) for each in range(1, partitions))
    unknown = OutcomeUnknown("the change has not reached all partitions: ask for the key's settings")
    try:
        others = await asyncio.gather(*rest)
    except (Unavailable, Incompatible) as error:
        if not (values or gone):
            raise
        raise unknown from error
    # Of one generation there are two where a node failed in between, and this change may be the one that was lost.
    if any(each != whole and _generation(each) == _generation(whole) for each in others):
        raise unknown
    return whole


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
    return int(text) if text.isdigit() and len(text) < 16 else 0
