"""patch: merging, the update that claims in each of its sentences, transitions, triggers, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import NOW_MS
from hookline import Datastore, codec
from hookline.codec import pack
from hookline.errors import TooManyFields
from hookline.item import FIELDS_MAX
from hookline.secret import SecretBox
from scripts import KEY, NOW, TAG, URL, Scripts, at, calling, line, ms, snapshot, unchanged

STATES: dict[str, dict[str, Any]] = {
    "none": {},
    "own": {"status": "review"},
    "not_started": {"status": "not_started"},
    "due": {"status": "scheduled", "scheduled_at": at(5)},
    "later": {"status": "scheduled", "scheduled_at": at(60)},
    "held": {"status": "started", "worker_id": "w", "locked_until": at(60)},
    "expired": {"status": "started", "worker_id": "w", "locked_until": at(5)},
    "exhausted": {"status": "started", "worker_id": "w", "locked_until": at(5), "max_attempts": 1},
    "completed": {"status": "completed", "worker_id": "w", "started_at": at(-9)},
    "failed": {"status": "failed", "worker_id": "w", "started_at": at(-9)},
    "cancelled": {"status": "cancelled", "worker_id": "w", "started_at": at(-9)},
}
CLAIMABLE = ["none", "own", "not_started", "due", "expired"]
TERMINAL = ["completed", "failed", "cancelled"]


async def prepare(scripts: Scripts, state: str, **fields: Any) -> dict[str, Any]:
    """Create item `a` in a state, and let ten seconds go by -> its raw fields."""
    assert (await scripts.create(metadata={"status": None, **STATES[state]}, **fields)).word == "ok"
    scripts.clock.advance(10)
    return await scripts.fields()


# Metadata, content, triggers


async def test_metadata_is_merged(scripts: Scripts) -> None:
    await scripts.create(content=1, metadata={"kept": 1, "gone": 2, "object": {"a": 1, "b": 2}})
    scripts.clock.advance(1)
    outcome = await scripts.update(metadata={"gone": None, "object": {"a": 9}, "seen": "CURRENT_TIMESTAMP"})
    assert await scripts.fields() == {
        "v": "2",
        "c": pack(1),
        "ca": NOW,
        "ua": ms(1),
        "m:kept": pack(1),
        "m:object": pack({"a": 9}),
        "m:seen": pack(at(1)),
    }
    assert outcome.item is not None
    assert outcome.item.metadata == {"kept": 1, "object": {"a": 9}, "seen": at(1), "version": 2}


@pytest.mark.parametrize("content", [None, {"new": {}}, [], "", 0, False])
async def test_content_is_replaced(scripts: Scripts, content: object) -> None:
    await scripts.create(content={"old": 1})
    await scripts.update(metadata={"x": 1})
    assert (await scripts.fields())["c"] == pack({"old": 1})
    await scripts.update(content=content)
    assert (await scripts.fields())["c"] == pack(content)


async def test_written_triggers_keep_the_stored_api_key(scripts: Scripts, datastore: Datastore) -> None:
    other = "http://worker.example/other"
    await scripts.create(trigger_urls={URL: "secret"})
    entry = [{"url": URL, "events": ["deleted"]}, {"url": other}]
    outcome = await scripts.update(trigger_urls=entry)
    stored = codec.unpack_answer((await scripts.fields())["t"])
    assert [(url.decode(), [event.decode() for event in events]) for url, _, events in stored] == [
        (URL, ["deleted"]), (other, ["updated"]),
    ]  # fmt: skip
    opened = SecretBox(bytes(range(32))).open(stored[0][1], codec.identity("default", KEY, "a"))
    assert (opened, stored[1][1]) == ("secret", b"")
    assert outcome.item == await datastore.get(KEY, "a")


@pytest.mark.parametrize("nothing", [None, {}, []])
async def test_triggers_are_removed(scripts: Scripts, nothing: object) -> None:
    await scripts.create(trigger_urls={URL: "secret"})
    await scripts.update(trigger_urls=nothing)
    assert "t" not in await scripts.fields()


async def test_more_fields_than_lua_passes_at_once(scripts: Scripts) -> None:
    await scripts.create()
    await overfill(scripts, 10_000)
    assert len(await scripts.fields()) == 4 + 10_000
    scripts.clock.advance(1)
    assert (await scripts.create(upsert=True)).word == "ok"
    assert await scripts.fields() == {"v": "2", "c": b"\xc0", "ca": NOW, "ua": ms(1)}


async def overfill(scripts: Scripts, fields: int, sort_field: str = "a") -> None:
    """Give an item so many fields, past all bounds."""
    await scripts.raw.hset(f"{TAG}:i:{KEY}:{sort_field}", mapping={f"m:f{n}": b"\x01" for n in range(fields)})


async def test_an_item_comes_to_have_so_many_fields(scripts: Scripts, datastore: Datastore) -> None:
    assert (await scripts.create(metadata={"a": 1, "status": "review", "priority": 3})).ok
    more = [{f"{n}-{i}": i for i in range(200)} for n in range(5)] + [{f"b{n}": n for n in range(FIELDS_MAX - 1001)}]
    assert await scripts.words(*(scripts.calls.update(KEY, "a", metadata=each) for each in more)) == ["ok"] * 6
    refused: list[dict[str, Any]] = [
        {"c": 1},
        {"c": "CURRENT_TIMESTAMP"},
        {"c": 1, "a": 2},
        {"c": 1, "d": 1, "a": None},
    ]
    taken: list[dict[str, Any]] = [{"worker_id": "w", "last_error": "x"}, {"a": [2]}, {"c": 1, "a": None}, {"d": None}]
    async with unchanged(scripts.raw):
        for one in refused:
            outcome = await scripts.update(metadata=one)
            assert (outcome.word, outcome.item) == ("too_many_fields", await datastore.get(KEY, "a"))
    with pytest.raises(TooManyFields, match="remove some, by null"):
        await datastore.update(KEY, "a", metadata={"c": 1})
    # Neither the engine's own fields count, nor what is there already; nor what makes room for as much.
    for one in taken:
        assert (await scripts.update(metadata=one)).ok
    assert (await scripts.create(metadata={"x": 1}, upsert=True)).ok


async def test_what_adds_no_field_is_taken_where_there_are_too_many(scripts: Scripts) -> None:
    await scripts.create(metadata={"status": "not_started"})
    await overfill(scripts, FIELDS_MAX + 2)
    assert (await scripts.update(metadata={"f1": 2, "f2": None}, content=1)).ok
    assert (await scripts.update(metadata={"g": 1, "f3": None, "f4": 3})).word == "too_many_fields"
    assert (await scripts.update(metadata={"status": "started", "g": 1})).word == "too_many_fields"
    claimed = await scripts.claim()
    assert len(claimed.items) == 1
    assert (await scripts.delete()).ok


# The update that claims


@pytest.mark.parametrize("state", CLAIMABLE)
@pytest.mark.parametrize("version", [None, 1])
async def test_claim(scripts: Scripts, datastore: Datastore, state: str, version: int | None) -> None:
    before = await prepare(scripts, state)
    outcome = await scripts.update(metadata={"status": "started", "worker_id": "v"}, version=version)
    fields = await scripts.fields()
    token = fields.pop("tk")
    expected: dict[str, Any] = {name: before[name] for name in ("c", "ca", "at", "sd") if name in before}
    expected |= {"v": "2", "ua": ms(10), "s": "started", "w": "v", "sa": ms(10), "lu": ms(610)}
    expected |= {"cr": "1"} if state == "expired" else {}
    assert fields == {**expected, "a": str(int(before.get("a", 0)) + 1)}
    keyspace = await snapshot(scripts.raw)
    assert [(name, members) for name, members in keyspace.items() if name.startswith("s:")] == [
        ("s:jobs:started", {"a": NOW_MS + 610_000})
    ]
    assert token.startswith("2.")
    assert token != before.get("tk")
    assert outcome.item is not None
    assert outcome.item.token == token
    assert outcome.item.metadata == (await datastore.get(KEY, "a")).metadata
    assert outcome.locked_until_ms == NOW_MS + 610_000


@pytest.mark.parametrize(
    ("state", "more", "word"),
    [
        ("held", {"metadata": {"worker_id": "v"}}, "locked"),
        ("held", {"metadata": {"worker_id": "w"}}, "locked"),
        ("held", {}, "locked"),
        ("held", {"metadata": {"worker_id": "v"}, "version": 1}, "locked"),
        ("held", {"version": 1}, "locked"),
        ("held", {"metadata": {"worker_id": "w"}, "version": 2}, "version_conflict"),
        ("held", {"metadata": {"worker_id": "w"}, "token": "1.ab"}, "stale_token"),
        ("held", {"metadata": {"worker_id": "w"}, "match": 2}, "precondition_failed"),
        ("expired", {"token": "1.ab"}, "stale_token"),
        ("exhausted", {}, "not_claimable"),
        ("exhausted", {"version": 1}, "not_claimable"),
        ("later", {}, "not_claimable"),
        ("later", {"version": 2}, "version_conflict"),
        *((state, {}, "not_claimable") for state in TERMINAL),
        *((state, {"version": 2}, "version_conflict") for state in TERMINAL),
        ("cancelled", {"token": "1.ab"}, "cancelled"),
    ],
)
async def test_refused_claims(
    scripts: Scripts, datastore: Datastore, state: str, more: dict[str, Any], word: str
) -> None:
    await prepare(scripts, state, content=1)
    metadata = {"status": "started", **more.pop("metadata", {})}
    async with unchanged(scripts.raw):
        outcome = await scripts.update(metadata=metadata, **more)
    assert outcome.word == word
    assert outcome.item == await datastore.get(KEY, "a")
    counted = "lost_locks" if word in ("stale_token", "cancelled") else "refused_claims"
    assert await scripts.counts() == {counted: "1"}
    # In a hash that goes away with its key.
    assert await scripts.raw.pttl(f"{TAG}:n:{KEY}") > 29 * 86_400_000


@pytest.mark.parametrize("state", ["later", *TERMINAL])
async def test_the_current_version_starts_anyway(scripts: Scripts, state: str) -> None:
    await prepare(scripts, state)
    outcome = await scripts.update(metadata={"status": "started", "worker_id": "v"}, version=1)
    assert outcome.word == "ok"
    fields = await scripts.fields()
    assert [fields.get(name) for name in ("s", "v", "w", "sa", "lu", "da", "a")] == [
        "started", "2", "v", ms(10), ms(610), None, "1",
    ]  # fmt: skip


@pytest.mark.parametrize("attempts", [0, 7, None])
async def test_attempts_rise_whatever_a_claim_says(scripts: Scripts, attempts: int | None) -> None:
    await prepare(scripts, "expired")
    await scripts.update(metadata={"status": "started", "attempts": attempts})
    assert (await scripts.fields())["a"] == "2"


async def test_a_claim_says_when_it_started_and_ends(scripts: Scripts) -> None:
    await prepare(scripts, "not_started")
    sent = {"status": "started", "started_at": at(3), "locked_until": "+30s", "type": "x"}
    outcome = await scripts.update(metadata=sent)
    fields = await scripts.fields()
    assert (fields["sa"], fields["lu"], fields["m:type"], "w" in fields) == (ms(3), ms(40), pack("x"), False)
    assert outcome.warnings == ()


@pytest.mark.parametrize(("setting", "until"), [({}, ms(610)), ({"lock_ms": 5000}, ms(15))])
@pytest.mark.parametrize("sent", [{}, {"locked_until": None}])
async def test_a_claim_without_lock_gets_the_default_one(
    scripts: Scripts, setting: dict[str, int], until: str, sent: dict[str, Any]
) -> None:
    await scripts.configure(**setting) if setting else None
    await prepare(scripts, "not_started")
    outcome = await scripts.update(metadata={"status": "started", **sent})
    assert (await scripts.fields())["lu"] == until
    assert str(outcome.locked_until_ms) == until
    outcome = await scripts.update(metadata={"status": "started", **sent}, token=await scripts.token())
    assert str(outcome.locked_until_ms) == until


@pytest.mark.parametrize("until", [at(9), "CURRENT_TIMESTAMP"])
async def test_a_lock_already_past_is_accepted_with_a_warning(scripts: Scripts, until: str) -> None:
    await prepare(scripts, "not_started")
    claim = {"status": "started", "worker_id": "w", "locked_until": until}
    first = await scripts.update(metadata=claim)
    assert (first.word, len(first.warnings)) == ("ok", 1)
    extended = await scripts.update(metadata=claim, token=await scripts.token())
    assert (extended.word, extended.version, len(extended.warnings)) == ("ok", 2, 1)
    taken_over = await scripts.update(metadata={**claim, "worker_id": "v"})
    assert (taken_over.word, taken_over.version) == ("ok", 3)


@pytest.mark.parametrize(("state", "warned"), [("none", 1), ("own", 0), ("not_started", 0), ("held", 0), ("later", 0)])
async def test_a_time_for_what_has_no_status_is_accepted_with_a_warning(
    scripts: Scripts, state: str, warned: int
) -> None:
    await prepare(scripts, state)
    outcome = await scripts.update(metadata={"scheduled_at": at(90)})
    assert (outcome.word, len(outcome.warnings)) == ("ok", warned)


async def test_a_claim_in_nobodys_name_forgets_the_last_holder(scripts: Scripts) -> None:
    await prepare(scripts, "expired")
    assert (await scripts.update(metadata={"status": "started"})).word == "ok"
    assert "w" not in await scripts.fields()


# Extension


@pytest.mark.parametrize("state", ["held", "expired"])
async def test_extension_by_token(scripts: Scripts, state: str) -> None:
    before = await prepare(scripts, state, trigger_urls={URL: "secret"})
    outcome = await scripts.update(metadata={"status": "started", "locked_until": at(99)}, token=before["tk"])
    assert outcome.word == "ok"
    keyspace = await snapshot(scripts.raw)
    assert keyspace["i:jobs:a"] == {**before, "lu": ms(99)}
    assert keyspace["s:jobs:started"] == {"a": NOW_MS + 99_000}
    assert "outbox" not in keyspace
    assert outcome.item is not None
    assert (outcome.item.token, outcome.version) == (None, 1)


async def test_extension_by_version_and_worker(scripts: Scripts) -> None:
    before = await prepare(scripts, "held")
    sent = {"status": "started", "worker_id": "w", "version": 1, "locked_until": at(99)}
    assert (await scripts.update(metadata=sent)).word == "ok"
    assert await scripts.fields() == {**before, "lu": ms(99)}


async def test_past_the_lock_the_same_worker_claims_anew(scripts: Scripts) -> None:
    before = await prepare(scripts, "expired")
    await scripts.update(metadata={"status": "started", "worker_id": "w", "version": 1})
    fields = await scripts.fields()
    assert (fields["v"], fields["a"]) == ("2", "2")
    assert fields["tk"] != before["tk"]


async def test_progress_with_an_extension_makes_a_version(scripts: Scripts) -> None:
    before = await prepare(scripts, "held", trigger_urls={URL: "secret"})
    sent = {"status": "started", "worker_id": "v", "locked_until": at(99), "progress": 5}
    assert (await scripts.update(metadata=sent, token=before["tk"])).version == 2
    assert await scripts.fields() == {**before, "lu": ms(99), "m:progress": pack(5), "v": "2", "ua": ms(10)}
    (event,) = await scripts.events()
    assert event["before"] == {"lu": ms(60).encode(), "m:progress": False}
    again = await scripts.update(metadata=sent, token=before["tk"])
    assert again.version == 2


async def test_an_extension_changes_neither_holder_nor_start_nor_attempts(scripts: Scripts) -> None:
    before = await prepare(scripts, "held")
    sent = {"status": "started", "worker_id": "v", "started_at": at(9), "attempts": 0, "locked_until": at(99)}
    outcome = await scripts.update(metadata=sent, token=before["tk"])
    assert await scripts.fields() == {**before, "lu": ms(99)}
    assert outcome.item is not None
    assert outcome.item.metadata["worker_id"] == "w"
    assert (await scripts.fields())["v"] == "1"


# Plain updates


@pytest.mark.parametrize(
    ("metadata", "fields", "gone"),
    [
        ({"status": "completed"}, {"s": "completed", "da": ms(10)}, ["tk", "lu"]),
        ({"status": "completed", "completed_at": at(7)}, {"s": "completed", "da": ms(7)}, ["tk", "lu"]),
        ({"status": "completed", "worker_id": "w"}, {"s": "completed", "da": ms(10)}, ["tk", "lu"]),
        ({"status": "failed"}, {"s": "failed"}, ["tk", "lu"]),
        ({"status": "cancelled"}, {"s": "cancelled"}, ["tk", "lu"]),
        ({"status": "review"}, {"s": "review"}, ["tk", "lu"]),
        ({"status": None}, {}, ["s", "tk", "lu"]),
        ({"status": "not_started"}, {"s": "not_started", "at": ms(10)}, ["tk", "lu", "w", "sa"]),
        (
            {"status": "not_started", "scheduled_at": at(60)},
            {"s": "scheduled", "at": ms(60), "sd": ms(60)},
            ["tk", "lu", "w", "sa"],
        ),
        ({"progress": 5}, {"m:progress": pack(5)}, []),
        ({"progress": 5, "worker_id": "w"}, {"m:progress": pack(5)}, []),
    ],
)
@pytest.mark.parametrize("state", ["held", "expired"])
async def test_out_of_started_without_a_token(
    scripts: Scripts, state: str, metadata: dict[str, Any], fields: dict[str, Any], gone: list[str]
) -> None:
    before = await prepare(scripts, state)
    outcome = await scripts.update(metadata=metadata)
    assert outcome.word == "ok"
    expected = {**before, **fields, "v": "2", "ua": ms(10)}
    assert await scripts.fields() == {name: value for name, value in expected.items() if name not in gone}
    word = "ok" if not gone else "cancelled" if metadata["status"] == "cancelled" else "stale_token"
    assert (await scripts.extend(token=before["tk"])).word == word


MEDDLING: list[dict[str, Any]] = [
    {"locked_until": at(99)},
    {"locked_until": None},
    {"worker_id": None},
    {"locked_until": "+1s", "n": 1},
]


@pytest.mark.parametrize("metadata", MEDDLING)
async def test_a_live_lock_is_changed_only_by_who_shows_token_or_version(
    scripts: Scripts, metadata: dict[str, Any]
) -> None:
    before = await prepare(scripts, "held")
    async with unchanged(scripts.raw):
        assert (await scripts.update(metadata=metadata)).word == "locked"
    assert (await scripts.update(metadata=metadata, token=before["tk"])).word == "ok"
    assert (await scripts.update(metadata={**metadata, "version": 2})).word == "ok"


async def test_a_claim_by_update_of_an_expired_lock_is_counted(scripts: Scripts) -> None:
    await prepare(scripts, "expired", trigger_urls={URL: "secret"})
    scripts.outbox_max = 0
    claim = {"status": "started", "worker_id": "v"}
    assert (await scripts.update(metadata=claim)).word == "outbox_full"
    assert await scripts.counts() == {}
    assert (await scripts.update(metadata=claim, triggers=False)).word == "ok"
    assert await scripts.counts() == {"expired_locks": "1"}


@pytest.mark.parametrize("state", ["not_started", "due"])
async def test_what_waits_takes_no_worker(scripts: Scripts, state: str) -> None:
    await prepare(scripts, state)
    outcome = await scripts.update(metadata={"worker_id": "w", "started_at": at(3), "n": 1})
    assert outcome.word == "ok"
    assert {"w", "sa", "lu"}.isdisjoint(await scripts.fields())


@pytest.mark.parametrize("metadata", MEDDLING)
async def test_an_expired_lock_is_changed_by_anybody(scripts: Scripts, metadata: dict[str, Any]) -> None:
    await prepare(scripts, "expired")
    assert (await scripts.update(metadata=metadata)).word == "ok"


@pytest.mark.parametrize("state", ["held", "expired"])
@pytest.mark.parametrize("metadata", [{"status": "completed"}, {"status": "cancelled"}, {"progress": 1}])
async def test_who_names_another_worker_is_not_the_holder(
    scripts: Scripts, state: str, metadata: dict[str, Any]
) -> None:
    await prepare(scripts, state)
    async with unchanged(scripts.raw):
        assert (await scripts.update(metadata={**metadata, "worker_id": "v"})).word == "locked"


@pytest.mark.parametrize("right", [True, False])
async def test_an_update_that_shows_a_token(scripts: Scripts, right: bool) -> None:
    before = await prepare(scripts, "held")
    token = before["tk"] if right else "1.ab"
    outcome = await scripts.update(metadata={"status": "completed"}, token=token)
    assert outcome.word == ("ok" if right else "stale_token")
    assert (await scripts.fields())["s"] == ("completed" if right else "started")


@pytest.mark.parametrize("state", TERMINAL)
@pytest.mark.parametrize(
    ("metadata", "fields"),
    [
        ({"status": "not_started"}, {"s": "not_started", "at": ms(10), "a": "0"}),
        ({"status": "scheduled", "scheduled_at": at(60)}, {"s": "scheduled", "at": ms(60), "sd": ms(60), "a": "0"}),
        ({"status": "not_started", "attempts": 2}, {"s": "not_started", "at": ms(10), "a": "2"}),
    ],
)
async def test_out_of_terminal_attempts_begin_again(
    scripts: Scripts, state: str, metadata: dict[str, Any], fields: dict[str, Any]
) -> None:
    await prepare(scripts, state)
    await scripts.update(metadata={"attempts": 5})
    await scripts.update(metadata=metadata)
    after = await scripts.fields()
    assert after == {"c": b"\xc0", "ca": NOW, "ua": ms(10), "v": "3", **fields}


@pytest.mark.parametrize(
    ("state", "metadata", "fields", "score"),
    [
        ("not_started", {"scheduled_at": at(60)}, {"s": "scheduled", "at": ms(60), "sd": ms(60)}, NOW_MS + 60_000),
        ("not_started", {"scheduled_at": "+1m"}, {"s": "scheduled", "at": ms(70), "sd": ms(70)}, NOW_MS + 70_000),
        ("not_started", {"scheduled_at": at(9)}, {"s": "not_started", "at": ms(10), "sd": ms(9)}, line(10)),
        ("not_started", {"priority": 8}, {"p": "8"}, line(0, priority=8, place=0)),
        ("not_started", {"status": "not_started"}, {"at": NOW}, line()),
        ("later", {"scheduled_at": at(90)}, {"s": "scheduled", "at": ms(90), "sd": ms(90)}, NOW_MS + 90_000),
        ("later", {"scheduled_at": at(9)}, {"s": "not_started", "at": ms(10), "sd": ms(9)}, line(10)),
        ("later", {"status": "not_started"}, {"s": "not_started", "at": ms(10)}, line(10)),
        ("later", {"status": "scheduled"}, {"s": "scheduled", "at": ms(60)}, NOW_MS + 60_000),
        ("own", {"x": 1}, {"s": "review", "m:x": pack(1)}, NOW_MS + 10_000),
        ("own", {"status": "not_started"}, {"s": "not_started", "at": ms(10), "a": "0"}, line(10)),
        ("none", {"status": "scheduled"}, {"s": "not_started", "at": ms(10), "a": "0"}, line(10)),
        ("completed", {"x": 1}, {"s": "completed", "m:x": pack(1)}, NOW_MS + 10_000),
    ],
)
async def test_moves(
    scripts: Scripts, state: str, metadata: dict[str, Any], fields: dict[str, Any], score: float
) -> None:
    await prepare(scripts, state)
    assert (await scripts.update(metadata=metadata)).word == "ok"
    keyspace = await snapshot(scripts.raw)
    after = keyspace["i:jobs:a"]
    assert {name: after.get(name) for name in fields} == fields
    assert keyspace[f"s:jobs:{after['s']}"] == {"a": score}


@pytest.mark.parametrize(
    ("update", "word"),
    [
        ({"version": 2}, "version_conflict"),
        ({"metadata": {"version": 2}}, "version_conflict"),
        ({"match": 2}, "precondition_failed"),
        ({"match": 1, "version": 2}, "version_conflict"),
        ({"match": 2, "version": 1}, "precondition_failed"),
        ({"token": "1.ab"}, "stale_token"),
        ({"version": 1, "match": 1}, "ok"),
    ],
)
async def test_conditions(scripts: Scripts, update: dict[str, Any], word: str) -> None:
    await scripts.create()
    before = await snapshot(scripts.raw)
    assert (await scripts.update(**update)).word == word
    after = await snapshot(scripts.raw)
    after.pop("n:jobs", None)
    assert (after == before) == (word != "ok")


async def test_not_found(scripts: Scripts) -> None:
    async with unchanged(scripts.raw):
        outcome = await scripts.update(metadata={"status": "started"}, version=1)
    assert (outcome.word, outcome.item) == ("not_found", None)


# Several changes of one item in one call


async def test_there_and_back_within_one_call(scripts: Scripts) -> None:
    before = await prepare(scripts, "not_started")
    calls = [scripts.calls.update(KEY, "a", metadata={"status": status}) for status in ("review", "not_started")]
    assert [outcome.version for outcome in await scripts.run(*calls)] == [2, 3]
    keyspace = await snapshot(scripts.raw)
    assert keyspace["i:jobs:a"] == {**before, "v": "3", "ua": ms(10), "at": ms(10)}
    assert keyspace["s:jobs:not_started"] == {"a": line(10, place=2)}
    assert "s:jobs:review" not in keyspace


async def test_two_claimers_in_one_call(scripts: Scripts) -> None:
    await prepare(scripts, "not_started")
    calls = [scripts.calls.update(KEY, "a", metadata={"status": "started", "worker_id": w}) for w in "xy"]
    first, second = await scripts.run(*calls)
    assert (first.word, second.word) == ("ok", "locked")
    assert first.item.token == await scripts.token()
    assert (second.item.token, second.item.metadata["worker_id"]) == (None, "x")


async def test_a_version_named_twice_in_one_call_is_taken_once(scripts: Scripts) -> None:
    await scripts.create()
    calls = [scripts.calls.update(KEY, "a", metadata={"n": n}, version=1) for n in (1, 2)]
    assert await scripts.words(*calls) == ["ok", "version_conflict"]
    assert (await scripts.fields())["m:n"] == pack(1)


@pytest.mark.parametrize("state", CLAIMABLE)
async def test_an_update_does_not_claim_of_a_paused_key(scripts: Scripts, state: str) -> None:
    before = await prepare(scripts, state)
    await scripts.configure(paused="1")
    async with unchanged(scripts.raw):
        outcome = await scripts.update(metadata={"status": "started"})
    assert (outcome.word, outcome.item and outcome.item.version) == ("paused", int(before["v"]))
    assert await scripts.counts() == {"refused_claims": "1"}
    assert (await scripts.update(metadata={"n": 1})).word == "ok"


async def test_a_holder_goes_on_though_its_key_is_paused(scripts: Scripts) -> None:
    before = await prepare(scripts, "held")
    await scripts.configure(paused="1")
    held = {"status": "started", "worker_id": "w", "locked_until": at(99)}
    assert (await scripts.update(metadata=held, token=before["tk"])).locked_until_ms == NOW_MS + 99_000


# Conditions


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({"type": "a"}, True), ({"type": "b"}, False), ({"type": "a", "size": {"lt": 3}}, False),
        ({"status": "not_started", "attempts": 0}, True), ({"status": {"in": ["review", "started"]}}, False),
        ({"gone": {"exists": False}}, True), ({"version": 1}, True), ({"nested.deep": True}, True), ({}, True),
    ],
)  # fmt: skip
async def test_only_if(scripts: Scripts, where: dict[str, Any], holds: bool) -> None:
    metadata = {"status": "not_started", "type": "a", "size": 3, "nested": {"deep": True}}
    await scripts.create(metadata=metadata)
    if not holds:
        async with unchanged(scripts.raw):
            outcome = await scripts.update(metadata={"n": 1}, only_if=where)
        assert (outcome.word, outcome.item and outcome.item.metadata["type"]) == ("precondition_failed", "a")
        assert (await scripts.delete(only_if=where)).word == "precondition_failed"
    else:
        assert (await scripts.update(metadata={"n": 1}, only_if=where)).word == "ok"
        assert (await scripts.delete(only_if={**where, "n": 1, "version": 2} if where else {})).word == "ok"


async def test_only_if_sees_what_the_same_call_has_changed(scripts: Scripts) -> None:
    await scripts.create(metadata={"n": 0})
    calls = [scripts.calls.update(KEY, "a", metadata={"n": n}, only_if={"n": n - 1}) for n in (1, 2, 2, 3)]
    assert await scripts.words(*calls) == ["ok", "ok", "precondition_failed", "ok"]


# Triggers


async def test_the_event_of_an_update(scripts: Scripts) -> None:
    metadata = {"type": "a", "gone": 1, "same": 2, "status": "not_started"}
    await scripts.create(content=1, metadata=metadata, trigger_urls={URL: "secret"})
    scripts.clock.advance(1)
    await scripts.update(content=2, metadata={"type": "b", "gone": None, "same": 2, "new": 3})
    (event,) = await scripts.events()
    before = {"c": pack(1), "m:type": pack("a"), "m:gone": pack(1), "m:new": False}
    after = {
        name: value.encode() if isinstance(value, str) else value for name, value in (await scripts.fields()).items()
    }
    assert event == {
        "event": "updated", "key": KEY, "sort": "a", "at": ms(1), "token": "", "urls": [URL],
        "before": before, "after": after,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("trigger_urls", "triggers", "metadata", "fired"),
    [
        pytest.param({URL: "secret"}, True, {"type": "b"}, 1, id="map form"),
        pytest.param({URL: "secret"}, False, {"type": "b"}, 0, id="triggers off"),
        pytest.param({URL: "secret"}, True, {"type": "a"}, 0, id="nothing changed"),
        pytest.param({URL: "secret"}, True, {}, 0, id="nothing sent"),
        pytest.param(calling("created", "deleted"), True, {"type": "b"}, 0, id="other events"),
        pytest.param(calling("created", "updated"), True, {"type": "b"}, 1, id="list form"),
        pytest.param(None, True, {"type": "b"}, 0, id="no trigger"),
    ],
)
async def test_updated_fires(
    scripts: Scripts, trigger_urls: Any, triggers: bool, metadata: dict[str, Any], fired: int
) -> None:
    await scripts.create(metadata={"type": "a"}, trigger_urls=trigger_urls)
    outcome = await scripts.update(metadata=metadata, triggers=triggers)
    assert outcome.version == 2
    assert len([event for event in await scripts.events() if event["event"] == "updated"]) == fired


@pytest.mark.parametrize(
    ("trigger_urls", "fired"),
    [
        pytest.param({URL: "secret"}, 0, id="the same key, sealed anew"),
        pytest.param({URL: "another"}, 0, id="another key"),
        pytest.param({URL: ""}, 1, id="no key"),
        pytest.param({URL: "secret", URL + "/b": "secret"}, 1, id="another URL"),
        pytest.param([{"url": URL, "apiKey": "secret", "events": ["updated", "deleted"]}], 1, id="other events"),
    ],
)
async def test_written_triggers_fire_where_a_reader_sees_a_change(
    scripts: Scripts, trigger_urls: Any, fired: int
) -> None:
    await scripts.create(trigger_urls={URL: "secret"})
    assert (await scripts.update(trigger_urls=trigger_urls)).version == 2
    assert len(await scripts.events()) == fired


async def test_the_event_of_a_claim_carries_its_token(scripts: Scripts) -> None:
    await prepare(scripts, "not_started", trigger_urls={URL: "secret"})
    await scripts.update(metadata={"status": "started", "worker_id": "w"})
    (event,) = await scripts.events()
    assert event["token"] == await scripts.token()
    assert "tk" not in event["after"]
    assert event["before"] == {"s": b"not_started", "a": b"0", "w": False, "sa": False, "lu": False}


async def test_outbox_full_changes_nothing(scripts: Scripts) -> None:
    calls = [
        scripts.calls.create(KEY, name, metadata={"status": "not_started"}, trigger_urls={URL: "secret"})
        for name in "xya"
    ]
    await scripts.run(*calls)
    scripts.outbox_max = 0
    for metadata in ({"priority": 9}, {"status": "review"}, {"scheduled_at": at(60)}, {"status": "started"}):
        async with unchanged(scripts.raw):
            outcome = await scripts.update(metadata=metadata)
        assert outcome.word == "outbox_full"
        assert outcome.version == 1
    assert (await scripts.update(metadata={"priority": 9}, triggers=False)).word == "ok"
