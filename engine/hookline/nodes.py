"""The nodes of the store, one or a cluster's: which has a slot, and how a command gets there and back.

Not redis-py's cluster client, which repeats by its own rules what may have run. ASK is not followed: while a slot moves
key by key, a partition is on two nodes, and a script that ran on one of them would not see what is on the other. A
cluster that moves slots as a whole (Valkey from 9.0, Redis from 8.4) never asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hookline.errors import Incompatible, StoreFull, Unavailable
from hookline.feed import Feed
from hookline.keys import SLOTS
from hookline.link import LOST, Hold, Link, Links, LostError, SilentError, Told
from hookline.sentinel import Address, Sentinels
from hookline.settings import Settings
from hookline.storeurl import read_url
from hookline.subscription import Subscriptions
from hookline_lua import library

Run = Callable[..., Awaitable[Any]]
"""Runs one command."""
T = TypeVar("T")

_TRIES = 6
"""How often one command goes where a cluster sends it, or to a node that had to be given the library first."""
_NO_FUNCTION = "Function not found"
_LEARNING = 1.0
"""Seconds for which it is waited to learn who has which slots by now."""

_WATCH = 1.0
"""Seconds after which sentinels are asked again: so long an old primary may be written to that is one no more."""


class NotSentError(Exception):
    """No byte of the call left this process."""

    code = "not_sent"


class Nodes:
    """The links to the primaries of a store. Without a cluster there is one, that of the URL.

    Of a cluster several nodes may be named, by URLs with commas between them. Where sentinels are named, the primary is
    the one that most of them say, who are asked every second: in a failover the old one is told last.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._settings = settings
        self._options: dict[str, Any] = {
            "socket_timeout": settings.call_timeout,
            "socket_connect_timeout": settings.call_timeout,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "decode_responses": False,
            "protocol": 2,
            "health_check_interval": 0,
            "client_name": "hookline",
        }
        self._sentinels, self._starts = read_url(url, settings.call_timeout)
        self._url_options = self._starts[0]
        self._first = self._make_links(self._url_options)
        self._links: dict[Address, Links] = {}
        self._retired: WeakSet[Links] = WeakSet()
        """Those of nodes that have no slots any more, as long as something is under way over them."""
        self._ranges: list[tuple[int, int, Address]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._primary: Address | None = None
        self._suspect: Links | None = None
        self.closed = False
        self._turn = 0
        self._loading: dict[Links, asyncio.Task[None]] = {}
        self.subscriptions = Subscriptions(self)

    @property
    def clustered(self) -> bool:
        """Whether the store is a cluster."""
        return bool(self._ranges)

    async def open(self) -> None:
        """Find the first node that answers; learn whether the store is a cluster, and who has what of it.

        Raises:
            NotSentError, LostError, Unavailable: no node answers.
            Incompatible: several are named, and the one that answers is no node of a cluster.
        """
        if self.closed:  # opened anew: links that were closed keep none, and would make one for each command
            self._first, self._links, self.closed = self._make_links(self._url_options), {}, False
        info = await self._find_first()
        if self._sentinels and self._watching is None:
            self._watching = asyncio.create_task(self._watch(self._sentinels), context=Context())
        if b"cluster_enabled:1" in info:
            await self.refresh()
        elif len(self._starts) > 1:
            # Stores of their own: which of them has what is written would depend on which answers first.
            raise Incompatible("several stores are named, and one of them is not a node of a cluster: name one store")

    async def _find_first(self) -> bytes:
        """Make the first node that answers the one to start from -> what it says of its cluster."""
        failure: Exception = Unavailable("no store is named")
        for start in self._starts:
            if start is not self._url_options:
                self._first.close()
                self._url_options, self._first = start, self._make_links(start)
            try:
                info: bytes = await self._exchange(self._first, "INFO", "cluster")
            except (NotSentError, LostError, Unavailable) as error:
                failure = error
            else:
                return info
        raise failure

    async def close(self) -> None:
        """Close every connection; what is under way over one, the loading of the library too, is lost by that."""
        self.closed = True
        for task in filter(None, (self._refreshing, self._watching)):
            task.cancel()
        self._watching = None
        for links in (self._first, *self._links.values(), *self._retired):
            links.close()

    def begin(self, slot: int, lane: object, told: Told, command: Callable[[], tuple[Any, ...]]) -> bool:
        """Send a command to the node that has the slot, if that needs no waiting, as :meth:`Links.begin` does."""
        try:
            links = self._links_of(slot)
        except Unavailable:
            return False
        return links.begin(lane, told, command)

    async def run(
        self,
        slot: int | None,
        *args: Any,
        send_by: float | None = None,
        lane: object = None,
        answer: Exception | None = None,
    ) -> Any:
        """One command on the node that has the slot (None: on one that answers) -> its answer.

        A node that lacks the library is given it: it is new, or its functions were flushed.

        Commands of one ``lane`` do not wait for each other, and go over one link: but for faults, and while links
        are short, they run in order.
        ``answer`` is the error that the command has been answered with already, when it was begun.

        Raises:
            NotSentError, LostError
            Unavailable, StoreFull, Incompatible
            redis.exceptions.ResponseError: the command was refused in another way.
        """
        if slot is None and self.clustered:
            return await self._anywhere(*args)
        links = self._links_of(slot)
        for _ in range(_TRIES):
            began = -math.inf if answer else monotonic()
            try:
                if answer is None:
                    return await self._exchange(links, *args, send_by=send_by, lane=lane)
                first, answer = answer, None
                _raise(first)
            except redis_errors.MovedError as error:  # to redis-py a kind of AskError
                # Nothing ran, so it may be sent again.
                links = self._links_at((error.host or self._url_options.get("host", "localhost"), error.port))
                self._refresh_soon()
            except redis_errors.AskError:
                raise Unavailable("the cluster moves a slot key by key: let it move slots as a whole") from None
            except (redis_errors.ReadOnlyError, redis_errors.MasterDownError):
                # Nothing ran. The address may lead to another node by now, and the links still to a replica.
                if not links.renew(began):
                    raise
            except redis_errors.ResponseError as error:
                if str(error) != _NO_FUNCTION:
                    raise
                # Nothing ran either. The node that was asked gets the library: other nodes may have it.
                await self._load(links)
            except (NotSentError, LostError, Incompatible) as error:
                links = await self._after(error, links, slot)
        raise Unavailable("the call goes from node to node, or to one that forgets its functions")

    async def ready(self) -> None:
        """Ask one that answers, and that is no replica.

        Raises:
            NotSentError, LostError, Unavailable, Incompatible
        """
        while True:
            began = monotonic()
            answer = await self.run(None, "INFO", "replication")
            # A cluster sends what is for a primary to one.
            if self.clustered or b"role:slave" not in answer:
                return
            if not self._first.renew(began):
                raise Unavailable("the store is a replica, which takes no writes")

    async def _after(self, failure: Exception, failed: Links, slot: int | None) -> Links:
        """Where to send what could not be sent to a node, or was not let in: to that which has the slot by now.

        Raises:
            NotSentError, LostError, Incompatible: the failure, where it is the same, or the call may have run.
        """
        if isinstance(failure, SilentError):
            failed.forget()
        self._suspect = failed
        if isinstance(failure, LostError):
            self._refresh_soon()
            raise failure
        await self.learn()
        links = self._links_of(slot)
        if links is failed:
            raise failure
        return links

    async def learn(self) -> None:
        """Wait until it is known anew who has what, but not for long."""
        self._refresh_soon()
        if self._refreshing:
            await asyncio.wait({self._refreshing}, timeout=_LEARNING)

    async def _anywhere(self, *args: Any) -> Any:
        """One command on a primary that answers, the same as long as that does.

        Raises:
            NotSentError, LostError, Unavailable, Incompatible: none does.
        """
        failure: Exception = Unavailable("no node of the cluster answers")
        nodes = self._primaries()
        for _ in nodes:
            try:
                return await self._exchange(self._links_at(nodes[self._turn % len(nodes)]), *args)
            except (NotSentError, LostError, Unavailable, Incompatible) as error:
                failure = error
                self._turn += 1
            except asyncio.CancelledError:  # it took too long for whoever waited
                self._turn += 1
                raise
        self._refresh_soon()
        raise failure

    def hold(self, slot: int, ready: Callable[[], object], seconds: float, *args: Any) -> Hold | None:
        """Holds a command back on the node of a slot, as :meth:`hookline.link.Holders.hold` says."""
        with contextlib.suppress(Unavailable):
            return self._links_of(slot).holders.hold(ready, seconds, *args)
        return None

    async def everywhere(self, work: Callable[[Run], Awaitable[T]]) -> list[T]:
        """Do some work on every primary that answers -> what came of it. Who needs the others is told by its own call.

        Raises:
            NotSentError, LostError, Unavailable: no primary answers.
            StoreFull, Incompatible
            redis.exceptions.ResponseError: one refused a command in another way.
        """
        nodes = [self._links_at(address) for address in self._primaries()] if self.clustered else [self._first]
        done: list[T] = []
        failure: Exception | None = None
        for links in nodes:
            try:
                done.append(await work(partial(self._exchange, links)))
            except (NotSentError, LostError, Unavailable) as error:
                failure = error
        if failure and not done:
            raise failure
        return done

    async def refresh(self) -> None:
        """Ask one node after the other who has which slots, until one answers.

        Late comes the one that has just failed, and last those that the store was named by.

        Raises:
            NotSentError, LostError, Unavailable, Incompatible: none did, or not all slots are served.
        """
        failure: Exception = Unavailable("no node of the cluster answers")
        known = [self._links_at(address) for address in self._primaries()]
        named = [self._links_at(address) for address in self._named()]
        for links in (*sorted(known, key=lambda links: links is self._suspect), self._first, *named):
            try:
                table = await self._exchange(links, "CLUSTER", "SLOTS")
            except (NotSentError, LostError, Unavailable, Incompatible, redis_errors.ResponseError) as error:
                failure = error
                continue
            ranges = [(first, last, self._address(primary)) for first, last, primary, *_ in table]
            if sum(last - first + 1 for first, last, _ in ranges) == SLOTS:
                self._ranges, self._suspect = ranges, None
                self._retire()
                return
            failure = Unavailable("not every slot of the cluster is served")
        raise failure

    def _retire(self) -> None:
        """Keep no links to nodes that have no slots any more: with time a cluster may have had any number of them."""
        for address in self._links.keys() - {*self._primaries(), *self._named()}:
            links = self._links.pop(address)
            links.retire()
            self._retired.add(links)

    async def _load(self, links: Links) -> None:
        """Give a node the library, once however many calls wait for it."""
        task = self._loading.get(links)
        if task is None:
            work = load_library(partial(self._exchange, links))
            task = self._loading[links] = asyncio.create_task(work, context=Context())
            task.add_done_callback(partial(self._loaded, links))
        await asyncio.shield(task)

    def _loaded(self, links: Links, task: asyncio.Task[None]) -> None:
        del self._loading[links]
        if not task.cancelled():
            task.exception()  # told to those who still wait for it

    async def feed(self, slot: int) -> Feed:
        """A link of its own to the node that has the slot, to hear messages by; the caller closes it.

        Raises:
            Unavailable: no node has it.
            redis.exceptions.RedisError, OSError: none could be made.
        """
        return await self._links_of(slot).make(Feed)

    def node_of(self, slot: int) -> Address | None:
        """The address of the node that has a slot; None without a cluster."""
        return self._address_of(slot) if self.clustered else None

    def _named(self) -> list[Address]:
        return [(start.get("host", "localhost"), start.get("port", 6379)) for start in self._starts]

    def _primaries(self) -> list[Address]:
        return list(dict.fromkeys(address for _, _, address in self._ranges))

    def _address(self, primary: list[Any]) -> Address:
        host = primary[0].decode() if primary[0] else ""
        return host or self._url_options.get("host", "localhost"), int(primary[1])

    def _address_of(self, slot: int) -> Address:
        for first, last, address in self._ranges:
            if first <= slot <= last:
                return address
        raise Unavailable(f"no node of the cluster has slot {slot}")

    def _links_of(self, slot: int | None) -> Links:
        if slot is None or not self.clustered:
            return self._first
        return self._links_at(self._address_of(slot))

    def _links_at(self, address: Address) -> Links:
        links = self._links.get(address)
        if links is None:
            links = self._links[address] = self._make_links(self._options_at(address))
        return links

    def _options_at(self, address: Address) -> dict[str, Any]:
        return {**self._url_options, "host": address[0], "port": address[1]}

    def _make_links(self, options: dict[str, Any]) -> Links:
        find = partial(self._find, self._sentinels) if self._sentinels and "host" not in options else None
        return Links({**options, **self._options}, self._settings.connections, self._settings.call_timeout, find)

    async def _find(self, sentinels: Sentinels) -> Address:
        """Where the primary is: asked for, or known by the last look while there is one every second."""
        watched = self._watching and not self._watching.done()
        return self._primary if watched and self._primary else await self._look(sentinels)

    async def _look(self, sentinels: Sentinels) -> Address:
        """Ask where the primary is by now; where that was another node, its links are used no more."""
        found = await sentinels.primary()
        if self._primary is None or found == self._primary or self._first.renew(monotonic()):
            self._primary = found
        return found

    async def _watch(self, sentinels: Sentinels) -> None:
        while True:
            await asyncio.sleep(_WATCH)
            with contextlib.suppress(redis_errors.RedisError, OSError):
                await self._look(sentinels)

    def _refresh_soon(self) -> None:
        """Learn anew who has what, once however many ask for it."""
        if self.clustered and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh_quietly(), context=Context())

    async def _refresh_quietly(self) -> None:
        # Who needs a slot that nobody serves is told so by its own call.
        with contextlib.suppress(NotSentError, LostError, Unavailable, Incompatible, redis_errors.ResponseError):
            await self.refresh()

    async def _exchange(self, links: Links, *args: Any, send_by: float | None = None, lane: object = None) -> Any:
        """One command and its answer on one link."""
        try:
            link = await _take(links, send_by, lane)
        except redis_errors.AuthenticationError as error:
            raise Incompatible(f"the store refuses the user or password of its URL: {error}") from error
        except LOST as error:
            raise NotSentError(str(error) or type(error).__name__) from error
        try:
            answer = await link.call(*args)
        finally:
            links.give(link, lane)
        if isinstance(answer, Exception):
            _raise(answer)
        return answer


async def load_library(run: Run) -> None:
    """Give a node the library of this release; one that has it does nothing.

    Raises:
        NotSentError, LostError, Unavailable, StoreFull, Incompatible
        redis.exceptions.ResponseError: it was refused in another way.
    """
    try:
        await run("FUNCTION", "LOAD", library().source)
    except redis_errors.ResponseError as error:
        if not str(error).endswith("already exists"):
            raise


async def _take(links: Links, send_by: float | None, lane: object) -> Link:
    """A link over which to send until then."""
    if send_by is None:
        return await links.take(lane)
    async with asyncio.timeout_at(send_by):
        link = await links.take(lane)
    if asyncio.get_running_loop().time() >= send_by:
        links.give(link, lane)
        raise TimeoutError
    return link


def _raise(answer: Exception) -> NoReturn:
    """What the store said in place of a result, or that it said nothing."""
    if isinstance(answer, LostError):
        raise answer
    if isinstance(answer, redis_errors.AuthenticationError):
        raise Incompatible(f"the store asks for a user or password: {answer}") from answer
    if isinstance(answer, redis_errors.BusyLoadingError):
        raise Unavailable("the store is loading its data") from answer
    if isinstance(answer, redis_errors.OutOfMemoryError):
        raise StoreFull("the store is at its memory limit: raise maxmemory, or delete items") from answer
    if isinstance(answer, redis_errors.ResponseError):
        raise answer
    raise LostError(str(answer)) from answer
