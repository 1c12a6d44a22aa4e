"""Idempotency-Key on every route that writes: one effect, and the answer of the first time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Answer, Api, asking
from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Settings
from hookline_server.app import ROUTES, create_app
from hookline_server.event import endpoint_of
from hookline_server.gate import Gate
from hookline_server.guard import SCOPES
from invariants import check_invariants, read_facts
from jobs import WAITING

KEY = {"Idempotency-Key": '"8e03978e-40d5"'}
RULE = {"key": "jobs", "where": {"kind": "x"}, "limit": 2}
SCHEDULE = {"key": "jobs", "cron": "0 9 * * *", "triggerUrls": [{"url": "https://worker.example/", "retry": ["5s"]}]}
CALLED = {"https://worker.example/": "its-api-key"}


@pytest.fixture(params=[1, 3])
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return replace(Settings(), data=tmp_path, call_timeout=2.0, partitions=request.param)


@pytest.fixture
async def token(datastore: Datastore) -> str:
    """Items to work on; the token of the one that is held."""
    create = datastore.calls.create
    await datastore.run([create("jobs", f"w{n}", content=n, metadata={**WAITING, "kind": "x"}) for n in range(30)])
    await datastore.run([create("jobs", f"d{n}", metadata={"status": "failed"}) for n in range(3)])
    await datastore.create("jobs", "plain", content={"a": 1, "b": 2}, metadata={"x": 1}, trigger_urls=CALLED)
    held = await datastore.create("jobs", "held", metadata={"status": "started", "worker_id": "w"})
    assert held.item
    assert held.item.token
    return held.item.token


@dataclass(frozen=True)
class Write:
    """A request that writes; ``body`` gets the token of the item that is held."""

    method: str
    path: str
    route: str
    body: Callable[[str], Any] = lambda _: None
    headers: dict[str, str] | None = None

    async def send(self, api: Api, token: str, **headers: str) -> Answer:
        given = {"Content-Type": "application/json", **(self.headers or {}), **headers}
        body = self.body(token)
        data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return await api(self.method, self.path, data=data, headers=given)


RUN_TWICE = b"run schedule with name: rule\nrun schedule with name: rule\n"
ITEM, MERGE = "/v1/items/{key}/{sort_field:path}", {"Content-Type": "application/merge-patch+json"}
TEXT = """/datastore create item with:
key: jobs
metadata: { "status": "not_started" }

/datastore update item with:
key: jobs
sortField: [item.sortField]
content: 2

/datastore cancel item with:
key: jobs
sortField: w1

/datastore claim items where:
key: jobs
limit: 2
"""
URL = "http://worker.example/run"
ENDPOINT, WORKER = endpoint_of(URL), "/v1/workers/{key}/{worker_id:path}"
PRESENCE = {"host": "h", "pid": 1, "handlers": ["f"], "concurrency": 1, "inFlight": 0}
WRITES: dict[str, Write] = {
    "create": Write("POST", "/v1/items", "/v1/items", lambda _: {"key": "jobs", "sortField": "new", "content": 1}),
    "create without a name": Write("POST", "/v1/items", "/v1/items", lambda _: {"key": "jobs", "triggerUrls": CALLED}),
    "create some": Write(
        "POST", "/v1/items", "/v1/items", lambda _: {"items": [{"key": "jobs", "content": n} for n in range(9)]}
    ),
    "create lines": Write(
        "POST", "/v1/items", "/v1/items", lambda _: "".join(f'{{"key": "jobs", "content": {n}}}\n' for n in range(9)),
        {"Content-Type": "application/x-ndjson"},
    ),
    "put a new one": Write("PUT", "/v1/items/jobs/new", ITEM, lambda _: {"content": 1}),
    "put none but a new": Write("PUT", "/v1/items/jobs/new", ITEM, lambda _: {"content": 1}, {"If-None-Match": "*"}),
    "put": Write("PUT", "/v1/items/jobs/plain", ITEM, lambda _: {"content": 1}, {"If-Match": '"1"'}),
    "put any": Write("PUT", "/v1/items/jobs/plain", ITEM, lambda _: {"content": 1}, {"If-Match": "*"}),
    "patch": Write("PATCH", "/v1/items/jobs/plain?triggers=off", ITEM, lambda _: {"metadata": {"y": 1}, "version": 1}),
    "start": Write("PATCH", "/v1/items/jobs/w2", ITEM, lambda _: {"metadata": {"status": "started", "worker_id": "v"}}),
    "merge": Write("PATCH", "/v1/items/jobs/plain", ITEM, lambda _: {"content": {"a": None, "c": 3}}, MERGE),
    "merge a version": Write(
        "PATCH", "/v1/items/jobs/plain", ITEM, lambda _: {"content": {"a": 7}}, {**MERGE, "If-Match": '"1"'}
    ),
    "delete": Write("DELETE", "/v1/items/jobs/plain", ITEM),
    "batch": Write(
        "POST", "/v1/items:batch", "/v1/items:batch",
        lambda _: {"operations": [
            {"op": "create", "key": "jobs", "content": 1},
            {"op": "update", "key": "jobs", "sortField": "w3", "content": 2},
            {"op": "get", "key": "jobs", "sortField": "w3"},
            {"op": "delete", "key": "jobs", "sortField": "w4"},
            {"op": "create", "key": "jobs", "sortField": "w5"},
        ]},
    ),
    "claim": Write("POST", "/v1/jobs/jobs/claim", "/v1/jobs/{key}/claim", lambda _: {"workerId": "v", "limit": 2}),
    "claim, waiting": Write(
        "POST", "/v1/jobs/jobs/claim", "/v1/jobs/{key}/claim",
        lambda _: {"workerId": "v", "wait": 5, "where": {"kind": "x"}},
    ),
    "settle": Write(
        "POST", "/v1/jobs/jobs/settle", "/v1/jobs/{key}/settle",
        lambda token: {"complete": [{"sortField": "held", "token": token, "metadata": {"rows": 1}}]},
    ),
    "exchange": Write(
        "POST", "/v1/jobs/jobs/settle", "/v1/jobs/{key}/settle",
        lambda token: {
            "workerId": "w", "claim": {"limit": 2}, "fail": [{"sortField": "held", "token": token, "retryAfter": 60}],
        },
    ),
    "pause": Write("POST", "/v1/jobs/jobs/pause", "/v1/jobs/{key}/pause"),
    "resume": Write("POST", "/v1/jobs/jobs/resume", "/v1/jobs/{key}/resume"),
    "cancel all": Write("POST", "/v1/jobs/jobs/cancel", "/v1/jobs/{key}/cancel", lambda _: {}),
    "redrive all": Write("POST", "/v1/jobs/jobs/redrive", "/v1/jobs/{key}/redrive", lambda _: {}),
    "delete all": Write("POST", "/v1/items/jobs/delete", "/v1/items/{key}/delete", lambda _: {"where": {"kind": "x"}}),
    "settings": Write(
        "PUT", "/v1/keys/jobs/settings", "/v1/keys/{key}/settings", lambda _: {"maxAttempts": 3, "triggerUrls": CALLED}
    ),
    "some settings": Write("PATCH", "/v1/keys/jobs/settings", "/v1/keys/{key}/settings", lambda _: {"maxAttempts": 3}),
    "endpoint": Write("POST", "/v1/endpoints", "/v1/endpoints", lambda _: {"url": "http://other.example/run"}),
    "configure an endpoint": Write(
        "PUT", f"/v1/endpoints/{ENDPOINT}", "/v1/endpoints/{endpoint}", lambda _: {"status": "paused"}
    ),
    "heartbeat": Write("PUT", "/v1/workers/jobs/other", WORKER, lambda _: PRESENCE),
    "signal": Write("POST", "/v1/workers/jobs/w", WORKER, lambda _: {"signal": "quiet"}),
    "leave": Write("DELETE", "/v1/workers/jobs/w", WORKER),
    "rule": Write("PUT", "/v1/orchestrations/new", "/v1/orchestrations/{name}", lambda _: RULE),
    "delete a rule": Write("DELETE", "/v1/orchestrations/rule", "/v1/orchestrations/{name}"),
    "run a rule": Write("POST", "/v1/orchestrations/rule/run", "/v1/orchestrations/{name}/run"),
    "schedule": Write("PUT", "/v1/schedules/new", "/v1/schedules/{name}", lambda _: SCHEDULE),
    "delete a schedule": Write("DELETE", "/v1/schedules/rule", "/v1/schedules/{name}"),
    "run a schedule": Write("POST", "/v1/schedules/rule/run", "/v1/schedules/{name}/run"),
    **{
        f"{verb} {kind}": Write("POST", f"/v1/{kind}/rule/{verb}", f"/v1/{kind}/{{name}}/{verb}")
        for kind in ("orchestrations", "schedules")
        for verb in ("enable", "disable")
    },
    "command": Write("POST", "/v1/command", "/v1/command", lambda _: TEXT, {"Content-Type": "text/plain"}),
    "command in tables": Write(
        "POST", "/v1/command", "/v1/command", lambda _: TEXT, {"Content-Type": "text/plain", "Accept": "text/plain"}
    ),
}  # fmt: skip


@pytest.fixture
async def rule(api: Api) -> None:
    """A rule, an endpoint and a worker, to be changed."""
    assert (await api("PUT", "/v1/orchestrations/rule", RULE)).status == 201
    assert (await api("PUT", "/v1/schedules/rule", SCHEDULE)).status == 201
    assert (await api("POST", "/v1/endpoints", {"url": URL})).status == 201
    assert (await api("PUT", "/v1/workers/jobs/w", PRESENCE)).status == 200


def read(answer: Answer) -> Any:
    """The body as a value: the names in an object are in no order."""
    match answer.headers.get("content-type"):
        case "application/json":
            return answer.data
        case "application/x-ndjson":
            return [json.loads(line) for line in answer.body.splitlines()]
    return answer.body


def test_every_route_that_writes_is_here() -> None:
    reads = {("POST", "/v1/items/{key}/query"), ("POST", "/v1/triggers/test")}
    # What they answer is shown once, so it is kept nowhere.
    secret = {(method, path) for method, path in SCOPES if path.startswith("/v1/api-keys")}
    # Deliveries that failed are made by a relay, of which there is none here.
    relayed = {("POST", f"/v1/deliveries{one}/{verb}") for one in ("", "/{delivery}") for verb in ("redrive", "cancel")}
    writing = {
        (method, route.path) for route in ROUTES for method in (route.methods or set()) - {"GET", "HEAD", "OPTIONS"}
    }
    assert {(write.method, write.route) for write in WRITES.values()} == writing - reads - secret - relayed


@pytest.mark.usefixtures("rule")
@pytest.mark.parametrize("name", WRITES)
async def test_the_second_time_is_as_the_first(api: Api, raw: aioredis.Redis, token: str, name: str) -> None:
    write = WRITES[name]
    before = await read_facts(raw)
    first = await write.send(api, token, **KEY)
    assert first.status < 300
    after = await read_facts(raw)
    assert after != before or name == "resume"
    again = await write.send(api, token, **KEY)
    assert (again.status, read(again)) == (first.status, read(first))
    assert {header: again.headers.get(header) for header in ("etag", "location")} == {
        header: first.headers.get(header) for header in ("etag", "location")
    }
    assert await read_facts(raw) == after
    assert "idempotency-replayed" not in first.headers
    # The answer to a stream begins before it is known what becomes of its lines.
    assert again.headers.get("idempotency-replayed") == (None if name == "create lines" else "true")
    await check_invariants(raw)


@pytest.mark.usefixtures("rule")
@pytest.mark.parametrize("name", WRITES)
async def test_another_request_under_the_key(api: Api, raw: aioredis.Redis, token: str, name: str) -> None:
    """Whatever came first; and nothing of it is done."""
    assert (await api("POST", "/v1/items", {"key": "other"}, headers=KEY)).status == 201
    before = await read_facts(raw)
    answer = await WRITES[name].send(api, token, **KEY)
    if name == "create lines":
        problems = [json.loads(line).get("problem", {}) for line in answer.body.splitlines()]
        assert problems[0]["code"] == "idempotency_key_reused"
        return
    assert (answer.status, answer.data["code"]) == (422, "idempotency_key_reused")
    assert await read_facts(raw) == before


async def test_another_body(api: Api, raw: aioredis.Redis, token: str) -> None:
    operations = [{"op": "create", "key": "jobs", "sortField": f"{n}"} for n in range(5)]
    assert (await api("POST", "/v1/items:batch", {"operations": operations[:4]}, headers=KEY)).status == 207
    before = await read_facts(raw)
    for other in (operations, operations[1:4], operations[:3]):
        answer = await api("POST", "/v1/items:batch", {"operations": other}, headers=KEY)
        assert (answer.status, answer.data["code"]) == (422, "idempotency_key_reused")
    assert await read_facts(raw) == before


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("abc", '"abc"', True),
        (r'"a\"b"', r'"a\"b"', True),
        ("abc", "ABC", False),
        ('"a b, c"', '"a b,  c"', False),
    ],
)
async def test_forms_of_a_key(api: Api, one: str, other: str, same: bool) -> None:
    made = [
        (await api("POST", "/v1/items", {"key": "jobs"}, headers={"Idempotency-Key": key})).data["sortField"]
        for key in (one, other)
    ]
    assert (made[0] == made[1]) is same


@pytest.mark.parametrize("key", ["", '""', "a b", '"a', 'a"b', "a,b", "x" * 256, '"é"'])
async def test_what_is_no_key(api: Api, raw: aioredis.Redis, key: str) -> None:
    answer = await api("POST", "/v1/items", {"key": "jobs"}, headers={"Idempotency-Key": key})
    assert (answer.status, answer.data["code"]) == (400, "invalid_header")
    assert "Idempotency-Key" in answer.data["detail"]
    assert not await raw.keys("hl:{default/*}*:i:*")


async def test_reads_pay_no_heed_to_it(api: Api, token: str) -> None:
    for _ in range(2):
        answer = await api("GET", "/v1/items/jobs/plain", headers=KEY)
        assert (answer.status, "idempotency-replayed" in answer.headers) == (200, False)
    assert (await api("POST", "/v1/items/jobs/query", {}, headers=KEY)).status == 200


async def test_what_was_refused_is_tried_again(api: Api, token: str) -> None:
    body = {"metadata": {"y": 1}}
    assert (await api("PATCH", "/v1/items/jobs/new", body, headers=KEY)).status == 404
    await api("PUT", "/v1/items/jobs/new", {})
    done = await api("PATCH", "/v1/items/jobs/new", body, headers=KEY)
    assert (done.status, done.data["version"], "idempotency-replayed" in done.headers) == (200, 2, False)


async def test_what_is_malformed_takes_no_key(api: Api) -> None:
    assert (await api("POST", "/v1/items", {"key": "jobs", "nonsense": 1}, headers=KEY)).status == 422
    assert (await api("POST", "/v1/items", {"key": "jobs"}, headers=KEY)).status == 201


async def test_the_answer_is_that_of_the_first_time_whatever_followed(api: Api, token: str) -> None:
    sent: dict[str, Any] = {"headers": {**KEY, **MERGE, "If-Match": '"1"'}}
    first = await api("PATCH", "/v1/items/jobs/plain", data=b'{"content": {"a": 2}}', **sent)
    await api("PATCH", "/v1/items/jobs/plain", {"content": 3, "metadata": {"z": 1}})
    again = await api("PATCH", "/v1/items/jobs/plain", data=b'{"content": {"a": 2}}', **sent)
    assert (first.status, again.status, again.data) == (200, 200, first.data)
    await api("DELETE", "/v1/items/jobs/plain")
    again = await api("PATCH", "/v1/items/jobs/plain", data=b'{"content": {"a": 2}}', **sent)
    assert (again.status, again.data) == (200, first.data)


async def test_a_text_that_was_stopped_goes_on_where_it_was(api: Api, raw: aioredis.Redis, token: str) -> None:
    text = "/datastore create item with:\nkey: jobs\n\n/datastore get item with key: jobs and sortField: new\n"
    sent: dict[str, Any] = {"data": text.encode(), "headers": {**KEY, "Content-Type": "text/plain"}}
    stopped = await api("POST", "/v1/command", **sent)
    assert (stopped.status, stopped.data["index"]) == (404, 1)
    await api("PUT", "/v1/items/jobs/new", {})
    done = await api("POST", "/v1/command", **sent)
    assert done.data["results"][0] == stopped.data["results"][0]
    assert done.data["results"][1]["item"]["sortField"] == "new"


# All at once


async def test_twenty_at_once(api: Api, store: EmbeddedStore, datastore: Datastore) -> None:
    """On two servers: one effect; the others are told to wait, or what the first was told."""
    async with (
        Datastore(store.url, datastore.settings, datastore.secrets) as other,
        asking(create_app(other)) as second,
    ):
        answers = await asyncio.gather(
            *((api, second)[n % 2]("POST", "/v1/items", {"key": "jobs"}, headers=KEY) for n in range(20))
        )
    assert {answer.status for answer in answers} <= {201, 409}
    made = [answer for answer in answers if answer.status == 201]
    assert all(answer.data == made[0].data for answer in made)
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    assert (await datastore.count("jobs")).count == 1
    for answer in answers:
        if answer.status == 409:
            assert (answer.data["code"], answer.headers["retry-after"]) == ("idempotency_key_in_use", "1")


@pytest.mark.usefixtures("rule")
@pytest.mark.parametrize("by", ["route", "text"])
async def test_a_schedule_is_run_by_two_servers_at_once(
    api: Api, store: EmbeddedStore, datastore: Datastore, by: str
) -> None:
    """The item of a run is named by the moment: both take that of the request, and another for each run of a text."""
    path, data, runs = ("/v1/schedules/rule/run", b"", 1) if by == "route" else ("/v1/command", RUN_TWICE, 2)
    plain = {"Content-Type": "text/plain"} if data else {}
    async with (
        Datastore(store.url, datastore.settings, datastore.secrets) as other,
        asking(create_app(other)) as second,
    ):
        for n in range(10):
            key = {"Idempotency-Key": f"run-{n}"}
            one, two = await asyncio.gather(
                *(each("POST", path, data=data, headers=plain | key) for each in (api, second))
            )
            assert (one.status, one.data) == (two.status, two.data)
            assert one.status == (200 if data else 201)
            assert (await datastore.count("jobs")).count == runs * (n + 1)
            assert len((await datastore.schedules.runs("rule")).items) == runs * (n + 1)


async def test_a_bulk_change_at_two_servers_at_once(api: Api, store: EmbeddedStore, datastore: Datastore) -> None:
    """Each does its part: what it tells of that is the same at both, and ever after."""
    async with (
        Datastore(store.url, datastore.settings, datastore.secrets) as other,
        asking(create_app(other)) as second,
    ):
        for n in range(6):
            key, create = f"bulk{n}", datastore.calls.create
            await datastore.run([create(key, f"{i:03}", metadata=WAITING) for i in range(300)])
            path, headers = f"/v1/jobs/{key}/cancel", {"Idempotency-Key": key}
            one, two = await asyncio.gather(*(each("POST", path, {}, headers=headers) for each in (api, second)))
            again = await api("POST", path, {}, headers=headers)
            assert (one.status, one.data) == (two.status, two.data) == (again.status, again.data)
            assert again.headers["idempotency-replayed"] == "true"
            assert (await datastore.count(key, where={"status": "cancelled"})).count == 300


async def test_while_the_first_is_served(api: Api, datastore: Datastore) -> None:
    write = {"workerId": "w", "wait": 20}
    first = asyncio.create_task(api("POST", "/v1/jobs/jobs/claim", write, headers=KEY))
    await wait_until(lambda: datastore.claims.waiters.waiting("jobs") == 1)
    second = await api("POST", "/v1/jobs/jobs/claim", write, headers=KEY)
    assert (second.status, second.data["code"]) == (409, "idempotency_key_in_use")
    assert second.headers["retry-after"] == "1"
    await datastore.run([datastore.calls.create("jobs", f"{n}", metadata=WAITING) for n in range(30)])
    assert len((await first).data["items"]) == 1
    again = await api("POST", "/v1/jobs/jobs/claim", write, headers=KEY)
    assert again.data == (await first).data


async def test_callers_do_not_meet(api: Api, gate: Gate, make_key: Callable[..., Any], datastore: Datastore) -> None:
    keys = [await make_key("default"), await make_key("default", scopes=["write"]), await make_key("another")]
    made = [
        (await api("POST", "/v1/items", {"key": "jobs"}, headers={**KEY, **key})).data["sortField"]
        for key in [*keys, *keys]
    ]
    assert made[:3] == made[3:]
    assert len(set(made)) == 3
