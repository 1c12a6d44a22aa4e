"""The clients: the verbs of a datastore over HTTP, with the same arguments, values and errors."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis.asyncio as aioredis
from msgspec import structs

from api import Api
from conftest import end, wait_until
from hookline import UNSET, Changed, Client, Datastore, SyncClient
from hookline.arguments import (
    ClaimArguments,
    CreateArguments,
    DeleteArguments,
    ExchangeArguments,
    SettingsArguments,
    UpdateArguments,
)
from hookline.calls import Calls
from hookline.errors import (
    Exists,
    HooklineError,
    IdempotencyKeyReused,
    Invalid,
    NotFound,
    OutboxFull,
    PreconditionFailed,
    ReservedKey,
    StaleToken,
    StoppedAt,
    Unavailable,
    VersionConflict,
)
from hookline.flow import _CLAIM
from hookline.keys import partition_of
from hookline.keysettings import ARGUMENTS, KeySettings
from hookline.operations import Operations
from hookline.reader import Reader
from hookline.repeating import Repeating
from hookline.source import Source
from jobs import WAITING, fill, script_calls
from process import free_port, serving
from values import nested


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


NOT_OVER_HTTP = {"sweep", "change_settings", "stats", "get_some"} | public(Repeating) - public(Reader) | {"recall"}
"""What servers do by themselves, what is about the form of settings in the store, what /v1/keys tells otherwise, what
fits into one answer, and idempotency keys, which a server takes in a header."""
BESIDES = {"items", "command", "once", "cancel", "redrive", "delete_all"}
"""Pages as one iterator, the command language, which is the server's, idempotency keys, changes of all that match."""


def arguments(kind: type, name: str) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(getattr(kind, name))
    by_name = inspect.Parameter.VAR_KEYWORD
    return [
        (each.name, each.kind, each.annotation if each.kind == by_name else each.default)
        for each in signature.parameters.values()
        if each.name not in ("rounds", "partition")
    ]


def test_the_verbs_are_those_of_a_datastore() -> None:
    assert public(Client) - BESIDES == public(Datastore) - NOT_OVER_HTTP
    assert public(SyncClient) == public(Client) - {"open"}
    for name in public(Datastore) - NOT_OVER_HTTP:
        assert arguments(Client, name) == arguments(Datastore, name), name
    for name in public(SyncClient):
        assert arguments(SyncClient, name) == arguments(Client, name), name


def test_the_operations_are_those_of_the_engine() -> None:
    for name in public(Operations):
        assert arguments(Operations, name) == arguments(Calls, name), name
    assert public(Calls) - public(Operations) == {"claim", "partition", "item_name", "name", "elsewhere"}


@pytest.mark.parametrize(
    ("kind", "name"), [(CreateArguments, "create"), (UpdateArguments, "update"), (DeleteArguments, "delete")]
)
def test_the_arguments_of_a_verb_are_those_of_its_operation(kind: type, name: str) -> None:
    assert inspect.signature(getattr(Client, name)).parameters["fields"].annotation == f"Unpack[{kind.__name__}]"
    given = inspect.signature(getattr(Calls, name)).parameters.values()
    named = {each.name: each.annotation for each in given if each.kind == inspect.Parameter.KEYWORD_ONLY}
    named.pop("partition", None)
    assert {name: of.__forward_arg__ for name, of in kind.__annotations__.items()} == named


def test_the_arguments_of_a_claim_are_those_that_go_over_http() -> None:
    assert set(ClaimArguments.__annotations__) == _CLAIM.keys() - {"worker_id", "limit"} | {"reserved"}
    assert set(ExchangeArguments.__annotations__) == set(ClaimArguments.__annotations__) - {"max_in_flight"}
    for kind in (Client, Source):
        assert inspect.signature(kind.claim).parameters["options"].annotation == "Unpack[ClaimArguments]"
        assert inspect.signature(kind.exchange).parameters["options"].annotation == "Unpack[ExchangeArguments]"


def test_the_arguments_of_configure_are_the_settings_of_a_key() -> None:
    assert set(SettingsArguments.__annotations__) == set(ARGUMENTS.values())


async def test_an_exchange_has_no_bound(source: Datastore | Client) -> None:
    options: dict[str, Any] = {"max_in_flight": 2}
    with pytest.raises(TypeError, match="max_in_flight"):
        await source.exchange([], "jobs", worker_id="w", **options)


async def test_a_setting_that_is_none_is_refused(source: Datastore | Client) -> None:
    settings: dict[str, Any] = {"max_attempts": 3, "lockFor": "1m"}
    with pytest.raises(TypeError, match="lockFor"):
        await source.configure("jobs", **settings)
    assert (await source.configure("jobs", lock_for=UNSET)).generation == 0


MISSPELT = """
from hookline import Client, Datastore, SyncClient


async def use(client: Client, blocking: SyncClient, datastore: Datastore) -> None:
    await client.create("jobs", content={}, metadata={}, trigger_urls=[], upsert=True)
    await client.claim("jobs", worker_id="w", limit=2, wait=1, lock_for="10m", where={"x": 1})
    await client.create("jobs", contents={})
    blocking.update("jobs", "a", meta={})
    await datastore.delete("jobs", "a", iff={})
    await datastore.claim("jobs", worker_id="w", lock="10m")
    await client.configure("jobs", lock="10m")
"""


def test_arguments_that_are_misspelt_are_told_by_a_type_checker(tmp_path: Path) -> None:
    (tmp_path / "misspelt.py").write_text(MISSPELT)
    asked = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", f"{tmp_path}/cache", f"{tmp_path}/misspelt.py"]
    told = subprocess.run(asked, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert re.findall(r"misspelt.py:(\d+): error: Unexpected keyword argument", told) == ["8", "9", "10", "11", "12"], (
        told
    )


async def test_items(client: Client, datastore: Datastore) -> None:
    """What each verb gives is what the datastore gives for the same."""
    urls = [{"url": "http://127.0.0.1:1/", "apiKey": "secret", "events": ["deleted"]}]
    made = await client.create("docs", "a/b c", content={"n": [1, 2.5, None]}, metadata={"x": "ä"}, trigger_urls=urls)
    assert made.item == await datastore.get("docs", "a/b c") == await client.get("docs", "a/b c")
    assert (made.word, made.version, made.status) == ("ok", 1, None)
    updated = await client.update("docs", "a/b c", metadata={"x": None, "y": 1}, version=1)
    assert updated.item == await datastore.get("docs", "a/b c")
    cleared = await client.update("docs", "a/b c", content=None)
    assert cleared.item
    assert cleared.item.content is None
    replaced = await client.create("docs", "a/b c", content=1, upsert=True, match=3)
    assert (replaced.item and replaced.item.content, replaced.version) == (1, 4)
    assert (await client.create("docs", "quiet", triggers=False)).version == 1
    named = await client.create("docs")
    assert named.sort_field == (named.item and named.item.sort_field)
    found = await client.get_many([("docs", "quiet"), ("docs", "none"), ("docs", "a/b c")])
    assert found == [await datastore.get("docs", "quiet"), None, await datastore.get("docs", "a/b c")]
    assert (await client.delete("docs", "quiet", version=1)).ok
    assert (await client.delete("docs", "a/b c", match=4, triggers=False)).ok
    assert await client.get_many([("docs", "quiet"), ("docs", "a/b c")]) == [None, None]


async def test_refusals_are_the_same_errors(client: Client) -> None:
    await client.create("docs", "a", metadata={"x": 1})
    with pytest.raises(Exists) as exists:
        await client.create("docs", "a")
    assert exists.value.item == await client.get("docs", "a")
    with pytest.raises(NotFound):
        await client.get("docs", "b")
    with pytest.raises(VersionConflict):
        await client.update("docs", "a", version=7)
    with pytest.raises(PreconditionFailed):
        await client.delete("docs", "a", only_if={"x": 2})
    with pytest.raises(PreconditionFailed):
        await client.update("docs", "a", match=9)
    with pytest.raises(ReservedKey):
        await client.create("hookline.x", "a")
    with pytest.raises(ReservedKey):
        await client.claim("hookline.x", worker_id="w")
    with pytest.raises(Invalid) as invalid:
        await client.query("docs", where={"x": {"like": 1}}, order="nothing")
    assert [flaw.pointer for flaw in invalid.value.flaws] == ["/where/x"]
    with pytest.raises(Invalid, match="not written over HTTP"):
        await client.update("docs", "a", reserved=True)
    with pytest.raises(Invalid, match="/content"):
        await client.create("docs", content=float("nan"))
    with pytest.raises(Invalid, match="at most 1048576 bytes"):
        await client.create("docs", content="x" * 1_100_000)


async def _query(source: Any, where: Any) -> None:
    await source.query("jobs", where=where)


NO_FILTERS: list[Any] = [
    {"price": {"gt": Decimal("1.5")}},
    {"price": math.nan},
    {"price": {"in": [math.inf]}},
    {"price": b"x"},
    {"price": datetime(2024, 6, 1)},  # noqa: DTZ001 - no time zone
    {"price": datetime(2024, 6, 1, tzinfo=UTC)},
    {"price": "\ud800"},
    {"price": nested(1000)},
    {5: 1},
    math.nan,
    "price",
]
Act = Callable[[Any], Coroutine[Any, Any, Any]]
MALFORMED: list[Act] = [
    *(partial(_query, where=where) for where in NO_FILTERS),
    lambda source: source.query("bad key"),
    lambda source: source.query("jobs", limit=1.5),
    lambda source: source.query("jobs", limit=math.nan),
    lambda source: source.count("jobs", where={"price": math.nan}),
    lambda source: source.create("jobs", "a", match=1),
    lambda source: source.create("jobs", "a", version=1),
    lambda source: source.query("jobs", where={"at": {"gte": "0001-01-01T00:00:00+01:00"}}),
    lambda source: source.wait_for("jobs", "\ud800"),
    lambda source: source.wait_for("jobs", "a", until={"price": math.nan}),
    lambda source: source.get_many([("jobs", 5)]),
    lambda source: source.claim("jobs", worker_id="w", where={"price": Decimal(1)}),
    lambda source: source.claim("jobs", worker_id=b"w"),
    lambda source: source.claim("jobs", worker_id="w", limit=math.nan),
    lambda source: source.claim("jobs", worker_id="w", lock_for=math.nan),
    lambda source: source.claim("jobs", worker_id="w", max_in_flight=math.nan),
    lambda source: source.exchange([], "jobs", worker_id="w", where={"price": math.nan}),
    lambda source: source.configure("jobs", max_attempts=math.inf, lock_for=math.nan),
    lambda source: source.configure("jobs", indexes={"n": b"number"}),
    lambda source: source.configure("bad key"),
    lambda source: source.builds("bad key"),
    lambda source: source.pause("bad key"),
]


@pytest.mark.parametrize("act", MALFORMED)
async def test_what_is_malformed_is_told_as_by_a_datastore(client: Client, datastore: Datastore, act: Act) -> None:
    """Before anything is sent: JSON would have made something else of some."""
    told = []
    for source in (datastore, client):
        with pytest.raises(Invalid) as invalid:
            await act(source)
        told.append(invalid.value.flaws)
    assert told[0] == told[1]


async def test_a_wait_that_is_no_number_ends_at_once(client: Client, datastore: Datastore) -> None:
    await datastore.create("jobs", "a")
    for source in (client, datastore):
        async with asyncio.timeout(5):
            assert (await source.claim("jobs", worker_id="w", wait=math.nan)).items == []
            assert await source.wait_for("jobs", "a", timeout=math.nan) is None


class Word(StrEnum):
    STATUS = "not_started"
    KIND = "kind"


class Text(str):
    """Text of a class of its own."""

    __slots__ = ()


async def test_what_a_datastore_takes_is_taken(client: Client, datastore: Datastore) -> None:
    """Mappings of any type, tuples in filters, members of enums of texts, and text of other classes."""
    for name, source in (("a", datastore), ("b", client)):
        metadata = MappingProxyType({"status": Word.STATUS, "kind": Text("x")})
        made = await source.create("jobs", name, metadata=metadata)
        assert made.item == await datastore.get("jobs", name)
        where = MappingProxyType({"kind": MappingProxyType({"in": (Text("x"), "y")}), "status": Word.STATUS})
        assert [item.sort_field for item in (await source.query("jobs", where=where)).items][-1] == name
        configured = await source.configure(
            "jobs", backoff=("1s", Text("2s")), indexes=MappingProxyType({"n": "number"})
        )
        assert configured == await datastore.key_settings("jobs")


@pytest.mark.parametrize("value", [math.nan, [b"x"], {"n": Decimal("1.1")}, nested(2000)])
async def test_values_for_the_names_of_a_text_that_json_has_not(client: Client, value: Any) -> None:
    with pytest.raises(Invalid, match=r"^/names/v"):
        await client.command("create item with:\nkey: docs\ncontent: [v]", {"v": value})
    assert (await client.count("docs")).count == 0


async def test_an_item_is_a_value_for_a_name_of_a_text(client: Client) -> None:
    urls = [{"url": "http://127.0.0.1:1/", "apiKey": "secret"}]
    await client.create("jobs", "a", content=7, metadata=WAITING, trigger_urls=urls)
    (job,) = (await client.claim("jobs", worker_id="w")).items
    text = (
        "create item with:\nkey: docs\nsortField: [job.sortField]\ncontent: [job]\n\n"
        "create item with:\nkey: docs\ncontent: [jobs.0.content]\n"
    )
    whole, part = await client.command(text, {"job": job, "jobs": (job,)})
    assert whole["item"]["content"] == structs.replace(job, token=None).to_dict()
    assert (whole["item"]["sortField"], part["item"]["content"]) == ("a", 7)


async def test_many(client: Client) -> None:
    """More than one request takes, of each kind, in order; conditions of their own go alone."""
    calls = client.calls
    outcomes = await client.run([calls.create("jobs", f"{n:04}", metadata=WAITING) for n in range(600)])
    assert all(outcome.ok and outcome.version == 1 for outcome in outcomes)
    claimed = [item for _ in range(2) for item in (await client.claim("jobs", worker_id="w", limit=300)).items]
    tokens = {item.sort_field: item.token or "" for item in claimed}
    mixed = [
        calls.complete("jobs", "0000", tokens["0000"], metadata={"result": 1}),
        calls.create("docs", "a", triggers=False),
        calls.update("docs", "a", metadata={"x": 1}, match=1),
        calls.update("docs", "a", metadata={"x": 2}, match=1),
        calls.delete("docs", "a"),
        calls.fail("jobs", "0001", tokens["0001"], error="no", retry_after="1h"),
        calls.release("jobs", "0002", "1.wrong"),
    ]
    words = [outcome.word for outcome in await client.run(mixed)]
    assert words == ["ok", "ok", "ok", "precondition_failed", "ok", "ok", "stale_token"]
    rest = [calls.complete("jobs", name, token) for name, token in tokens.items() if name > "0002"]
    settled, claimed_next = await client.exchange(rest, "jobs", worker_id="w", limit=1)
    assert [outcome.status for outcome in settled] == ["completed"] * 597
    assert claimed_next.items == []
    large = [calls.create("docs", f"{n}", content="x" * 300_000) for n in range(5)]
    assert all(outcome.ok for outcome in await client.run(large))
    wide = [calls.create("wide", f"{n}", content="\u4e2d\x01"[n % 2] * 5000) for n in range(110)]
    assert all(outcome.ok for outcome in await client.run(wide))


@pytest.mark.settings(partitions=16)
async def test_new_items_without_names_share_calls_of_the_store(
    client: Client, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many partitions there are, which a client does not know."""
    monkeypatch.setattr("hookline.sortfield.TOGETHER", 60.0)
    calls = [client.calls.create("jobs", metadata=WAITING) for _ in range(320)]
    for partitions in (2, 16, 256):
        places = groupby(partition_of("jobs", call.sort_field, partitions) for call in calls)
        first, *rows, last = [len([*row]) for _, row in places]
        assert (set(rows), first + last) in (({32}, 32), ({32}, 64))
    before = await script_calls(raw)
    assert all(outcome.ok for outcome in await client.run(calls))
    # 32 a partition, and at the ends of the row fewer; each as one call, or as two that share them.
    assert await script_calls(raw) - before <= 2 * (320 // 32 + 1)


async def test_what_a_later_request_is_refused_for_leaves_the_outcomes_of_those_before(client: Client) -> None:
    calls = client.calls
    first = [calls.create("jobs", f"{n}", content="x" * 400_000) for n in range(2)]
    outcomes = await client.run([*first, calls.create("jobs", "large", content="x" * 2_000_000)])
    assert [outcome.word for outcome in outcomes] == ["ok", "ok", "invalid"]
    with pytest.raises(Invalid, match="at most"):
        raise outcomes[-1].error()


async def test_an_exchange_is_one_of_the_datastore(client: Client, datastore: Datastore) -> None:
    await fill(datastore, 3)
    (first,) = (await client.claim("jobs", worker_id="w")).items
    calls = client.calls
    settled, claimed = await client.exchange(
        [calls.complete("jobs", first.sort_field, first.token or "")], "jobs", worker_id="w", limit=2, lock_for="1m"
    )
    assert [(outcome.word, outcome.version) for outcome in settled] == [("ok", 3)]
    assert [structs.replace(item, token=None) for item in claimed.items] == await datastore.get_many(
        [("jobs", "0001"), ("jobs", "0002")]
    )
    (extended,) = await client.settle([calls.extend("jobs", "0001", claimed.items[0].token or "", lock_for="1h")])
    assert extended.locked_until_ms == (await datastore.get("jobs", "0001")).locked_until_ms
    with pytest.raises(StaleToken):
        await client.update("jobs", "0001", metadata={"x": 1}, token="1.wrong")


@pytest.mark.parametrize("verbs", ["release complete", "fail complete", "release fail", "extend complete"])
async def test_what_is_asked_of_an_item_first_is_done_first(client: Client, datastore: Datastore, verbs: str) -> None:
    """A request settles verb by verb, in another order."""
    for source in (datastore, client):
        await source.create("jobs", "a", metadata=WAITING)
        (job,) = (await source.claim("jobs", worker_id="w")).items
        first, then = (getattr(source.calls, verb)("jobs", "a", job.token) for verb in verbs.split())
        words = [outcome.word for outcome in await source.settle([first, then])]
        assert words == ["ok", "ok" if verbs.startswith("extend") else "stale_token"], source
        await source.delete("jobs", "a")


async def test_the_same_operation_twice(source: Datastore | Client) -> None:
    """Each has an outcome of its own."""

    async def claim() -> Any:
        await source.create("jobs", "a", metadata=WAITING, upsert=True)
        (job,) = (await source.claim("jobs", worker_id="w")).items
        return source.calls.complete("jobs", "a", job.token or "")

    complete = await claim()
    assert [outcome.word for outcome in await source.settle([complete, complete])] == ["ok", "stale_token"]
    complete = await claim()
    outcomes, _ = await source.exchange([complete, complete], "jobs", worker_id="w")
    assert [outcome.word for outcome in outcomes] == ["ok", "stale_token"]
    complete = await claim()
    outcomes, _ = await source.exchange([complete, complete], "other", worker_id="w")
    assert [outcome.word for outcome in outcomes] == ["ok", "stale_token"]
    await source.create("docs", "a")
    update: Any = source.calls.update("docs", "a", metadata={"x": 1}, match=1)
    assert [outcome.word for outcome in await source.run([update, update])] == ["ok", "precondition_failed"]


async def test_what_triggers_say_is_read_and_can_be_written_back(client: Client, datastore: Datastore) -> None:
    whole = {"where": {"n": {"gt": 1}}, "retry": ["5s", "1m"], "ordered": True, "format": "cloudevents"}
    secret = "whsec_" + "A" * 32
    urls = [{"url": "http://127.0.0.1:1/", **whole, "secret": secret}, {"url": "http://127.0.0.1:2/", "retry": []}]
    await client.create("docs", "a", trigger_urls=urls)
    stored = (await datastore.get("docs", "a")).to_dict()["triggerUrls"]
    assert (stored[0]["retry"], stored[0]["hasSecret"], stored[1]["retry"]) == (["5s", "1m"], True, [])
    assert (await client.get("docs", "a")).to_dict()["triggerUrls"] == stored
    await client.update("docs", "a", trigger_urls=stored)
    assert (await datastore.get("docs", "a")).to_dict()["triggerUrls"] == stored
    settings = await client.configure("docs", trigger_urls=urls)
    assert settings.to_dict() == (await datastore.key_settings("docs")).to_dict()


async def test_a_claim_waits(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.flow.WAIT_MAX", 0.2)
    waiting = asyncio.create_task(client.claim("jobs", worker_id="w", wait=20))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await client.create("jobs", "a", metadata=WAITING)
    assert [item.sort_field for item in (await waiting).items] == ["a"]
    assert (await client.claim("jobs", worker_id="w", wait=0.3)).items == []


async def test_a_claim_that_waits_for_several_requests_is_one_write_under_an_idempotency_key(
    client: Client, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr("hookline.flow.WAIT_MAX", 0.2)
    begun = time.monotonic()
    view = client.once("k")
    assert (await view.claim("jobs", worker_id="w", wait=0.5)).items == []
    assert 0.4 <= time.monotonic() - begun < 5  # requests that are late may leave out half of a share
    first = client.once("k")
    waiting = asyncio.create_task(first.claim("jobs", worker_id="w", wait=9))
    await asyncio.sleep(0.5)
    await client.create("jobs", "a", metadata=WAITING)
    claimed = await waiting
    await client.create("jobs", "b", metadata=WAITING)
    for each in (view, first):
        assert (await each.create("docs", "x")).version == 1
    again = client.once("k")
    repeated = await again.claim("jobs", worker_id="w", wait=9)
    assert [item.token for item in repeated.items] == [item.token for item in claimed.items]
    assert (await again.create("docs", "x")).version == 1
    with SyncClient(url) as other:
        assert (await asyncio.to_thread(other.once("k").claim, "jobs", worker_id="w", wait=9)).items == repeated.items


async def test_wait_for(client: Client) -> None:
    await client.create("jobs", "a", metadata=WAITING)
    assert await client.wait_for("jobs", "a", timeout=0.1) is None
    ending = asyncio.create_task(client.wait_for("jobs", "a"))
    filtered = asyncio.create_task(client.wait_for("jobs", "a", until={"x": {"gte": 2}}))
    await asyncio.sleep(0.1)
    await client.update("jobs", "a", metadata={"x": 1})
    await client.update("jobs", "a", metadata={"x": 2})
    found = await filtered
    assert found
    assert found.metadata["x"] == 2
    assert not ending.done()
    await client.update("jobs", "a", metadata={"status": "completed"})
    assert await ending == await client.get("jobs", "a")
    with pytest.raises(NotFound):
        await client.wait_for("jobs", "b")


async def test_wait_for_outlasts_a_restart_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    async with Client(f"http://127.0.0.1:{port}") as client:
        blocking = SyncClient(client.url)
        async with serving(tmp_path, port=port) as first:
            await client.create("jobs", "a", metadata=WAITING)
            waiting = [
                asyncio.create_task(client.wait_for("jobs", "a")),
                asyncio.create_task(asyncio.to_thread(blocking.wait_for, "jobs", "a")),
            ]
            assert await client.wait_for("jobs", "a", timeout=0.2) is None
            await first.stop()
        await asyncio.sleep(1.2)  # longer than reads that do not wait are tried
        with pytest.raises(Unavailable):
            await client.get("jobs", "a")
        assert not any(task.done() for task in waiting)
        async with serving(tmp_path, port=port):
            await client.update("jobs", "a", metadata={"status": "completed"})
            ended = await client.get("jobs", "a")
            assert await asyncio.gather(*waiting) == [ended, ended]
        with pytest.raises(Unavailable):
            await client.wait_for("jobs", "a", timeout=30)  # nobody says that the item is there
        blocking.close()


async def test_queries(client: Client, datastore: Datastore) -> None:
    names = await fill(datastore, 30)
    assert [item.sort_field async for item in client.items("jobs", page=7)] == names
    where = {"n": {"gte": 10}}
    assert await client.query("jobs", where=where, limit=1000) == await datastore.query("jobs", where=where, limit=1000)
    assert await client.count("jobs", where=where) == await datastore.count("jobs", where=where)
    page = await client.query("jobs", limit=5, order="sortField:desc")
    rest = await client.query("jobs", limit=5, order="sortField:desc", cursor=page.cursor)
    assert [item.sort_field for item in page.items + rest.items] == names[:-11:-1]


async def test_settings(client: Client, datastore: Datastore) -> None:
    given: dict[str, Any] = {
        "max_attempts": 3,
        "lock_for": "90s",
        "backoff": ["1s", "2s"],
        "max_length": 10,
        "indexes": {"n": "number"},
        "retention": {"completed": {"age": "7d"}},
        "record_deliveries": True,
        "trigger_urls": {"http://127.0.0.1:1/": "k"},
    }
    configured = await client.configure("jobs", **given)
    assert configured == await datastore.key_settings("jobs")
    await client.pause("jobs")
    settings = await client.key_settings("jobs")
    assert settings == await datastore.key_settings("jobs")
    assert (settings.paused, settings.max_attempts) == (True, 3)
    await client.resume("jobs")
    cleared: KeySettings = await client.configure("jobs", backoff=None, max_length=None)
    assert cleared == await datastore.key_settings("jobs")
    assert (cleared.max_length, cleared.max_attempts, cleared.paused) == (None, 3, False)
    assert await client.builds("jobs") == await datastore.builds("jobs")


async def test_a_claim_says_that_the_key_is_paused_and_heeds_its_bound(client: Client, datastore: Datastore) -> None:
    await fill(datastore, 3)
    claimed = await client.claim("jobs", worker_id="w", limit=3, max_in_flight=2)
    assert (len(claimed.items), claimed.paused) == (2, False)
    for source in (client, datastore):
        assert (await source.claim("jobs", worker_id="w", limit=3, max_in_flight=2)).items == []
    await client.pause("jobs")
    for source in (client, datastore):
        paused = await source.claim("jobs", worker_id="v")
        assert (paused.items, paused.paused) == ([], True)
        _, after = await source.exchange([], "jobs", worker_id="v")
        assert (after.items, after.paused) == ([], True)
    await client.resume("jobs")
    assert len((await client.claim("jobs", worker_id="v")).items) == 1
    with pytest.raises(Invalid, match="maxInFlight"):
        await client.claim("jobs", worker_id="w", max_in_flight=0)


async def test_commands(client: Client) -> None:
    (result,) = await client.command("create item with key: docs and sortField: a and content: 1")
    assert result["item"]["content"] == 1
    with pytest.raises(NotFound) as refused:
        await client.command("get item with key: docs and sortField: b")
    assert refused.value.stopped == StoppedAt([], 0, 1, 1)


async def test_a_text_that_stops_tells_what_it_has_done(client: Client) -> None:
    await client.create("jobs", "a", metadata=WAITING)
    text = "claim items where key: jobs\n\ncreate item with:\nkey: docs\nsortField: a\ncontent: [item.content.x]\n"
    with pytest.raises(HooklineError) as stopped:
        await client.command(text)
    where = stopped.value.stopped
    assert where
    assert (where.index, where.line, where.column) == (1, 6, 10)
    (claimed,) = where.results
    token = claimed["items"][0]["token"]
    assert token not in repr(where)
    (ended,) = await client.settle([client.calls.complete("jobs", "a", token)])
    assert ended.status == "completed"
    with pytest.raises(HooklineError) as unread:
        await client.command("get item with:\nkye: docs\n")
    assert unread.value.stopped == StoppedAt([], None, 2, 1)
    with pytest.raises(NotFound) as plain:
        await client.get("docs", "a")
    assert plain.value.stopped is None


async def test_without_a_loop(url: str, client: Client) -> None:
    """The same flows, so one of each kind will do."""

    def use() -> None:
        with SyncClient(url) as blocking:
            blocking.create("jobs", "a", metadata=WAITING)
            with pytest.raises(Exists):
                blocking.create("jobs", "a")
            (item,) = blocking.claim("jobs", worker_id="w", wait=1).items
            outcomes, _ = blocking.exchange(
                [blocking.calls.complete("jobs", "a", item.token or "")], "jobs", worker_id="w"
            )
            assert outcomes[0].ok
            ended = blocking.wait_for("jobs", "a")
            assert ended == blocking.get("jobs", "a")
            assert [item.sort_field for item in blocking.items("jobs")] == ["a"]

    await asyncio.to_thread(use)
    assert (await client.get("jobs", "a")).status == "completed"


async def test_names_of_dots(client: Client, url: str) -> None:
    with SyncClient(url) as blocking:
        for name in (".", "..", "..."):
            await client.create("jobs", name, content=name)
            assert (await client.get("jobs", name)).content == name
            assert (await asyncio.to_thread(blocking.get, "jobs", name)).content == name
            await asyncio.to_thread(blocking.delete, "jobs", name)
            await client.create(name, "x", content=name)
            assert (await client.get(name, "x")).content == name


async def test_a_write_under_an_idempotency_key_is_sent_again_and_done_once(
    client: Client, datastore: Datastore, url: str
) -> None:
    """Through a proxy that forwards each request and loses the first two answers."""
    lost: list[bytes] = []
    port = int(url.rpartition(":")[2])

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head.lower())[0])
        request = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + await reader.readexactly(length)
        upstream, send = await asyncio.open_connection("127.0.0.1", port)
        send.write(request)
        answer = await upstream.read()
        send.close()
        if len(lost) < 2:
            lost.append(answer)
        else:
            writer.write(answer)
        writer.close()

    await fill(datastore, 2)
    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with proxy, Client(f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}") as behind:
        first = (await behind.once("a").claim("jobs", worker_id="w")).items
        assert len(lost) == 2
        again = (await client.once("a").claim("jobs", worker_id="w")).items
        assert first == again
        assert [item.token for item in first] == [item.token for item in again]
        with pytest.raises(IdempotencyKeyReused):
            await client.once("a").claim("jobs", worker_id="v")
        both = behind.once("b")
        job = first[0]
        for name in ("x", "y"):
            await both.create("docs", name, content=name)
        (done,) = await both.settle([client.calls.complete("jobs", job.sort_field, job.token or "")])
        assert (done.word, done.status) == ("ok", "completed")
    with SyncClient(url) as other:
        repeat = other.once("b")
        assert await asyncio.to_thread(repeat.create, "docs", "x", content="x")
        with pytest.raises(IdempotencyKeyReused):
            await asyncio.to_thread(repeat.create, "docs", "z", content="y")
    for key in ("", "a b", 'a"', "a,b", "a" * 201):
        with pytest.raises(Invalid, match="/idempotencyKey"):
            client.once(key)


@pytest.mark.parametrize("kind", [Client, SyncClient])
async def test_what_a_failure_kept_from_being_sent_shifts_no_later_write(
    kind: type[Client] | type[SyncClient], client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that goes on after a failure, and its repeat, in which nothing fails."""
    monkeypatch.setattr(f"{kind.__module__}.pause", lambda _: 0.0)

    def fails(send: Any, request: Any, down: list[bool]) -> Any:
        if down and request.target.startswith("/v1/items:batch"):
            raise Unavailable("away")
        return send(request)

    for away in (True, False):
        with SyncClient(url) as other:
            source: Any = Client(url) if kind is Client else other
            monkeypatch.setattr(source._session, "send", partial(fails, source._session.send, down=[True] * away))
            view = source.once("k")
            calls = [client.calls.create("jobs", name, triggers=name != "b") for name in "abc"]
            with pytest.raises(Unavailable) if away else nullcontext():
                await asked(view.run, calls)
            made = [await asked(view.create, "docs", name) for name in "xy"]
            assert [outcome.item.version for outcome in made] == [1, 1]
            if kind is Client:
                await source.close()
    assert [item.version for item in (await client.get_many([("docs", "x"), ("docs", "y")])) if item] == [1, 1]


async def asked(verb: Callable[..., Any], *args: Any) -> Any:
    """What a verb of a client gives, whichever it is."""
    return await verb(*args) if inspect.iscoroutinefunction(verb) else await asyncio.to_thread(verb, *args)


async def test_what_is_created_under_an_idempotency_key_without_a_name_has_the_same_in_a_repeat(
    client: Client, url: str
) -> None:
    once, again = client.once("a"), client.once("a")
    first = [await once.create("docs", content="x") for _ in range(2)]
    assert [(await again.create("docs", content="x")).item for _ in range(2)] == [made.item for made in first]
    with SyncClient(url) as other:
        repeat = await asyncio.to_thread(other.once("a").create, "docs", content="x")
    assert repeat.sort_field == first[0].sort_field
    assert (await client.count("docs")).count == 2


async def test_changes_of_all_that_match(client: Client, datastore: Datastore, url: str) -> None:
    """More than one request of each reaches."""
    await fill(datastore, 1200)
    assert await client.cancel("jobs") == Changed(1200, 0)
    assert (await client.count("jobs", where={"status": "cancelled"})).count == 1200
    with pytest.raises(Invalid, match="/where"):
        await client.delete_all("jobs", where=None)
    with SyncClient(url) as other:
        with pytest.raises(Invalid, match="/where"):
            await asyncio.to_thread(other.delete_all, "jobs", where=None)
        assert await asyncio.to_thread(other.once("d").delete_all, "jobs", where={}) == Changed(1200, 0)
    await client.create("jobs", "a", metadata={"status": "failed"})
    assert await client.redrive("jobs", where={"status": "failed"}) == Changed(1, 0)
    assert (await client.get("jobs", "a")).status == "not_started"
    with pytest.raises(Invalid, match="/where"):
        await client.cancel("jobs", where=[])


async def test_a_change_of_all_that_match_says_that_the_outbox_is_full(
    client: Client, datastore: Datastore, served: Api, store: Any
) -> None:
    await datastore.configure("jobs", trigger_urls=[{"url": "http://worker.example/", "events": ["updated"]}])
    await fill(datastore, 30)
    narrow = replace(datastore.settings, outbox_max=10)
    async with Datastore(store.url, narrow, datastore.secrets) as full:
        served.app.state.datastore = full
        with pytest.raises(OutboxFull):
            await client.cancel("jobs")
    assert (await datastore.count("jobs", where={"status": "cancelled"})).count == 10
    served.app.state.datastore = datastore
    assert await client.cancel("jobs") == Changed(20, 0)


async def test_a_waiter_that_goes_away_holds_nothing(client: Client, datastore: Datastore) -> None:
    waiting = asyncio.create_task(client.claim("jobs", worker_id="w", wait=20))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
    await end(waiting)
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 0)
