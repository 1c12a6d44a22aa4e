"""The reference: what Hookline promises of items, written again in plain Python, without a store.

Times are milliseconds. The model has a clock of its own, and takes over the tokens that the store has given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hookline.calls import UNSET
from hookline.clock import CURRENT_TIMESTAMP, format_time, parse_duration, parse_time
from hookline.keys import partition_of
from model.item import TIMES, Answer, Change, Filters, Item, Settle, Shown, matches, resolve

TERMINAL = ("completed", "failed", "cancelled")
WAITING = ("not_started", "scheduled")
TALLIES = ("crashed_attempts", "failed_attempts", "released_attempts")
DEFAULTS: dict[str, Any] = {
    "max_attempts": 10,
    "lock_for": "10m",
    "backoff": {"first": "5s", "longest": "1h"},
    "paused": None,
    "max_length": None,
    "indexes": None,
}
"""The settings of a key that has none of its own, as :meth:`hookline.Datastore.configure` takes them."""


class Model:
    """All items of a namespace, and the verbs. A verb answers as the store must."""

    def __init__(self, partitions: int, now: int) -> None:
        self.partitions = partitions
        self.now = now
        self.items: dict[tuple[str, str], Item] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.ended: set[str] = set()
        """The tokens of all claims that have ended."""

    # Looking

    def setting(self, key: str, name: str) -> Any:
        own = self.settings.get(key, {}).get(name)
        return DEFAULTS[name] if own is None else own

    def partition(self, key: str, sort_field: str) -> int:
        return partition_of(key, sort_field, self.partitions)

    def of_status(self, key: str, status: str | None, partition: int | None = None) -> list[Item]:
        """The items of a status in their order; of one partition, or of all."""
        found = [item for item in self.items.values() if item.key == key and item.status == status]
        return sorted(
            (i for i in found if partition is None or self.partition(key, i.sort_field) == partition), key=Item.order
        )

    def of_key(self, key: str) -> list[Item]:
        """The items of a key by their sortFields."""
        found = [item for item in self.items.values() if item.key == key]
        return sorted(found, key=lambda item: item.sort_field.encode())

    def value(self, item: Item, name: str) -> Any:
        """What a declared index goes by; None where the item has no value of its kind."""
        if name == "updatedAt":
            return item.updated
        found, kind = item.metadata.get(name), self.setting(item.key, "indexes")[name]
        if kind == "time" and name not in TIMES:
            return parse_time(found) if isinstance(found, str) else None
        return found

    def live(self, item: Item) -> bool:
        return item.status == "started" and item.metadata.get("locked_until", 0) > self.now

    def meets(self, item: Item, where: Filters | None) -> bool:
        return matches({**item.metadata, "version": item.version}, where, self.now)

    def exhausted(self, item: Item) -> bool:
        most = item.metadata.get("max_attempts", self.setting(item.key, "max_attempts"))
        return bool(0 < most <= item.metadata.get("attempts", 0))

    def answer(self, word: str, item: Item, *, claims: bool = False) -> Answer:
        return Answer(word, item.show(), item.status, item.metadata.get("locked_until"), claims)

    def learn(self, key: str, sort_field: str, version: int, token: str) -> None:
        """Take note of the token of a claim that made this version: it names it, and was never there before."""
        assert token.startswith(f"{version}.")
        assert token not in self.ended | {item.token for item in self.items.values()}
        item = self.items.get((key, sort_field))
        if item is not None and item.token == f"{version}.":
            item.token = token
        else:
            self.ended.add(token)

    # Steps of a change

    def _open(self, item: Item) -> None:
        """Before an item is changed in a call."""
        if item.before is None:
            item.before, item.waited = item.line(), None

    def flush(self) -> None:
        """At the end of a call: what has moved stands where it was put last."""
        for item in self.items.values():
            if item.before is not None and item.before != item.line():
                item.place = item.waited or 0
            item.before = item.waited = None

    def _advance(self, item: Item) -> None:
        item.version += 1
        item.updated = self.now

    def _leave(self, item: Item) -> None:
        """The claim, if there is one, ends."""
        if item.token is not None:
            self.ended.add(item.token)
        item.token = None
        item.put("locked_until", None)

    def _wait(self, item: Item, ready: int, place: int) -> None:
        self._leave(item)
        item.put("worker_id", None)
        item.put("started_at", None)
        later = ready > self.now
        item.put("status", "scheduled" if later else "not_started")
        item.ready = ready if later else self.now
        item.waited = 0 if later else place

    def _take(self, item: Item) -> None:
        if item.token is not None:
            self.ended.add(item.token)
        self._advance(item)
        item.put("status", "started")
        item.tally("attempts")
        item.token = f"{item.version}."

    def _bury(self, item: Item) -> None:
        self.counts[item.key, "expired_locks"] += 1
        item.tally("crashed_attempts")
        self._leave(item)
        item.put("status", "failed")
        item.put("last_error", "lock expired")
        self._advance(item)

    def _promote(self, item: Item) -> None:
        self._open(item)
        item.put("status", "not_started")
        self._advance(item)

    def _default_lock(self, key: str) -> int:
        return self.now + parse_duration(self.setting(key, "lock_for"))

    def _write(self, item: Item, change: Change) -> None:
        """Merge metadata, or replace it whole; replace content."""
        if change.replace:
            kept = {"locked_until": item.metadata.get("locked_until")}
            item.metadata = {name: value for name, value in kept.items() if value is not None}
        for name, value in change.metadata.items():
            if value is not None and name in TIMES:
                item.put(name, resolve(value, self.now))
            elif value == CURRENT_TIMESTAMP:
                item.put(name, format_time(self.now))
            elif value is not None or not change.replace:
                item.put(name, value)
        if change.content is not UNSET:
            item.content = change.content

    def _write_claim(self, item: Item, change: Change, stay: tuple[str, ...]) -> None:
        """A claim locks in any case, and what it must not write stays."""
        kept = {name: item.metadata.get(name) for name in stay}
        item.put("locked_until", None)
        self._write(item, change)
        for name, value in kept.items():
            item.put(name, value)
        item.metadata.setdefault("locked_until", self._default_lock(item.key))

    def _arrive(self, item: Item, change: Change, left: str | None, place: int) -> None:
        """The engine's own fields follow the status that the item now has."""
        sent = {name for name, value in change.metadata.items() if value is not None}
        if item.status in WAITING:
            asked = change.metadata.get("status") == "not_started" and "scheduled_at" not in sent
            if asked and item.metadata.get("scheduled_at", 0) > self.now:
                item.put("scheduled_at", None)
            if left in TERMINAL and "attempts" not in sent:
                item.put("attempts", None)
            if left in TERMINAL and "completed_at" not in sent:
                item.put("completed_at", None)
            item.metadata.setdefault("attempts", 0)
            timeless = item.status == "scheduled" and "scheduled_at" not in item.metadata
            if left != item.status or "scheduled_at" in sent or timeless:
                self._wait(item, item.metadata.get("scheduled_at", 0), place)
            else:
                self._leave(item)
                item.put("worker_id", None)
                item.put("started_at", None)
        elif item.status != "started":
            self._leave(item)
            if item.status == "completed":
                item.metadata.setdefault("completed_at", self.now)

    # Verbs on one item

    def refusal(self, item: Item, change: Change) -> str | None:
        """The refusal that any write meets, whatever the status."""
        if change.match is not None and change.match != item.version:
            return "precondition_failed"
        if change.version is not None and change.version != item.version:
            return "version_conflict"
        if not self.meets(item, change.only_if):
            return "precondition_failed"
        if change.token is not None and change.token != item.token:
            self.counts[item.key, "lost_locks"] += 1
            return "cancelled" if item.status == "cancelled" else "stale_token"
        return None

    def create(self, key: str, sort_field: str, change: Change, place: int = 1) -> Answer:
        item = self.items.get((key, sort_field))
        if item is not None:
            return self.update(key, sort_field, change, place) if change.replace else self.answer("exists", item)
        if change.match is not None:
            return Answer("precondition_failed")
        if change.version is not None:
            return Answer("not_found")
        partition, most = self.partition(key, sort_field), self.setting(key, "max_length")
        held = sum(other[0] == key and self.partition(*other) == partition for other in self.items)
        if most is not None and held >= -(-most // self.partitions):
            return Answer("key_full")
        item = self.items[key, sort_field] = Item(key, sort_field, 1, self.now, self.now)
        item.before = ()
        self._write(item, change)
        if item.status == "started":
            item.version = 0
            item.metadata.setdefault("locked_until", self._default_lock(key))
            item.metadata.setdefault("started_at", self.now)
            self._take(item)
        else:
            self._arrive(item, change, None, place)
        return self.answer("ok", item, claims=item.status == "started")

    def update(self, key: str, sort_field: str, change: Change, place: int = 1) -> Answer:
        item = self.items.get((key, sort_field))
        if item is None:
            return Answer("not_found")
        refused = self.refusal(item, change)
        if refused:
            if change.metadata.get("status") == "started" and change.token is None:
                self.counts[key, "refused_claims"] += 1
            return self.answer(refused, item)
        self._open(item)
        if change.metadata.get("status") == "started":
            refused = None if self._holds(item, change) else self._claim_refusal(item, change)
            if refused:
                self.counts[key, "refused_claims"] += 1
                return self.answer(refused, item)
            if not self._holds(item, change):
                self._start(item, change)
                return self.answer("ok", item, claims=True)
            self._extend(item, change)
        elif self._meddles(item, change):
            return self.answer("locked", item)
        else:
            left = item.status
            self._write(item, change)
            self._arrive(item, change, left, place)
            self._advance(item)
        return self.answer("ok", item)

    def delete(self, key: str, sort_field: str, change: Change) -> Answer:
        item = self.items.get((key, sort_field))
        if item is None:
            return Answer("not_found")
        refused = self.refusal(item, change)
        if refused:
            return self.answer(refused, item)
        answer = self.answer("ok", item)
        self._leave(item)
        del self.items[key, sort_field]
        return answer

    def _holds(self, item: Item, change: Change) -> bool:
        """Whether an update to ``started`` comes from who holds the item."""
        if item.status != "started" or change.token is not None:
            return item.status == "started"
        worker = item.metadata.get("worker_id")
        named = change.version is not None and worker is not None and change.metadata.get("worker_id") == worker
        return named and self.live(item)

    def _claim_refusal(self, item: Item, change: Change) -> str | None:
        if self.setting(item.key, "paused"):
            return "paused"
        if self.live(item):
            return "locked"
        if item.status == "started" and self.exhausted(item):
            return "not_claimable"
        early = item.status == "scheduled" and item.ready > self.now
        return "not_claimable" if change.version is None and (item.status in TERMINAL or early) else None

    def _meddles(self, item: Item, change: Change) -> bool:
        """Whether an update touches a claim that is not its own."""
        sent = change.metadata
        if item.status != "started":
            return False
        if sent.get("worker_id") is not None and sent["worker_id"] != item.metadata.get("worker_id"):
            return True
        shown = change.token is not None or change.version is not None or "status" in sent or change.replace
        touched = "locked_until" in sent or ("worker_id" in sent and sent["worker_id"] is None)
        return touched and not shown and self.live(item)

    def _extend(self, item: Item, change: Change) -> None:
        """By its holder: a new version only if more than the lock has changed."""
        before = {**item.metadata, "locked_until": None}, item.content
        self._write_claim(item, change, ("worker_id", "started_at", "attempts", *TALLIES))
        if ({**item.metadata, "locked_until": None}, item.content) != before:
            self._advance(item)

    def _start(self, item: Item, change: Change) -> None:
        """A claim by update."""
        if item.status == "started":
            self.counts[item.key, "expired_locks"] += 1
            item.tally("crashed_attempts")
        for name in ("worker_id", "started_at", *(("completed_at",) if item.status in TERMINAL else ())):
            item.put(name, None)
        self._write_claim(item, change, ("attempts", *TALLIES))
        item.metadata.setdefault("started_at", self.now)
        self._take(item)

    # Claims

    def settle(self, settle: Settle, place: int = 1) -> Answer:
        item = self.items.get((settle.key, settle.sort_field))
        if item is None:
            return Answer("not_found")
        refused = self.refusal(item, Change(token=settle.token))
        if refused:
            return self.answer(refused, item)
        self._open(item)
        if settle.verb == "extend":
            wait = self.setting(item.key, "lock_for") if settle.wait is None else settle.wait
            item.put("locked_until", self.now + parse_duration(wait))
            return self.answer("ok", item)
        self._write(item, Change(settle.metadata))
        {"complete": self._complete, "fail": self._fail, "release": self._release}[settle.verb](item, settle, place)
        self._advance(item)
        return self.answer("ok", item)

    def _complete(self, item: Item, _settle: Settle, _place: int) -> None:
        self._leave(item)
        item.put("status", "completed")
        item.metadata.setdefault("completed_at", self.now)

    def _fail(self, item: Item, settle: Settle, place: int) -> None:
        item.tally("failed_attempts")
        item.put("last_error", "no luck")
        if self.exhausted(item):
            self._leave(item)
            item.put("status", "failed")
        else:
            ready = self.now + self._backoff(item, settle)
            item.put("scheduled_at", ready)
            self._wait(item, ready, place)

    def _backoff(self, item: Item, settle: Settle) -> int:
        """How long a failed item waits."""
        if settle.wait is not None:
            return parse_duration(settle.wait)
        rule, attempts = self.setting(item.key, "backoff"), max(1, item.metadata.get("attempts", 1))
        if isinstance(rule, Mapping):
            first, longest = parse_duration(rule["first"]), parse_duration(rule["longest"])
            return int(min(longest, first * 2 ** (attempts - 1)) * settle.jitter)
        delays = rule if isinstance(rule, list) else [rule]
        return parse_duration(delays[min(attempts, len(delays)) - 1])

    def _release(self, item: Item, settle: Settle, place: int) -> None:
        delay = 0 if settle.wait is None else parse_duration(settle.wait)
        item.put("attempts", max(0, item.metadata.get("attempts", 1) - 1))
        item.tally("released_attempts")
        if delay:
            item.put("scheduled_at", self.now + delay)
        self._wait(item, self.now + delay, place)

    def take(
        self, key: str, worker: str, limit: int, lock_for: str | None, where: Filters | None, first: int
    ) -> tuple[list[tuple[str, Shown]], int | None]:
        """A claim that begins with partition ``first`` -> what it gives, and when there may be more."""
        given: list[tuple[str, Shown]] = []
        dues: list[int] = []
        for step in range(self.partitions):
            if len(given) < limit:
                partition = (first + step) % self.partitions
                found, due = self.take_from(key, worker, limit - len(given), lock_for, where, partition)
                given += found
                dues += [due] if due is not None else []
        return given, min(dues, default=None)

    def take_from(
        self, key: str, worker: str, limit: int, lock_for: str | None, where: Filters | None, partition: int
    ) -> tuple[list[tuple[str, Shown]], int | None]:
        """A claim of one partition: the due ones get in line, then expired locks in order, then the line."""
        if self.setting(key, "paused"):
            return [], None
        for item in self.of_status(key, "scheduled", partition):
            if item.ready <= self.now:
                self._promote(item)
        self.flush()
        given: list[Item] = []
        for item in self.of_status(key, "started", partition) + self.of_status(key, "not_started", partition):
            if len(given) == limit or self.live(item) or not self.meets(item, where):
                continue
            if item.status == "started" and self.exhausted(item):
                self._bury(item)
            else:
                self._give(item, worker, lock_for)
                given.append(item)
        self.flush()
        ends = [item.metadata["locked_until"] for item in given]
        ends += [item.ready for item in self.of_status(key, "scheduled", partition)]
        ends += [i.metadata["locked_until"] for i in self.of_status(key, "started", partition) if self.live(i)]
        due = None if len(given) == limit else min(ends, default=None)
        return [(item.sort_field, item.show()) for item in given], due

    def _give(self, item: Item, worker: str, lock_for: str | None) -> None:
        self._open(item)
        if item.status == "started":
            item.tally("crashed_attempts")
            self.counts[item.key, "expired_locks"] += 1
        until = self._default_lock(item.key) if lock_for is None else self.now + parse_duration(lock_for)
        item.metadata |= {"worker_id": worker, "started_at": self.now, "locked_until": until}
        self._take(item)

    def exchange(
        self, settles: list[Settle], key: str, worker: str, limit: int, where: Filters | None, first: int
    ) -> tuple[list[Answer], list[tuple[str, Shown]], int | None]:
        """Settle, and claim in the same call of a partition; then of all, ``first`` and those after it."""
        places: Counter[int] = Counter()
        answers: list[Answer] = []
        for settle in settles:
            partition = self.partition(settle.key, settle.sort_field)
            places[partition] += 1
            answers.append(self.settle(settle, places[partition]))
        self.flush()
        begin = self.partition(settles[0].key, settles[0].sort_field) if settles else first
        given, due = self.take_from(key, worker, limit, None, where, begin)
        if len(given) < limit and self.partitions > 1:
            rest, due = self.take(key, worker, limit - len(given), None, where, first)
            given += rest
        return answers, given, due

    # All items

    def sweep(self) -> None:
        """What is due gets in line, exhausted locks are buried: of every key."""
        for item in self.items.values():
            if item.status == "scheduled" and item.ready <= self.now:
                self._promote(item)
            elif item.status == "started" and not self.live(item) and self.exhausted(item):
                self._bury(item)
        self.flush()

    def set_status(self, key: str, left: str, where: Filters | None, status: str) -> int:
        """Redrive or cancel what matches -> how many."""
        places: Counter[int] = Counter()
        changed = 0
        for item in self.of_status(key, left):
            if self.meets(item, where):
                partition = self.partition(key, item.sort_field)
                places[partition] += 1
                change = Change({"status": status}, version=item.version)
                changed += self.update(key, item.sort_field, change, places[partition]).word == "ok"
        self.flush()
        return changed
