"""plain: the short way leaves the same as the long one, which a trigger of the key that never fires makes it take."""

from __future__ import annotations

from typing import Any

import pytest

from hookline import Datastore
from hookline.outcome import Claimed, Outcome
from scripts import URL, Scripts, snapshot

SHORT, LONG = "short", "long"
METADATA: list[dict[str, Any]] = [
    {},
    {"status": "not_started"},
    {"status": "not_started", "type": "r", "priority": 0, "attempts": 0},
    {"status": "not_started", "max_attempts": 3, "last_error": "of before", "nested": {"a": [1, None, {}]}},
    {"note": "no status"},
]
RESULTS: list[dict[str, Any]] = [{}, {"rows": 3, "type": "other"}, {"completed_at": "2020-01-01T00:00:00Z"}]


async def live(scripts: Scripts, key: str, generation: int, result: dict[str, Any]) -> list[Any]:
    """What becomes of an item of each metadata: created, claimed two at a time, completed, one again in vain."""
    make, told = scripts.calls, []
    creates = [make.create(key, f"{n}", content=[n], metadata=metadata) for n, metadata in enumerate(METADATA)]
    told += await scripts.run(*creates, generation=generation)
    scripts.clock.advance(10)
    claims = [make.claim(key, worker_id="w", limit=2, lock_for="1m")] * 2
    claimed = await scripts.run(*claims, generation=generation)
    told += claimed
    scripts.clock.advance(10)
    items = [item for each in claimed for item in each.items]
    ends = [make.complete(key, item.sort_field, item.token, metadata=result) for item in items]
    told += await scripts.run(*ends, ends[0], generation=generation)
    return [unkeyed(each) for each in told]


def unkeyed(told: Outcome | Claimed) -> Any:
    """What was told, without the name of the key and what is made of it."""
    if isinstance(told, Claimed):
        items = [(item.sort_field, item.to_dict() | {"key": "", "token": ""}) for item in told.items]
        return items, told.next_ms, told.more
    return told.word, told.sort_field, told.version, told.status, told.item and told.item.to_dict() | {"key": ""}


def of_key(keyspace: dict[str, Any], key: str) -> dict[str, Any]:
    """The sets and hashes of a key, without its name and without tokens, which depend on it."""
    found = {
        name.replace(key, "", 1): value for name, value in keyspace.items() if f"{name}:".split(":")[1].startswith(key)
    }
    for name, value in found.items():
        if name.startswith("i:") and "tk" in value:
            found[name] = value | {"tk": value["tk"].partition(".")[0]}
    return found


@pytest.mark.parametrize("result", RESULTS)
async def test_both_ways_leave_the_same(scripts: Scripts, datastore: Datastore, result: dict[str, Any]) -> None:
    await datastore.configure(LONG, trigger_urls=[{"url": URL, "events": ["deleted"]}])
    start = scripts.clock.ms
    told = await live(scripts, SHORT, 0, result)
    scripts.clock.ms = start
    assert await live(scripts, LONG, 1, result) == told
    keyspace = await snapshot(scripts.raw)
    ways = of_key(keyspace, SHORT), {name: of for name, of in of_key(keyspace, LONG).items() if name != "cfg:"}
    assert ways[0] == ways[1]
    assert len(ways[0]["s::completed"]) == 3


async def test_two_claims_with_and_without_a_filter_take_each_item_once(scripts: Scripts) -> None:
    make = scripts.calls
    await scripts.run(*[make.create(SHORT, f"{n}", metadata={"status": "not_started", "n": n}) for n in range(9)])
    claims = [
        make.claim(SHORT, worker_id=f"{n}", limit=2, where={"n": {"gte": 0}} if n % 2 else None) for n in range(6)
    ]
    taken = [item.sort_field for each in await scripts.run(*claims) for item in each.items]
    assert sorted(taken) == [f"{n}" for n in range(9)]
