"""Random steps on the store and on the reference beside it: after each they tell the same.

The run is the same every time. With HOOKLINE_TEST_MODEL_EXAMPLES=<n> there are n examples for each number of
partitions, and other ones every time.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from conftest import NOW_MS
from hookline import Call, EmbeddedStore
from hookline.calls import UNSET
from hookline.clock import CURRENT_TIMESTAMP, format_time
from model.item import Answer, Change, Settle
from model.world import KEYS, NAMES, Name, World
from proxy import LOSE_CALL, LOSE_REPLY

EXAMPLES = os.environ.get("HOOKLINE_TEST_MODEL_EXAMPLES")
PLANTED = "HOOKLINE_TEST_SEEDS" in os.environ
"""Then tests/seeded only asks whether something is found: nothing is made smaller."""
STEPS = 40
LIMITS = limits(
    max_examples=int(EXAMPLES or 16),
    stateful_step_count=STEPS,
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    phases=(Phase.generate,) if PLANTED else (Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

STATUSES = ("not_started", "scheduled", "started", "completed", "failed", "cancelled", "review")
PAST = format_time(NOW_MS - 5000)
SOON = (None, PAST, CURRENT_TIMESTAMP, "+5s", "+10s")
USERS = (
    ("kind", ("x", "y", None)),
    ("n", (1, 2, 3, None)),
    ("seen", (CURRENT_TIMESTAMP, {"deep": [1]}, None)),
)
LIMITED = (("priority", (0, 5, 9, None)), ("max_attempts", (0, 1, 2, None)), ("completed_at", (PAST, None)))
ENGINES = (
    ("status", (*STATUSES, None)),
    ("worker_id", ("w1", "w2", None)),
    ("locked_until", SOON),
    ("scheduled_at", SOON),
    ("started_at", (PAST, CURRENT_TIMESTAMP, None)),
    ("attempts", (0, 1, 3, None)),
    ("last_error", ("none yet", None)),
)
SETTINGS: dict[str, tuple[Any, ...]] = {
    "max_attempts": (None, 0, 1, 2),
    "lock_for": (None, "5s"),
    "backoff": (None, ["0s", "5s", "10s"], ["5s", "10s"], {"first": "1s", "longest": "3s"}),
    "max_length": (None, 2, 5),
}
INDEXES: tuple[dict[str, str] | None, ...] = (
    {"n": "number", "kind": "string"},
    {"kind": "string", "updatedAt": "time", "locked_until": "time"},
    {"attempts": "number", "worker_id": "string", "seen": "time"},
    None,
)
FILTERS: tuple[dict[str, Any], ...] = (
    {"kind": "x"},
    {"kind": {"ne": "x"}, "n": {"gte": 2}},
    {"kind": {"in": ["x", "y"]}},
    {"seen": {"exists": True}},
    {"attempts": {"lt": 2}},
    {"version": {"gte": 3}},
    {"worker_id": "w1"},
    {"locked_until": {"lt": CURRENT_TIMESTAMP}},
)


def metadata(*fields: tuple[str, tuple[Any, ...]]) -> st.SearchStrategy[dict[str, Any]]:
    """Up to three of these fields, each with one of its values."""
    one = st.sampled_from(fields).flatmap(lambda field: st.tuples(st.just(field[0]), st.sampled_from(field[1])))
    return st.lists(one, max_size=3).map(dict)


def rarely(*values: Any) -> st.SearchStrategy[Any]:
    """Mostly None."""
    return st.one_of(*[st.none()] * 4, st.sampled_from(values))


KEY = st.sampled_from((KEYS[0], *KEYS))
SORT_FIELD = st.sampled_from(NAMES)
ANY = metadata(*USERS, *LIMITED, *ENGINES, ENGINES[0], ENGINES[0])
RESULTS = metadata(*USERS, *LIMITED)
CONTENT = st.sampled_from((None, "text", {"x": [{}, 1.5]}))
WORKER = st.sampled_from(("w1", "w2"))
WHERE = rarely(*FILTERS, *({"status": status} for status in STATUSES))
OFFSET = rarely(0, 0, 0, -1, 1)
"""Which version a write names, beside the current one."""
TARGET = st.tuples(st.sampled_from((True, True, True, True, True, False)), st.integers(0, 11))
"""Which item is meant: one that is there, or any."""
TOKEN = st.tuples(st.sampled_from(("held", "held", "held", "held", "ended", "foreign")), st.integers(0, 4))
"""Which token is shown."""
WAIT = st.sampled_from((None, None, "0s", "5s"))
ENDING = st.tuples(st.sampled_from(("complete", "fail", "fail", "release", "extend")), TOKEN, WAIT, RESULTS)
PLAIN = RESULTS.map(lambda fields: {"status": "not_started", **fields})
NEW = st.tuples(SORT_FIELD, PLAIN | ANY, st.booleans())


def creatable(fields: dict[str, Any], *, upsert: bool) -> dict[str, Any]:
    """The same, without what is malformed in a create."""
    fields = dict(fields)
    if not upsert:
        fields.pop("attempts", None)
    if fields.get("status") == "scheduled" and not fields.get("scheduled_at"):
        fields["scheduled_at"] = "+5s"
    return fields


class Machine(RuleBasedStateMachine):
    """The steps. Each takes what Hypothesis draws, makes a call, asks the model, and has the world compare."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.world.run(self.world.begin())

    def teardown(self) -> None:
        self.world.run(self.world.end())

    # Creating and changing

    @initialize(
        settings=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SETTINGS.items()}),
        waiting=st.lists(st.tuples(KEY, SORT_FIELD, RESULTS), min_size=3, max_size=9, unique_by=lambda one: one[:2]),
    )
    def begin(self, settings: dict[str, Any], waiting: list[tuple[str, str, dict[str, Any]]]) -> None:
        self.world.run(self.world.configure(KEYS[0], settings))
        for key in KEYS:
            items = [(name, {**fields, "status": "not_started"}, False) for of, name, fields in waiting if of == key]
            self.create_many(key, items)

    @rule(key=KEY, sort_field=SORT_FIELD, fields=ANY, content=CONTENT)
    def create(self, key: str, sort_field: str, fields: dict[str, Any], content: Any) -> None:
        self._write(*self._creation(key, sort_field, fields, content))

    @rule(key=KEY, sort_field=SORT_FIELD, fields=ANY, content=CONTENT, version=OFFSET, match=OFFSET)
    def upsert(
        self, key: str, sort_field: str, fields: dict[str, Any], content: Any, version: int | None, match: int | None
    ) -> None:
        name = (key, sort_field)
        named: dict[str, Any] = {"version": self._version(name, version), "match": self._version(name, match)}
        self._write(*self._creation(key, sort_field, fields, content, upsert=True, **named))

    @rule(
        which=TARGET,
        fields=ANY,
        content=st.just(UNSET) | CONTENT,
        version=OFFSET,
        match=OFFSET,
        token=st.none() | TOKEN,
        only_if=WHERE,
    )
    def update(self, which: tuple[bool, int], fields: dict[str, Any], **named: Any) -> None:
        self._write(*self._update(self._target(which), fields, **named))

    @rule(which=TARGET, worker=WORKER, fields=RESULTS, until=st.sampled_from(SOON), version=OFFSET)
    def start(
        self, which: tuple[bool, int], worker: str, fields: dict[str, Any], until: str | None, version: int | None
    ) -> None:
        fields = {**fields, "status": "started", "worker_id": worker, "locked_until": until}
        self._write(*self._update(self._target(which), fields, version=version))

    @precondition(lambda machine: machine.holds())
    @rule(token=TOKEN, fields=ANY, shows=st.booleans(), version=OFFSET)
    def update_what_is_held(
        self, token: tuple[str, int], fields: dict[str, Any], shows: bool, version: int | None
    ) -> None:
        self._write(*self._update(self._token(token)[0], fields, token=token if shows else None, version=version))

    @rule(which=TARGET, version=OFFSET, token=st.none() | TOKEN, only_if=WHERE)
    def delete(self, which: tuple[bool, int], version: int | None, **named: Any) -> None:
        name = self._target(which)
        change = self._change(name, version=version, **named)
        call = self.world.calls.delete(*name, version=change.version, token=change.token, only_if=change.only_if)
        self._write(call, self.world.model.delete(*name, change))

    @rule(key=KEY, items=st.lists(NEW, min_size=2, max_size=5))
    def create_many(self, key: str, items: list[tuple[str, dict[str, Any], bool]]) -> None:
        places: dict[int, int] = {}
        made: list[tuple[Call, Answer]] = []
        for sort_field, fields, upsert in items:
            place = self._place(places, (key, sort_field))
            made.append(self._creation(key, sort_field, fields, None, upsert=upsert, place=place))
        self._write_all(made)

    @rule(key=KEY, changes=st.lists(st.tuples(SORT_FIELD, ANY), min_size=2, max_size=6), drains=st.booleans())
    def update_many(self, key: str, changes: list[tuple[str, dict[str, Any]]], drains: bool) -> None:
        places: dict[int, int] = {}
        made: list[tuple[Call, Answer]] = []
        draining = ("started", "completed", "failed", "cancelled")
        for sort_field, fields in changes:
            if (fields.get("status") in draining) == drains:
                place = self._place(places, (key, sort_field))
                made.append(self._update((key, sort_field), fields, place=place))
        self._write_all(made)

    # Claims

    @rule(key=KEY, worker=WORKER, limit=st.integers(1, 4), lock_for=st.sampled_from((None, "1s", "5s")), where=WHERE)
    def claim(self, key: str, worker: str, limit: int, lock_for: str | None, where: dict[str, Any] | None) -> None:
        self.world.run(self.world.claim(key, worker, limit, lock_for, where))

    @rule(key=KEY, worker=WORKER, limit=st.integers(1, 4), seconds=st.sampled_from((0, 0, 5, 10)))
    def go_on_and_claim(self, key: str, worker: str, limit: int, seconds: int) -> None:
        self.world.advance(seconds)
        self.world.run(self.world.claim(key, worker, limit, "5s", None))

    @precondition(lambda machine: machine.holds())
    @rule(ending=ENDING)
    def settle_what_is_held(self, ending: tuple[str, tuple[str, int], str | None, dict[str, Any]]) -> None:
        verb, which, wait, results = ending
        self.settle((verb, ("held", which[1]), wait, results))

    @precondition(lambda machine: machine.holds())
    @rule(place=st.integers(0, 4))
    def fail_by_the_rule_of_the_key(self, place: int) -> None:
        self.settle(("fail", ("held", place), None, {}))

    @rule(ending=ENDING)
    def settle(self, ending: tuple[str, tuple[str, int], str | None, dict[str, Any]]) -> None:
        call, settle = self._settle(*ending)
        self._write(call, self.world.model.settle(settle))

    @rule(endings=st.lists(ENDING, max_size=3), key=KEY, worker=WORKER, limit=st.integers(1, 3), where=WHERE)
    def exchange(self, endings: list[Any], key: str, worker: str, limit: int, where: dict[str, Any] | None) -> None:
        made = [self._settle(*ending) for ending in endings]
        calls = [call for call, settle in made if settle.key == key]
        settles = [settle for _, settle in made if settle.key == key]
        self.world.run(self.world.exchange(calls, settles, key, worker, limit, where))

    # Keys and the store

    @rule(seconds=st.sampled_from((0, 5, 10)))
    def go_on_and_sweep(self, seconds: int) -> None:
        self.world.advance(seconds)
        self.world.run(self.world.sweep())

    @rule(
        key=KEY,
        setting=st.sampled_from([(name, value) for name, values in SETTINGS.items() for value in values]),
    )
    def configure(self, key: str, setting: tuple[str, Any]) -> None:
        self.world.run(self.world.configure(key, dict([setting])))

    @rule(key=KEY, indexes=st.sampled_from(INDEXES))
    def declare(self, key: str, indexes: dict[str, str] | None) -> None:
        self.world.run(self.world.configure(key, {"indexes": indexes}))

    @rule(key=KEY, place=st.integers(0, 4), limit=st.sampled_from((2, 50)), where=rarely(*FILTERS))
    def query_by_index(self, key: str, place: int, limit: int, where: dict[str, Any] | None) -> None:
        names = list(self.world.model.setting(key, "indexes") or {"n": ""})
        self.world.run(self.world.query_by(key, names[place % len(names)], limit, where or {}))

    @rule(key=KEY, paused=st.sampled_from((True, None, None, None)))
    def pause_or_resume(self, key: str, paused: bool | None) -> None:
        self.world.run(self.world.configure(key, {"paused": paused}))

    @rule(key=KEY, where=rarely(*FILTERS))
    def redrive(self, key: str, where: dict[str, Any] | None) -> None:
        self.world.run(self.world.set_status(key, "failed", where or {}, "not_started"))

    @rule(key=KEY, left=st.sampled_from(("not_started", "scheduled", "started", "review")), where=rarely(*FILTERS))
    def cancel(self, key: str, left: str, where: dict[str, Any] | None) -> None:
        self.world.run(self.world.set_status(key, left, where or {}, "cancelled"))

    @rule(key=KEY, status=st.none() | st.sampled_from(STATUSES), limit=st.sampled_from((2, 50)), where=rarely(*FILTERS))
    def query(self, key: str, status: str | None, limit: int, where: dict[str, Any] | None) -> None:
        self.world.run(self.world.query(key, status, limit, where or {}))

    @rule(seconds=st.sampled_from((0.001, 1, 5, 5, 10, 600)))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def flush_scripts(self) -> None:
        self.world.run(self.world.flush_scripts())

    @rule(fault=st.sampled_from((LOSE_REPLY, LOSE_REPLY, LOSE_CALL)))
    def lose_next(self, fault: bytes) -> None:
        self.world.fault = fault

    # What a step is made of

    def holds(self) -> bool:
        """Whether anybody holds anything."""
        return any(item.token for item in self.world.model.items.values())

    def _target(self, which: tuple[bool, int]) -> Name:
        """An item that is there, if any is; or any."""
        there, place = which
        names = sorted(self.world.model.items) if there else []
        return names[place % len(names)] if names else (KEYS[place % 2], NAMES[place // 2])

    def _write(self, call: Call, answer: Answer) -> None:
        self._write_all([(call, answer)])

    def _write_all(self, made: list[tuple[Call, Answer]]) -> None:
        if made:
            self.world.run(self.world.write([call for call, _ in made], [answer for _, answer in made]))
        if len(made) > 1:
            self.query(made[0][0].key, "not_started", 50, None)

    def _place(self, places: dict[int, int], name: Name) -> int:
        """The place of the next operation in the batch of its partition."""
        partition = self.world.model.partition(*name)
        places[partition] = places.get(partition, 0) + 1
        return places[partition]

    def _version(self, name: Name, offset: int | None) -> int | None:
        item = self.world.model.items.get(name)
        return None if offset is None else max(1, (item.version if item else 1) + offset)

    def _token(self, which: tuple[str, int]) -> tuple[Name, str]:
        """An item and a token: the one that it is held by, one of an ended claim, or one of another item."""
        kind, place = which
        held = [(name, item.token) for name, item in sorted(self.world.model.items.items()) if item.token]
        if kind == "ended" or not held:
            names = [name for name, _ in held] or sorted(self.world.model.items) or [(KEYS[0], NAMES[0])]
            return names[place % len(names)], (sorted(self.world.model.ended) or ["1.0123456789abcdef"])[-1]
        name, token = held[place % len(held)]
        return (held[(place + 1) % len(held)][0] if kind == "foreign" else name), token

    def _creation(
        self,
        key: str,
        sort_field: str,
        fields: dict[str, Any],
        content: Any,
        *,
        upsert: bool = False,
        place: int = 1,
        **named: Any,
    ) -> tuple[Call, Answer]:
        fields = creatable(fields, upsert=upsert)
        call = self.world.calls.create(key, sort_field, content=content, metadata=fields, upsert=upsert, **named)
        change = Change(fields, content, replace=upsert, **named)
        return call, self.world.model.create(key, sort_field, change, place)

    def _change(
        self,
        name: Name,
        fields: dict[str, Any] | None = None,
        content: Any = UNSET,
        version: int | None = None,
        match: int | None = None,
        token: tuple[str, int] | None = None,
        only_if: dict[str, Any] | None = None,
    ) -> Change:
        """What a write of this item asks for, its version and token resolved."""
        item = self.world.model.items.get(name)
        shown = token and (item.token if item and item.token and token[0] == "held" else self._token(token)[1])
        versions = self._version(name, version), self._version(name, match)
        return Change(fields or {}, content, *versions, shown, only_if)

    def _update(self, name: Name, fields: dict[str, Any], *, place: int = 1, **named: Any) -> tuple[Call, Answer]:
        change = self._change(name, fields, **named)
        call = self.world.calls.update(
            *name,
            metadata=fields,
            content=change.content,
            version=change.version,
            match=change.match,
            token=change.token,
            only_if=change.only_if,
        )
        return call, self.world.model.update(*name, change, place)

    def _settle(
        self, verb: str, which: tuple[str, int], wait: str | None, results: dict[str, Any]
    ) -> tuple[Call, Settle]:
        name, token = self._token(which)
        options: dict[str, dict[str, Any]] = {
            "complete": {"metadata": results},
            "fail": {"metadata": results, "retry_after": wait, "error": "no luck"},
            "release": {"delay": wait},
            "extend": {"lock_for": wait},
        }
        call: Call = getattr(self.world.calls, verb)(*name, token, **options[verb])
        jitter = call.request.get("jitter", 1.0)
        return call, Settle(verb, *name, token, options[verb].get("metadata", {}), wait, jitter)


@pytest.mark.timeout(0 if EXAMPLES else 900)
@pytest.mark.parametrize("partitions", [1, 3])
def test_the_store_does_as_the_model(partitions: int, store: EmbeddedStore) -> None:
    with asyncio.Runner() as runner:
        opened = World(store.url, partitions, runner)

        class Steps(Machine):
            world = opened

        opened.run(opened.open())
        try:
            run_state_machine_as_test(Steps, settings=LIMITS)
        finally:
            opened.run(opened.close())
