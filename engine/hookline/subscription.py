"""Subscriptions: the messages of channels, each from the node that has its slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from redis import exceptions as redis_errors

from hookline.errors import Unavailable
from hookline.link import LOST
from hookline.nodes import Nodes

QUIET = 5.0
"""Seconds without a message after which a node is asked whether it is there, and has as long to answer: one that falls
silent ends no connection, and its messages would be missed for good."""


@asynccontextmanager
async def subscribed(nodes: Nodes, channels: Sequence[tuple[int, str]]) -> AsyncIterator[AsyncIterator[str]]:
    """Subscribe to channels, each with its slot -> the topics of their messages.

    Raises:
        Unavailable: a node cannot be reached, or a subscription was lost.
    """
    by_node: dict[object, list[tuple[int, str]]] = {}
    for slot, channel in channels:
        by_node.setdefault(nodes.node_of(slot), []).append((slot, channel))
    topics: asyncio.Queue[str | Exception] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        try:
            for together in by_node.values():
                subscription = _subscription(nodes, together[0][0], [channel for _, channel in together])
                reader = asyncio.create_task(_read(await stack.enter_async_context(subscription), topics))
                stack.push_async_callback(_end, reader)
            yield _topics(topics)
        except (*LOST, redis_errors.ResponseError) as error:
            raise Unavailable(f"the store gave no answer: {error}") from error


@asynccontextmanager
async def _subscription(nodes: Nodes, slot: int, channels: Sequence[str]) -> AsyncIterator[AsyncIterator[str]]:
    """Subscribe to channels of one node; the iterator ends with an error when the node gives one of them up."""
    client = nodes.client(slot)
    pubsub = client.pubsub()
    try:
        # One that has fallen silent takes connections all the same.
        async with asyncio.timeout(QUIET):
            for each in channels:  # A cluster takes only channels of one slot at a time.
                await pubsub.ssubscribe(each)
            confirmed = 0
            while confirmed < len(channels):
                message = await pubsub.get_message(timeout=None)
                confirmed += bool(message and message["type"] == "ssubscribe")

        async def topics() -> AsyncIterator[str]:
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
                        yield topic
                elif message and message["type"] == "sunsubscribe":
                    raise Unavailable("a slot went to another node, and its channel with it")

        yield topics()
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        await client.aclose()


async def _read(messages: AsyncIterator[str], topics: asyncio.Queue[str | Exception]) -> None:
    """Pass one node's messages on, and at last what ended them."""
    try:
        async for topic in messages:
            topics.put_nowait(topic)
    except Exception as error:
        topics.put_nowait(error)


async def _topics(topics: asyncio.Queue[str | Exception]) -> AsyncIterator[str]:
    """What arrives from all nodes, until the subscription of one is lost."""
    while True:
        topic = await topics.get()
        if isinstance(topic, Exception):
            raise topic
        yield topic


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
