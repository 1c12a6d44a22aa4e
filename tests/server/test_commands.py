"""The command language over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from api import Api
from conftest import wait_until
from hookline import Datastore
from jobs import outbox_length

CREATE = 'create item with:\nkey: jobs\nsortField: {name}\nmetadata: {{ "status": "not_started", }}\n'


async def test_each_verb_has_its_result(api: Api) -> None:
    created, got, listed, queried, updated = await api.results(
        CREATE.format(name="a")
        + """
/datastore get item with key: jobs and sortField: a

get items with key: jobs

query items where:
key: jobs
metadata: { "status": "not_started" }
limit: 10

/datastore update item with:
key: jobs
sortField: a
content: { 'rows': 3 }
""",
    )
    assert created["verb"] == "create"
    assert created["item"]["metadata"] == {"status": "not_started", "attempts": 0, "version": 1}
    assert "warnings" not in created
    assert (got["verb"], got["item"]) == ("get", created["item"])
    assert listed == {"verb": "get", "items": [created["item"]], "cursor": None}
    assert queried == {"verb": "query", "items": [created["item"]], "cursor": None}
    assert (updated["verb"], updated["item"]["content"], updated["item"]["version"]) == ("update", {"rows": 3}, 2)
    (deleted,) = await api.results("delete item with key: jobs and sortField: a\n")
    assert deleted == {"verb": "delete", "key": "jobs", "sortField": "a"}


async def test_claims_and_what_ends_them(api: Api) -> None:
    await api.results("\n".join(CREATE.format(name=name) for name in "abcd"))
    (claimed,) = await api.results('claim items where:\nkey: jobs\nmetadata: {"status": "not_started"}\nlimit: 4\n')
    assert (claimed["verb"], len(claimed["items"])) == ("claim", 4)
    assert claimed["nextAt"] is None
    assert {item["metadata"]["worker_id"] for item in claimed["items"]} == {"command"}
    heads = [f"key: jobs\nsortField: {item['sortField']}\ntoken: {item['token']}\n" for item in claimed["items"]]
    ended = await api.results(
        f'complete item with:\n{heads[0]}metadata: {{"rows": 1}}\n\n'
        f"fail item with:\n{heads[1]}error: no rows\nretryAfter: 1h\n\n"
        f"release item with:\n{heads[2]}\n"
        f"extend item with:\n{heads[3]}lockFor: 1h\n",
    )
    assert ended[:3] == [
        {"verb": "complete", "key": "jobs", "sortField": "a", "outcome": "ok", "version": 3, "status": "completed"},
        {"verb": "fail", "key": "jobs", "sortField": "b", "outcome": "ok", "version": 3, "status": "scheduled"},
        {"verb": "release", "key": "jobs", "sortField": "c", "outcome": "ok", "version": 3, "status": "not_started"},
    ]
    assert (ended[3]["outcome"], ended[3]["version"], "lockedUntil" in ended[3]) == ("ok", 2, True)
    stale = (await api.command(f"complete item with:\n{heads[0]}")).data
    assert (stale["status"], stale["code"], stale["verb"]) == (409, "stale_token", "complete")
    (other,) = await api.results("claim items where:\nkey: jobs\nworkerId: me\nlockFor: 1m\nwait: 10ms\n")
    assert other["items"][0]["metadata"]["worker_id"] == "me"


async def test_the_first_refusal_stops_the_text(api: Api) -> None:
    text = CREATE.format(name="a") + "\n" + CREATE.format(name="a") + "\n" + CREATE.format(name="b")
    answer = await api.command(text)
    assert (answer.status, answer.data["code"]) == (409, "exists")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.data["index"], answer.data["line"], answer.data["verb"]) == (1, 6, "create")
    assert answer.data["item"]["sortField"] == "a"
    assert [result["item"]["sortField"] for result in answer.data["results"]] == ["a"]
    assert (await api("GET", "/v1/items/jobs/b")).status == 404


@pytest.mark.parametrize(
    "waiting",
    ["wait for item with key: jobs and sortField: a and wait: 20s", "claim items where key: none and wait: 20s"],
)
async def test_a_text_that_waits_goes_no_further_when_the_server_stops(
    api: Api, datastore: Datastore, waiting: str
) -> None:
    text = f"{CREATE.format(name='a')}\n{waiting}\n\n{CREATE.format(name='b')}"
    asked = asyncio.create_task(api.command(text))
    await wait_until(lambda: datastore.changes.listeners() or datastore.claims.waiters.waiting("none"))
    datastore.wakes.release()
    datastore.changes.release()
    answer = await asked
    assert (answer.status, answer.data["code"], answer.data["index"]) == (503, "unavailable", 1)
    assert "the server stops" in answer.data["detail"]
    assert [result["verb"] for result in answer.data["results"]] == ["create"]
    assert (await api("GET", "/v1/items/jobs/b")).status == 404


async def test_a_bad_field_is_placed_in_the_text(api: Api) -> None:
    answer = await api.command('\ncreate item with:\nkey: jobs\nmetadata: {\n  "priority": 11 }\n')
    assert (answer.status, answer.data["code"]) == (422, "invalid")
    assert answer.data["errors"][0]["pointer"] == "/metadata/priority"
    assert (answer.data["line"], answer.data["column"], answer.data["index"]) == (4, 11, 0)
    assert answer.data["results"] == []


async def test_a_bad_filter_is_placed_however_it_is_called(api: Api) -> None:
    for name in ("metadata", "where"):
        answer = await api.command(f'query items where:\nkey: jobs\n{name}: {{"n": {{"about": 3}}}}\n')
        assert (answer.data["code"], answer.data["line"], answer.data["column"]) == ("invalid", 3, len(name) + 3)


async def test_an_error_of_syntax_runs_nothing_at_all(api: Api) -> None:
    answer = await api.command(CREATE.format(name="a") + "\nupdate item wth:\nkey: jobs\n")
    assert (answer.status, answer.data["code"]) == (422, "syntax_error")
    assert (answer.data["line"], answer.data["column"]) == (6, 13)
    assert "'with'" in answer.data["expected"]
    assert "'wth'" in answer.data["found"]
    assert answer.data["excerpt"].startswith("update item wth:")
    assert (await api("GET", "/v1/items/jobs/a")).status == 404


async def test_triggers_off_writes_no_event(api: Api, datastore: Datastore) -> None:
    await api.results(CREATE.format(name="a") + 'triggerUrls: {"http://x.example": "k"}\n')
    update = 'update item with{}:\nkey: jobs\nsortField: a\nmetadata: {{"step": {}}}\n'
    await api.results(update.format(" triggers off", 1))
    assert await outbox_length(datastore) == 0
    await api.results(update.format("", 2))
    assert await outbox_length(datastore) == 1


async def test_a_past_lock_is_warned_of(api: Api) -> None:
    await api.results(CREATE.format(name="a"))
    (claimed,) = await api.results(
        'update item with:\nkey: jobs\nsortField: a\nmetadata: {"status": "started", "version": 1,'
        ' "worker_id": "w", "locked_until": "2024-03-15T10:10:00Z"}\n',
    )
    assert "already past" in claimed["warnings"][0]
    assert claimed["item"]["token"].startswith("2.")
    assert "warnings" not in claimed["item"]


@pytest.mark.parametrize(
    "kind", ["text/plain; charset=utf-8", "application/octet-stream", "application/x-www-form-urlencoded"]
)
async def test_text_is_taken_as_clients_call_it(api: Api, kind: str) -> None:
    answer = await api("POST", "/v1/command", data=CREATE.format(name="ü").encode(), headers={"Content-Type": kind})
    assert answer.data["results"][0]["item"]["sortField"] == "ü"


async def test_a_text_of_nothing_does_nothing(api: Api) -> None:
    answer = await api.command("\n\n")
    assert (answer.status, answer.data.get("results", [])) in ((200, []), (422, []))
