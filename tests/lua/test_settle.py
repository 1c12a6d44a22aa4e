"""settle: complete, fail, release and extend by token; the exchange with a claim in the same call; every refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import NOW_MS
from hookline import Datastore
from hookline.call import Call
from hookline.codec import pack
from hookline.item import FIELDS_MAX
from hookline.outcome import Outcome
from scripts import KEY, TAG, URL, Scripts, at, calling, line, ms, snapshot, unchanged

HELD = {"status": "started", "worker_id": "w", "locked_until": at(60)}
EXPIRED = {**HELD, "locked_until": at(5)}
VERBS = ["complete", "fail", "release", "extend"]


async def hold(scripts: Scripts, metadata: dict[str, Any] = HELD, sort_field: str = "a", **fields: Any) -> Any:
    """Create an item that somebody holds, and let ten seconds go by -> its raw fields."""
    assert (await scripts.create(sort_field, metadata={**HELD, **metadata}, **fields)).word == "ok"
    scripts.clock.ms = NOW_MS + 10_000
    return await scripts.fields(sort_field)


async def settle(scripts: Scripts, verb: str, sort_field: str = "a", token: str = "", **fields: Any) -> Outcome:
    outcome: Outcome = await getattr(scripts, verb)(sort_field, token, **fields)
    return outcome


def steady(call: Call) -> Call:
    """A failure without the jitter of its backoff."""
    return Call(call.script, call.partition, call.key, call.sort_field, {**call.request, "jitter": 1})


def placed(keyspace: dict[str, Any]) -> dict[str, Any]:
    """The status sets of the key."""
    return {name.removeprefix("s:jobs:"): members for name, members in keyspace.items() if name.startswith("s:")}


@pytest.mark.parametrize("lock", [HELD, EXPIRED])
@pytest.mark.parametrize(
    ("verb", "options", "fields", "gone", "status", "score"),
    [
        ("complete", {}, {"s": "completed", "da": ms(10)}, ["tk", "lu"], "completed", NOW_MS + 10_000),
        (
            "complete",
            {"metadata": {"result": {"n": 1}, "completed_at": at(7)}},
            {"s": "completed", "da": ms(7), "m:result": pack({"n": 1})},
            ["tk", "lu"],
            "completed",
            NOW_MS + 10_000,
        ),
        (
            "fail",
            {"retry_after": "30s", "error": "no"},
            {"s": "scheduled", "at": ms(40), "sd": ms(40), "le": "no", "fa": "1"},
            ["tk", "lu", "w", "sa"],
            "scheduled",
            NOW_MS + 40_000,
        ),
        (
            "fail",
            {"retry_after": 0, "metadata": {"tries": 1}},
            {"s": "not_started", "at": ms(10), "sd": ms(10), "le": "failed", "m:tries": pack(1), "fa": "1"},
            ["tk", "lu", "w", "sa"],
            "not_started",
            line(10),
        ),
        (
            "release",
            {},
            {"s": "not_started", "at": ms(10), "a": "0", "re": "1"},
            ["tk", "lu", "w", "sa"],
            "not_started",
            line(10),
        ),
        (
            "release",
            {"delay": "1m"},
            {"s": "scheduled", "at": ms(70), "sd": ms(70), "a": "0", "re": "1"},
            ["tk", "lu", "w", "sa"],
            "scheduled",
            NOW_MS + 70_000,
        ),
    ],
)
async def test_raw_keys(
    scripts: Scripts,
    lock: dict[str, Any],
    verb: str,
    options: dict[str, Any],
    fields: dict[str, Any],
    gone: list[str],
    status: str,
    score: float,
) -> None:
    before = await hold(scripts, lock)
    outcome = await settle(scripts, verb, **options)
    keyspace = await snapshot(scripts.raw)
    expected = {**before, **fields, "v": "2", "ua": ms(10)}
    assert keyspace["i:jobs:a"] == {name: value for name, value in expected.items() if name not in gone}
    assert placed(keyspace) == {status: {"a": score}}
    assert (outcome.word, outcome.version, outcome.status, outcome.locked_until_ms) == ("ok", 2, status, None)
    for again in VERBS:
        assert (await settle(scripts, again, token=before["tk"])).word == "stale_token"
    assert await scripts.counts() == {"lost_locks": "4"}


@pytest.mark.parametrize("lock", [HELD, EXPIRED])
@pytest.mark.parametrize(
    ("setting", "lock_for", "until"),
    [({}, None, 610), ({"lock_ms": 5000}, None, 15), ({"lock_ms": 5000}, "30s", 40), ({}, 1, 11)],
)
async def test_extend_moves_the_lock_alone(
    scripts: Scripts, lock: dict[str, Any], setting: dict[str, int], lock_for: object, until: int
) -> None:
    before = await hold(scripts, lock, trigger_urls={URL: "secret"})
    await scripts.configure(**setting) if setting else None
    outcome = await scripts.extend(lock_for=lock_for)
    keyspace = await snapshot(scripts.raw)
    assert keyspace["i:jobs:a"] == {**before, "lu": ms(until)}
    assert placed(keyspace) == {"started": {"a": NOW_MS + until * 1000}}
    assert (outcome.version, outcome.status, outcome.locked_until_ms) == (1, "started", NOW_MS + until * 1000)


async def test_an_extension_is_no_event_in_any_mode(scripts: Scripts) -> None:
    await hold(scripts, trigger_urls={URL: "secret"})
    call = scripts.calls.extend(KEY, "a", await scripts.token())
    assert await scripts.words(Call(call.script, 0, KEY, "a", {**call.request, "triggers": "on"})) == ["ok"]
    assert await scripts.events() == []


# Attempts and backoff


@pytest.mark.parametrize(
    ("setting", "attempts", "delay"),
    [
        ({}, 1, 5), ({}, 2, 10), ({}, 3, 20), ({}, 5, 80), ({}, 9, 1280), ({"max_attempts": 0}, 100, 3600),
        ({"backoff": "exponential 1000 3600000"}, 3, 4), ({"backoff": "exponential 5000 7000"}, 3, 7),
        ({"backoff": "list 0"}, 3, 0), ({"backoff": "list 2000"}, 9, 2), ({"backoff": "list 1000,60000"}, 1, 1),
        ({"backoff": "list 1000,60000"}, 2, 60), ({"backoff": "list 1000,60000"}, 3, 60),
    ],
)  # fmt: skip
async def test_backoff(scripts: Scripts, setting: dict[str, Any], attempts: int, delay: int) -> None:
    await hold(scripts)
    await scripts.update(metadata={"attempts": attempts})
    await scripts.configure(**setting) if setting else None
    await scripts.one(steady(scripts.calls.fail(KEY, "a", await scripts.token())))
    fields = await scripts.fields()
    assert (fields["at"], fields["s"]) == (ms(10 + delay), "scheduled" if delay else "not_started")
    assert fields["a"] == str(attempts)


@pytest.mark.parametrize(("backoff", "delay"), [("3s", 3), (["1s", "2s", "4s"], 2), ({"first": 4, "longest": 6}, 6)])
async def test_the_backoff_of_a_call(scripts: Scripts, backoff: Any, delay: int) -> None:
    await hold(scripts)
    await scripts.update(metadata={"attempts": 2})
    await scripts.configure(backoff="list 60000")
    await scripts.one(steady(scripts.calls.fail(KEY, "a", await scripts.token(), backoff=backoff)))
    assert (await scripts.fields())["at"] == ms(10 + delay)


async def test_the_backoff_has_jitter(scripts: Scripts) -> None:
    await hold(scripts)
    call = scripts.calls.fail(KEY, "a", await scripts.token())
    assert 0.8 <= call.request["jitter"] <= 1.2
    await scripts.one(call)
    assert (await scripts.fields())["at"] == str(NOW_MS + 10_000 + int(5000 * call.request["jitter"]))


@pytest.mark.parametrize(
    ("setting", "metadata", "attempts", "status"),
    [
        ({}, {}, 9, "scheduled"),
        ({}, {}, 10, "failed"),
        ({"max_attempts": 2}, {}, 2, "failed"),
        ({"max_attempts": 2}, {"max_attempts": 3}, 2, "scheduled"),
        ({}, {"max_attempts": 1}, 1, "failed"),
        ({}, {"max_attempts": 0}, 50, "scheduled"),
    ],
)
async def test_out_of_attempts(
    scripts: Scripts, setting: dict[str, int], metadata: dict[str, Any], attempts: int, status: str
) -> None:
    await hold(scripts, metadata)
    await scripts.update(metadata={"attempts": attempts})
    before = await scripts.fields()
    await scripts.configure(**setting) if setting else None
    outcome = await scripts.fail(error="no", retry_after="1s")
    fields = await scripts.fields()
    assert (outcome.status, fields["s"], fields["le"], fields["a"]) == (status, status, "no", str(attempts))
    if status == "failed":
        expected = {**before, "s": "failed", "le": "no", "v": "3", "fa": "1"}
        assert fields == {name: value for name, value in expected.items() if name not in ("tk", "lu")}


async def test_how_claims_ended_is_counted_apart(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(metadata={"status": "not_started"})
    for end in ("fail", "release", "crash", "fail", "crash by update", "crash", "release", "fail", "bury"):
        if end != "crash by update":
            assert len((await scripts.claim()).items) == 1
        if end == "fail":
            await scripts.fail(retry_after=0)
        elif end == "release":
            await scripts.release()
        elif end == "crash by update":
            await scripts.update(metadata={"status": "started", "crashed_attempts": 9})
        if end in ("crash", "crash by update", "bury"):
            scripts.clock.advance(601)
        if end == "bury":
            await scripts.configure(max_attempts=1)
            await datastore.sweep()
    metadata = (await datastore.get(KEY, "a")).metadata
    assert (metadata["crashed_attempts"], metadata["failed_attempts"], metadata["released_attempts"]) == (4, 3, 2)
    assert metadata["status"] == "failed"


async def test_release_counts_no_attempt(scripts: Scripts) -> None:
    await hold(scripts)
    for _ in range(3):
        await scripts.release()
        assert (await scripts.fields())["a"] == "0"
        await scripts.claim()


# Refusals

Spoil = Callable[[Scripts], Any]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("meanwhile", "word"),
    [
        pytest.param(lambda scripts: scripts.delete(), "not_found", id="deleted"),
        pytest.param(lambda scripts: scripts.update(metadata={"status": "cancelled"}), "cancelled", id="cancelled"),
        pytest.param(lambda scripts: scripts.update(metadata={"status": "completed"}), "stale_token", id="completed"),
        pytest.param(lambda scripts: scripts.update(metadata={"status": "not_started"}), "stale_token", id="put back"),
        pytest.param(lambda scripts: scripts.claim("v"), "stale_token", id="taken over"),
    ],
)
async def test_refusals(scripts: Scripts, verb: str, meanwhile: Spoil, word: str) -> None:
    token = (await hold(scripts, EXPIRED, content=1))["tk"]
    await meanwhile(scripts)
    async with unchanged(scripts.raw):
        outcome = await settle(scripts, verb, token=token)
    assert outcome.word == word
    assert (await scripts.counts()).get("lost_locks") == (None if word == "not_found" else "1")
    if word == "not_found":
        assert outcome.item is None
    else:
        assert outcome.item == await scripts.datastore.get(KEY, "a")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_token_of_another_item(scripts: Scripts, verb: str) -> None:
    await hold(scripts)
    other = await hold(scripts, sort_field="b")
    async with unchanged(scripts.raw):
        assert (await settle(scripts, verb, token=other["tk"])).word == "stale_token"


# Triggers


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
@pytest.mark.parametrize(("triggers", "fired"), [("key", 0), ("off", 0), ("on", 1)])
async def test_triggers(scripts: Scripts, verb: str, triggers: str, fired: int) -> None:
    before = await hold(scripts, trigger_urls={URL: "secret"})
    await settle(scripts, verb, triggers=triggers)
    events = await scripts.events()
    assert [(event["event"], event["token"]) for event in events] == [("updated", "")] * fired
    for event in events:
        assert event["before"]["s"] == b"started"
        assert event["before"]["lu"] == before["lu"].encode()
        assert "tk" not in event["before"].keys() | event["after"].keys()


async def test_outbox_full(scripts: Scripts) -> None:
    token = (await hold(scripts, trigger_urls={URL: "secret"}))["tk"]
    scripts.outbox_max = 0
    for verb in ("complete", "fail", "release"):
        async with unchanged(scripts.raw):
            assert (await settle(scripts, verb, token=token, triggers="on")).word == "outbox_full"
    assert (await scripts.complete(token=token)).word == "ok"


# Many in one call, and the exchange


async def claims(scripts: Scripts, *sort_fields: str, **metadata: Any) -> dict[str, str]:
    """Create items that somebody holds -> their tokens."""
    for sort_field in sort_fields:
        await scripts.create(sort_field, metadata={**HELD, **metadata})
    return {sort_field: await scripts.token(sort_field) for sort_field in sort_fields}


def exchanging(scripts: Scripts, worker_id: str = "v", **options: Any) -> Call:
    """A claim that goes with settles."""
    call = scripts.calls.claim(KEY, worker_id=worker_id, **options)
    return Call("settle", 0, KEY, "", call.request)


async def test_outcomes_in_order(scripts: Scripts) -> None:
    tokens = await claims(scripts, *"abcd")
    calls = scripts.calls
    outcomes = await scripts.run(
        calls.complete(KEY, "a", tokens["a"]),
        calls.fail(KEY, "b", "1.ab"),
        calls.release(KEY, "c", tokens["c"]),
        calls.extend(KEY, "z", tokens["a"]),
        calls.fail(KEY, "d", tokens["d"], retry_after="1s"),
        calls.extend(KEY, "a", tokens["a"]),
    )
    assert [outcome.word for outcome in outcomes] == ["ok", "stale_token", "ok", "not_found", "ok", "stale_token"]
    assert placed(await snapshot(scripts.raw)) == {
        "completed": {"a": NOW_MS},
        "started": {"b": NOW_MS + 60_000},
        "not_started": {"c": line(place=3)},
        "scheduled": {"d": NOW_MS + 1000},
    }


async def test_an_exchange_claims_what_it_has_just_given_back(scripts: Scripts) -> None:
    tokens = await claims(scripts, *"ab")
    await scripts.create("c", metadata={"status": "not_started", "priority": 4})
    done, released, claimed = await scripts.run(
        scripts.calls.complete(KEY, "a", tokens["a"]),
        scripts.calls.release(KEY, "b", tokens["b"]),
        exchanging(scripts, limit=5),
    )
    assert (done.word, released.word) == ("ok", "ok")
    assert [item.sort_field for item in claimed.items] == ["b", "c"]
    assert [item.token for item in claimed.items] == [await scripts.token("b"), await scripts.token("c")]
    fields = await scripts.fields("b")
    assert (fields["v"], fields["a"], fields["w"]) == ("3", "1", "v")


async def test_exchanges_of_many_workers_in_one_call(scripts: Scripts) -> None:
    tokens = await claims(scripts, *"abc")
    await scripts.run(
        *(scripts.calls.create(KEY, f"n{n}", metadata={"status": "not_started", "priority": 6}) for n in range(6))
    )
    calls: list[Call] = []
    for name in "abc":
        calls += [scripts.calls.release(KEY, name, tokens[name]), exchanging(scripts, f"w-{name}", limit=2)]
    taken = [[item.sort_field for item in claimed.items] for claimed in (await scripts.run(*calls))[1::2]]
    assert taken == [["n0", "n1"], ["n2", "n3"], ["n4", "n5"]]
    assert placed(await snapshot(scripts.raw))["not_started"].keys() == {"a", "b", "c"}


async def test_what_an_exchange_claims_can_be_settled_in_the_same_call(scripts: Scripts) -> None:
    """Not by the engine, which learns the token with the answer; the view must hold up all the same."""
    tokens = await claims(scripts, "a")
    first, claimed, stale = await scripts.run(
        scripts.calls.release(KEY, "a", tokens["a"]),
        exchanging(scripts),
        scripts.calls.complete(KEY, "a", tokens["a"]),
    )
    assert (first.word, len(claimed.items), stale.word) == ("ok", 1, "stale_token")
    assert stale.item.token is None


async def test_a_completion_on_top_of_a_claim_of_the_same_call(scripts: Scripts) -> None:
    """Nobody can know the token by then; the moves that wait must hold up all the same."""
    await scripts.create("a", metadata={"status": "not_started"})
    claim = exchanging(scripts)
    token = f"2.{claim.request['nonce']}-1"
    claimed, ended = await scripts.run(claim, scripts.calls.complete(KEY, "a", token))
    assert ([item.token for item in claimed.items], ended.word) == ([token], "ok")
    assert {name: [*members] for name, members in placed(await snapshot(scripts.raw)).items()} == {"completed": ["a"]}


async def test_a_refused_settle_claims_all_the_same(scripts: Scripts) -> None:
    await scripts.create("c", metadata={"status": "not_started"})
    refused, claimed = await scripts.run(scripts.calls.complete(KEY, "a", "1.ab"), exchanging(scripts))
    assert (refused.word, [item.sort_field for item in claimed.items]) == ("not_found", ["c"])


@pytest.mark.parametrize("heard", [False, True])
async def test_a_claim_ends_without_the_fields_that_are_too_many(
    scripts: Scripts, datastore: Datastore, heard: bool
) -> None:
    if heard:
        await datastore.configure(KEY, trigger_urls=calling("updated"))
    for name in "abc":
        await datastore.create(KEY, name, metadata={"status": "not_started"})
        await scripts.raw.hset(f"{TAG}:i:{KEY}:{name}", mapping={f"m:f{n}": b"\x01" for n in range(FIELDS_MAX)})
    claimed = await datastore.claim(KEY, worker_id="w", limit=3)
    tokens = {item.sort_field: item.token or "" for item in claimed.items}
    ends = [scripts.calls.complete(KEY, "a", tokens["a"], metadata={"result": 1})]
    ends.append(scripts.calls.fail(KEY, "b", tokens["b"], metadata={"result": 1, "f1": None, "seen": 1}))
    async with unchanged(scripts.raw):
        assert [outcome.word for outcome in await datastore.settle(ends)] == ["too_many_fields"] * 2
    ends = [scripts.calls.complete(KEY, "a", tokens["a"], metadata={"f1": 2})]
    ends.append(scripts.calls.fail(KEY, "b", tokens["b"]))
    ends.append(scripts.calls.complete(KEY, "c", tokens["c"], metadata={"result": 1, "f1": None}))
    assert [outcome.word for outcome in await datastore.settle(ends)] == ["ok"] * 3
