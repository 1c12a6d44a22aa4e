"""find: one item, and pages of a key in the order of an index."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS
from hookline import Datastore
from hookline.codec import decode_fields, pack
from scripts import KEY, NOW, Scripts, at, snapshot, unchanged

NAMES = [f"n{n:03}" for n in range(250)]


async def find(datastore: Datastore, *requests: dict[str, Any]) -> list[Any]:
    """The raw answers of one call."""
    answer: list[Any] = await datastore.connection.read("find", 0, [{"key": KEY, **each} for each in requests])
    return answer


def walking(label: str = "", **request: Any) -> dict[str, Any]:
    """A query along the set of this label."""
    asked = {"verb": "query", "label": label, "where": [], "limit": 1000, "budget": 1000, "generation": 0}
    return {**asked, "lex": label == "", **request}


async def page(datastore: Datastore, **request: Any) -> tuple[list[str], Any, int]:
    """One query -> the sortFields found, where it ended (None: nothing is left), and how many it examined."""
    ((word, _, extra),) = await find(datastore, walking(**request))
    assert word == b"ok"
    return [sort.decode() for sort, *_ in extra[b"items"]], extra.get(b"after") or None, extra[b"examined"]


async def pages(datastore: Datastore, **request: Any) -> list[list[str]]:
    """All pages of a query, each begun where the last one ended."""
    found: list[list[str]] = []
    while True:
        names, after, _ = await page(datastore, **request)
        found.append(names)
        if after is None:
            return found
        request["after"] = [part.decode() for part in after]


async def put(scripts: Scripts, names: list[str], **metadata: Any) -> None:
    for first in range(0, len(names), 100):
        chunk = names[first : first + 100]
        await scripts.run(*(scripts.calls.create(KEY, name, metadata={**metadata, "name": name}) for name in chunk))


# One item


async def test_get(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(content=1, metadata={"status": "started", "type": "r"})
    fields = await scripts.fields()
    assert fields.pop("tk")
    async with unchanged(scripts.raw):
        found, missing = await find(datastore, {"verb": "get", "sort": "a"}, {"verb": "get", "sort": "b"})
    assert found[0] == b"ok"
    assert {name.decode(): value for name, value in decode_fields(found[1]).items()} == {
        name: value if isinstance(value, bytes) else value.encode() for name, value in fields.items()
    }
    assert missing == [b"not_found", False, False]


@pytest.mark.spoils
async def test_corrupt(scripts: Scripts, datastore: Datastore, raw: aioredis.Redis) -> None:
    await put(scripts, ["a", "b"], status="review")
    await scripts.spoil("i:jobs:a")
    get, query = {"verb": "get", "sort": "a"}, walking()
    corrupt, _, good = await find(datastore, get, query, {**get, "sort": "b"})
    assert (corrupt, good[0]) == ([b"corrupt", False, False], b"ok")
    assert (await page(datastore))[0] == ["b"]
    assert (await page(datastore, where=[{"test": "exists", "field": "s", "wanted": True, "path": []}]))[0] == ["b"]
    await scripts.spoil("k:jobs")
    await scripts.spoil("s:jobs:review")
    before = await snapshot(raw)
    answers = await find(datastore, query, walking("review"), walking("other"))
    assert [answer[0] for answer in answers] == [b"corrupt", b"corrupt", b"ok"]
    assert await snapshot(raw) == before


# Pages


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1000, 250, 249, 100, 7])
async def test_pages_by_sort_field(scripts: Scripts, datastore: Datastore, descending: bool, limit: int) -> None:
    await put(scripts, NAMES)
    found = await pages(datastore, limit=limit, descending=descending)
    assert [len(names) for names in found[:-1]] == [limit] * (len(found) - 1)
    assert [name for names in found for name in names] == (NAMES[::-1] if descending else NAMES)
    assert all(found)


@pytest.mark.parametrize("descending", [False, True])
async def test_pages_of_a_status_with_equal_scores(scripts: Scripts, datastore: Datastore, descending: bool) -> None:
    await put(scripts, NAMES, status="review")
    await put(scripts, ["other"], status="done")
    found = await pages(datastore, label="review", limit=7, descending=descending)
    assert [name for names in found for name in names] == (NAMES[::-1] if descending else NAMES)


async def test_a_status_is_walked_in_its_order(scripts: Scripts, datastore: Datastore) -> None:
    for name, seconds in (("a", 30), ("b", 10), ("c", 20)):
        await scripts.create(name, metadata={"status": "started", "locked_until": at(seconds)})
    until: list[tuple[str, list[str]]] = [(str(NOW_MS + 20_000), ["b", "c"]), (f"({NOW_MS + 20_000}", ["b"])]
    assert (await page(datastore, label="started"))[0] == ["b", "c", "a"]
    for end, names in until:
        assert (await page(datastore, label="started", all=[["-inf", end]]))[0] == names
    scripts.clock.advance(15)
    assert (await page(datastore, label="started", all=[["-inf", "(+0"]])) == (["b"], None, 1)
    assert (await page(datastore, label="started", all=[["-inf", "+6000"]]))[0] == ["b", "c"]
    assert (await page(datastore, label="started", all=[["(+0", "inf"]]))[0] == ["c", "a"]


async def test_an_item_found_carries_its_score_and_no_token(scripts: Scripts, datastore: Datastore) -> None:
    await scripts.create(content=1, metadata={"status": "started", "locked_until": at(30)})
    ((_, _, extra),) = await find(datastore, walking("started"))
    ((sort, shown, score, member, _, _),) = extra[b"items"]
    fields = decode_fields(shown)
    assert (sort, member) == (b"a", False)
    assert (sort, score, fields[b"c"], fields[b"ca"]) == (b"a", str(NOW_MS + 30_000).encode(), pack(1), NOW.encode())
    assert b"tk" not in fields


async def test_places_are_read_in_one_order(scripts: Scripts, datastore: Datastore) -> None:
    """Each from where it is; what was not come to stays there."""
    await put(scripts, NAMES[:6], status="review")
    tag = datastore.connection.tag(0)
    request: dict[str, Any] = {
        "label": "review",
        "limit": 5,
        "places": [(tag, [str(NOW_MS), "n003"]), (tag, False), (tag, ["inf", ""])],
    }
    for descending, found, ends in (
        (False, ["n000", "n001", "n002", "n003", "n004"], ["n004", "n003", False]),
        (True, ["n005", "n005", "n004", "n004", "n003"], [True, "n003", "n004"]),
    ):
        ((_, _, extra),) = await find(datastore, walking(**request, descending=descending))
        assert [sort.decode() for sort, *_ in extra[b"items"]] == found
        assert [end if isinstance(end, bool) else end[1].decode() for end in extra[b"ends"]] == ends
        assert extra[b"after"][1].decode() == found[-1]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("moves", ["deleted", "elsewhere"])
async def test_a_page_goes_on_where_its_last_entry_was(
    scripts: Scripts, datastore: Datastore, descending: bool, moves: str
) -> None:
    """The entry where the page ended is gone, or has another score: no other is skipped or seen twice."""
    names = list("abcdefgh")
    await put(scripts, names, status="review")
    request: dict[str, Any] = {"label": "review", "descending": descending}
    first, after, _ = await page(datastore, limit=3, **request)
    scripts.clock.advance(-1 if descending else 1)
    if moves == "deleted":
        await scripts.delete(first[-1])
    else:
        await scripts.update(first[-1], metadata={"x": 1})
    rest, _, _ = await page(datastore, after=[part.decode() for part in after], **request)
    expected = names[::-1] if descending else names
    assert first == expected[:3]
    assert rest == expected[3:] + ([first[-1]] if moves == "elsewhere" else [])


async def test_a_budget_of_work(scripts: Scripts, datastore: Datastore) -> None:
    """An entry costs one, and one more for each 128 bytes that are decoded."""
    await put(scripts, NAMES)
    where = [{"test": "prefix", "field": "m:name", "native": False, "path": [], "operand": {"value": "n24"}}]
    names, after, examined = await page(datastore, where=where, budget=120)
    assert (names, after, examined) == ([], [b"0", b"n115"], 116)
    found = await pages(datastore, where=where, budget=120)
    assert found == [[], [], NAMES[240:]]
    (all_at_once,) = await pages(datastore, where=[], budget=1000)
    assert all_at_once == NAMES
    assert {len(names) for names in await pages(datastore, where=[], budget=100)} == {50}


async def test_lists_cost_more_than_text(scripts: Scripts, datastore: Datastore) -> None:
    for name, value in (("text", "x" * 1000), ("list", [[]] * 997)):
        calls = [scripts.calls.create(name, f"{n:02}", metadata={"value": value}) for n in range(20)]
        await scripts.run(*calls)
    where = [{"test": "exists", "field": "m:value", "native": False, "path": ["a"], "wanted": True}]
    examined = {name: (await page(datastore, key=name, where=where, budget=40))[2] for name in ("text", "list")}
    assert examined == {"text": 5, "list": 1}


async def test_an_end_that_has_gone_among_many_of_equal_score(scripts: Scripts, datastore: Datastore) -> None:
    """The place is found by halving: not by passing over all that stand before it."""
    await put(scripts, NAMES)
    await scripts.delete("n120")
    for descending, expected in ((None, NAMES[121:]), (True, NAMES[119::-1])):
        names, _, examined = await page(datastore, after=["0", "n120"], descending=descending)
        assert (names, examined) == (expected, len(expected))


async def test_a_budget_of_bytes(scripts: Scripts, datastore: Datastore) -> None:
    text = "x" * 1_000_000
    await scripts.run(*(scripts.calls.create(KEY, f"n{n}", content=text) for n in range(7)))
    assert await pages(datastore) == [["n0", "n1", "n2", "n3", "n4"], ["n5", "n6"]]


async def test_nothing_there(scripts: Scripts, datastore: Datastore) -> None:
    assert await page(datastore) == ([], None, 0)
    assert await page(datastore, label="review") == ([], None, 0)
    assert await snapshot(scripts.raw) == {}


@pytest.mark.parametrize("family", ["s:jobs:review", "k:jobs"])
@pytest.mark.spoils
async def test_an_entry_without_item_is_passed_over(
    scripts: Scripts, datastore: Datastore, raw: aioredis.Redis, family: str
) -> None:
    await put(scripts, ["a", "c"], status="review")
    score = NOW_MS if family.startswith("s") else 0
    await raw.zadd(f"hl:{{default/0}}:{family}", {"b": score})
    assert (await page(datastore, label="review"))[0] == ["a", "c"]
    assert (await page(datastore))[0] == ["a", "c"]
