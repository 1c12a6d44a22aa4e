"""Names in the store, and which slot and partition they lie in."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st

from hookline import EmbeddedStore, keys
from process import free_port


def tags(namespace: str, partitions: int) -> list[str]:
    return [keys.partition_tag(namespace, partition, partitions) for partition in range(partitions)]


def hash_tag(name: str) -> str:
    """What a cluster hashes: the text between the first ``{`` and the next ``}``."""
    return name.partition("{")[2].partition("}")[0]


async def test_slots_are_those_of_a_real_cluster(tmp_path: Path) -> None:
    config = ["cluster-enabled yes", f"port {free_port()}", f"cluster-port {free_port()}"]
    async with (
        EmbeddedStore(tmp_path, fsync="no", extra_config=config) as store,
        aioredis.Redis.from_url(store.url, protocol=2) as client,
    ):
        for tag in [*tags("default", 1), *tags("default", 16), *tags("tenant_1-x", 16)]:
            for name in (f"{tag}:i:jobs:a{{b}}c", f"{tag}:outbox", keys.wake_channel(tag)):
                assert await client.cluster("KEYSLOT", name) == keys.slot(hash_tag(tag))
        assert await client.cluster("KEYSLOT", "123456789") == keys.slot("123456789") == 0x31C3


@pytest.mark.parametrize("partitions", [1, 2, 3, 8, 16, 256])
@pytest.mark.parametrize("namespace", ["default", "a", "x" * 64])
def test_partitions_spread_over_the_slots(namespace: str, partitions: int) -> None:
    found = [keys.slot(hash_tag(tag)) for tag in tags(namespace, partitions)]
    assert found == sorted(found)
    assert [slot * partitions // keys.SLOTS for slot in found] == [*range(partitions)]
    assert all(tag.startswith(f"hl:{{{namespace}/") and tag.endswith("}") for tag in tags(namespace, partitions))


def test_names_that_are_on_disk_already() -> None:
    """Where an item lies must not change from release to release."""
    assert tags("default", 1) == ["hl:{default/0}"]
    assert tags("default", 4) == ["hl:{default/0.1}", "hl:{default/1.3}", "hl:{default/2.1}", "hl:{default/3.3}"]
    assert [keys.partition_of("jobs", name, 16) for name in ("a", "b", "é", "job-001")] == [10, 9, 13, 6]
    assert keys.meta("default") == "hl:default:meta"
    assert keys.api_keys_of("meta") != keys.meta("api-keys")
    assert keys.wake_channel("hl:{default/0}") == "hl:{default/0}:wake"


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 256))
def test_every_item_has_a_partition(sort_field: str, partitions: int) -> None:
    assert 0 <= keys.partition_of("jobs", sort_field, partitions) < partitions


def test_items_spread_over_the_partitions() -> None:
    counts = [0] * 16
    for n in range(16_000):
        counts[keys.partition_of("jobs", f"job-{n:05}", 16)] += 1
    assert all(800 < count < 1200 for count in counts)
