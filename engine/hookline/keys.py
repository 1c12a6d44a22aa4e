"""Every name in the store, and which partition an item is in. The only braces of a key are made here.

The scripts build the names within a partition from its tag: ``docs/data-model.md`` lists them.
Schema number: raised when a stored form changes so that an older release could misread it; a store of a newer
schema is refused, one of an older schema is migrated by the release that raises the number.
"""

from __future__ import annotations

import binascii
from functools import lru_cache
from itertools import count

SCHEMA = 1
SLOTS = 16384
"""Hash slots of a cluster (Redis Cluster specification)."""
PARTITIONS_MAX = 256


def slot(name: str) -> int:
    """The cluster slot of a name, or of its hash tag: CRC16 (XMODEM) modulo 16384, by the cluster specification."""
    _, opened, rest = name.partition("{")
    tag, closed, _ = rest.partition("}")
    return binascii.crc_hqx((tag if opened and closed and tag else name).encode(), 0) % SLOTS


@lru_cache(maxsize=4096)
def partition_tag(namespace: str, partition: int, partitions: int) -> str:
    """The prefix of all keys of one partition, e.g. ``hl:{default/0}``.

    A suffix is searched so that partition p of P lies in the p-th P-th of the slots: however many nodes share the
    slots in equal ranges, the partitions spread evenly over them.
    """
    low, high = partition * SLOTS // partitions, (partition + 1) * SLOTS // partitions
    tags = (f"{namespace}/{partition}" + (f".{attempt}" if attempt else "") for attempt in count())
    return f"hl:{{{next(tag for tag in tags if low <= slot(tag) < high)}}}"


def partition_pattern(namespace: str) -> str:
    """A pattern of the keys of all partitions that a namespace may ever have had."""
    return f"hl:{{{namespace}/*"


def partition_of(key: str, sort_field: str, partitions: int) -> int:
    """The partition of an item: CRC16 of key NUL sortField, modulo the partitions of its namespace."""
    if partitions == 1:
        return 0
    return binascii.crc_hqx(f"{key}\0{sort_field}".encode(), 0) % partitions


def meta(namespace: str) -> str:
    """The hash with a namespace's schema number, partitions, cursor secret and rotations of its signing secret."""
    return f"hl:{namespace}:meta"


def namespaces() -> str:
    """The sorted set of all namespaces, by when they were last used."""
    return "hl:namespaces"


def api_keys() -> str:
    """The set of the ids of all API keys."""
    return "hl:api-keys"


def api_keys_of(namespace: str) -> str:
    """The set of the ids of a namespace's API keys. ``hl:api-keys:meta`` would be the meta of one named api-keys."""
    return f"hl:api-keys:of:{namespace}"


def secret_mark() -> str:
    """The mark of the secret that the servers of the store share."""
    return "hl:secret-mark"


def api_key(key_id: str) -> str:
    """The hash of an API key."""
    return f"hl:api-key:{key_id}"


def wake_channel(tag: str) -> str:
    """The sharded channel that tells of ready items and new events of a partition: ``ready:<key>``, ``outbox``."""
    return f"{tag}:wake"


def bell(tag: str, key: str) -> str:
    """The sorted set whose entry says that something of a key became ready, until somebody takes it off."""
    return f"{tag}:ready:{key}"


def changed_channel(tag: str) -> str:
    """The sharded channel that names the items of a partition that have changed, by :func:`item_name`."""
    return f"{tag}:changed"


def item_name(tag: str, key: str, sort_field: str) -> str:
    """The name of an item's hash."""
    return f"{tag}:i:{key}:{sort_field}"
