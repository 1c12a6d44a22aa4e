"""Subscriptions: the messages of channels, over one connection to each node that has some, whoever follows them.

All namespaces of a process share these connections: there may be more namespaces than a store takes connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from redis import exceptions as redis_errors

from hookline.errors import Unavailable
from hookline.feed import Feed
from hookline.link import LOST

log = logging.getLogger(__name__)

Channels = Sequence[tuple[int, str]]
"""Each with its slot."""
Hear = Callable[[str | None, str], None]
"""Is told the topic of a message and its channel; or None, and no channel, where messages may have been lost."""

QUIET = 5.0
"""Seconds without a word after which a node is asked whether it is there, and has as long to answer: one that falls
silent ends no connection, and its messages would be missed for good."""
RECONNECT = 0.5
"""Seconds before a channel that was lost is subscribed to again."""


class Store(Protocol):
    """Where the channels are."""

    def node_of(self, slot: int) -> object:
        """Which node has a slot, as a value to compare.

        Raises:
            Unavailable: none has.
        """

    async def learn(self) -> None:
        """Wait until it is known anew who has what, but not for long."""

    async def feed(self, slot: int) -> Feed:
        """A new connection to the node of a slot.

        Raises:
            Unavailable: none has it.
            redis.exceptions.RedisError, OSError: none could be made.
        """


@dataclass(eq=False, slots=True)
class _Follower:
    hear: Hear
    channels: list[_Channel]

    def arrived(self, reader: _Reader) -> None:
        """Tell that messages of a node arrive from now on, once those of all its channels do."""
        if all(channel.heard for channel in self.channels if channel.reader is reader):
            self.tell(None)

    def tell(self, topic: str | None, channel: str = "") -> None:
        """Tell of a message. One that breaks on it must not take the connection from all others."""
        try:
            self.hear(topic, channel)
        except Exception:
            log.exception("a message was not heard")


@dataclass(eq=False, slots=True)
class _Channel:
    slot: int
    name: str
    followers: list[_Follower] = field(default_factory=list)
    reader: _Reader | None = None
    """The node's, unless it was lost, and is looked for anew."""
    heard: bool = False


_NONE = _Channel(0, "")


class Subscriptions:
    """What is followed of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._channels: dict[str, _Channel] = {}
        self._readers: dict[object, _Reader] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def follow(self, channels: Channels, hear: Hear) -> NoReturn:
        """Hear the messages of channels until cancelled, and None once those of a node arrive, at first and anew.

        What is lost of one node takes nothing from the others.
        """
        known = [self._channels.setdefault(name, _Channel(slot, name)) for slot, name in channels]
        follower = _Follower(hear, known)
        try:
            for channel in known:
                channel.followers.append(follower)
                if len(channel.followers) == 1:
                    self._place(channel)
            for reader in {channel.reader for channel in known if channel.heard}:
                if reader:
                    follower.arrived(reader)
            while True:
                await asyncio.Event().wait()
        finally:
            for channel in known:
                self._leave(channel, follower)

    def lose(self, channels: Iterable[_Channel]) -> None:
        """Look for channels anew, which a node does not have, or has no more."""
        lost = [*channels]
        for channel in lost:
            channel.reader, channel.heard = None, False
        task = asyncio.create_task(self._look_for(lost), context=Context())
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    def end(self, reader: _Reader) -> None:
        """Use a reader no more."""
        if self._readers.get(reader.node) is reader:
            del self._readers[reader.node]

    async def _look_for(self, lost: list[_Channel]) -> None:
        await asyncio.sleep(RECONNECT)
        await self.store.learn()
        for channel in lost:
            if channel.followers:
                self._place(channel)

    def _place(self, channel: _Channel) -> None:
        try:
            node = self.store.node_of(channel.slot)
        except Unavailable:
            self.lose([channel])
            return
        reader = self._readers.get(node)
        if reader:
            reader.add(channel)
            return
        reader = self._readers[node] = _Reader(self, node, channel.slot)
        reader.add(channel)
        reader.begin()

    def _leave(self, channel: _Channel, follower: _Follower) -> None:
        if follower in channel.followers:
            channel.followers.remove(follower)
        if not channel.followers:
            self._channels.pop(channel.name, None)
            if channel.reader:
                channel.reader.remove(channel)


class _Reader:
    """The channels of one node, from when its connection is made until that is lost, or nobody follows any."""

    def __init__(self, subscriptions: Subscriptions, node: object, slot: int) -> None:
        self.node = node
        self._subscriptions = subscriptions
        self._slot = slot
        self._channels: dict[str, _Channel] = {}
        self._feed: Feed | None = None
        self._asked: deque[tuple[str, _Channel]] = deque()
        """The commands that are not answered yet, each with its channel: one that is followed anew is another one."""
        self._quiet = True
        self._task: asyncio.Task[None]

    def begin(self) -> None:
        """Connect. Where tasks begin at once (asyncio.eager_task_factory) it may have failed when this returns."""
        self._task = asyncio.create_task(self._run(), context=Context())

    def add(self, channel: _Channel) -> None:
        """Subscribe to one more."""
        self._channels[channel.name], channel.reader = channel, self
        self._send("SSUBSCRIBE", channel)

    def remove(self, channel: _Channel) -> None:
        """Hear it no more; with the last one the connection ends."""
        del self._channels[channel.name]
        channel.reader, channel.heard = None, False
        if self._channels:
            self._send("SUNSUBSCRIBE", channel)
        else:
            self._subscriptions.end(self)
            self._task.cancel()

    def _send(self, command: str, channel: _Channel) -> None:
        # A cluster takes only channels of one slot at a time.
        if self._feed:
            self._asked.append((command, channel))
            self._feed.send(command, channel.name)

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(QUIET):  # one that has fallen silent takes connections all the same
                self._feed = await self._subscriptions.store.feed(self._slot)
            self._feed.told = self._told
            for channel in self._channels.values():
                self._send("SSUBSCRIBE", channel)
            await self._listen(self._feed)
        except (Unavailable, *LOST, redis_errors.RedisError, RuntimeError):
            pass
        finally:
            if self._feed:
                self._feed.close()
            self._subscriptions.end(self)
        if self._channels:
            self._subscriptions.lose(self._channels.values())

    async def _listen(self, feed: Feed) -> None:
        """Until the connection is lost, or the node has fallen silent."""
        while not feed.closed:
            self._quiet, waiting = True, bool(self._asked)
            try:
                async with asyncio.timeout(QUIET):
                    await feed.lost.wait()
            except TimeoutError:
                if self._quiet and waiting:
                    return
                if self._quiet:
                    self._asked.append(("PING", _NONE))
                    feed.send("PING")

    def _told(self, answer: Any) -> None:
        self._quiet = False
        if isinstance(answer, Exception):
            # In most cases it has gone to another node.
            _, channel = self._asked.popleft() if self._asked else ("", _NONE)
            self._lost(channel.name)
            return
        kind, name = answer[0].decode(), answer[1].decode()
        if kind in ("smessage", "message"):
            self._pass_on(name, answer[2].decode())
        elif kind == "pong":
            self._answered("PING", "")
        elif kind == "ssubscribe":
            self._heard(self._answered("SSUBSCRIBE", name))
        elif kind == "sunsubscribe" and not self._answered("SUNSUBSCRIBE", name):
            self._lost(name)  # its slot went to another node

    def _answered(self, command: str, name: str) -> _Channel | None:
        """Note the answer of a command -> the channel that it was asked for, if it was asked."""
        for place, (asked, channel) in enumerate(self._asked):
            if asked == command and channel.name == name:
                del self._asked[place]
                return channel
        return None

    def _pass_on(self, name: str, topics: str) -> None:
        channel = self._channels.get(name)
        for follower in [*channel.followers] if channel else ():
            for topic in topics.split("\0"):
                follower.tell(topic, name)

    def _heard(self, channel: _Channel | None) -> None:
        if channel and self._channels.get(channel.name) is channel and not channel.heard:
            channel.heard = True
            for follower in [*channel.followers]:
                follower.arrived(self)

    def _lost(self, name: str) -> None:
        channel = self._channels.pop(name, None)
        if channel:
            self._subscriptions.lose([channel])
        if not self._channels:
            self._subscriptions.end(self)
            self._task.cancel()
