"""export and import: what comes back is what went out, but for tokens; interrupted, repeated, damaged, elsewhere."""

from __future__ import annotations

import codecs
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from conftest import NOW_MS, Clock
from hookline import Datastore, EmbeddedStore, Item, SecretBox, Settings, archive, codec
from hookline.archive import Entry
from hookline.clock import format_time
from hookline.errors import Corrupt, Invalid, NotFound, StaleToken
from hookline.secret import Unopenable
from hookline.transfer import Imported, export, restore
from invariants import check_invariants, read_keyspace
from scripts import TAG
from values import FIELD_NAMES, JSON, same

URL = "http://worker.example/run"
LATER = format_time(NOW_MS + 60_000)
ITEMS: dict[str, dict[str, Any]] = {
    "waits": {"metadata": {"status": "not_started", "priority": 7}, "trigger_urls": {URL: "secret"}},
    "later": {
        "metadata": {"status": "scheduled", "scheduled_at": LATER},
        "content": {"deep": [1, 1.0, None, "é\u2028"]},
    },
    "held": {"metadata": {"status": "started", "worker_id": "w", "max_attempts": 3}},
    "done": {"metadata": {"status": "completed", "result": {}}, "content": []},
    "dead": {"metadata": {"status": "failed", "last_error": "line 1\nline 2"}},
    "over": {"metadata": {"status": "cancelled"}},
    "mine": {"metadata": {"status": "review:2", "size": 2**64 - 1, "small": -(2**63)}},
    "plain é/:\n": {"trigger_urls": [{"url": URL, "events": ["created", "deleted"]}], "content": "x"},
}
SETTINGS: dict[str, Any] = {
    "max_attempts": 3,
    "backoff": ["1s", "5s"],
    "paused": True,
    "indexes": {"size": "number", "createdAt": "time"},
    "retention": {"completed": {"age": "7d", "count": 90}},
    "trigger_urls": {"http://key.example/": "key secret"},
}


async def lines_of(datastore: Datastore, **options: Any) -> list[bytes]:
    """A whole archive."""
    written = b"".join([step.lines async for step in export(datastore, **options)])
    return written.splitlines(keepends=True)


async def bring(datastore: Datastore, lines: Iterable[bytes], **options: Any) -> tuple[Imported, list[str]]:
    """Import -> how it ended, and all notes."""
    steps = [step async for step in restore(datastore, lines, **options)]
    return steps[-1], [note for step in steps for note in step.notes]


async def stored(raw: aioredis.Redis) -> dict[bytes, Any]:
    """All hashes of items and keys, without tokens, and all indexes."""
    found = {}
    for name, entry in (await read_keyspace(raw)).items():
        if b":o:" in name or b":n:" in name or name.endswith((b":builds", b":meta", b":outbox", b":namespaces")):
            continue
        value = entry.value
        if b"}:i:" in name:
            value = {field: kept for field, kept in value.items() if field != b"tk"}
        if b"t" in value:
            value[b"t"] = codec.unpack_answer(value[b"t"])  # the same may be packed in more than one way
        if b"}:cfg:" in name:
            value = {field: kept for field, kept in value.items() if field != b"generation"}
        found[name] = value
    return found


async def fill(datastore: Datastore) -> None:
    await datastore.configure("jobs", **SETTINGS)
    for name, fields in ITEMS.items():
        await datastore.create("jobs", name, **fields)
        await datastore.create("a.first", name, **fields)
    await datastore.update("jobs", "done", metadata={"more": [{}]})
    lane = {"s": "failed", "c": codec.pack({"url": URL}), "a": "2", "le": "HTTP 500"}
    lane["t"] = codec.pack_request([[URL, b"sealed", [], "12.token", True]])
    for key, fields in (
        ("hookline.deliveries.x", lane),
        ("hookline.orchestrations", {"c": codec.pack({"key": "jobs"})}),
    ):
        call = datastore.calls.create(key, "n", reserved=True)
        call.request["set"] = fields
        call.request.pop("new", None)
        await datastore.run([call])


@pytest_asyncio.fixture(loop_scope="session")
async def filled(datastore: Datastore, clock: Clock) -> Datastore:
    clock.ms = NOW_MS
    await fill(datastore)
    clock.advance(5)
    await datastore.update("jobs", "waits", metadata={"changed": "since it became ready"})
    clock.advance(5)
    return datastore


async def reopened(raw: aioredis.Redis, datastore: Datastore) -> Datastore:
    """The datastore on the emptied store."""
    await raw.flushall()
    await datastore.connection.open()
    return datastore


async def test_everything_comes_back(filled: Datastore, raw: aioredis.Redis) -> None:
    before, count = await stored(raw), 2 * len(ITEMS) + 3
    written = await lines_of(filled)
    assert json.loads(written[0])["items"] == 2 * len(ITEMS) + 2
    assert json.loads(written[-1]) == {"end": {"entries": count}}
    assert all(b"token" not in line for line in written)
    datastore = await reopened(raw, filled)
    end, notes = await bring(datastore, written)
    assert (end.written, end.skipped, end.failed, notes) == (count, 0, 0, [])
    assert end.lines == len(written)
    async for _ in datastore.upkeep.build_all("jobs"):
        pass
    await check_invariants(raw)
    after = await stored(raw)
    before[f"{TAG}:i:hookline.deliveries.x:n".encode()][b"t"] = [[URL.encode(), b"sealed", [], b"", True]]
    assert after == before
    assert (await lines_of(datastore))[1:] == written[1:]


async def test_api_keys_open_again(filled: Datastore, raw: aioredis.Redis) -> None:
    datastore = await reopened(raw, filled)
    await fill(datastore)
    await bring(datastore, written := await lines_of(datastore), replace=True)
    item = await datastore.get("jobs", "waits")
    ((_, sealed, _),) = codec.unpack_answer(item.sealed_triggers)
    assert datastore.secrets.open(sealed, codec.identity("default", "jobs", "waits")) == "secret"
    ((_, sealed, _),) = (await stored(raw))[f"{TAG}:cfg:jobs".encode()][b"t"]
    assert datastore.secrets.open(sealed, codec.identity("default", "jobs", "")) == "key secret"
    assert not any(b'"secret"' in line for line in written[1:])


async def test_a_claim_of_before_is_fenced_out(filled: Datastore, raw: aioredis.Redis, clock: Clock) -> None:
    await filled.create("free", "a", metadata={"status": "not_started"})
    (item,) = (await filled.claim("free", worker_id="w", lock_for="10s")).items
    written = await lines_of(filled)
    datastore = await reopened(raw, filled)
    await bring(datastore, written)
    restored = await datastore.get("free", "a")
    assert restored.metadata == item.metadata
    complete = datastore.calls.complete("free", "a", item.token or "")
    (outcome,) = await datastore.settle([complete])
    with pytest.raises(StaleToken):
        raise outcome.error()
    assert (await datastore.claim("free", worker_id="v")).items == []
    clock.advance(10)
    (again,) = (await datastore.claim("free", worker_id="v")).items
    assert again.metadata["attempts"] == 2


async def test_a_repeat_changes_nothing_and_goes_on(filled: Datastore, raw: aioredis.Redis) -> None:
    written = await lines_of(filled)
    datastore = await reopened(raw, filled)
    end, notes = await bring(datastore, written[:9])
    assert (end.written, notes) == (8, ["the archive has no end: its export, or its copy, was cut off"])
    end, notes = await bring(datastore, written)
    assert (end.written, end.skipped, notes) == (len(written) - 10, 8, [])
    before = await stored(raw)
    end, notes = await bring(datastore, written)
    assert (end.written, end.skipped) == (0, len(written) - 2)
    assert await stored(raw) == before


async def test_an_archive_with_other_entries_than_its_end_says_is_told_of(
    filled: Datastore, raw: aioredis.Redis
) -> None:
    written = await lines_of(filled)
    datastore = await reopened(raw, filled)
    told = len(written) - 2
    for lines, count in ((written[:3] + written[6:], told - 3), ([*written[:3], b"{", *written[3:]], told + 1)):
        _, notes = await bring(datastore, lines)
        assert notes[-1] == f"the archive has {count} entries, its end says {told}: it was changed"


async def test_settings_that_were_brought_back_to_their_defaults_are_none(
    filled: Datastore, raw: aioredis.Redis
) -> None:
    written = await lines_of(filled)
    expected = await filled.key_settings("jobs")
    datastore = await reopened(raw, filled)
    await datastore.pause("jobs")
    await datastore.resume("jobs")
    await bring(datastore, written)
    assert replace(await datastore.key_settings("jobs"), generation=expected.generation) == expected


async def test_an_import_that_stops_anywhere_is_gone_on_with(filled: Datastore, raw: aioredis.Redis) -> None:
    written = await lines_of(filled)
    datastore = await reopened(raw, filled)

    def cut() -> Iterator[bytes]:
        yield from written[:7]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        await bring(datastore, cut())
    await check_invariants(raw)
    await bring(datastore, written)
    assert (await lines_of(datastore))[1:] == written[1:]


async def test_what_is_there_stays_unless_it_is_to_be_replaced(filled: Datastore, raw: aioredis.Redis) -> None:
    written = await lines_of(filled)
    await filled.update("jobs", "mine", metadata={"status": "not_started", "other": 1}, content="new")
    await filled.update("jobs", "mine", metadata={"size": 5})
    await filled.configure("jobs", max_attempts=9)
    await filled.delete("jobs", "done")
    assert (await bring(filled, written))[0].written == 1
    kept = await filled.get("jobs", "mine")
    assert (kept.content, kept.version, (await filled.key_settings("jobs")).max_attempts) == ("new", 3, 9)
    end, _ = await bring(filled, written, replace=True)
    assert end.written + end.skipped == len(written) - 2
    item = await filled.get("jobs", "mine")
    assert item.metadata == {**ITEMS["mine"]["metadata"], "version": 4}
    assert (item.content, (await filled.key_settings("jobs")).max_attempts) == (None, 3)
    end, _ = await bring(filled, written, replace=True)
    assert (end.written, end.skipped) == (0, len(written) - 2)
    await check_invariants(raw)


async def test_what_an_archive_has_no_secret_of_is_left_with_none(datastore: Datastore) -> None:
    await datastore.configure("jobs", trigger_urls={URL: "key"})
    written = await lines_of(datastore)
    secret = "whsec_" + "A" * 32
    await datastore.configure("jobs", trigger_urls=[{"url": URL, "secret": secret}])
    assert (await datastore.key_settings("jobs")).triggers[0].to_dict()["hasSecret"]
    await bring(datastore, written, replace=True)
    assert (await lines_of(datastore))[1:] == written[1:]
    assert "hasSecret" not in (await datastore.key_settings("jobs")).triggers[0].to_dict()


async def test_a_live_claim_that_is_replaced_ends(filled: Datastore) -> None:
    await filled.create("free", "a", metadata={"status": "not_started"})
    (first,) = (await filled.claim("free", worker_id="w", lock_for="10s")).items
    written = await lines_of(filled)
    await filled.update("free", "a", token=first.token, metadata={"x": 1})
    await bring(filled, written, replace=True)
    (outcome,) = await filled.settle([filled.calls.complete("free", "a", first.token or "")])
    assert outcome.word == "stale_token"
    assert (await filled.get("free", "a")).metadata == {**first.metadata, "version": first.version + 2}


async def test_no_triggers_fire(filled: Datastore, raw: aioredis.Redis) -> None:
    written = await lines_of(filled)
    datastore = await reopened(raw, filled)
    await bring(datastore, written)
    await bring(datastore, written, replace=True)
    assert not await raw.exists(f"{TAG}:outbox")


async def test_api_keys_of_another_secret_are_noticed(
    filled: Datastore, store: EmbeddedStore, settings: Settings, raw: aioredis.Redis
) -> None:
    written = await lines_of(filled)
    await raw.flushall()
    for other, secret in (
        (settings, SecretBox(bytes(32))),
        (replace(settings, namespace="elsewhere"), SecretBox(bytes(range(32)))),
    ):
        async with Datastore(store.url, other, secret) as datastore:
            with pytest.raises(Unopenable, match="--without-api-keys"):
                await bring(datastore, written)
            with pytest.raises(NotFound):
                await datastore.get("jobs", "waits")
            end, _ = await bring(datastore, written, api_keys=False)
            assert end.failed == 0
            item = await datastore.get("jobs", "waits")
            assert [trigger.to_dict() for trigger in item.triggers] == [
                {"url": URL, "events": ["updated"], "hasApiKey": False}
            ]
    await check_invariants(raw)


async def test_an_export_without_api_keys_goes_anywhere(
    filled: Datastore, store: EmbeddedStore, settings: Settings
) -> None:
    written = await lines_of(filled, api_keys=False)
    assert not any(b"sealedApiKey" in line for line in written)
    async with Datastore(store.url, replace(settings, namespace="elsewhere"), SecretBox(bytes(32))) as datastore:
        assert (await bring(datastore, written))[0].failed == 0


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (b"{", "expected a JSON object"),
        (b"[]", "expected a JSON object"),
        (b"\xff", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        ({"key": "no key!"}, "/key: expected 1 to 128"),
        ({"sortField": ""}, "/sortField: expected 1 to 512"),
        ({"version": 0}, "/version: expected a whole number from 1"),
        ({"version": True}, "/version: expected a whole number from 1"),
        ({"version": 2**52}, "/version: expected a whole number from 1, below 2^52"),
        ({"createdAt": "yesterday"}, "/createdAt: expected an RFC 3339 time"),
        ({"updatedAt": None}, "/updatedAt: expected an RFC 3339 time"),
        ({"readyAt": 5}, "/readyAt: expected an RFC 3339 time"),
        ({"createdAt": "0001-01-01T00:00:00+10:00"}, "/createdAt: expected an RFC 3339 time"),
        ({"updatedAt": "1969-12-31T23:59:59Z"}, "/updatedAt: expected a time from 1970 on"),
        ({"metadata": []}, "/metadata: expected an object"),
        ({"metadata": {"priority": 10}}, "/metadata/priority: expected a whole number from 0 to 9"),
        ({"metadata": {"locked_until": "+10m"}}, "/metadata/locked_until: expected an RFC 3339 time"),
        ({"metadata": {"seen": "CURRENT_TIMESTAMP"}}, "/metadata/seen: expected an RFC 3339 time"),
        ({"metadata": {f"f{n}": n for n in range(1025)}}, "/metadata: expected at most 1,024 fields, the engine's own"),
        ({"metadata": {"version": 3}}, "/metadata/version: expected it beside metadata"),
        ({"content": 2**64}, "/content: expected an integer of at most 64 bits"),
        ({"triggerUrls": {}}, "/triggerUrls: expected a list of objects"),
        ({"triggerUrls": [{"url": "ftp://a"}]}, "/triggerUrls/0: expected a URL"),
        ({"triggerUrls": [{"url": URL, "sealedApiKey": "?"}]}, "/triggerUrls/0/sealedApiKey: expected base64"),
        ({"triggerUrls": [{"url": URL, "sealedApiKey": "é"}]}, "/triggerUrls/0/sealedApiKey: expected base64"),
        ({"triggerUrls": [{"url": URL, "sealedSecrets": 5}]}, "/triggerUrls/0/sealedSecrets: expected a list of"),
        ({"triggerUrls": [{"url": URL, "sealedSecrets": [1234]}]}, "/triggerUrls/0/sealedSecrets: expected base64"),
        ({"place": 1000}, "/place: expected a whole number from 0, below 1000"),
        ({"place": True}, "/place: expected a whole number"),
        ({"more": 1}, "/more: expected one of"),
        ({"key": "k", "settings": []}, "/settings: expected an object"),
        ({"key": "k", "settings": {"maxAttempts": -1}}, "/settings/maxAttempts: expected a whole number"),
        ({"key": "k", "settings": {"generation": 1}}, "/settings/generation: expected one of"),
        ({"end": 5}, "/end: expected an object"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_line_is_named_and_stops_nothing(datastore: Datastore, bad: Any, expected: str) -> None:
    good = {"key": "k", "version": 1, "createdAt": LATER, "updatedAt": LATER}
    header = archive.Header("default", LATER, 3, None).line()
    if isinstance(bad, dict):
        whole = bad if {"settings", "end"} & bad.keys() else {**good, "sortField": "b", **bad}
        bad = json.dumps(whole).encode()
    lines = [
        header,
        archive.line({**good, "sortField": "a"}),
        bad + b"\n",
        b"\n",
        archive.line({**good, "sortField": "c"}),
    ]
    lines.append(archive.End(3).line())
    with pytest.raises(Invalid, match="line 3: ") as caught:
        await bring(datastore, lines, strict=True)
    assert expected in str(caught.value)
    assert [await _there(datastore, name) for name in "abc"] == [True, False, False]
    end, notes = await bring(datastore, lines)
    assert len(notes) == 1
    assert notes[0].startswith("line 3: ")
    assert expected in notes[0]
    assert (end.written, end.skipped, end.failed) == (1, 1, 1)


async def _there(datastore: Datastore, name: str) -> bool:
    return (await datastore.get_many([("k", name)]))[0] is not None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"{}\n"],
        [b'{"hookline": "archive", "format": 2}\n'],
        [b"no JSON\n"],
        [b'{"hookline":"archive","format":1}'],
    ],
)
async def test_there_must_be_a_header(datastore: Datastore, lines: list[bytes]) -> None:
    with pytest.raises(Invalid, match=r"^line 1: (?!/: )"):
        await bring(datastore, lines)


async def test_what_is_no_item_is_named_and_left_out(filled: Datastore, raw: aioredis.Redis) -> None:
    await raw.hdel(f"{TAG}:i:jobs:mine", "c")
    failed = [name async for step in export(filled) for name in step.failed]
    assert failed == ["jobs/mine: its hash can be no item: KeyError(b'c')"]
    assert len(await lines_of(filled)) == 2 * len(ITEMS) + 4
    await raw.set(f"{TAG}:k:jobs", "spoilt")
    with pytest.raises(Corrupt):
        await lines_of(filled)


BROKEN = [
    ("t", codec.pack([1, 2])),
    ("t", codec.pack(5)),
    ("t", codec.pack([[1, "", ["updated"]]])),
    ("t", codec.pack([[]])),
    ("ca", b"9" * 17),
    ("lu", b"9" * 17),
    ("v", b"x"),
    ("c", b"\xc1"),
    ("c", b"\x91" * 2000),
]


@pytest.mark.parametrize(("field", "stored"), BROKEN)
async def test_an_item_with_a_broken_hash_ends_no_export(
    filled: Datastore, raw: aioredis.Redis, field: str, stored: bytes
) -> None:
    await raw.hset(f"{TAG}:i:jobs:mine", field, stored)
    (failed,) = [name async for step in export(filled) for name in step.failed]
    assert failed.startswith("jobs/mine: its hash can be no item: ")
    assert len(await lines_of(filled)) == 2 * len(ITEMS) + 4
    for reading in (filled.get("jobs", "mine"), filled.get_many([("jobs", "mine")]), filled.query("jobs")):
        with pytest.raises(Corrupt, match="the hash of jobs/mine can be no item"):
            await reading


@pytest.mark.parametrize(
    ("field", "stored"),
    [("t", codec.pack([[1, "", ["updated"]]])), ("t", b"\xc1"), ("lock_ms", b"x"), ("keep:a", b"x")],
)
async def test_settings_that_are_broken_end_no_export(
    filled: Datastore, raw: aioredis.Redis, field: str, stored: bytes
) -> None:
    whole = len(await lines_of(filled))
    await raw.hset(f"{TAG}:cfg:jobs", field, stored)
    (failed,) = [name async for step in export(filled) for name in step.failed]
    assert failed.startswith("jobs: its settings can be none: ")
    assert len(await lines_of(filled)) == whole - 1


async def test_an_archive_that_is_packed_is_told_of(filled: Datastore) -> None:
    packed = gzip.compress(b"".join(await lines_of(filled)))
    with pytest.raises(Invalid, match=r"line 1: expected JSON lines, not gzip: gunzip -c FILE \| hookline import -$"):
        await bring(filled, packed.splitlines(keepends=True))


async def test_a_byte_order_mark_is_read_over(filled: Datastore) -> None:
    first, *others = await lines_of(filled)
    end, notes = await bring(filled, [codecs.BOM_UTF8 + first, *others])
    assert (end.skipped, notes) == (len(others) - 1, [])


async def test_an_item_that_the_store_can_not_take_is_named(filled: Datastore, raw: aioredis.Redis) -> None:
    written = await lines_of(filled)
    datastore = await reopened(raw, filled)
    await raw.set(f"{TAG}:s:jobs:failed", "spoilt")
    end, notes = await bring(datastore, written)
    assert end.failed == 1
    assert len(notes) == 1
    assert "jobs/dead: a key that this operation needs has the wrong type" in notes[0]


@given(content=JSON, metadata=st.dictionaries(FIELD_NAMES, JSON.filter(lambda value: value is not None), max_size=5))
@limits(max_examples=200, deadline=None)
def test_any_value_survives(content: Any, metadata: dict[str, Any]) -> None:
    fields = {b"v": b"3", b"ca": b"5", b"ua": b"7", b"c": codec.pack(content)}
    fields |= {f"m:{name}".encode(): codec.pack(value) for name, value in metadata.items()}
    read = archive.read_line(archive.item_line("k", "s", fields, api_keys=True), 1, api_keys=True)
    assert isinstance(read, Entry)
    back = {name.encode(): value.encode() if isinstance(value, str) else value for name, value in read.fields.items()}
    assert back == fields
    item: Item = codec.decode_item("k", "s", back)
    assert same(item.content, content)


async def test_an_item_with_more_fields_than_one_write_may_bring(datastore: Datastore, raw: aioredis.Redis) -> None:
    """As many as there may be, and of the engine's own beside them."""
    await datastore.create("k", "a", metadata={"status": "not_started", "priority": 3})
    for letter in "abcd":
        await datastore.update("k", "a", metadata={f"{letter}{number}": number for number in range(256)})
    before, written = await stored(raw), await lines_of(datastore)
    await reopened(raw, datastore)
    assert (await bring(datastore, written))[1] == []
    assert await stored(raw) == before


async def test_of_the_highest_version_that_is_taken_each_update_makes_another(datastore: Datastore) -> None:
    shown = {"key": "k", "sortField": "a", "version": 2**52 - 1, "createdAt": LATER, "updatedAt": LATER}
    lines = [archive.Header("default", LATER, 1, None).line(), archive.line(shown), archive.End(1).line()]
    assert (await bring(datastore, lines))[1] == []
    versions = [(await datastore.update("k", "a", metadata={"n": n})).version for n in range(3)]
    assert versions == [2**52, 2**52 + 1, 2**52 + 2]


async def test_whenever_an_item_was_ready_its_priority_goes_first(datastore: Datastore, raw: aioredis.Redis) -> None:
    shown = {"key": "k", "version": 1, "createdAt": LATER, "updatedAt": LATER}
    lines = [archive.Header("default", LATER, 12, None).line()]
    for priority in (7, 8, 9):
        for ready_at in ("9999-12-31T23:59:59Z", "2060-01-01T00:00:00Z", LATER, "1970-01-01T00:00:00Z"):
            metadata = {"status": "not_started", "priority": priority}
            named = {"sortField": f"{priority} {ready_at[:4]}", "readyAt": ready_at, "metadata": metadata}
            lines.append(archive.line(shown | named))
    lines.append(archive.End(12).line())
    assert (await bring(datastore, lines))[1] == []
    await check_invariants(raw)
    taken = [item.sort_field for item in (await datastore.claim("k", worker_id="w", limit=20)).items]
    years = ("1970", LATER[:4], "2060", "9999")
    assert taken == [f"{priority} {year}" for priority in (9, 8, 7) for year in years]


@pytest.mark.parametrize("place", [True, False])
async def test_the_order_of_the_line(datastore: Datastore, raw: aioredis.Redis, clock: Clock, place: bool) -> None:
    """Those of one millisecond as well; an archive that does not say their places is read all the same."""
    clock.ms = NOW_MS
    create = datastore.calls.create
    first = [create("jobs", f"{n}", metadata={"status": "not_started"}) for n in range(30)]
    rest = [create("jobs", f"u{n}", metadata={"status": "not_started", "priority": 9}) for n in range(12)]
    await datastore.run(first + rest)
    lines = [json.loads(line) for line in await lines_of(datastore)]
    assert len({line.get("readyAt") for line in lines[1:-1]}) == 1
    if not place:
        lines = [{name: value for name, value in line.items() if name != "place"} for line in lines]
    end, notes = await bring(await reopened(raw, datastore), map(archive.line, lines))
    assert (end.whole, notes) == (True, [])
    claimed = [item.sort_field for item in (await datastore.claim("jobs", worker_id="w", limit=50)).items]
    expected = [f"u{n}" for n in range(12)] + [f"{n}" for n in range(30)]
    assert (claimed == expected) is place
    assert sorted(claimed) == sorted(expected)


async def test_partitions(raw: aioredis.Redis, store: EmbeddedStore, settings: Settings) -> None:
    """Out of one partition, into three, and back."""
    async with Datastore(store.url, settings, SecretBox(bytes(32))) as one:
        await fill(one)
        written = await lines_of(one)
    await raw.flushall()
    async with Datastore(store.url, replace(settings, partitions=3), SecretBox(bytes(32))) as three:
        assert (await bring(three, written))[1] == []
        await check_invariants(raw)
        again = await lines_of(three)
    assert sorted(line for line in again[1:] if b"settings" not in line) == sorted(
        line for line in written[1:] if b"settings" not in line
    )


async def test_memory_stays_bounded(raw: aioredis.Redis, datastore: Datastore) -> None:
    """Neither end holds the 20 MB of items."""
    count, pad = 5_000, "x" * 4000

    def lines() -> Iterator[bytes]:
        yield archive.Header("default", LATER, count, None).line()
        shown = {"key": "jobs", "version": 2, "createdAt": LATER, "updatedAt": LATER, "content": pad}
        for number in range(count):
            yield archive.line(
                {**shown, "sortField": f"{number:05}", "metadata": {"status": "not_started", "n": number}}
            )
        yield archive.End(count).line()

    async def last(steps: AsyncIterator[Any]) -> Any:
        step: Any = None
        async for each in steps:
            step = each
        return step

    tracemalloc.start()
    try:
        ended = await last(restore(datastore, lines()))
        assert (ended.written, ended.failed, ended.lines) == (count, 0, count + 2)
        ended = await last(export(datastore))
        assert ended.done == ended.total == count
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert await raw.zcard(f"{TAG}:s:jobs:not_started") == count
