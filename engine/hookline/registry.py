"""Who works now: one document per worker in a key of the engine's own, written anew every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hookline.clock import CURRENT_TIMESTAMP, format_time
from hookline.errors import HooklineError, Invalid, NotFound
from hookline.item import check_key, check_sort_field

Datastore = Any
"""An open :class:`hookline.Datastore`, which stands above this and offers these functions as its verbs."""
Source = Any
"""The same, or a :class:`hookline.Client`."""
WORKERS = "hookline.workers"
EVERY = 5.0
"""Seconds between a worker's heartbeats."""
GONE_AFTER = 20.0
"""Seconds after which a worker that is not heard of is not live any more."""
FORGOTTEN_AFTER = 3600.0
FORGET_MAX = 100
SEEN = "seen"
"""The status of each document, whose set has them in the order in which they were last written."""
LIVE_MAX, PAGE = 10_000, 1000
"""Workers that one answer lists, and that one page of the store has, at most."""
TOLD_MAX = 2000
"""Characters of a worker's host and handlers in all: a list has many workers."""
QUIET, STOP = "quiet", "stop"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Presence:
    """What a worker tells of itself. ``seen_at`` is RFC 3339, by the store; ``signal`` is what it is asked to do."""

    key: str
    worker_id: str
    host: str
    pid: int
    handlers: tuple[str, ...]
    concurrency: int
    in_flight: int
    seen_at: str = ""
    signal: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it reads over HTTP."""
        return {
            "key": self.key,
            "workerId": self.worker_id,
            "host": self.host,
            "pid": self.pid,
            "handlers": list(self.handlers),
            "concurrency": self.concurrency,
            "inFlight": self.in_flight,
            "seenAt": self.seen_at,
            "signal": self.signal,
        }


class Workers(list[Presence]):
    """The workers that live, in order of key and id; ``left_out`` are those that are not listed, at least."""

    def __init__(self, found: Iterable[Presence] = (), left_out: int = 0) -> None:
        super().__init__(found)
        self.left_out = left_out


def read_presence(shown: Mapping[str, Any]) -> Presence:
    """What :meth:`Presence.to_dict` wrote, or the metadata of a worker's document, which are alike."""
    return Presence(
        key=shown["key"],
        worker_id=shown["workerId"],
        host=shown["host"],
        pid=shown["pid"],
        handlers=tuple(shown["handlers"]),
        concurrency=shown["concurrency"],
        in_flight=shown["inFlight"],
        seen_at=shown["seenAt"],
        signal=shown.get("signal"),
    )


def read_workers(shown: Mapping[str, Any]) -> Workers:
    """What a server answered; one of an earlier release does not say how many it left out."""
    return Workers(map(read_presence, shown["workers"]), shown.get("leftOut", 0))


def tellable(handlers: Iterable[str]) -> tuple[str, ...]:
    """As many of a worker's handlers as can be told of, beside any host."""
    left, told = TOLD_MAX // 2, list[str]()
    for name in handlers:
        left -= len(name) + 1
        if left < 0:
            break
        told.append(name)
    return tuple(told)


async def heartbeat(datastore: Datastore, presence: Presence) -> str | None:
    """Say that a worker lives -> what it is asked to do, if anything.

    Raises:
        Invalid: it tells too much of itself, or something that cannot be.
        Unavailable, OutcomeUnknown
    """
    if len(presence.host) + sum(len(name) + 1 for name in presence.handlers) > TOLD_MAX:
        raise Invalid.at("/handlers", f"expected at most {TOLD_MAX} characters, one more for each, with the host")
    name = _name(presence.key, presence.worker_id)
    told = presence.to_dict() | {"seenAt": CURRENT_TIMESTAMP, "status": SEEN}
    del told["signal"]
    calls = datastore.calls
    update = calls.update(WORKERS, name, metadata=told, triggers=False, reserved=True)
    (outcome,) = await datastore.run([update])
    if outcome.word == NotFound.code:
        create = calls.create(WORKERS, name, metadata=told, upsert=True, triggers=False, reserved=True)
        (outcome,) = await datastore.run([create])
    if outcome.item is None:
        raise outcome.error()
    # Each new worker, so that what dies at once leaves no more and more; and now and then where no new one ever comes.
    if outcome.item.version % FORGET_MAX == 1:
        await _forget(datastore)
    signal: str | None = outcome.item.metadata.get("signal")
    return signal


async def leave(datastore: Datastore, key: str, worker_id: str) -> None:
    """A worker has ended.

    Raises:
        Invalid, Unavailable, OutcomeUnknown
    """
    await datastore.run([datastore.calls.delete(WORKERS, _name(key, worker_id), triggers=False, reserved=True)])


async def be_seen(source: Source, presence: Callable[[], Presence], obey: Mapping[str, Callable[[], None]]) -> None:
    """Tell of a worker every few seconds, and do what it is asked. Where that fails the work goes on all the same."""
    known = False
    try:
        while True:
            try:
                if not known:  # what one of the same name before it was asked is not this one's affair
                    await source.leave(presence())
                    known = True
                signal = await source.heartbeat(presence())
            except HooklineError as error:
                log.debug("no heartbeat: %s", error)
            else:
                if signal in obey:
                    obey[signal]()
            await asyncio.sleep(EVERY * random.uniform(0.8, 1))  # noqa: S311 - spreads load
    finally:
        with contextlib.suppress(HooklineError, TimeoutError):
            async with asyncio.timeout(1):
                await source.leave(presence())


async def workers(datastore: Datastore, covers: Callable[[str], bool] = lambda _: True) -> Workers:
    """The workers that live of the keys that ``covers`` takes, at most :data:`LIVE_MAX`.

    Raises:
        Corrupt, Unavailable
    """
    since = format_time(await datastore.connection.now_ms() - round(GONE_AFTER * 1000))
    found: list[Presence] = []
    cursor: str | None = None
    while len(found) <= LIVE_MAX:
        page = await datastore.query(WORKERS, where={"seenAt": {"gte": since}}, limit=PAGE, cursor=cursor)
        found += [read_presence(item.metadata) for item in page.items if covers(item.metadata["key"])]
        cursor = page.cursor
        if cursor is None:
            break
    return Workers(found[:LIVE_MAX], max(0, len(found) - LIVE_MAX))


async def signal_worker(datastore: Datastore, key: str, worker_id: str, signal: str) -> None:
    """Ask a worker to claim no more (``quiet``), or to ``stop``; it learns of it by its next heartbeat.

    Raises:
        NotFound: no such worker has been heard of.
        Invalid, Unavailable, OutcomeUnknown
    """
    if signal not in (QUIET, STOP):
        raise Invalid.at("/signal", f"expected {QUIET} or {STOP}")
    change = {"signal": signal}
    update = datastore.calls.update(WORKERS, _name(key, worker_id), metadata=change, triggers=False, reserved=True)
    (outcome,) = await datastore.run([update])
    if outcome.word == NotFound.code:
        raise NotFound("no worker of this key and workerId has been heard of")
    if not outcome.ok:
        raise outcome.error()


async def _forget(datastore: Datastore) -> None:
    """Remove some of those that died long ago: the set of the status begins with them, so no live one is looked at."""
    before = format_time(await datastore.connection.now_ms() - round(FORGOTTEN_AFTER * 1000))
    page = await datastore.query(WORKERS, where={"status": SEEN, "updatedAt": {"lt": before}}, limit=FORGET_MAX)
    calls = datastore.calls
    if page.items:
        await datastore.run(
            [calls.delete(WORKERS, item.sort_field, version=item.version, reserved=True) for item in page.items]
        )


def _name(key: str, worker_id: str) -> str:
    return check_sort_field(f"{check_key(key)}/{check_sort_field(worker_id, '/workerId')}", "/workerId")
