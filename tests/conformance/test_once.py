"""Under an idempotency key each write takes effect once, and who repeats it gets the first answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as aioredis
from msgspec import structs

from hookline import Datastore, Outcome
from hookline.errors import Exists, IdempotencyKeyReused, Invalid, NotFound, PreconditionFailed
from invariants import read_facts, read_keyspace
from jobs import WAITING, fill, names, spoil

CALLED = {"http://worker.example/": "its-api-key"}
HELD = {"status": "started", "worker_id": "w"}
Run = Callable[[Datastore, str], Awaitable[Any]]
"""A verb on a view of the datastore, with the token of the item ``held``."""


async def settle(store: Datastore, verb: str, token: str, **options: Any) -> list[Outcome]:
    return await store.settle([getattr(store.calls, verb)("jobs", "held", token, **options)])


async def run_some(store: Datastore, _: str) -> list[Outcome]:
    calls = store.calls
    return await store.run(
        [
            calls.create("jobs", partition=store.partition_ahead(0), content="generated"),
            calls.create("jobs", "new", metadata=WAITING),
            calls.create("jobs", "plain"),
            calls.update("jobs", "new", content=2),
            calls.delete("jobs", "new"),
        ]
    )


VERBS: dict[str, Run] = {
    "create": lambda store, _: store.create("jobs", "new", content={"n": 1}, metadata=WAITING, trigger_urls=CALLED),
    "create without a name": lambda store, _: store.create("jobs", content=1),
    "create with triggers": lambda store, _: store.create("jobs", metadata=HELD, trigger_urls=CALLED),
    "upsert": lambda store, _: store.create("jobs", "plain", metadata=WAITING, upsert=True),
    "update": lambda store, _: store.update("jobs", "plain", metadata={"x": 2, "seen": "CURRENT_TIMESTAMP"}),
    "start": lambda store, _: store.update("jobs", "plain", metadata={**HELD, "locked_until": "+5m"}),
    "claim": lambda store, _: store.claim("jobs", worker_id="v", limit=2),
    "claim with filters": lambda store, _: store.claim("jobs", worker_id="v", where={"n": {"gt": 1}}, wait=5),
    "claim of many": lambda store, _: store.claim("crowd", worker_id="v", limit=150),
    "complete": lambda store, token: settle(store, "complete", token, metadata={"rows": 3}),
    "fail": lambda store, token: settle(store, "fail", token, error="no", retry_after=5),
    "release": lambda store, token: settle(store, "release", token),
    "extend": lambda store, token: settle(store, "extend", token, lock_for=900),
    "run": run_some,
    "exchange": lambda store, token: store.exchange(
        [store.calls.complete("jobs", "held", token)], "jobs", worker_id="v", limit=2
    ),
}


@pytest.fixture
async def token(datastore: Datastore, request: pytest.FixtureRequest) -> str:
    """Items to work on in every partition, and a crowd for who claims from it; the token of the one that is held."""
    create = datastore.calls.create
    await datastore.run([create("jobs", f"waits {n}", content=n, metadata={**WAITING, "n": n}) for n in range(96)])
    if request.node.callspec.params.get("verb") in (None, "claim of many"):
        await datastore.run([create("crowd", f"{n}", metadata=WAITING) for n in range(300)])
    await datastore.create("jobs", "plain", content=[1], metadata={"x": 1})
    held = await datastore.create("jobs", "held", metadata=HELD)
    assert held.item
    assert held.item.token
    return held.item.token


def first(answer: Any) -> Any:
    """An answer as if it were the first."""
    if isinstance(answer, list | tuple):
        return [first(each) for each in answer]
    return structs.replace(answer, replayed=False)


def are_replays(answer: Any) -> bool:
    if isinstance(answer, list | tuple):
        return all(map(are_replays, answer))
    replayed: bool = answer.replayed
    return replayed or (isinstance(answer, Outcome) and not answer.ok)


@pytest.mark.parametrize("body", [b"the same", None], ids=["body", "no body"])
@pytest.mark.parametrize("verb", VERBS)
async def test_the_second_time_is_as_the_first(
    raw: aioredis.Redis, datastore: Datastore, token: str, verb: str, body: bytes | None
) -> None:
    one, other = (datastore.once("k", body=body) for _ in range(2))
    answer = await VERBS[verb](one, token)
    after = await read_facts(raw)
    again = await VERBS[verb](other, token)
    if verb == "run":
        answer[4] = structs.replace(answer[4], item=None, version=None, status=None)
    assert first(again) == first(answer)
    assert are_replays(again)
    assert not are_replays(answer)
    assert await read_facts(raw) == after
    assert one.marks
    assert other.marks
    assert (one.marks.replays, other.marks.effects) == (0, 0)
    assert one.marks.effects == other.marks.replays > 0


async def test_keys_and_callers_do_not_meet(datastore: Datastore) -> None:
    views = [datastore.once("k"), datastore.once("l"), datastore.once("k", caller="c"), datastore.once("K")]
    made = {(await view.create("jobs")).sort_field for view in views}
    assert len(made) == len(views)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "é"])
async def test_keys_of_another_form(datastore: Datastore, key: str) -> None:
    with pytest.raises(Invalid, match="idempotencyKey"):
        datastore.once(key)


async def test_nothing_is_kept_without_a_key(raw: aioredis.Redis, datastore: Datastore, token: str) -> None:
    await run_some(datastore, token)
    await datastore.claim("jobs", worker_id="v")
    assert not [name for name in await read_keyspace(raw) if b":once:" in name]


# Another request


async def test_another_request_under_the_key(raw: aioredis.Redis, datastore: Datastore, token: str) -> None:
    """Whatever it is, and whichever partition it goes to."""
    await datastore.once("k", body=b"one").create("jobs", "new", content=1)
    before = await read_facts(raw)
    for run in VERBS.values():
        with pytest.raises(IdempotencyKeyReused):
            await run(datastore.once("k", body=b"another"), token)
        assert await read_facts(raw) == before


async def test_a_batch_with_one_more(raw: aioredis.Redis, datastore: Datastore) -> None:
    """Nothing of it is done, not even what no record tells of."""
    calls = [datastore.calls.create("jobs", f"{n}") for n in range(9)]
    await datastore.once("k", body=b"one").run(calls[:8])
    before = await read_facts(raw)
    with pytest.raises(IdempotencyKeyReused):
        await datastore.once("k", body=b"another").run(calls)
    assert await read_facts(raw) == before


async def test_without_a_body_each_write_is_held_against_the_first(datastore: Datastore) -> None:
    await datastore.once("k").create("jobs", "a", content=1, trigger_urls=CALLED)
    for fields in (
        {"content": 2},
        {"content": 1},
        {"content": 1, "trigger_urls": {"http://other.example/": "its-api-key"}},
    ):
        with pytest.raises(IdempotencyKeyReused):
            await datastore.once("k").create("jobs", "a", **fields)
    assert (await datastore.once("k").create("jobs", "a", content=1, trigger_urls=CALLED)).replayed


@pytest.mark.parametrize(
    "other", [{"where": {"p": 2}}, {"ordered": True}, {"retry": ["1s"]}, {"format": "cloudevents"}, {}]
)
@pytest.mark.parametrize("verb", ["create", "update"])
async def test_without_a_body_what_triggers_say_is_held_against_the_first(
    datastore: Datastore, verb: str, other: dict[str, Any]
) -> None:
    def triggers(more: dict[str, Any]) -> list[dict[str, Any]]:
        called = {"url": "http://worker.example/", "apiKey": "its-key", "secret": f"whsec_{'AAAA' * 8}"}
        return [{**called, **more}]

    if verb == "update":
        await datastore.create("jobs", "a")
    first = triggers({"where": {"p": 1}})
    write = getattr(datastore.once("k"), verb)
    assert not (await write("jobs", "a", trigger_urls=first)).replayed
    again = getattr(datastore.once("k"), verb)
    assert (await again("jobs", "a", trigger_urls=first)).replayed
    with pytest.raises(IdempotencyKeyReused):
        await getattr(datastore.once("k"), verb)("jobs", "a", trigger_urls=triggers(other))


async def test_without_a_body_fields_may_come_in_another_order(datastore: Datastore) -> None:
    for replayed in (False, True):
        metadata = {"a": 1, "b": 2} if replayed else {"b": 2, "a": 1}
        view = datastore.once("k")
        assert (await view.create("jobs", "a", metadata=metadata)).replayed is replayed
        assert (await view.update("jobs", "a", metadata=metadata)).replayed is replayed


# What was refused


async def test_what_was_refused_is_tried_again(datastore: Datastore) -> None:
    await datastore.create("jobs", "a")
    with pytest.raises(Exists):
        await datastore.once("k").create("jobs", "a", content=1)
    await datastore.delete("jobs", "a")
    assert not (await datastore.once("k").create("jobs", "a", content=1)).replayed
    await datastore.delete("jobs", "a")
    assert (await datastore.once("k").create("jobs", "a", content=1)).replayed
    with pytest.raises(NotFound):
        await datastore.get("jobs", "a")


async def test_operations_of_a_batch_that_were_refused_are_tried_again(datastore: Datastore) -> None:
    calls = [datastore.calls.update("jobs", name, metadata={"x": 1}) for name in ("a", "b")]
    await datastore.create("jobs", "a")
    outcomes = await datastore.once("k", body=b"").run(calls)
    assert [outcome.word for outcome in outcomes] == ["ok", "not_found"]
    await datastore.create("jobs", "b")
    outcomes = await datastore.once("k", body=b"").run(calls)
    assert [(outcome.version, outcome.replayed) for outcome in outcomes] == [(2, True), (2, False)]


async def test_a_claim_that_found_nothing_is_tried_again(datastore: Datastore) -> None:
    view = datastore.once("k")
    assert not (await view.claim("jobs", worker_id="w")).items
    await datastore.run([datastore.calls.create("jobs", f"{n}", metadata=WAITING) for n in range(320)])
    claimed = await view.claim("jobs", worker_id="w")
    assert len(claimed.items) == 1
    assert first(await datastore.once("k").claim("jobs", worker_id="w")) == claimed


# Claims


async def test_claims_are_given_again_whatever_became_of_the_items(datastore: Datastore, token: str) -> None:
    """With their tokens, and what was deleted since is left out; nothing else is taken in its stead."""
    claimed = await datastore.once("k").claim("jobs", worker_id="w", limit=5, where={"n": {"gte": 0}})
    held = {item.sort_field: item.token for item in claimed.items}
    one, other, *_ = held
    await datastore.settle([datastore.calls.complete("jobs", one, held[one] or "")])
    await datastore.delete("jobs", other)
    before = await datastore.count("jobs", where={"status": "started"})
    again = await datastore.once("k").claim("jobs", worker_id="w", limit=5, where={"n": {"gte": 0}})
    assert again.items == [item for item in claimed.items if item.sort_field != other]
    assert again.gone == 1
    assert await datastore.count("jobs", where={"status": "started"}) == before


async def test_a_claim_that_came_half_way_goes_on(datastore: Datastore, token: str) -> None:
    """Of several steps the first were made: they are given again, and the others made now."""
    half = await datastore.once("k", body=b"").claim("crowd", worker_id="w", limit=100)
    whole = await datastore.once("k", body=b"").claim("crowd", worker_id="w", limit=120)
    assert names(whole.items)[: len(half.items)] == names(half.items)
    assert len(set(names(whole.items))) == len(whole.items)


# What the request reads before it writes


async def test_recall_of_a_write_that_goes_by_what_it_reads(datastore: Datastore) -> None:
    """The whole item as the write made it, though the caller no longer knows what it sent."""

    async def add_one(body: bytes = b"") -> Outcome:
        view = datastore.once("k", body=body)
        again = await view.recall("jobs", "a")
        if again:
            return again
        item = await view.get("jobs", "a")
        return await view.update("jobs", "a", content=item.content + 1, match=item.version)

    await datastore.create("jobs", "a", content=1, metadata={"x": 1}, trigger_urls=CALLED)
    made = await add_one()
    assert made.item
    assert made.item.content == 2
    await datastore.update("jobs", "a", content=7, metadata={"y": 1})
    assert first(await add_one()) == made
    await datastore.delete("jobs", "a")
    assert first(await add_one()) == made
    with pytest.raises(IdempotencyKeyReused):
        await add_one(b"another")


async def test_tries_under_one_key(datastore: Datastore) -> None:
    """A try that was refused leaves its place to the next."""
    await datastore.create("jobs", "a", content=1)
    view = datastore.once("k", body=b"")
    with pytest.raises(PreconditionFailed):
        await view.update("jobs", "a", content=2, match=7)
    made = await view.update("jobs", "a", content=2, match=1)
    again = await datastore.once("k", body=b"").update("jobs", "a", content=3, match=2)
    assert (again.replayed, again.version, (await datastore.get("jobs", "a")).version) == (True, made.version, 2)


async def test_a_repeat_is_given_what_fills_its_bound(datastore: Datastore) -> None:
    await fill(datastore, 100)
    asked: dict[str, Any] = {"worker_id": "v", "limit": 5, "max_in_flight": 2}
    made = await datastore.once("k").claim("jobs", **asked)
    again = await datastore.once("k").claim("jobs", **asked)
    assert (len(made.items), names(again.items), again.replayed) == (2, names(made.items), True)
    assert (await datastore.claim("jobs", **asked)).items == []


async def test_a_repeat_of_a_claim_that_looked_far_back(datastore: Datastore) -> None:
    """The first went there in steps, of which those that find nothing leave no record."""
    await fill(datastore, 3150)
    asked: dict[str, Any] = {"worker_id": "v", "where": {"n": {"gte": 3000}}}
    made = await datastore.once("k").claim("jobs", **asked)
    again = await datastore.once("k").claim("jobs", **asked)
    assert (len(made.items), names(again.items), again.replayed) == (1, names(made.items), True)


@pytest.mark.parametrize("why", ["away", "refused"])
async def test_a_repeat_finds_what_it_has_of_the_partitions_behind_one_that_gave_nothing(
    raw: aioredis.Redis, datastore: Datastore, why: str
) -> None:
    view = datastore.once("k", everywhere=True)
    assert view.marks
    place = view.marks.partition()
    made = await fill(datastore, 100)
    here = [name for name in made if datastore.calls.partition("jobs", name) == place]
    if datastore.calls.partitions == 1:
        return
    started = f"{datastore.connection.tag(place)}:s:jobs:started"
    if why == "away":
        datastore.claims._away._until[place] = math.inf
    else:
        await spoil(raw, started)
    first = await view.claim("jobs", worker_id="v", limit=100)
    assert len(first.items) == len(made) - len(here)
    datastore.claims._away._until.clear()
    await raw.delete(started)
    again = await datastore.once("k", everywhere=True).claim("jobs", worker_id="v", limit=100)
    assert again.failure is None
    assert sorted(names(again.items)) == made


async def test_a_repeat_finds_what_was_claimed_where_the_claim_of_an_exchange_was_refused(
    raw: aioredis.Redis, datastore: Datastore
) -> None:
    if datastore.calls.partitions == 1:
        return
    made = await fill(datastore, 100)
    await datastore.create("other", "a", metadata={"status": "not_started"})
    (other,) = (await datastore.claim("other", worker_id="v")).items
    settling = [datastore.calls.complete("other", "a", other.token or "")]
    place = settling[0].partition
    for number in range(100):  # a key by which no claim comes to the same partition
        marks = datastore.once(key := f"k{number}").marks
        if marks and place not in (marks.partition(1), marks.partition(2)):
            break
    started = f"{datastore.connection.tag(place)}:s:jobs:started"
    await spoil(raw, started)
    _, first = await datastore.once(key).exchange(settling, "jobs", worker_id="v", limit=100)
    assert first.items
    await raw.delete(started)
    _, again = await datastore.once(key).exchange(settling, "jobs", worker_id="v", limit=100)
    assert {*names(first.items)} < {*names(again.items)} <= {*made}


# All at once, and how long


@pytest.mark.parametrize("verb", ["create", "create without a name", "upsert", "update", "start", "claim", "complete"])
async def test_twenty_at_once(raw: aioredis.Redis, datastore: Datastore, token: str, verb: str) -> None:
    views = [datastore.once("k", body=b"") for _ in range(20)]
    answers = await asyncio.gather(*(VERBS[verb](view, token) for view in views))
    assert sum(view.marks.effects for view in views if view.marks) == 1
    assert sum(not are_replays(answer) for answer in answers) == 1
    assert all(first(answer) == first(answers[0]) for answer in answers)


async def test_answers_of_a_request_as_a_whole(datastore: Datastore) -> None:
    view = datastore.once("k", body=b"one")
    assert await view.begin() is None
    assert await datastore.once("k", body=b"one").begin() is None
    await view.finish(b"an answer")
    assert await datastore.once("k", body=b"one").begin() == b"an answer"
    with pytest.raises(IdempotencyKeyReused):
        await datastore.once("k", body=b"another").begin()


async def test_records_live_as_long_as_the_setting_says(raw: aioredis.Redis, datastore: Datastore) -> None:
    keep_ms = datastore.settings.idempotency_keep * 1000
    view = datastore.once("k", body=b"")
    await view.run([datastore.calls.create("jobs", f"{n}") for n in range(3)])
    await view.finish(b"an answer")
    lives = [entry.ttl_ms for name, entry in (await read_keyspace(raw)).items() if b":once:" in name]
    assert len(lives) == 4
    assert all(keep_ms - 60_000 < life <= keep_ms for life in lives)
