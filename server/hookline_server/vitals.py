"""What a server tells of itself at one moment, by ``/metrics`` and ``/v1/workers``; two moments make rates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from hookline import transport
from hookline.clock import format_time
from hookline.flow import Request
from hookline.registry import Workers, read_workers
from hookline.syncsession import SyncSession

PATIENCE = 5.0
"""Seconds for an answer: the store has two of them before the server tells that it is away."""
PACE = ("create", "claim", "complete", "fail")
"""Verbs whose rates are told."""
Samples = dict[str, list[tuple[Mapping[str, str], float]]]
_LOCKS = {"expired": "hookline_expired_locks", "lost": "hookline_lost_locks", "refused": "hookline_refused_claims"}


@dataclass
class KeyVitals:
    """A key: items by status, how many can be claimed now, how long the oldest of them has waited in seconds.

    ``locks`` are held now, and have expired, were lost, or refused a claim since the key is there. ``completed`` is by
    how many completed items it has more each second, less those that were removed; None without an earlier moment.
    """

    namespace: str
    key: str
    statuses: dict[str, int] = field(default_factory=dict)
    claimable: int = 0
    oldest: float = 0.0
    paused: bool = False
    locks: dict[str, int] = field(default_factory=dict)
    completed: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it reads in JSON."""
        shown = {"namespace": self.namespace, "key": self.key, "statuses": self.statuses, "claimable": self.claimable}
        shown |= {"oldestAge": self.oldest, "paused": self.paused, "locks": self.locks}
        return shown | {"completedPerSecond": self.completed}


@dataclass
class Vitals:
    """A server at one moment: ``at`` is RFC 3339, ``clock`` counts seconds between moments.

    ``operations`` are those since the server began, by verb; ``rates`` are per second, None without an earlier moment.
    ``stores`` says of each namespace whether its store answered. ``outbox`` and ``lag`` (seconds) are of the webhook
    events that are not done, ``deliveries`` of those that did not succeed at once, by state.
    """

    url: str
    at: str
    clock: float
    version: str = ""
    processes: int = 0
    operations: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] | None = None
    stores: dict[str, bool] = field(default_factory=dict)
    keys: list[KeyVitals] = field(default_factory=list)
    keys_left_out: int = 0
    outbox: int = 0
    lag: float = 0.0
    deliveries: dict[str, int] = field(default_factory=dict)
    workers: Workers = field(default_factory=Workers)

    def since(self, before: Vitals) -> Self:
        """This moment, with the rates since an earlier one; none where a count has fallen: then the server is new."""
        seconds = self.clock - before.clock
        gone = {verb: self.operations.get(verb, 0) - before.operations.get(verb, 0) for verb in PACE}
        if seconds > 0 and min(gone.values()) >= 0:
            self.rates = {verb: round(count / seconds, 1) for verb, count in gone.items()}
        known = {(key.namespace, key.key): key.statuses.get("completed", 0) for key in before.keys}
        for key in self.keys:
            if seconds > 0 and (key.namespace, key.key) in known:
                more = key.statuses.get("completed", 0) - known[key.namespace, key.key]
                key.completed = round(more / seconds, 1)
        return self

    def to_dict(self) -> dict[str, Any]:
        """As it reads in JSON."""
        return {
            "at": self.at,
            "url": self.url,
            "up": True,
            "version": self.version,
            "processes": self.processes,
            "stores": self.stores,
            "operations": self.operations,
            "rates": self.rates,
            "keys": [key.to_dict() for key in self.keys],
            "keysLeftOut": self.keys_left_out,
            "outbox": {"events": self.outbox, "lag": self.lag},
            "deliveries": self.deliveries,
            "workers": [worker.to_dict() for worker in self.workers],
            "workersLeftOut": self.workers.left_out,
        }


class Monitor:
    """Asks a server how it is."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        server = transport.Http(url, api_key=api_key, timeout=PATIENCE)
        self.url = server.url
        self._session = SyncSession(server, server.connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def look(self) -> Vitals:
        """The server now.

        Raises:
            Unavailable: no server answers.
            MissingScope: the API key may not see the figures of a server.
        """
        vitals = Vitals(self.url, format_time(time.time_ns() // 1_000_000), time.monotonic())
        _read(vitals, _samples(self._get("/metrics").decode()))
        if all(vitals.stores.values()):
            vitals.workers = read_workers(self._session.send(Request("GET", "/v1/workers", harmless=True)).data)
        return vitals

    def _get(self, path: str) -> bytes:
        request = Request("GET", path, harmless=True)
        status, content = self._session.ask(request)
        if status != HTTPStatus.OK:
            transport.read(request, self.url, status, content)
        return content


def _samples(page: str) -> Samples:
    """A page of figures -> labels and value of each, by name."""
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name.removesuffix("_total"), []).append((sample.labels, sample.value))
    return found


def _read(vitals: Vitals, samples: Samples) -> None:
    def rows(name: str) -> Iterator[tuple[Mapping[str, str], int]]:
        return ((labels, int(value)) for labels, value in samples.get(name, ()))

    vitals.version = next((labels["version"] for labels, _ in rows("hookline_build_info")), "")
    vitals.processes = sum(value for _, value in rows("hookline_processes"))
    vitals.operations = {labels["verb"]: value for labels, value in rows("hookline_operations")}
    vitals.stores = {labels["namespace"]: value == 1 for labels, value in rows("hookline_store_up")}
    vitals.keys_left_out = sum(value for _, value in rows("hookline_keys_left_out"))
    vitals.outbox = sum(value for _, value in rows("hookline_outbox_events"))
    vitals.lag = max((value for _, value in samples.get("hookline_outbox_lag_seconds", ())), default=0.0)
    for labels, value in rows("hookline_deliveries"):
        vitals.deliveries[labels["state"]] = vitals.deliveries.get(labels["state"], 0) + value
    vitals.keys = sorted(
        _keys(samples), key=lambda each: (-each.claimable - each.locks["held"], each.namespace, each.key)
    )


def _keys(samples: Samples) -> list[KeyVitals]:
    def by_key(name: str) -> dict[tuple[str, str], float]:
        return {(labels["namespace"], labels["key"]): value for labels, value in samples.get(name, ())}

    keys: dict[tuple[str, str], KeyVitals] = {}
    for labels, value in samples.get("hookline_items", ()):
        name = labels["namespace"], labels["key"]
        keys.setdefault(name, KeyVitals(*name)).statuses[labels["status"]] = int(value)
    claimable, oldest = by_key("hookline_claimable_items"), by_key("hookline_claimable_age_seconds")
    paused, locks = by_key("hookline_key_paused"), {word: by_key(name) for word, name in _LOCKS.items()}
    for name, found in keys.items():
        found.claimable, found.oldest = int(claimable.get(name, 0)), oldest.get(name, 0.0)
        found.paused = paused.get(name) == 1
        found.locks = {"held": found.statuses.get("started", 0)}
        found.locks |= {word: int(counts.get(name, 0)) for word, counts in locks.items()}
    return list(keys.values())
