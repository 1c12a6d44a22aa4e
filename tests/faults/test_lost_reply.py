"""An answer is lost, late or never comes: each change takes effect once, and the caller learns what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from msgspec import structs

from conftest import NOW_MS, Clock, opened, wait_until
from hookline import Call, Claimed, Datastore, Item, Outcome, SecretBox, Settings
from hookline.errors import HooklineError, OutcomeUnknown, StoreFull, Unavailable
from invariants import check_invariants
from proxy import CALL_LATE, KEEP_REPLY, LOSE_CALL, LOSE_REPLY, LOSE_STORE, Proxy

TIMEOUT = 0.3
pytestmark = pytest.mark.settings(call_timeout=TIMEOUT)
TAG = "hl:{default/0}"
VERBS = ("create", "upsert", "update", "start", "delete", "claim", "complete", "fail", "release", "extend")
VERSIONS = {"create": 1, "upsert": 2, "update": 2, "start": 2, "delete": None, "claim": 2, "extend": 2}
"""The version after the verb; those left out end a claim: 3."""


@pytest_asyncio.fixture(loop_scope="session")
async def far(
    raw: aioredis.Redis, proxy: Proxy, settings: Settings, clock: Clock, datastore: Datastore
) -> AsyncIterator[Datastore]:
    """A datastore behind the proxy; ``datastore`` is another one, that reaches the store directly."""
    clock.ms = NOW_MS
    async with opened(Datastore(proxy.url, settings, SecretBox(bytes(range(32))), now_ms=clock)) as far:
        yield far
    await check_invariants(raw)


async def prepare(datastore: Datastore, verb: str, key: str) -> Call:
    """A call of the verb for item ``a`` of the key, with all that it needs in the store."""
    calls, urls = datastore.calls, [{"url": "http://worker.example/", "events": ["created", "updated", "deleted"]}]
    new: dict[str, Any] = {"content": {"n": 1}, "metadata": {"status": "not_started", "x": 1}, "trigger_urls": urls}
    if verb != "create":
        await datastore.create(key, "a", **new)
    match verb:
        case "create":
            return calls.create(key, "a", **new)
        case "upsert":
            return calls.create(key, "a", content=2, metadata={"y": None, "z": {}}, upsert=True)
        case "update":
            return calls.update(key, "a", content=[], metadata={"x": None, "y": 2}, version=1)
        case "start":
            return calls.update(key, "a", metadata={"status": "started", "worker_id": "w"})
        case "delete":
            return calls.delete(key, "a")
        case "claim":
            return calls.claim(key, worker_id="w", limit=5, triggers="on")
    token = (await datastore.claim(key, worker_id="w")).items[0].token or ""
    match verb:
        case "complete":
            return calls.complete(key, "a", token, metadata={"result": 1}, triggers="on")
        case "fail":
            return calls.fail(key, "a", token, error="no", retry_after=5, triggers="on")
        case "release":
            return calls.release(key, "a", token, delay=5, triggers="on")
        case _:
            return calls.extend(key, "a", token, lock_for=5)


async def perform(datastore: Datastore, call: Call) -> Outcome | Claimed:
    (answer,) = await datastore.run([call])
    return answer


def tokens(answer: Outcome | Claimed) -> list[str | None]:
    items = answer.items if isinstance(answer, Claimed) else [answer.item]
    return [item.token for item in items if item]


def of_key(answer: Outcome | Claimed, key: str) -> Outcome | Claimed:
    """The answer as if it spoke of this key, and without tokens: no two claims have the same."""

    def moved(item: Item) -> Item:
        return structs.replace(item, key=key, token=None)

    if isinstance(answer, Claimed):
        return structs.replace(answer, items=[moved(item) for item in answer.items])
    return structs.replace(answer, key=key, item=answer.item and moved(answer.item))


async def fields(raw: aioredis.Redis, key: str) -> dict[bytes, bytes]:
    """The hash of item ``a`` but for its token and sealed API keys, which differ from item to item."""
    found = cast("dict[bytes, bytes]", await raw.hgetall(f"{TAG}:i:{key}:a"))
    return {name: value for name, value in found.items() if name not in (b"tk", b"t")}


async def check_one_effect(raw: aioredis.Redis, verb: str, answer: Outcome | Claimed, datastore: Datastore) -> None:
    """The item of ``jobs`` is as if nothing had been lost, which is how the verb leaves the one of ``plain``."""
    plain = await perform(datastore, await prepare(datastore, verb, "plain"))
    assert of_key(answer, "plain") == of_key(plain, "plain")
    after = await fields(raw, "jobs")
    assert after == await fields(raw, "plain")
    version = VERSIONS.get(verb, 3)
    assert after.get(b"v") == (str(version).encode() if version else None)
    held = await raw.hget(f"{TAG}:i:jobs:a", "tk")
    assert all(token.encode() == held for token in tokens(answer) if token)
    assert bool(any(tokens(answer))) == (verb in ("claim", "start"))
    entries: list[Any] = await raw.xrange(f"{TAG}:outbox") or []
    events = [entry[b"key"] for _, entry in entries]
    assert events.count(b"jobs") == events.count(b"plain")


@pytest.mark.parametrize("fault", [LOSE_REPLY, LOSE_CALL])
@pytest.mark.parametrize("verb", VERBS)
async def test_lost_once(
    verb: str, fault: bytes, far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    call = await prepare(datastore, verb, "jobs")
    proxy.faults.append(fault)
    answer = await perform(far, call)
    assert len(proxy.calls) == 2
    assert len(set(proxy.call_ids())) == 1
    await check_one_effect(raw, verb, answer, datastore)


@pytest.mark.parametrize("verb", ["create", "claim", "complete"])
async def test_lost_again_and_again(
    verb: str,
    far: Datastore,
    datastore: Datastore,
    proxy: Proxy,
    raw: aioredis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So many repeats have to come before the deadline, also on a machine that is busy.
    monkeypatch.setattr("hookline.connection._RETRY_PAUSE", 0.005)
    call = await prepare(datastore, verb, "jobs")
    proxy.faults.extend([LOSE_REPLY] * 4)
    answer = await perform(far, call)
    assert len(proxy.calls) == 5
    assert len(set(proxy.call_ids())) == 1
    await check_one_effect(raw, verb, answer, datastore)


@pytest.mark.parametrize("verb", ["update", "claim", "fail"])
async def test_answer_later_than_the_timeout(
    verb: str, far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    call = await prepare(datastore, verb, "jobs")
    proxy.faults.append(KEEP_REPLY)
    answer = await perform(far, call)
    assert len(proxy.calls) == 2
    await check_one_effect(raw, verb, answer, datastore)


@pytest.mark.parametrize("verb", ["update", "claim", "release"])
async def test_call_that_arrives_after_its_repeat(
    verb: str, far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    call = await prepare(datastore, verb, "jobs")
    proxy.faults.append(CALL_LATE)
    answer = await perform(far, call)
    (before,) = await fcalls(raw)
    proxy.late.set()
    await wait_until(lambda: _rose(raw, before))
    await check_one_effect(raw, verb, answer, datastore)


async def fcalls(raw: aioredis.Redis) -> list[int]:
    stats = await raw.info("commandstats")
    return [stats["cmdstat_fcall"]["calls"]]


async def _rose(raw: aioredis.Redis, before: int) -> bool:
    return (await fcalls(raw))[0] > before


async def test_a_batch_of_which_the_answer_is_lost(
    far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    calls = [far.calls.create("jobs", f"{n % 40:02}", content=n) for n in range(80)]
    proxy.faults.append(LOSE_REPLY)
    outcomes = await far.run(calls)
    assert [outcome.word for outcome in outcomes] == ["ok"] * 40 + ["exists"] * 40
    assert [outcome.item and outcome.item.content for outcome in outcomes] == [*range(40), *range(40)]
    assert len(proxy.calls) == 2


@pytest.mark.parametrize("place", range(2), ids=["first", "second"])
@pytest.mark.parametrize("fault", [LOSE_CALL, LOSE_REPLY])
async def test_calls_that_follow_each_other_of_which_one_is_lost(
    fault: bytes, place: int, far: Datastore, datastore: Datastore, proxy: Proxy
) -> None:
    """They go over one link, so with one the other may be lost; each takes effect once."""
    await far.create("jobs", "begin")
    links = proxy.links_max
    calls = [far.calls.create("jobs", f"{n:03}", content=n) for n in range(200)]
    proxy.faults.extend([b""] * place + [fault])
    outcomes = await far.run(calls)
    assert [(outcome.word, outcome.item and outcome.item.content) for outcome in outcomes] == [
        ("ok", n) for n in range(200)
    ]
    assert (await datastore.count("jobs")).count == 201
    assert proxy.links_max == links
    ids = proxy.call_ids()[1:]
    assert sorted(map(ids.count, set(ids))) in ([1, 2], [2, 2])


@pytest.mark.parametrize(
    "faults",
    [[LOSE_CALL], [LOSE_REPLY], [LOSE_CALL, b"-LOADING the data\r\n"], [b"-ERR Function not found\r\n"]],
    ids=["lost call", "lost reply", "repeat refused", "no script"],
)
async def test_operations_on_one_item_stay_in_order_whatever_befalls_their_calls(
    faults: list[bytes], far: Datastore, datastore: Datastore, proxy: Proxy
) -> None:
    await far.create("jobs", "a")
    calls = [far.calls.update("jobs", "a", content=n) for n in range(200)]
    proxy.faults.extend(faults)
    outcomes = await far.run(calls)
    assert {outcome.word for outcome in outcomes} == {"ok"}
    item = await datastore.get("jobs", "a")
    assert (item.content, item.version) == (199, 201)


async def test_an_exchange_of_which_the_answer_is_lost(
    far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    for name in ("a", "b"):
        await datastore.create("jobs", name, metadata={"status": "not_started"})
    (first,) = (await datastore.claim("jobs", worker_id="w")).items
    proxy.faults.append(LOSE_REPLY)
    outcomes, claimed = await far.exchange([far.calls.complete("jobs", "a", first.token or "")], "jobs", worker_id="w")
    assert [outcome.status for outcome in outcomes] == ["completed"]
    assert [(item.sort_field, item.version) for item in claimed.items] == [("b", 2)]
    assert await raw.hget(f"{TAG}:i:jobs:b", "tk") == (claimed.items[0].token or "").encode()
    assert len(proxy.calls) == 2


async def test_what_an_exchange_claimed_is_given_though_other_answers_never_come(
    far: Datastore, datastore: Datastore, proxy: Proxy
) -> None:
    for n in range(103):
        await datastore.create("jobs", f"{n:03}", metadata={"status": "not_started"})
    held = (await datastore.claim("jobs", worker_id="w", limit=101)).items
    proxy.faults.extend([KEEP_REPLY] * 2)
    completed = [far.calls.complete("jobs", item.sort_field, item.token or "") for item in held]
    outcomes, claimed = await far.exchange(completed, "jobs", worker_id="w")
    assert [outcome.word for outcome in outcomes] == ["outcome_unknown"] * 100 + ["ok"]
    assert isinstance(outcomes[0].error(), OutcomeUnknown)
    assert [item.sort_field for item in claimed.items] == ["101"]


async def test_a_run_stops_at_a_failure(far: Datastore, datastore: Datastore, proxy: Proxy) -> None:
    await datastore.create("jobs", "a")
    proxy.faults.extend([KEEP_REPLY] * 2)
    calls = [far.calls.update("jobs", "a", metadata={"n": 1}), far.calls.delete("jobs", "a")]
    with pytest.raises(OutcomeUnknown):
        await far.run(calls)
    assert (await datastore.get("jobs", "a")).metadata == {"version": 2, "n": 1}


@pytest.mark.parametrize("verb", ["create", "claim", "complete"])
async def test_never_answered(
    verb: str, far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    call = await prepare(datastore, verb, "jobs")
    proxy.faults.extend([KEEP_REPLY] * 10)
    with pytest.raises(OutcomeUnknown, match="read the item"):
        await perform(far, call)
    assert len(proxy.calls) == 2
    assert len(set(proxy.call_ids())) == 1
    assert (await fields(raw, "jobs"))[b"v"] == str(VERSIONS.get(verb, 3)).encode()


async def test_a_repeat_is_never_sent_when_its_outcome_may_be_forgotten(
    far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis
) -> None:
    """The store keeps outcomes for twice the timeout; to connect anew may take longer than that."""
    await datastore.create("jobs", "a")
    proxy.faults.append(LOSE_REPLY)
    proxy.pauses.extend([TIMEOUT * 0.8] * 3)
    with pytest.raises(OutcomeUnknown):
        await far.update("jobs", "a", metadata={"x": 1})
    assert (await datastore.get("jobs", "a")).version == 2


@pytest.mark.parametrize("verb", VERBS)
async def test_not_sent(verb: str, far: Datastore, datastore: Datastore, proxy: Proxy, raw: aioredis.Redis) -> None:
    call = await prepare(datastore, verb, "jobs")
    before = await fields(raw, "jobs")
    await proxy.stop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await perform(far, call)
    assert await fields(raw, "jobs") == before


async def test_gone_after_it_was_sent(far: Datastore, datastore: Datastore, proxy: Proxy) -> None:
    await datastore.create("jobs", "a")
    proxy.faults.append(KEEP_REPLY)
    update = asyncio.create_task(far.update("jobs", "a", metadata={"x": 1}))
    await wait_until(lambda: proxy.calls)
    await proxy.stop()
    with pytest.raises(OutcomeUnknown):
        await update
    assert (await datastore.get("jobs", "a")).metadata == {"x": 1, "version": 2}


@pytest.mark.parametrize("answer", ["LOADING", "OOM", "READONLY", "BUSY", "MISCONF", "NOPERM", "NOAUTH", "WRONGPASS"])
async def test_the_repeat_meets_a_store_that_cannot_take_it(
    answer: str, far: Datastore, datastore: Datastore, proxy: Proxy
) -> None:
    """Then it is not known to have had no effect: the engine asks on, and gets the outcome in the end."""
    await datastore.create("jobs", "a")
    proxy.faults.extend([LOSE_REPLY, f"-{answer} it is\r\n".encode()])
    outcome = await far.update("jobs", "a", metadata={"x": 1})
    assert outcome.version == 2
    assert len(proxy.calls) == 3


@pytest.mark.parametrize("answer", ["OOM", "READONLY", "NOPERM", "NOAUTH", "WRONGPASS"])
async def test_no_repeat_meets_a_store_that_can_take_it(
    answer: str, far: Datastore, datastore: Datastore, proxy: Proxy
) -> None:
    await datastore.create("jobs", "a")
    proxy.faults.extend([LOSE_REPLY, *[f"-{answer} it is\r\n".encode()] * 100])
    with pytest.raises(OutcomeUnknown):
        await far.update("jobs", "a", metadata={"x": 1})
    assert (await datastore.get("jobs", "a")).version == 2


@pytest.mark.parametrize("error", [StoreFull, Unavailable])
async def test_the_first_try_meets_a_store_that_cannot_take_it(
    error: type[HooklineError], far: Datastore, datastore: Datastore, proxy: Proxy
) -> None:
    proxy.faults.append(b"-OOM it is\r\n" if error is StoreFull else b"-LOADING it is\r\n")
    with pytest.raises(error):
        await far.create("jobs", "a")
    assert len(proxy.calls) == 1


async def test_reads_say_that_no_answer_came(far: Datastore, datastore: Datastore, proxy: Proxy) -> None:
    await datastore.create("jobs", "a")
    for fault in (LOSE_CALL, LOSE_REPLY, KEEP_REPLY):
        proxy.faults.append(fault)
        with pytest.raises(Unavailable, match="no answer"):
            await far.get("jobs", "a")
        assert (await far.get("jobs", "a")).sort_field == "a"


async def test_goes_on_when_the_connections_are_cut(far: Datastore, datastore: Datastore, proxy: Proxy) -> None:
    for n in range(5):
        await far.create("jobs", f"{n}")
        await proxy.cut()
    assert len((await far.query("jobs")).items) == 5


@pytest.mark.parametrize("fault", [LOSE_REPLY, LOSE_CALL, KEEP_REPLY])
async def test_a_claim_that_was_held_back(
    fault: bytes,
    proxy: Proxy,
    raw: aioredis.Redis,
    settings: Settings,
    datastore: Datastore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes effect once too."""
    monkeypatch.setattr("hookline.claims.POLL", 2.0)
    async with Datastore(proxy.url, settings, SecretBox(bytes(32))) as far:
        waiting = asyncio.create_task(far.claim("jobs", worker_id="w", limit=5, wait=120))
        await wait_until(lambda: b"BZPOPMIN" in proxy.commands)
        looks = len(proxy.calls)
        proxy.faults.append(fault)
        await datastore.create("jobs", "a", metadata={"status": "not_started"})
        (item,) = (await asyncio.wait_for(waiting, 10)).items
        assert (item.sort_field, item.version, item.metadata["attempts"]) == ("a", 2, 1)
        assert await raw.hget(f"{TAG}:i:jobs:a", "tk") == (item.token or "").encode()
        first, again, *later = proxy.call_ids()[looks:]
        assert first == again
        # What never came to the store is not made up for by who asks what became of it, but by a look of its own.
        assert len(later) == (fault == LOSE_CALL)


async def test_a_claim_that_was_held_back_and_a_store_that_comes_again(
    proxy: Proxy, settings: Settings, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.claims.POLL", 2.0)
    async with Datastore(proxy.url, settings, SecretBox(bytes(32))) as far:
        waiting = asyncio.create_task(far.claim("jobs", worker_id="w", wait=120))
        await wait_until(lambda: b"BZPOPMIN" in proxy.commands)
        proxy.faults.append(LOSE_STORE)
        await datastore.create("jobs", "a", metadata={"status": "not_started"})
        await wait_until(lambda: proxy.store_lost)
        await asyncio.sleep(0.3)
        proxy.store_lost = False
        (item,) = (await asyncio.wait_for(waiting, 5)).items
        assert (item.sort_field, item.version) == ("a", 2)


async def test_a_claim_that_is_held_back_when_the_store_goes(
    proxy: Proxy, raw: aioredis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits is told soon: what was held back has most likely not run."""
    monkeypatch.setattr("hookline.claims.POLL", 60.0)
    async with Datastore(proxy.url, settings, SecretBox(bytes(32))) as far:
        waiting = asyncio.create_task(far.claim("jobs", worker_id="w", wait=120))
        await wait_until(lambda: b"BZPOPMIN" in proxy.commands)
        await proxy.stop()
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(waiting, 5)


async def test_who_closes_and_gives_up_waiting_keeps_no_connection(
    proxy: Proxy, raw: aioredis.Redis, settings: Settings
) -> None:
    async def links() -> int:
        return len(await raw.client_list())

    before = await links()
    far = Datastore(proxy.url, replace(settings, call_timeout=60.0), SecretBox(bytes(32)))
    await far.open()
    proxy.faults.append(KEEP_REPLY)
    creating = asyncio.create_task(far.create("jobs", "a"))
    await wait_until(lambda: proxy.calls)
    proxy.store_lost = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await far.close()
    creating.cancel()

    async def closed() -> bool:
        return await links() == before

    await wait_until(closed)
    await wait_until(lambda: not far._batcher._under_way)  # nor is it asked for on and on
