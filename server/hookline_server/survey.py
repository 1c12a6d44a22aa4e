"""What the store holds, as figures: read at a scrape, at a cost that has a bound however many keys there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from hookline import Datastore
from hookline.depth import COUNTS, Depth, Depths, key_names, read_depths
from hookline.errors import HooklineError
from hookline.figures import OTHER, Family, Labels
from hookline_server.endpoint import ACTIVE, DELIVERIES, DISABLED, ENDPOINTS, PAUSED

KEYS_MAX = 100
"""Keys of a namespace that are told of one by one: a label may not have any number of values."""
NAMESPACES_MAX = 50
"""Namespaces that are told of, by name."""
LANES_MAX = 300
"""Endpoints that deliveries are kept for, of which the sums are told."""
_PATIENCE = 2.0
"""Seconds that the store may take: a scrape has a deadline, and what the processes have counted needs no store."""

_KEY = ("namespace", "key")
_NAMESPACE = ("namespace",)
_UP = Family("gauge", "hookline_store_up", "1 if the store answered this scrape in time, else 0", _NAMESPACE)
_USED = Family("gauge", "hookline_store_memory_bytes", "Memory that the store uses, over all nodes")
_LIMIT = Family("gauge", "hookline_store_memory_limit_bytes", "The store's maxmemory over all nodes, 0 for none")
_ITEMS = Family(
    "gauge", "hookline_items", "Items by status; other is a status of the user's own, or none", (*_KEY, "status")
)
_CLAIMABLE = Family("gauge", "hookline_claimable_items", "Items that a worker could claim now; 0 of a paused key", _KEY)
_AGE = Family("gauge", "hookline_claimable_age_seconds", "How long the oldest of them has waited, 0 without any", _KEY)
_PAUSED = Family("gauge", "hookline_key_paused", "1 while the key gives out no claims", _KEY)
_COUNTS = dict(
    zip(
        COUNTS,
        (
            Family("reading", "hookline_refused_claims", "Claims of one item that were refused", _KEY),
            Family("reading", "hookline_lost_locks", "Workers that came back after their claim had ended", _KEY),
            Family("reading", "hookline_expired_locks", "Locks that expired before their holder came back", _KEY),
        ),
        strict=True,
    )
)
_LEFT_OUT = Family("gauge", "hookline_keys_left_out", "Keys that are not told of, at least", _NAMESPACE)
_NAMESPACES_LEFT_OUT = Family("gauge", "hookline_namespaces_left_out", "Namespaces that are not told of")
_OUTBOX = Family("gauge", "hookline_outbox_events", "Webhook events that are not done yet", _NAMESPACE)
_LAG = Family(
    "gauge", "hookline_outbox_lag_seconds", "How long the oldest of them has waited, 0 without any", _NAMESPACE
)
_KEPT = Family(
    "gauge",
    "hookline_deliveries",
    "Deliveries that did not succeed at once: waiting for their time, due, started, or failed for good (dead letters)",
    ("namespace", "state"),
)
_ENDPOINTS = Family(
    "gauge",
    "hookline_endpoints",
    "Endpoints that have failed or were set up: active, open (active, and its breaker is), paused or disabled",
    ("namespace", "state"),
)
_LANES = Family(
    "gauge", "hookline_endpoints_with_deliveries", "Endpoints that such deliveries are kept for", _NAMESPACE
)

Reading = tuple[Family, Labels, float]


async def survey(served: Sequence[Datastore]) -> list[Reading]:
    """Figures of all namespaces; of one whose store does not answer in time only that it does not."""
    found = await asyncio.gather(*map(_patiently, served[:NAMESPACES_MAX]), _memory(served))
    left_out = (_NAMESPACES_LEFT_OUT, (), max(0, len(served) - NAMESPACES_MAX))
    return [left_out, *(reading for readings in found for reading in readings)]


async def _patiently(datastore: Datastore) -> list[Reading]:
    namespace = datastore.settings.namespace
    try:
        async with asyncio.timeout(_PATIENCE):
            return [(_UP, (namespace,), 1), *await _of_namespace(datastore, namespace)]
    except (HooklineError, TimeoutError):
        return [(_UP, (namespace,), 0)]


async def _memory(datastores: Sequence[Datastore]) -> list[Reading]:
    """Of the one store that all namespaces are in."""
    try:
        async with asyncio.timeout(_PATIENCE):
            used, limit = await datastores[0].connection.memory()
    except (HooklineError, TimeoutError, IndexError):
        return []
    return [(_USED, (), used), (_LIMIT, (), limit)]


async def _of_namespace(datastore: Datastore, namespace: str) -> list[Reading]:
    connection, partitions = datastore.connection, datastore.calls.partitions
    names, whole = await key_names(connection, partitions, "r")
    depths = await read_depths(connection, partitions, names[:KEYS_MAX])
    lanes = [name for name in (await key_names(connection, partitions, "r:hookline"))[0] if name.startswith(DELIVERIES)]
    kept = await read_depths(connection, partitions, lanes[:LANES_MAX])
    left_out = max(0, len(names) - KEYS_MAX)
    return [
        (_LEFT_OUT, (namespace,), left_out if whole else max(1, left_out)),
        *_of_keys(namespace, depths),
        *_of_webhooks(namespace, kept, len(lanes)),
        *await _of_endpoints(datastore, namespace),
    ]


def _of_keys(namespace: str, depths: Depths) -> Iterator[Reading]:
    for depth in depths.keys:
        labels = (namespace, depth.key)
        for status, count in depth.statuses.items():
            yield _ITEMS, (*labels, status), count
        yield _ITEMS, (*labels, OTHER), max(0, depth.items - sum(depth.statuses.values()))
        yield _CLAIMABLE, labels, depth.claimable
        yield _AGE, labels, _age(depths, depth.oldest_ms)
        yield _PAUSED, labels, depth.paused
        for name, count in depth.counts.items():
            yield _COUNTS[name], labels, count


def _of_webhooks(namespace: str, kept: Depths, lanes: int) -> Iterator[Reading]:
    yield _OUTBOX, (namespace,), kept.outbox
    yield _LAG, (namespace,), _age(kept, kept.outbox_since_ms)
    yield _LANES, (namespace,), lanes
    held = _sum(kept.keys, "started")
    due = sum(depth.claimable for depth in kept.keys)
    yield _KEPT, (namespace, "waiting"), max(0, _sum(kept.keys, "scheduled") + _sum(kept.keys, "not_started") - due)
    yield _KEPT, (namespace, "due"), due
    yield _KEPT, (namespace, "started"), held
    yield _KEPT, (namespace, "failed"), _sum(kept.keys, "failed")


async def _of_endpoints(datastore: Datastore, namespace: str) -> list[Reading]:
    """Endpoints by state; where there are very many, those with an open breaker as far as one read reaches."""
    wanted: list[dict[str, str]] = [{"status": status} for status in (ACTIVE, PAUSED, DISABLED)]
    wanted.append({"status": ACTIVE, "breaker": "open"})
    counts = await asyncio.gather(*(datastore.count(ENDPOINTS, where=where) for where in wanted))
    active, paused, disabled, broken = (found.count for found in counts)
    states = {ACTIVE: active - broken, "open": broken, PAUSED: paused, DISABLED: disabled}
    return [(_ENDPOINTS, (namespace, state), count) for state, count in states.items()]


def _sum(depths: Iterable[Depth], status: str) -> int:
    return sum(depth.statuses[status] for depth in depths)


def _age(depths: Depths, since_ms: int | None) -> float:
    return 0.0 if since_ms is None else max(0, depths.now_ms - since_ms) / 1000
