"""How long single calls hold the store, by its own latency monitor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hookline import Datastore, bulk

KEY = "fill"
"""The key of the items that :mod:`costs` fills the store with."""
MONITORED_MS = 1
"""The latency monitor notes commands of at least so long; it counts whole milliseconds."""
BUSY = "local began = os.clock() while os.clock() - began < 0.001 do end"
_SCRIPT_CALLS = ("cmdstat_fcall", "cmdstat_eval")
NOWHERE = {"type": {"prefix": "nothing"}}


@dataclass(frozen=True, slots=True)
class Hold:
    """What was asked, how many script calls that took, and the longest of them: 0 is below :data:`MONITORED_MS`."""

    name: str
    calls: int
    longest_ms: int


async def measure(datastore: Datastore) -> list[Hold]:
    """Ask of a store that was filled what needs to look at many of its items."""
    return [await _hold(datastore, name, work) for name, work in WORK.items()]


async def _hold(datastore: Datastore, name: str, work: Callable[[Datastore], Awaitable[object]]) -> Hold:
    command = datastore.connection.command
    await command("CONFIG", "SET", "latency-monitor-threshold", MONITORED_MS)
    await command("LATENCY", "RESET")
    before = await _script_calls(datastore)
    await work(datastore)
    calls = await _script_calls(datastore) - before
    if not calls:
        raise RuntimeError(f"{name}: the store counted no call, so what it tells is not of this")
    latest = {event.decode(): longest for event, _, _, longest, *_ in await command("LATENCY", "LATEST")}
    await command("CONFIG", "SET", "latency-monitor-threshold", 0)
    return Hold(name, calls, latest.get("command", 0))


async def _script_calls(datastore: Datastore) -> int:
    stats = (await datastore.connection.command("INFO", "commandstats")).decode()
    return sum(
        int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if line.startswith(_SCRIPT_CALLS)
    )


async def _nothing(datastore: Datastore) -> None:
    for _ in range(100):
        await datastore.connection.command("EVAL", BUSY, 0)


async def _query(datastore: Datastore) -> None:
    await datastore.query(KEY, where=NOWHERE)


async def _page(datastore: Datastore) -> None:
    await datastore.query(KEY, limit=1000)


async def _count(datastore: Datastore) -> None:
    await datastore.count(KEY, where=NOWHERE)


async def _claim_nothing(datastore: Datastore) -> None:
    await datastore.claim(KEY, worker_id="bench", where=NOWHERE)


async def _claim_many(datastore: Datastore) -> None:
    await datastore.claim(KEY, worker_id="bench", limit=500, lock_for="1s")


async def _delete(datastore: Datastore) -> None:
    async for progress in bulk.delete(datastore, KEY, {"type": "report_generation"}):
        if progress.done >= 1000:
            break


async def _build(datastore: Datastore) -> None:
    """Its first 100,000 items."""
    await datastore.configure(KEY, indexes={"type": "string", "createdAt": "time"})
    async for builds in datastore.upkeep.build_all(KEY):
        if sum(build.done for build in builds.values()) >= 100_000:
            break


async def _by_index(datastore: Datastore) -> None:
    await datastore.query(KEY, where={"createdAt": {"gt": "2024-01-01T00:00:00Z"}}, limit=1000)


async def _promote(datastore: Datastore) -> None:
    """10,000 items that become due at once."""
    for start in range(0, 10_000, 500):
        calls = [
            datastore.calls.create(
                "due", f"{number:05d}", metadata={"status": "scheduled", "scheduled_at": "+1ms"}, content="x" * 100
            )
            for number in range(start, start + 500)
        ]
        await datastore.run(calls)
    await datastore.sweep()


async def _retire(datastore: Datastore) -> None:
    """10,000 items that need not be kept any more."""
    await datastore.configure("due", retention={"cancelled": {"count": 0}})
    async for _ in bulk.cancel(datastore, "due"):
        pass
    await datastore.sweep()


WORK: dict[str, Callable[[Datastore], Awaitable[object]]] = {
    "nothing: a loop of 1 ms, 100 times": _nothing,
    "a query whose filter nothing meets, without index": _query,
    "a page of 1,000 items": _page,
    "a count whose filter nothing meets, without index": _count,
    "a claim whose filter nothing meets, without index": _claim_nothing,
    "a claim of 500": _claim_many,
    "deleting 1,000 that match": _delete,
    "making and promoting 10,000 due items": _promote,
    "cancelling and removing 10,000 items": _retire,
    # Behind these: a sweep would go on building what is left of them.
    "building two indexes": _build,
    "a page of 1,000 items by an index": _by_index,
}


def table(holds: list[Hold]) -> list[str]:
    """As lines of Markdown."""
    lines = ["| asked | script calls | the longest, ms |", "|---|---|---|"]
    lines += [f"| {hold.name} | {hold.calls:,} | {hold.longest_ms or f'< {MONITORED_MS}'} |" for hold in holds]
    return lines
