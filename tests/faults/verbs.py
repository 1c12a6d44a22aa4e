"""Every verb of the datastore, each as one call on the same bench of items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from conftest import NOW_MS, Clock
from hookline import Call, Datastore, archive, bulk, transfer
from hookline.doctor import examine

KEY, MANY, TUNED = "jobs", "crowd", "tuned"
CROWD = 101
"""Items of the key ``crowd``: more than one call of the store takes."""
EVENTS = ["created", "updated", "deleted"]
CALLING = [{"url": "http://worker.example/", "events": EVENTS}]
WAITS = {"status": "not_started", "kind": "x"}
HELD = {"status": "started", "worker_id": "w"}
ITEMS: dict[str, dict[str, Any]] = {
    "plain": {"x": 1},
    "waits": WAITS,
    "waits too": {**WAITS, "kind": "y"},
    "held": HELD,
    "held too": HELD,
    "late": {**HELD, "locked_until": "+5s"},
    "spent": {**HELD, "locked_until": "+5s", "max_attempts": 1},
    "due": {"status": "scheduled", "scheduled_at": "+5s"},
    "dead": {"status": "failed"},
}


@dataclass
class Bench:
    """What a verb works on: a datastore, and the tokens of the items that are held. ``done`` is how far it has said
    that it is, where it says so on its way.
    """

    datastore: Datastore
    tokens: dict[str, str]
    done: int = 0

    @property
    def calls(self) -> Any:
        return self.datastore.calls

    def complete(self, name: str = "held", **options: Any) -> Call:
        call: Call = self.calls.complete(KEY, name, self.tokens[name], triggers="on", **options)
        return call

    async def settle(self, *calls: Call) -> Any:
        return await self.datastore.settle(calls)


async def prepare(datastore: Datastore, clock: Clock, crowd: str) -> Bench:
    """Fill the store, and wait until what is late is late. ``crowd`` is the status of the many items, '' for none."""
    clock.ms = NOW_MS
    calls = [
        datastore.calls.create(KEY, name, content=1, metadata=metadata, trigger_urls=CALLING)
        for name, metadata in ITEMS.items()
    ]
    many = [datastore.calls.create(MANY, f"{n}", metadata={"status": crowd}) for n in range(CROWD if crowd else 0)]
    outcomes = await datastore.run([*calls, datastore.calls.create(TUNED, "a", metadata={"x": 1}), *many])
    await datastore.configure(TUNED, max_attempts=3, indexes={"x": "number"})
    await datastore.upkeep.build(TUNED, 9)
    clock.advance(10)
    return Bench(datastore, {made.sort_field: made.item.token for made in outcomes if made.item and made.item.token})


Run = Callable[[Bench], Awaitable[Any]]


@dataclass(frozen=True)
class Verb:
    """``partitions`` of the namespace that it runs on; ``crowd``: the status of the many items that it needs.

    ``harmless``: a repeat of it does no harm, so nobody is told whether a lost one has run. ``flushed``: the store has
    forgotten its scripts. ``leaves``: the datastore is another one after it, by a subscription or a place to go on at.
    """

    run: Run
    partitions: int = 1
    crowd: str = ""
    harmless: bool = False
    flushed: bool = False
    leaves: bool = False


async def pages(bench: Bench, **options: Any) -> list[str]:
    """All that a query finds, two items a page."""
    found: list[str] = []
    cursor: str | None = None
    while not found or cursor:
        page = await bench.datastore.query(KEY, limit=2, cursor=cursor, **options)
        found += [item.sort_field for item in page.items]
        cursor = page.cursor
    return found


async def step_by_step(bench: Bench, steps: AsyncIterator[bulk.Progress]) -> tuple[int, int]:
    """A change of many, to its end."""
    passed_over = 0
    async for step in steps:
        bench.done, passed_over = step.done, step.passed_over
    return bench.done, passed_over


async def take(bench: Bench) -> Any:
    """As the relay asks for events, but for what another has left: that at once."""
    request = {"consumer": "r1", "limit": 10, "idle_ms": 0, "dead_ms": 60_000, "look": True, "own": None}
    return (await bench.datastore.connection.read("relay_take", 0, request))[b"events"]


async def acknowledge(bench: Bench) -> None:
    if taken := await take(bench):
        await bench.datastore.connection.change("relay_done", 0, {"ids": [event[0] for event in taken]})


async def run_several(bench: Bench) -> Any:
    calls = bench.calls
    return await bench.datastore.run(
        [
            calls.create(KEY, "new", metadata=WAITS, trigger_urls=CALLING),
            bench.complete(),
            calls.delete(KEY, "plain"),
            calls.update(KEY, "new", content=2),
            calls.update(KEY, "waits", metadata={"x": 2}),
        ]
    )


async def declare_and_build(bench: Bench) -> list[Any]:
    await bench.datastore.configure(KEY, indexes={"kind": "string"})
    return [step async for step in bench.datastore.upkeep.build_all(KEY)]


async def all_of(steps: AsyncIterator[Any]) -> list[Any]:
    """Every step, to the end."""
    return [step async for step in steps]


def bring(bench: Bench) -> Awaitable[Any]:
    """Import settings and items: a new one, one that is replaced, one with a claim that nobody has."""
    times = {"createdAt": "2027-01-01T00:00:00Z", "updatedAt": "2027-01-01T00:00:00Z"}
    metadata = {"new": WAITS, "plain": {"x": 2}, "new held": HELD}
    items = [{"key": KEY, "sortField": name, "version": 7, "metadata": metadata[name], **times} for name in metadata]
    lines = [archive.Header("", "", 4, None).line(), archive.line({"key": KEY, "settings": {"maxAttempts": 2}})]
    lines += [*map(archive.line, items), archive.End(4).line()]
    return all_of(transfer.restore(bench.datastore, lines, replace=True))


def claim(**options: Any) -> Run:
    return lambda bench: bench.datastore.claim(**{"key": KEY, "worker_id": "v", "triggers": "on", **options})


def change(key: str, sort_field: str, **fields: Any) -> Run:
    return lambda bench: bench.datastore.update(key, sort_field, **fields)


def lane(bench: Bench) -> Awaitable[Any]:
    """As the relay keeps a delivery."""
    return bench.datastore.run([bench.calls.create("hookline.deliveries.x", "a", metadata=WAITS, reserved=True)])


CREATES: dict[str, Verb] = {
    "create": Verb(lambda b: b.datastore.create(KEY, "new", content=1, metadata=WAITS, trigger_urls=CALLING)),
    "create held": Verb(lambda b: b.datastore.create(KEY, "new", metadata=HELD, trigger_urls=CALLING)),
    "create without scripts": Verb(lambda b: b.datastore.create(KEY, "new", trigger_urls=CALLING), flushed=True),
    "create what is there": Verb(lambda b: b.datastore.create(KEY, "plain")),
    "create in a lane": Verb(lane),
    "upsert": Verb(lambda b: b.datastore.create(KEY, "waits", content=2, trigger_urls=CALLING, upsert=True)),
}
UPDATES: dict[str, Verb] = {
    "update": Verb(change(KEY, "waits", content=2, metadata={"kind": None, "y": 2})),
    "update under new settings": Verb(change(TUNED, "a", content=2)),
    "start": Verb(change(KEY, "waits", metadata=HELD)),
    "start what is late": Verb(change(KEY, "late", metadata=HELD)),
    "start what is held": Verb(change(KEY, "held", metadata={"status": "started", "worker_id": "v"})),
    "finish": Verb(change(KEY, "held", metadata={"status": "completed"})),
    "delete": Verb(lambda b: b.datastore.delete(KEY, "waits")),
    "delete what is not there": Verb(lambda b: b.datastore.delete(KEY, "nobody")),
}
CLAIMS: dict[str, Verb] = {
    "claim": Verb(claim(limit=5)),
    "claim with filters": Verb(claim(where={"kind": "y"})),
    "claim, waiting": Verb(claim(wait=5), leaves=True),
    "claim without scripts": Verb(claim(), flushed=True),
    "claim of many": Verb(claim(key=MANY, limit=CROWD), crowd="not_started"),
    "claim of many over partitions": Verb(claim(key=MANY, limit=CROWD), partitions=2, crowd="not_started"),
    "claim over partitions": Verb(claim(limit=5), partitions=2),
}
SETTLES: dict[str, Verb] = {
    "complete": Verb(lambda b: b.settle(b.complete(metadata={"result": 1}))),
    "complete what was lost": Verb(lambda b: b.settle(b.calls.complete(KEY, "held", "1.ab"))),
    "fail": Verb(lambda b: b.settle(b.calls.fail(KEY, "held", b.tokens["held"], retry_after=5, triggers="on"))),
    "release": Verb(lambda b: b.settle(b.calls.release(KEY, "held", b.tokens["held"], triggers="on"))),
    "extend": Verb(lambda b: b.settle(b.calls.extend(KEY, "held", b.tokens["held"], lock_for=900))),
    "exchange": Verb(lambda b: b.datastore.exchange([b.complete(), b.complete("held too")], KEY, worker_id="v")),
    "exchange over partitions": Verb(
        lambda b: b.datastore.exchange([b.complete(), b.complete("held too")], KEY, worker_id="v", limit=5),
        partitions=2,
    ),
    "run": Verb(run_several),
    "run over partitions": Verb(run_several, partitions=2),
    "run of many": Verb(lambda b: b.datastore.run([b.calls.create(KEY, f"{n}") for n in range(CROWD)])),
}
KEYS: dict[str, Verb] = {
    "sweep": Verb(lambda b: b.datastore.sweep(), harmless=True),
    "sweep over partitions": Verb(lambda b: b.datastore.sweep(), partitions=2, harmless=True),
    "configure": Verb(lambda b: b.datastore.configure(KEY, max_attempts=1, backoff="5s")),
    "configure over partitions": Verb(lambda b: b.datastore.configure(KEY, max_attempts=1), partitions=2),
    "declare": Verb(lambda b: b.datastore.configure(KEY, indexes={"kind": "string"})),
    "declare and build": Verb(declare_and_build, partitions=2, harmless=True),
    "pause": Verb(lambda b: b.datastore.pause(KEY)),
    "resume": Verb(lambda b: b.datastore.resume(KEY)),
    "import": Verb(bring, partitions=2, harmless=True),
    "examine": Verb(lambda b: all_of(examine(b.datastore.connection, 1, repair=True)), harmless=True),
    "bulk delete": Verb(lambda b: step_by_step(b, bulk.delete(b.datastore, MANY, {})), crowd="review"),
    "bulk redrive": Verb(lambda b: step_by_step(b, bulk.redrive(b.datastore, MANY)), crowd="failed"),
    "bulk cancel": Verb(lambda b: step_by_step(b, bulk.cancel(b.datastore, MANY)), crowd="not_started"),
}
READS: dict[str, Verb] = {
    "get": Verb(lambda b: b.datastore.get(KEY, "held")),
    "get without scripts": Verb(lambda b: b.datastore.get(KEY, "held"), flushed=True),
    "get what is not there": Verb(lambda b: b.datastore.get(KEY, "nobody")),
    "get many": Verb(lambda b: b.datastore.get_many([(MANY, f"{n}") for n in range(CROWD)]), crowd="review"),
    "query": Verb(lambda b: pages(b, where={"x": {"exists": False}})),
    "query by status": Verb(lambda b: pages(b, where={"status": "started"}), partitions=2),
    "query by an index": Verb(lambda b: b.datastore.query(TUNED, order="x")),
    "count": Verb(lambda b: b.datastore.count(KEY, where={"x": {"exists": False}})),
    "export": Verb(lambda b: all_of(transfer.export(b.datastore)), partitions=2),
    "stats": Verb(lambda b: b.datastore.stats()),
    "wait for": Verb(lambda b: b.datastore.wait_for(KEY, "dead"), leaves=True),
    "relay take": Verb(take),
    "relay done": Verb(acknowledge),
}
VERBS = CREATES | UPDATES | CLAIMS | SETTLES | KEYS | READS
