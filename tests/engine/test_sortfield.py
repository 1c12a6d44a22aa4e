"""sortFields that the engine makes, and the partitions that it puts items without one into."""

from __future__ import annotations

import random
from collections import Counter
from itertools import groupby

import pytest
import redis.asyncio as aioredis

from hookline import Datastore
from hookline.keys import partition_of
from hookline.sortfield import Spread, new_sort_field
from jobs import WAITING, script_calls

PARTITIONS = 8


@pytest.mark.parametrize("partitions", [1, 2, 3, 16, 100, 256])
def test_a_name_lies_in_the_partition_that_is_asked_for(partitions: int) -> None:
    rng, made = random.Random(partitions), list[str]()
    for n in range(3000):
        key, partition = f"key-{n % 7}", rng.randrange(partitions)
        made.append(new_sort_field(key, partition, partitions))
        assert partition_of(key, made[-1], partitions) == partition
    assert made == sorted(set(made))
    assert {len(name) for name in made} == {25}


def test_a_few_in_a_row_go_together_and_all_partitions_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.sortfield.TOGETHER", 60.0)
    monkeypatch.setattr("hookline.sortfield.TOGETHER_MAX", 10)
    spread = Spread()
    given = [spread.next(PARTITIONS) for _ in range(10 * PARTITIONS * 3)]
    assert [len([*row]) for _, row in groupby(given)] == [10] * PARTITIONS * 3
    assert Counter(given) == dict.fromkeys(range(PARTITIONS), 30)
    monkeypatch.setattr("hookline.sortfield.TOGETHER", 0.0)
    spread = Spread()
    assert sorted(spread.next(PARTITIONS) for _ in range(PARTITIONS)) == [*range(PARTITIONS)]


@pytest.mark.settings(partitions=PARTITIONS)
async def test_items_that_come_at_once_share_calls(
    datastore: Datastore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.sortfield.TOGETHER", 60.0)
    before = await script_calls(raw)
    outcomes = await datastore.run([datastore.calls.create("jobs", metadata=WAITING) for _ in range(320)])
    assert all(outcome.ok for outcome in outcomes)
    # 32 a partition, and at the ends of the row fewer; each as one call, or as two that share them.
    assert await script_calls(raw) - before <= 2 * (320 // 32 + 1)
    held = Counter(datastore.calls.partition("jobs", outcome.sort_field) for outcome in outcomes)
    assert len(held) == PARTITIONS
    assert max(held.values()) - min(held.values()) <= 32
