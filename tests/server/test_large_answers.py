"""Answers have a bound in bytes: pages end early; of many operations the rest is told without items, or left out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from api import Api
from hookline import Client, Datastore, Settings
from hookline.query import ANSWER_MAX

LARGE = "x" * 1_000_000
MADE = [f"{n:02}" for n in range(40)]


@pytest.fixture(params=[1, 3])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return replace(settings, partitions=request.param, call_timeout=5)


@pytest.fixture
async def filled(datastore: Datastore) -> Datastore:
    """More than two answers have room for."""
    await asyncio.gather(*(datastore.create("jobs", name, content=LARGE) for name in MADE))
    return datastore


def ops(verb: str, names: list[str], **fields: Any) -> dict[str, Any]:
    return {"operations": [{"op": verb, "key": "jobs", "sortField": name, **fields} for name in names]}


async def test_a_page_ends_early_and_the_next_goes_on(api: Api, filled: Datastore) -> None:
    found: list[str] = []
    cursor: Any = ""
    pages = 0
    while cursor is not None:
        answer = await api("GET", f"/v1/items/jobs?order=sortField&limit=1000&cursor={cursor}")
        assert len(answer.body) < ANSWER_MAX * 1.01
        found += [item["sortField"] for item in answer.data["items"]]
        cursor = answer.data["cursor"]
        pages += 1
    assert found == MADE
    assert 3 <= pages <= 5


async def test_what_a_page_has_no_room_for_is_not_read_again_and_again(datastore: Datastore) -> None:
    for name in "abc":
        await datastore.create("jobs", name, content=LARGE)
        for field in "vwxyz":
            await datastore.update("jobs", name, metadata={field: LARGE[:950_000]})
    page = await datastore.query("jobs", limit=3)
    assert [item.sort_field for item in page.items] == ["a", "b"]
    assert page.explanation.examined <= 2 * 3
    rest = await datastore.query("jobs", limit=3, cursor=page.cursor)
    assert ([item.sort_field for item in rest.items], rest.cursor) == (["c"], None)


async def test_what_a_batch_has_no_room_for_is_asked_for_anew(api: Api, filled: Datastore) -> None:
    again = [MADE[0]] * 30
    for names in (MADE, again):
        done: list[str] = []
        while done != names:
            left = names[len(done) :]
            answer = await api("POST", "/v1/items:batch", ops("get", left))
            statuses = [result["status"] for result in answer.data["results"]]
            assert len(answer.body) < ANSWER_MAX * 1.1
            assert statuses == sorted(statuses), "those that are left out are the last"
            assert set(statuses) <= {200, 413}
            assert statuses.count(200) >= min(10, len(left))
            done += [each["item"]["sortField"] for each in answer.data["results"] if "item" in each]
    problem = (await api("POST", "/v1/items:batch", ops("get", again))).data["results"][-1]["problem"]
    assert problem["code"] == "body_too_large"
    async with Client(f"http://127.0.0.1:{api.port}") as client:
        wanted = [("jobs", name) for name in (*MADE, "none")]
        items = await client.get_many(wanted)
    assert [item and item.sort_field for item in items] == [*MADE, None]


async def test_what_is_written_or_refused_is_told_without_items_at_last(api: Api, filled: Datastore) -> None:
    for given, status in ((ops("update", MADE, metadata={"a": 1}), 200), (ops("create", MADE), 409)):
        answer = await api("POST", "/v1/items:batch", given)
        assert len(answer.body) < ANSWER_MAX * 1.1
        assert [result["status"] for result in answer.data["results"]] == [status] * len(MADE)
    assert all(result["problem"]["code"] == "exists" for result in answer.data["results"])
    answer = await api("POST", "/v1/items", {"items": [{"key": "jobs", "sortField": name} for name in MADE]})
    assert answer.status == 207
    assert len(answer.body) < ANSWER_MAX * 1.1
    assert (await filled.count("jobs", where={"a": 1})).count == len(MADE)


async def test_a_text_stops_where_its_results_have_no_room(api: Api, filled: Datastore) -> None:
    text = "".join(f"get item with:\nkey: jobs\nsortField: {name}\n\n" for name in MADE)
    answer = await api.command(text)
    assert (answer.status, answer.data["code"]) == (422, "invalid")
    assert f"at most {ANSWER_MAX} bytes" in answer.data["detail"]
    assert len(answer.data["results"]) == answer.data["index"] == 17
    listed = ", ".join(f'"{name}"' for name in MADE)
    answer = await api.command(f"get items with:\nkey: jobs\nsortFields: [{listed}]\n")
    assert (answer.status, answer.data["errors"][0]["pointer"]) == (422, "/sortFields")
    assert (await api.command("get items with:\nkey: jobs\nlimit: 5\n")).status == 200
