"""What the writing scripts share: replay of a lost answer, the settings' generation, batches, the memory limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as aioredis
from conftest import NOW_MS
from hookline import Datastore
from hookline.calls import Call, Claimed
from hookline.codec import pack
from hookline.errors import StoreFull
from scripts import KEEP_MS, KEY, TAG, URL, Scripts, at, calling, line, snapshot, unchanged

WAITING = {"status": "not_started"}
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
    assert (completed.word, completed.version, completed.status) == ("ok", 3, "review")


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
    await scripts.run(*(scripts.calls.update(KEY, "a", metadata={"n": n, "status": s}) for n, s in ((2, "x"), (1, "review"))))
    after = await snapshot(scripts.raw)
    assert after == {**before, "i:jobs:a": {**before["i:jobs:a"], "v": "3"}}


def operation(scripts: Scripts, verb: str) -> Call:
    """A creation or deletion of item `a` that one script could run with others of its kind: by the upsert's script."""
    return {"create": scripts.calls.create, "delete": scripts.calls.delete}[verb](KEY, "a")


MIXED = """#!lua
-- keys: partition
-- args: now_ms:int call_id request:msgpack
-- use: outcome clock item lock call change

return call.run(function(operation, place)
  local record = item.load(operation.key, operation.sort)
  if operation.kind == 'create' then
    return record.exists and call.refuse(outcome.exists, record) or change.create(record, operation, place)
  elseif not record.exists then
    return { outcome.not_found, false, false }
  end
  item.open(record)
  call.commit(record, operation, 'deleted')
  item.clear(record)
  return { outcome.ok, false, false }
end)
"""
