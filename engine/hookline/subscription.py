"""Subscriptions: the messages of channels, each from the node that has its slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from redis import exceptions as redis_errors

from hookline.errors import Unavailable
from hookline.link import LOST
from hookline.nodes import Nodes

Channels = Sequence[tuple[int, str]]
"""Each with its slot."""
Hear = Callable[[str | None], None]
"""Is told the topic of a message, or None where messages may have been lost."""

QUIET = 5.0
"""Seconds without a message after which a node is asked whether it is there, and has as long to answer: one that falls
silent ends no connection, and its messages would be missed for good."""
RECONNECT = 0.5
"""Seconds before a node that was lost is subscribed to again."""


class _MovedError(Exception):
    """The channels of some nodes lie otherwise by now."""


async def follow(nodes: Nodes, channels: Channels, hear: Hear) -> NoReturn:
    """Hear the messages of channels until cancelled, and None as soon as those of one node arrive, at first and anew.

    What is lost of one node takes nothing from the others, unless channels have gone from one to another.
    """
    while True:
        groups = _by_node(nodes, channels)
        stand = partial(_stand, groups, nodes, channels)
        try:
            async with asyncio.TaskGroup() as following:
                for together in groups:
                    following.create_task(_follow(nodes, together, hear, stand))
        except* _MovedError:
            pass


async def _follow(nodes: Nodes, together: Channels, hear: Hear, stand: Callable[[], bool]) -> NoReturn:
    """The channels of one node, wherever that is, as long as the groups stand.

    Raises:
        _MovedError: they do not.
    """
    while stand():
        try:
            await _listen(nodes, together, hear)
        except (Unavailable, *LOST, redis_errors.RedisError, RuntimeError):
            await asyncio.sleep(RECONNECT)
            await nodes.learn()
    raise _MovedError


def _by_node(nodes: Nodes, channels: Channels) -> list[Channels]:
    by_node: dict[object, list[tuple[int, str]]] = {}
    for slot, channel in channels:
        by_node.setdefault(nodes.node_of(slot), []).append((slot, channel))
    return [*by_node.values()]


def _stand(groups: list[Channels], nodes: Nodes, channels: Channels) -> bool:
    return groups == _by_node(nodes, channels)


async def _listen(nodes: Nodes, channels: Channels, hear: Hear) -> NoReturn:
    """Hear the messages of channels that one node has, as long as it has them all.

    Raises:
        Unavailable: it has fallen silent, or has given one of them up.
        ConnectionError, TimeoutError, OSError, ResponseError: as redis-py raises them.
    """
    client = nodes.client(channels[0][0])
    pubsub = client.pubsub()
    try:
        # One that has fallen silent takes connections all the same.
        async with asyncio.timeout(QUIET):
            for _, channel in channels:  # A cluster takes only channels of one slot at a time.
                await pubsub.ssubscribe(channel)
            confirmed = 0
            while confirmed < len(channels):
                message = await pubsub.get_message(timeout=None)
                confirmed += bool(message and message["type"] == "ssubscribe")
        hear(None)
        asked = False
        while True:
            message = await pubsub.get_message(timeout=QUIET)
            if message is None:
                if asked:
                    raise Unavailable("a node has fallen silent")
                await pubsub.ping()
            asked = message is None
            if message and message["type"] in ("smessage", "message"):
                for topic in message["data"].decode().split("\0"):
                    hear(topic)
            elif message and message["type"] == "sunsubscribe":
                raise Unavailable("a slot went to another node, and its channel with it")
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        await client.aclose()
