"""What the writing scripts share: replay of a lost answer, the settings' generation, batches, the memory limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio as aioredis
from msgspec import structs

from composed import call, composed
from conftest import NOW_MS
from hookline import Datastore
from hookline.call import Call
from hookline.codec import pack_request, unpack_answer
from hookline.outcome import Claimed
from hookline_lua import load
from jobs import WAITING
from scripts import KEEP_MS, KEY, TAG, Scripts, at, calling, snapshot, unchanged

HELD = {"status": "started", "worker_id": "w"}


class Bench:
    """Items to work on: `waits` in line, `held` by a worker, and the token of the latter."""

    def __init__(self, scripts: Scripts, token: str) -> None:
        self.calls = scripts.calls
        self.token = token


WRITES: dict[str, Callable[[Bench], list[Call]]] = {
    "create": lambda bench: [
        bench.calls.create(KEY, "new", content=1, metadata={**HELD, "locked_until": at(-1)}),
        bench.calls.create(KEY, "waits", content=1, metadata=WAITING),
    ],
    "create_drain": lambda bench: [bench.calls.create(KEY, "new", metadata=WAITING, reserved=True)],
    "patch": lambda bench: [
        bench.calls.update(KEY, "waits", content=2, metadata={"seen": "CURRENT_TIMESTAMP", "n": 1, "gone": None}),
        bench.calls.update(KEY, "waits", version=1),
        bench.calls.update(KEY, "nobody", metadata={"n": 1}),
    ],
    "patch_drain": lambda bench: [
        bench.calls.update(KEY, "waits", metadata={**HELD, "locked_until": "+1m"}),
        bench.calls.update(KEY, "held", content=1, metadata=HELD),
    ],
    "delete": lambda bench: [
        bench.calls.delete(KEY, "waits"),
        bench.calls.delete(KEY, "held", version=9),
        bench.calls.delete(KEY, "waits"),
    ],
    "claim": lambda bench: [
        bench.calls.claim(KEY, worker_id="v", limit=2, triggers="on"),
        bench.calls.claim(KEY, worker_id="u", limit=2),
    ],
    "settle": lambda bench: [
        bench.calls.fail(KEY, "held", bench.token, error="no"),
        bench.calls.complete(KEY, "held", "1.ab"),
        Call("settle", 0, KEY, "", bench.calls.claim(KEY, worker_id="v").request),
    ],
}


@pytest.fixture
async def bench(scripts: Scripts) -> Bench:
    await scripts.create("waits", content=1, metadata=WAITING, trigger_urls=calling("updated", "deleted"))
    await scripts.create("held", content=1, metadata=HELD)
    return Bench(scripts, await scripts.token("held"))


# A lost answer


@pytest.mark.parametrize("script", WRITES)
async def test_the_same_call_twice_has_one_effect_and_equal_answers(
    scripts: Scripts, bench: Bench, script: str
) -> None:
    calls = WRITES[script](bench)
    assert {call.script for call in calls} == {script}
    before = await snapshot(scripts.raw)
    outcomes = await scripts.twice(*calls)
    assert await snapshot(scripts.raw) != before
    if script in ("claim", "settle"):
        claimed = next(outcome for outcome in outcomes if isinstance(outcome, Claimed))
        assert [(item.sort_field, item.token) for item in claimed.items] == [("waits", await scripts.token("waits"))]
    if script == "patch_drain":
        assert outcomes[0].item.token == await scripts.token("waits")


@pytest.mark.parametrize("script", WRITES)
async def test_a_call_without_operations(scripts: Scripts, script: str) -> None:
    arguments = [TAG, str(NOW_MS), "none", b"\x93" + pack_request(KEEP_MS) + pack_request(1000) + pack_request([])]
    for _ in range(2):
        assert unpack_answer(await scripts.raw.fcall(load(script).function, 1, *arguments)) in ([], {})


async def test_outcomes_that_are_alike_are_told_again_beside_others(scripts: Scripts) -> None:
    """They are packed once for all of them: an exchange mostly has many completions, and its claim behind them."""
    names = [f"n{place}" for place in range(3)]
    await scripts.run(*(scripts.calls.create(KEY, name, metadata=WAITING) for name in [*names, "next"]))
    held = (await scripts.claim(limit=3)).items
    ends = [scripts.calls.complete(KEY, item.sort_field, item.token or "") for item in held]
    claim = structs.replace(scripts.calls.claim(KEY, worker_id="v"), script="settle")
    stale = scripts.calls.complete(KEY, "n0", "1.ab")
    *told, refused, claimed = await scripts.twice(*ends, stale, claim)
    assert [(end.word, end.sort_field, end.version, end.status) for end in told] == [
        ("ok", name, 3, "completed") for name in names
    ]
    assert (refused.word, refused.item.version) == ("stale_token", 3)
    assert [(item.sort_field, item.token) for item in claimed.items] == [("next", await scripts.token("next"))]


async def test_outcomes_are_kept_for_a_while(scripts: Scripts, raw: aioredis.Redis) -> None:
    await scripts.run(scripts.calls.create(KEY, "a"), call_id="lost")
    assert 0 < await raw.pttl(f"{TAG}:o:lost") <= KEEP_MS


async def test_a_replay_shows_what_became_of_the_item_meanwhile(scripts: Scripts, bench: Bench) -> None:
    claim = [scripts.calls.claim(KEY, worker_id="v")]
    complete = [scripts.calls.complete(KEY, "held", bench.token)]
    await scripts.run(*claim, call_id="claim")
    await scripts.run(*complete, call_id="complete")
    await scripts.update("waits", metadata={"status": "not_started"})
    await scripts.update("held", metadata={"status": "review"})
    (claimed,) = await scripts.run(*claim, call_id="claim")
    (completed,) = await scripts.run(*complete, call_id="complete")
    assert claimed.items == []
    assert (completed.word, completed.version, completed.status) == ("ok", 2, "completed")


async def test_a_replay_tells_the_version_that_was_made(scripts: Scripts) -> None:
    create = scripts.calls.create(KEY, "a", content={"n": 1}, metadata={**WAITING, "size": 3})
    (made,) = await scripts.run(create, call_id="lost")
    await scripts.update("a", metadata={"size": 4})
    (again,) = await scripts.run(create, call_id="lost")
    assert (made.version, again.version, again.item.version, again.item.metadata["size"]) == (1, 1, 2, 4)
    await scripts.one(scripts.calls.delete(KEY, "a"))
    (gone,) = await scripts.run(create, call_id="lost")
    assert gone.item == made.item


@pytest.mark.parametrize("name", ["scheduled_at", "started_at", "completed_at"])
async def test_a_replay_tells_the_times_of_what_is_gone(scripts: Scripts, name: str) -> None:
    time = "+5s" if name == "scheduled_at" else "CURRENT_TIMESTAMP"
    create = scripts.calls.create(KEY, "a", metadata={name: time})
    (made,) = await scripts.run(create, call_id="lost")
    await scripts.one(scripts.calls.delete(KEY, "a"))
    (again,) = await scripts.run(create, call_id="lost")
    assert again.item.metadata[name] == made.item.metadata[name] == at(5 if name == "scheduled_at" else 0)


async def test_a_replay_of_an_update_of_what_is_gone(scripts: Scripts) -> None:
    await scripts.create("a", content={"n": 1})
    update = [scripts.calls.update(KEY, "a", metadata={"size": n}) for n in (1, 2)]
    await scripts.run(*update, call_id="lost")
    await scripts.one(scripts.calls.delete(KEY, "a"))
    outcomes = await scripts.run(*update, call_id="lost")
    assert [(outcome.word, outcome.version, outcome.item.metadata) for outcome in outcomes] == [
        ("ok", 2, {"version": 2, "size": 1}), ("ok", 3, {"version": 3, "size": 2}),
    ]  # fmt: skip


async def test_other_call_ids_are_other_calls(scripts: Scripts) -> None:
    call = scripts.calls.create(KEY, "a")
    words = [(await scripts.run(call, call_id=call_id))[0].word for call_id in ("one", "two", "one")]
    assert words == ["ok", "exists", "ok"]


# Settings


@pytest.mark.parametrize("script", WRITES)
@pytest.mark.parametrize(("stored", "known"), [(3, 0), (3, 2), (None, 1)])
async def test_another_generation_of_settings_writes_nothing(
    scripts: Scripts, bench: Bench, script: str, stored: int | None, known: int
) -> None:
    await scripts.configure(**({} if stored is None else {"generation": stored}), lock_ms=1)
    calls = WRITES[script](bench)
    async with unchanged(scripts.raw):
        assert await scripts.words(*calls, generation=known) == ["settings_changed"] * len(calls)
    assert "settings_changed" not in await scripts.words(*calls, generation=stored or 0)


async def test_one_key_of_a_batch_has_other_settings(scripts: Scripts) -> None:
    await scripts.configure(generation=3)
    calls = [scripts.calls.create(key, "a") for key in (KEY, "other", KEY)]
    assert await scripts.words(*calls) == ["settings_changed", "ok", "settings_changed"]


async def test_the_engine_plans_again(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    await scripts.configure(generation=3, lock_ms=5000)
    assert (await datastore.create(KEY, "a", metadata=HELD)).locked_until_ms == NOW_MS + 5000
    await raw.delete(f"{TAG}:cfg:{KEY}")
    assert (await datastore.create(KEY, "b", metadata=HELD)).locked_until_ms == NOW_MS + 600_000


# Several operations on one item in one call


async def test_items_that_change_several_times_end_in_the_right_sets(scripts: Scripts) -> None:
    await scripts.create("a", metadata={"status": "review"})
    await scripts.create("b", metadata={"status": "review"})
    scripts.clock.advance(1)
    statuses = ["done", "review", "done", "review", None, "review", "not_started", "review"]
    calls = [
        scripts.calls.update(KEY, sort_field, metadata={"status": status}) for status in statuses for sort_field in "ab"
    ]
    outcomes = await scripts.run(*calls, scripts.calls.update(KEY, "b", metadata={"status": "done"}))
    assert [outcome.version for outcome in outcomes] == [*(n for n in range(2, 10) for _ in "ab"), 10]
    keyspace = await snapshot(scripts.raw)
    assert {name: members for name, members in keyspace.items() if name.startswith("s:")} == {
        "s:jobs:review": {"a": NOW_MS + 1000}, "s:jobs:done": {"b": NOW_MS + 1000},
    }  # fmt: skip


async def test_a_to_b_to_a_writes_no_more_than_the_version(scripts: Scripts) -> None:
    await scripts.create(metadata={"status": "review", "n": 1})
    before = await snapshot(scripts.raw)
    steps = [{"n": 2, "status": "done"}, {"n": 1, "status": "review"}]
    await scripts.run(*(scripts.calls.update(KEY, "a", metadata=metadata) for metadata in steps))
    after = await snapshot(scripts.raw)
    assert after == {**before, "i:jobs:a": {**before["i:jobs:a"], "v": "3"}}


MIXED = composed("""#!lua
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome item call change plain

local function run(operation, place)
  local record = item.load(operation.key, operation.sort)
  if operation.set then
    return change.create(record, operation, place)
  end
  item.open(record)
  local refused = call.commit(record, operation, 'deleted')
  item.clear(record)
  return refused or { outcome.ok, false, false }
end

return function()
  return call.run(run, plain.create)
end
""")
"""A script that creates and deletes in one call, made of the helpers of those that do the one or the other."""


def create_or_delete(scripts: Scripts, what: str | None) -> Call:
    """Create item `a` with a status, or delete it."""
    return scripts.calls.create(KEY, "a", metadata={"status": what}) if what else scripts.calls.delete(KEY, "a")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(["review", None, "review"], id="create delete create"),
        pytest.param(["review", None, "not_started"], id="create delete create otherwise"),
        pytest.param(["review", None], id="create delete"),
        pytest.param(["started", None, "review", None, "started"], id="five"),
    ],
)
@pytest.mark.parametrize("there", [None, "review", "not_started"])
async def test_created_and_deleted_in_one_call(scripts: Scripts, there: str | None, steps: list[str | None]) -> None:
    """Whatever the steps, and whatever was there before, the store ends as if only the last had been done."""
    last = steps[-1]
    if there:
        await scripts.create(metadata={"status": there, "old": 1}, trigger_urls=calling("updated"))
        steps = [None, *steps]
    scripts.clock.advance(1)
    calls = [create_or_delete(scripts, step) for step in steps]
    answers = unpack_answer(await call(scripts.raw, MIXED, *scripts.args(calls)[1:]))
    assert [answer[0] for answer in answers] == [b"ok"] * len(steps)
    many = await snapshot(scripts.raw)
    await scripts.raw.flushall()
    if last:
        await scripts.run(*(scripts.calls.create(KEY, f"other{n}") for n in range(len(steps) - 1)), calls[-1])
    one = await snapshot(scripts.raw)
    for keyspace in (many, one):
        keyspace.get("i:jobs:a", {}).pop("tk", None)
    for name in ("i:jobs:a", *(f"s:jobs:{status}" for status in ("review", "not_started", "started"))):
        assert many.get(name) == one.get(name)
    assert many.get("k:jobs") == ({"a": 0} if last else None)


@pytest.mark.parametrize("steps", [["x", "y", "x"], ["x", None, "x"], ["x", "y"], ["x", None], [None, "x"]])
@pytest.mark.parametrize("there", [None, "x", "y"])
async def test_created_and_replaced_in_one_call_of_a_key_with_indexes(
    scripts: Scripts, datastore: Datastore, there: str | None, steps: list[str | None]
) -> None:
    await datastore.configure(KEY, indexes={"m": "string", "attempts": "number"})
    if there:
        await datastore.create(KEY, "a", metadata={**WAITING, "m": there})
    calls = [scripts.calls.create(KEY, "a", metadata={**WAITING, "m": step}, upsert=True) for step in steps]
    assert await scripts.words(*calls, generation=1) == ["ok"] * len(steps)
    keyspace = await snapshot(scripts.raw)
    assert keyspace.get("x:jobs:m") == ({f"{steps[-1]}\0a": 0} if steps[-1] else None)
    assert keyspace["x:jobs:attempts"] == {"a": 0}


@pytest.mark.parametrize("steps", [["review", None, "done"], [None, "review", None], [None, "done"]])
async def test_created_and_deleted_in_one_run(scripts: Scripts, datastore: Datastore, steps: list[str | None]) -> None:
    if steps[0] is None:
        await scripts.create(metadata={"status": "review", "old": 1})
    outcomes = await datastore.run([create_or_delete(scripts, step) for step in steps])
    assert [outcome.word for outcome in outcomes] == ["ok"] * len(steps)
    keyspace = await snapshot(scripts.raw)
    if steps[-1]:
        assert keyspace["s:jobs:done"] == {"a": NOW_MS}
        assert "m:old" not in keyspace["i:jobs:a"]
    else:
        assert keyspace == {}


# Wake messages


@pytest.mark.parametrize(
    ("topic", "calls"),
    [
        ("ready:other", lambda bench: [bench.calls.create("other", "a", metadata=WAITING)]),
        ("ready:jobs", lambda bench: [bench.calls.release(KEY, "held", bench.token)]),
        ("ready:jobs", lambda bench: [bench.calls.release(KEY, "held", bench.token), *WRITES["settle"](bench)[2:]]),
        ("ready:jobs", lambda bench: [bench.calls.update(KEY, "held", metadata=WAITING)]),
        ("outbox", lambda bench: [bench.calls.update(KEY, "waits", metadata={"n": 1})]),
        ("outbox", lambda bench: [bench.calls.delete(KEY, "waits")]),
    ],
)
async def test_who_waits_is_woken(
    scripts: Scripts, bench: Bench, datastore: Datastore, topic: str, calls: Callable[[Bench], list[Call]]
) -> None:
    if topic == "ready:jobs":
        await scripts.update("waits", metadata={"status": "review"}, triggers=False)
    async with datastore.wakes.listening(topic) as woken:
        await scripts.run(*calls(bench))
        await asyncio.wait_for(woken.wait(), 10)
