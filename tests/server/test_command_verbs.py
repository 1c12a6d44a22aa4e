"""The verbs of the command language beyond create, update, query, get, delete and claims of one item."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from api import Api
from hookline import Datastore
from hookline.grant import Grant
from hookline.limited import Limited
from hookline.stats import Stats
from hookline_server import table
from hookline_server.command import parse
from hookline_server.execute import STEPS_MAX
from hookline_server.interpreter import interpret
from hookline_server.orchestrations import Orchestration, Orchestrations
from jobs import WAITING, outbox_length


async def refused(api: Api, text: str) -> tuple[int, str, str]:
    answer = await api.command(text)
    return answer.status, answer.data["code"], answer.data["detail"]


async def fill(datastore: Datastore, count: int, **metadata: Any) -> None:
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        await datastore.run([datastore.calls.create("jobs", f"{n:04}", metadata={"n": n, **metadata}) for n in numbers])


async def statuses(datastore: Datastore) -> dict[str, int]:
    return {row.status: row.count for row in (await datastore.stats()).rows}


async def test_count_and_explain(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 5, **WAITING)
    counted, queried = await api.results(
        "count items where:\nkey: jobs\nwhere: {status: 'not_started'}\nexplain: true\n\n"
        "query items where key: jobs and limit: 1 and explain: true\n",
    )
    assert (counted["verb"], counted["count"], counted["cursor"]) == ("count", 5, None)
    assert counted["explain"]["index"] == "status"
    assert (queried["explain"]["index"], len(queried["items"])) == ("sortField", 1)


async def test_get_many_by_their_names(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 3)
    (found,) = await api.results('get items with:\nkey: jobs\nsortFields: ["0002", "none", "0000"]\n')
    assert [item and item["sortField"] for item in found["items"]] == ["0002", None, "0000"]
    assert "expected 1 to" in (await refused(api, 'get items with:\nkey: jobs\nsortFields: [""]\n'))[2]
    for odd in ("1", '["0002"]', '{"a": 1}'):
        status, code, detail = await refused(api, f"get items with:\nkey: jobs\nsortFields: [{odd}]\n")
        assert (status, code, detail[:14]) == (422, "invalid", "/sortField: ex")
    assert (await refused(api, f"get items with:\nkey: jobs\nsortFields: [{'1,' * 1001}]\n"))[2].endswith("of them")


async def test_an_update_on_a_condition(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 1)
    text = "update item with:\nkey: jobs\nsortField: 0000\nmetadata: {a: 1}\nif: {n: %d}\n"
    assert (await refused(api, text % 1))[:2] == (412, "precondition_failed")
    assert (await api.results(text % 0))[0]["item"]["metadata"]["a"] == 1


async def test_delete_by_filters(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 7)
    (deleted,) = await api.results("delete items where:\nkey: jobs\nmetadata: {n: {lt: 3}}\n")
    assert deleted == {"verb": "delete items", "done": 3, "passedOver": 0, "cursor": None}
    assert (await refused(api, "delete items where key: jobs"))[1] == "syntax_error"
    (deleted,) = await api.results("delete items with triggers off where:\nkey: jobs\nwhere: {}\n")
    assert (deleted["done"], await statuses(datastore)) == (4, {})


async def test_delete_by_filters_fires_unless_triggers_are_off(api: Api, datastore: Datastore) -> None:
    await datastore.configure("jobs", trigger_urls={"http://x.example": "k"})
    for off, events in (("", 1), (" with triggers off", 0)):
        (await api.results("create item with triggers off key: jobs\n"))
        before = await outbox_length(datastore)
        await api.results(f"delete items{off} where:\nkey: jobs\nwhere: {{}}\n")
        assert await outbox_length(datastore) - before == events


async def test_a_change_of_very_many_says_how_far_it_is(api: Api, datastore: Datastore) -> None:
    await fill(datastore, STEPS_MAX * 100 + 50)
    first, second = await api.results(
        "delete items as most where:\nkey: jobs\nwhere: {}\n\n"
        "delete items where:\nkey: jobs\nwhere: {}\ncursor: [most.cursor]\n",
    )
    assert (first["done"], second["done"], second["cursor"]) == (STEPS_MAX * 100, 50, None)


async def test_cancel_one(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 2, **WAITING)
    await datastore.create("jobs", "own", metadata={"status": "mine"})
    text = "cancel item with key: jobs and sortField: %s\n"
    *_, held, own = await api.results("claim items where key: jobs\n" + text % "0000" + text % "own")
    assert [result["item"]["metadata"]["status"] for result in (held, own)] == ["cancelled", "cancelled"]
    assert await statuses(datastore) == {"": 3, "cancelled": 2, "not_started": 1}
    assert (await refused(api, text % "0000"))[:2] == (409, "not_claimable")
    await datastore.update("jobs", "0001", metadata={"status": "completed"})
    status, code, detail = await refused(api, text % "0001")
    assert (status, code, detail) == (409, "not_claimable", "the item has ended already: it is completed")
    assert (await refused(api, text % "none"))[:2] == (404, "not_found")


async def test_cancel_by_filters(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 4, **WAITING)
    (cancelled,) = await api.results("cancel items where:\nkey: jobs\nwhere: {n: {gte: 3}}\n")
    assert cancelled == {"verb": "cancel items", "done": 1, "passedOver": 0, "cursor": None}
    (cancelled,) = await api.results("cancel items where key: jobs\n")
    assert (cancelled["done"], await statuses(datastore)) == (3, {"": 4, "cancelled": 4})


async def test_redrive_one_and_many(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 4, status="failed")
    await datastore.create("jobs", "done", metadata={"status": "completed"})
    one, many, rest = await api.results(
        "redrive item with key: jobs and sortField: 0000\n"
        "redrive items where:\nkey: jobs\nwhere: {n: 1}\n\n"
        "redrive items where key: jobs\n",
    )
    assert one["item"]["metadata"]["status"] == "not_started"
    assert (many["verb"], many["done"], rest["done"]) == ("redrive items", 1, 2)
    assert await statuses(datastore) == {"": 5, "completed": 1, "not_started": 4}
    status, code, detail = await refused(api, "redrive item with key: jobs and sortField: done\n")
    assert (status, code, detail) == (412, "precondition_failed", "only an item with status failed is redriven")


async def test_wait_for_an_item(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 1, **WAITING)
    text = "wait for item with:\nkey: jobs\nsortField: 0000\nwait: 10ms\n"
    (waited,) = await api.results(text)
    assert waited == {"verb": "wait", "item": None}
    (waited,) = await api.results(text + "until: {status: 'not_started'}\n")
    assert waited["item"]["sortField"] == "0000"
    await datastore.update("jobs", "0000", metadata={"status": "completed"})
    done, got = await api.results(text + "\nget item with key: [job.key] and sortField: [job.sortField]\n")
    assert done["item"] == got["item"]
    assert (await refused(api, "wait for item with key: jobs and sortField: none"))[:2] == (404, "not_found")


async def test_a_key_is_paused_and_resumed(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 1, **WAITING)
    assert await api.results("pause key: jobs\n") == [{"verb": "pause", "key": "jobs", "paused": True}]
    assert (await api.results("claim items where key: jobs\n"))[0]["items"] == []
    resumed, claimed = await api.results("resume key: jobs\nclaim items where key: jobs\n")
    assert (resumed["paused"], len(claimed["items"])) == (False, 1)


async def test_settings_of_a_key(api: Api) -> None:
    shown, changed, again = await api.results(
        "show settings as before of key: jobs\n"
        "change settings with:\nkey: jobs\nmaxAttempts: 3\nlockFor: 1h\nbackoff: ['1s', '2s']\npaused: true\n"
        "maxLength: 1000\nindexes: {n: 'number'}\nretention: {completed: {age: '7d'}}\n"
        'triggerUrls: {"http://x.example/": "k"}\n\n'
        "change settings of:\nkey: jobs\nmaxAttempts: null\npaused: null\nindexes: null\n"
        "lockFor: [before.settings.lockFor]\n",
    )
    assert (shown["key"], shown["settings"]["maxAttempts"], shown["settings"]["lockFor"]) == ("jobs", 10, "10m")
    settings = changed["settings"]
    assert (settings["maxAttempts"], settings["lockFor"], settings["backoff"]) == (3, "1h", ["1s", "2s"])
    assert (settings["paused"], settings["maxLength"], settings["indexes"]) == (True, 1000, {"n": "number"})
    assert settings["triggerUrls"][0]["hasApiKey"] is True
    settings = again["settings"]
    assert (settings["maxAttempts"], settings["lockFor"], settings["paused"]) == (10, "10m", False)
    assert (settings["indexes"], settings["maxLength"]) == ({}, 1000)
    answer = await api.command("change settings with:\nkey: jobs\nmaxAttempts: -1\n")
    assert (answer.data["code"], answer.data["line"], answer.data["column"]) == ("invalid", 3, 14)


async def test_keys_and_what_they_hold(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 3, **WAITING)
    await datastore.create("notes", "a")
    (shown,) = await api.results("show keys\n")
    jobs = {"key": "jobs", "items": 3, "statuses": {"not_started": 3}}
    assert shown == {"verb": "show keys", "keys": [jobs, {"key": "notes", "items": 1, "statuses": {}}]}
    assert (await api.results("show keys with prefix: jo\n"))[0]["keys"] == [jobs]


@pytest.mark.parametrize("grant", [Grant(), Grant(("read",), ("key-*",))])
async def test_to_show_many_keys_lets_others_have_the_loop(
    datastore: Datastore, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(datastore, 1)
    stats = await datastore.stats()
    rows = [replace(stats.rows[0], key=f"key-{n % 5000:04}", status="held" if n < 5000 else "") for n in range(10_000)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read(*_: Any) -> Stats:
        return replace(stats, rows=rows[::-1], counts={})

    monkeypatch.setattr("hookline.reader.read_stats", read)
    other = asyncio.create_task(others())
    (shown,) = await interpret(datastore if grant.whole else Limited(datastore, grant), parse("show keys\n"))
    other.cancel()
    assert shown["keys"] == [{"key": f"key-{n:04}", "items": 1, "statuses": {"held": 1}} for n in range(5000)]
    steps = len(rows) if grant.whole else 2 * len(rows)
    assert turns >= (steps + 5000) // 500


async def test_rules_are_stored_shown_run_and_removed(api: Api, datastore: Datastore) -> None:
    text = "create schedule with name: nightly and key: jobs and cron: 30 2 * * * and timeZone: Europe/Berlin\n"
    (made,) = await api.results(text)
    assert (made["rule"]["name"], made["rule"]["cron"], made["rule"]["enabled"]) == ("nightly", "30 2 * * *", True)
    ran, got = await api.results(
        "run schedule with name: nightly\nget item with key: jobs and sortField: [item.sortField]\n"
    )
    assert ran["item"] == got["item"]
    assert got["item"]["metadata"]["status"] == "not_started"
    shown, off, listed = await api.results(
        "show schedule with name: nightly\ndisable schedule with name: nightly\nshow schedules with prefix: night\n",
    )
    assert len(shown["next"]) == 5
    assert [entry["created"] for entry in shown["runs"]] == [1]
    assert [entry["name"] for entry in listed["rules"]] == ["nightly"]
    assert off["rule"] == listed["rules"][0]
    assert (off["rule"]["enabled"], off["rule"]["nextRun"]) == (False, None)
    (gone, none) = await api.results("delete schedule with name: nightly\nshow schedules with prefix: x\n")
    assert (gone["name"], none["rules"]) == ("nightly", [])
    for text in ("show schedule with", "enable schedule with", "run schedule with", "delete orchestration with"):
        assert (await refused(api, f"{text} name: nightly\n"))[:2] == (404, "not_found")
    text = "create orchestration with:\nname: x\nkey: jobs\nevery: 5m\njitter: 6m\n"
    assert (await refused(api, text))[:2] == (422, "invalid")


async def test_an_orchestration_is_run(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 3, **WAITING)
    await Orchestrations(datastore).put("reports", Orchestration(key="jobs", limit=2))
    (claimed,) = await api.results("run orchestration with name: reports\n")
    assert (claimed["verb"], claimed["name"], len(claimed["items"])) == ("run orchestration", "reports", 2)
    assert (await refused(api, "run orchestration with name: none\n"))[:2] == (404, "not_found")


TABLE = """\
create
key          jobs
sortField    a
content      {"a": "x\\u001b[31my"}
metadata     {"status": "not_started", "attempts": 0, "version": 1}
triggerUrls  []
version      1
createdAt    AT
updatedAt    AT

query: 2 items
sortField  version  status       attempts  n     content
---------  -------  -----------  --------  ----  ---------------------
a          1        not_started  0               {"a": "x\\u001b[31my"}
日本\\n     1        mine                   true
"""


@pytest.mark.parametrize("accept", ["text/plain", "text/plain, application/json;q=0.5"])
async def test_results_as_text(api: Api, datastore: Datastore, accept: str) -> None:
    await datastore.create("jobs", "日本\n", metadata={"status": "mine", "n": True})
    text = (
        'create item with:\nkey: jobs\nsortField: a\ncontent: {a: "x\\u001b[31my"}\nmetadata: {status: "not_started"}\n'
    )
    headers = {"Content-Type": "text/plain", "Accept": accept}
    answer = await api("POST", "/v1/command", data=f"{text}\nquery items where key: jobs\n".encode(), headers=headers)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    shown = answer.body.decode()
    created = next(line.split()[1] for line in shown.splitlines() if line.startswith("createdAt"))
    assert shown.replace(created, "AT") == TABLE
    for asked in ("*/*", "application/json, text/plain;q=0.9", "text/html, */*;q=0.1", "application/json"):
        answer = await api("POST", "/v1/command", data=b"show keys", headers=headers | {"Accept": asked})
        assert answer.data["results"][0]["verb"] == "show keys"


async def test_a_loop_and_what_is_empty_as_text(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 1)
    text = (
        "query items where key: jobs\nfor each job in [items]:\ncount items where key: jobs\nend\n"
        "query items where key: none\nshow keys\nwait for item with key: jobs and sortField: 0000 and wait: 0\n"
    )
    answer = await api(
        "POST", "/v1/command", data=text.encode(), headers={"Content-Type": "text/plain", "Accept": "text/plain"}
    )
    assert answer.body.decode().partition("\n\n")[2] == (
        "for each job: 1 round\n  count\n  count  1\n\nquery: 0 items\n\n"
        "show keys: 1 key\nkey   items\n----  -----\njobs  1\n\nwait: not ended yet, or not as 'until' says\n"
    )


def test_a_table_is_cut_to_width_and_keeps_its_content() -> None:
    item = {"sortField": "a", "version": 1, "metadata": {f"m{n}": "x" * 99 for n in range(30)}, "content": [1]}
    head, line, row = table.render([{"verb": "query", "items": [item, None]}]).splitlines()[1:]
    assert (head.split()[:3], head.split()[-2:], len(head.split())) == (
        ["sortField", "version", "m0"],
        ["m8", "content"],
        table.COLUMNS_MAX,
    )
    assert max(map(len, row.split())) == table.CELL_MAX
    assert len(line) >= len(row)
