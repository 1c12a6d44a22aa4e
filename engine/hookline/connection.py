"""The connection to the store: it runs scripts, and says what became of a call whose answer was lost.

With ``nodes``, ``sentinel``, ``link``, ``feed`` and ``subscription`` the only module that speaks redis-py.
redis-py's own retries are off: after a timeout they would run a write twice. Instead every writing call carries a
call id under which the store keeps its outcomes; an answer that was lost is asked for again with the same id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, NoReturn

from redis import exceptions as redis_errors

from hookline import keys, trace
from hookline.codec import pack_request, unpack_answer
from hookline.errors import HooklineError, Incompatible, OutcomeUnknown, Unavailable
from hookline.figures import Family
from hookline.item import RESERVED_PREFIX
from hookline.link import LATE, Hold, LostError
from hookline.meta import Meta
from hookline.nodes import Nodes, NotSentError, Run, load_library
from hookline.requirements import check_policy, check_server, read_info
from hookline.row import Row, pack_operations
from hookline.searches import Searches
from hookline.settings import Settings
from hookline.subscription import Hear
from hookline_lua import NAMED, NAMED_FULLY, library, load

log = logging.getLogger(__name__)

CLUSTER_PARTITIONS = 16
"""Of a new namespace on a cluster, where no setting says otherwise."""
_RETRY_PAUSE = 0.05
_HELD_PATIENCE = 1.0
"""Seconds for which a claim that was held back is asked for: it seldom ran just when its answer was lost."""

_DURATION = Family(
    "histogram",
    "hookline_store_call_duration_seconds",
    "From the sending of a script's call to its answer, or its loss; retries apart",
    ("script",),
)
_OPERATIONS = Family(
    "histogram",
    "hookline_store_call_operations",
    "Operations that left together in one call",
    ("script",),
    (1, 2, 5, 10, 20, 50, 100),
)
_RETRIES = Family("counter", "hookline_store_retries", "Calls asked again, under the same id", ("script",))
_FAILURES = Family(
    "counter",
    "hookline_store_call_failures",
    "Calls without a result: not_sent, lost (sent, and no answer came), or the code of what the store said",
    ("script", "reason"),
)

_NOT_NOW = ("MISCONF", "LOADING", "BUSY", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")


class _First(NamedTuple):
    """When the first attempt of a call was begun without a task (``perf_counter``), and what came for a result."""

    began: float
    answer: Exception


class Connection:
    """Runs scripts on the store. ``now_ms`` gives the clock of every call in tests; None is the store's own.

    For another namespace of a store that is open, its ``nodes`` take the place of the URL: they are shared, and stay
    the first one's to close.
    """

    def __init__(
        self, url: str | Nodes, settings: Settings, *, now_ms: Callable[[], int | None] = lambda: None
    ) -> None:
        self._settings = settings
        self._now_ms = now_ms
        self._shares = isinstance(url, Nodes)
        self.nodes = url if isinstance(url, Nodes) else Nodes(url, settings)
        self._tags: list[str] = []
        self._slots: list[int] = []
        self.meta = Meta(settings, self.command_on, self.now_ms)

    @property
    def partitions(self) -> int:
        """How many the namespace has; 0 before it is open."""
        return self.meta.partitions

    async def open(self) -> None:
        """Check the store, open the namespace, load the library.

        Raises:
            Incompatible: the store is too old, may evict keys, or holds the namespace in another form.
            Unavailable: the store cannot be reached.
        """
        self.searches = Searches(self._settings.call_timeout)
        if not self._shares:
            await self._open_store()
        namespace = self._settings.namespace
        partitions = self._settings.partitions or (CLUSTER_PARTITIONS if self.nodes.clustered else 1)
        await self.meta.open(partitions, home=not self._shares)
        self._tags = [keys.partition_tag(namespace, each, self.partitions) for each in range(self.partitions)]
        self._slots = [keys.slot(tag) for tag in self._tags]
        if self.nodes.clustered and self.partitions == 1:
            log.warning("namespace %s has one partition: of this cluster it uses one node only", namespace)

    async def _open_store(self) -> None:
        await self._translated(self.nodes.open())
        for answer in await self._translated(self.nodes.everywhere(lambda run: run("INFO", "everything"))):
            info = read_info(answer)
            check_server(info)
            check_policy(info)
        others = set().union(*await self._translated(self.nodes.everywhere(_install)))
        if others:
            names = ", ".join(sorted(others))
            log.info(
                "the store has functions of other releases: FUNCTION DELETE those that no server uses of %s", names
            )

    async def close(self) -> None:
        """Close every connection to the store, but those that are shared."""
        await self.meta.close()
        if not self._shares:
            await self.nodes.close()

    def tag(self, partition: int) -> str:
        """What the names of a partition begin with."""
        return self._tags[partition]

    async def tags_elsewhere(self) -> set[str]:
        """The tags in the store that look like those of partitions, and are none of the namespace's.

        Raises:
            Unavailable: no answer.
        """
        pattern = keys.partition_pattern(self._settings.namespace)

        async def found(run: Run) -> set[str]:
            tags, cursor = set[str](), b"0"
            while True:
                cursor, page = await run("SCAN", cursor, "MATCH", pattern, "COUNT", 500)
                tags |= {name.partition(b"}")[0].decode(errors="replace") + "}" for name in page}
                if cursor == b"0":
                    return tags

        return set().union(*await self._translated(self.nodes.everywhere(found))) - set(self._tags)

    def node_of(self, partition: int) -> object:
        """What tells the node of a partition from others; None where there is one.

        Raises:
            Unavailable: none has it.
        """
        return self.nodes.node_of(self._slots[partition])

    async def send(self, script: str, partition: int, operations: Sequence[bytes | Row]) -> bytes:
        """Run packed operations in one call -> one outcome each, ``[word, fields | false, extra | false]``; all packed.

        Raises:
            Unavailable: nothing was sent, or the store cannot take the call now.
            StoreFull: the store is at its memory limit; nothing was written.
            OutcomeUnknown: the call was sent and no answer came until the deadline.
        """
        _OPERATIONS.observe(len(operations), script)
        args = self._arguments(partition, secrets.token_hex(12), operations, self._settings.call_timeout * 2)
        # Calls of one script on one partition may follow each other before they are answered.
        answer: bytes = await self._resolved(script, partition, args, (script, self._tags[partition]))
        return answer

    def begin(
        self,
        script: str,
        partition: int,
        operations: Sequence[bytes | Row],
        told: Callable[[bytes | Coroutine[Any, Any, bytes]], None],
    ) -> bool:
        """Do what :meth:`send` does at once, if a link is free and nothing is traced -> whether it was sent.

        ``told`` gets the answer as it comes, for which no task is woken; where the first attempt has failed, what gives
        the answer in the end.
        """
        if trace.exporter is not None or not self.meta.holds():
            return False
        lane, began = (script, self._tags[partition]), perf_counter()
        args: tuple[Any, ...] = ()

        def command() -> tuple[Any, ...]:
            nonlocal args
            args = self._arguments(partition, secrets.token_hex(12), operations, self._settings.call_timeout * 2)
            return *self._command_of(script), *args

        def answered(answer: Any) -> None:
            if isinstance(answer, Exception):
                told(self._resolved(script, partition, args, lane, _First(began, answer)))
                return
            _DURATION.observe(perf_counter() - began, script)
            told(answer)

        sent = self.nodes.begin(self._slots[partition], lane, answered, command)
        if sent:
            _OPERATIONS.observe(len(operations), script)
        return sent

    def _arguments(
        self, partition: int, call_id: str, operations: Sequence[bytes | Row], keep: float
    ) -> tuple[Any, ...]:
        """What a script is given; its outcomes are kept for so many seconds."""
        request = b"".join(
            (
                b"\x93",  # msgpack: a list of three
                pack_request(round(keep * 1000)),
                pack_request(self._settings.outbox_max),
                pack_operations(operations),
            )
        )
        return self._tags[partition], self._now_text(), call_id, request

    def can_hold(self, key: str) -> bool:
        """Whether the store can hold claims of a key back, which wait for its bell: it lies in one partition."""
        return self.partitions == 1 and self.tells(key)

    def tells(self, key: str) -> bool:
        """Whether who waits for items of a key hears of those that come, and knows when others are due.

        Not where a test sets the time, for that does not go on by itself; and the engine's own keys have no bell.
        """
        return self._now_ms() is None and not key.startswith(RESERVED_PREFIX)

    def hold(self, key: str, seconds: float, ready: Callable[[], object]) -> Hold | None:
        """Hold a claim back until something of a key is ready; None while no link is free: ``ready`` tells of one."""
        name, call_id = keys.bell(self._tags[0], key), secrets.token_hex(12)
        if not self.meta.holds():
            return None
        return self.nodes.hold(self._slots[0], ready, seconds, call_id, "BZPOPMIN", name, f"{seconds:.3f}")

    async def held(self, hold: Hold, script: str, operation: bytes | Row, none: bytes | Row) -> list[Any] | None:
        """Run a claim once its hold lets it through -> its outcome; None where it was refused and has not run.

        A lost answer is asked for under the same id by ``none``, the same claim but of no items: so nothing more is
        given than was given already. Who broke it off makes the same call once more, to learn what became of it.

        Raises:
            Unavailable, StoreFull, OutcomeUnknown: as :meth:`send` does.
        """
        keep = hold.seconds + LATE + _HELD_PATIENCE + 3 * self._settings.call_timeout
        try:
            if hold.sent:
                raise LostError("it was broken off")
            _OPERATIONS.observe(1, script)
            answer = await hold.call(*self._command_of(script), *self._arguments(0, hold.call_id, [operation], keep))
        except LostError as error:
            hold.refused = not hold.ended
            if not hold.sent:
                return None
            if hold.refused:
                _FAILURES.add(script, error.code)
            args = self._arguments(0, hold.call_id, [none], keep)
            answer = await self._resolved(script, 0, args, sent=True, patience=_HELD_PATIENCE)
        if isinstance(answer, Exception):
            hold.refused = True
            return None
        outcomes: list[Any] = unpack_answer(answer)
        return outcomes

    async def _resolved(
        self,
        script: str,
        partition: int,
        args: tuple[Any, ...],
        lane: object = None,
        first: _First | None = None,
        *,
        sent: bool = False,
        patience: float | None = None,
    ) -> Any:
        """Send a call, again and under the same id as long as its answer is lost, until the deadline -> the answer.

        ``first``: it was sent already, without a task, and failed so. ``sent``: it may have reached the store before.
        """
        # The store keeps outcomes for as long as this: sent after the deadline, the call could take effect twice.
        deadline = asyncio.get_running_loop().time() + (patience or self._settings.call_timeout * 2)
        if first:
            deadline -= perf_counter() - first.began
        while True:
            try:
                answer = await self._evaluate(script, partition, args, deadline if sent else None, lane, first)
            except NotSentError as error:
                if not sent:
                    raise Unavailable(f"the store cannot be reached: {error}") from error
            except LostError:
                sent = True
            except (Unavailable, Incompatible):
                # Once a call was sent, a store that takes none now, or not ours, says nothing about that one.
                if not sent:
                    raise
            else:
                return answer
            if asyncio.get_running_loop().time() >= deadline or self.nodes.closed:
                raise OutcomeUnknown("the store was sent the call and gave no answer; read the item to see its state")
            _RETRIES.add(script)
            first = None
            await asyncio.sleep(_RETRY_PAUSE)

    async def read(self, script: str, partition: int, request: object) -> Any:
        """Run a script once, and one of which a repeat does no harm: a lost one may have run -> its answer.

        Raises:
            Unavailable: no answer.
            StoreFull: the store is at its memory limit.
        """
        args = (self._tags[partition], self._now_text(), pack_request(request))
        answer = await self._translated(self._evaluate(script, partition, args))
        return unpack_answer(answer) if isinstance(answer, bytes) else answer

    async def search(self, script: str, partition: int, request: object) -> Any:
        """Do as :meth:`read` does what looks at many items: it waits for others of the namespace, and for these alone.

        Raises:
            Overloaded, Unavailable, StoreFull: for too long; as :meth:`read` does.
        """
        async with self.searches.turn(self.node_of(partition)):
            return await self.read(script, partition, request)

    async def change(self, script: str, partition: int, request: object) -> Any:
        """Run a script that writes, and of which a repeat does no harm -> its answer; a lost one is asked for again.

        Raises:
            Unavailable: nothing was sent, or the store cannot take the call now.
            StoreFull: the store is at its memory limit; nothing was written.
            OutcomeUnknown: the call was sent and no answer came until the deadline.
        """
        args = (self._tags[partition], self._now_text(), pack_request(request))
        answer = await self._resolved(script, partition, args)
        return unpack_answer(answer) if isinstance(answer, bytes) else answer

    async def command(self, *args: Any) -> Any:
        """Run one bare command without a key, of which a repeat does no harm -> the answer of a primary.

        Raises:
            Unavailable: no answer.
        """
        return await self._command(None, *args)

    async def command_on(self, name: str, *args: Any) -> Any:
        """The same of a command for one key that stands in no partition -> the answer of the node that has it.

        Raises:
            Unavailable: no answer.
        """
        return await self._command(keys.slot(name), *args)

    async def _command(self, slot: int | None, *args: Any) -> Any:
        self.meta.holds()
        return await self._translated(self.nodes.run(slot, *args))

    async def _translated(self, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except (NotSentError, LostError) as error:
            raise Unavailable(f"the store gave no answer: {error}") from error
        except redis_errors.ResponseError as error:
            raise _translate(error) from error

    async def _evaluate(
        self,
        name: str,
        partition: int,
        args: tuple[Any, ...],
        send_by: float | None = None,
        lane: object = None,
        first: _First | None = None,
    ) -> Any:
        """One attempt of a call, or what became of the first."""
        if not self.meta.holds():
            raise Incompatible(self.meta.refusal)
        began, answer = first or (perf_counter(), None)
        run = partial(self.nodes.run, self._slots[partition], *self._command_of(name), *args)
        try:
            if trace.exporter is None:
                return await run(send_by=send_by, lane=lane, answer=answer)
            with trace.call_span(name, partition):
                return await run(send_by=send_by, lane=lane, answer=answer)
        except redis_errors.ResponseError as error:
            failure = _translate(error)
            _FAILURES.add(name, failure.code)
            raise failure from error
        except (NotSentError, LostError, HooklineError) as error:
            _FAILURES.add(name, error.code)
            raise
        finally:
            _DURATION.observe(perf_counter() - began, name)

    def _command_of(self, name: str) -> tuple[str, str, int]:
        script = load(name)
        return "FCALL", script.function, len(script.keys)

    async def follow(self, channel: Callable[[str], str], hear: Hear) -> NoReturn:
        """Hear the messages of a channel of every partition, as :meth:`Subscriptions.follow` says."""
        channels = [(slot, channel(tag)) for slot, tag in zip(self._slots, self._tags, strict=True)]
        await self.nodes.subscriptions.follow(channels, hear)

    async def now_ms(self) -> int:
        """The store's clock (on a cluster that of one of its nodes), or the one that a test has set.

        Raises:
            Unavailable: no answer.
        """
        fixed = self._now_ms()
        if fixed is not None:
            return fixed
        seconds, micros = await self.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def ready(self) -> None:
        """Ask whether the store is there, and takes what is written.

        Raises:
            Unavailable: no answer; or it is a replica.
            Incompatible: it does not let us in, or others use the namespace in another form.
        """
        await self._translated(self.nodes.ready())
        if not self.meta.holds():
            raise Incompatible(self.meta.refusal)

    async def memory(self) -> tuple[int, int]:
        """Bytes that the store uses, and may use at most (0: no limit), over all nodes of it that answer.

        Raises:
            Unavailable: none does.
        """
        answers = await self._translated(self.nodes.everywhere(lambda run: run("INFO", "memory")))
        infos = [read_info(answer) for answer in answers]
        return sum(int(info["used_memory"]) for info in infos), sum(int(info.get("maxmemory", 0)) for info in infos)

    def _now_text(self) -> str:
        now_ms = self._now_ms()
        return "" if now_ms is None else str(now_ms)


async def _install(run: Run) -> set[str]:
    """Give a node the library of this release, unless it has it -> the names of those of other releases.

    Those stay: at the memory limit a server that runs by one could not load it again.
    """
    try:
        rows = await run("FUNCTION", "LIST", "LIBRARYNAME", f"{NAMED}*")
        names = {dict(zip(row[::2], row[1::2], strict=True))[b"library_name"].decode() for row in rows}
        if library().name not in names:
            await load_library(run)
    except redis_errors.ResponseError as error:
        raise _translate(error) from error
    return {name for name in names if NAMED_FULLY.fullmatch(name)} - {library().name}


def _translate(error: redis_errors.ResponseError) -> HooklineError:
    # redis-py takes the code off the text of those errors that it knows.
    text = str(error)
    word = error.status_code or text.split(" ", 1)[0]
    if word in _NOT_NOW:
        return Unavailable(f"the store cannot take writes now: {text}")
    if isinstance(error, redis_errors.NoPermissionError):
        return Incompatible(f"the store's user lacks a permission: {text}")
    return HooklineError(f"the store refused a call that it should take: {text}")
