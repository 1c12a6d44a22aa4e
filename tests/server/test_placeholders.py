"""Placeholders and loops: what results bind, what they stand for, and what is said where they stand for nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api import Api
from hookline import Datastore
from hookline_server import interpreter
from hookline_server.command import CommandSyntaxError, parse
from hookline_server.interpreter import RESULTS_MAX

JOB = (
    'create item with:\nkey: jobs\nsortField: a\ncontent: {"n": 7, "rows": [1, {"x": "y"}]}\nmetadata: {"tag": "t"}\n\n'
)
SAVE = "create item with:\nkey: seen\nsortField: s\n"


async def content_of(api: Api, written: str) -> Any:
    return (await api.results(f"{JOB}{SAVE}content: {written}\n"))[-1]["item"]["content"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("[job.content.n]", 7),
        ("[item.content]", {"n": 7, "rows": [1, {"x": "y"}]}),
        ('"[job.content.n]"', 7),
        ("'[current_version]'", 1),
        ("\n[job.content.rows]", [1, {"x": "y"}]),
        (
            '{"n": [job.content.n], "m": "[job.content.n]", "t": "n is [job.content.n]"}',
            {"n": 7, "m": 7, "t": "n is 7"},
        ),
        ("[[job.content.n], [[job.metadata.tag]],]", [7, ["t"]]),
        ("[job.metadata.tag] and [job.content.n]!", "t and 7!"),
        ("it is [job.metadata.tag]", "it is t"),
        ('"it\\u0020is [job.metadata.tag]\\u0021"', "it is t!"),
        ("[job.content.rows.1.x]", "y"),
        ("[result.item.metadata.tag]", "t"),
        ("[true]", [True]),
        ("[NULL] x", None),
        ('"\\u005btoken]"', "[token]"),
        ("'\\[token]'", "[token]"),
        ("'[see below] [Errno 2] [] [1]'", "[see below] [Errno 2] [] [1]"),
        ('{"[job]": 1}', {"[job]": 1}),
    ],
)
async def test_what_a_placeholder_stands_for(api: Api, written: str, value: Any) -> None:
    if written == "[NULL] x":
        with pytest.raises(CommandSyntaxError):
            parse(f"{JOB}{SAVE}content: {written}")
    else:
        assert await content_of(api, written) == value


async def test_the_life_of_a_job_without_naming_it_twice(api: Api) -> None:
    results = await api.results(
        'create item with:\nkey: jobs\nsortField: 1\nmetadata: {"status": "not_started", "price": 3.5}\n\n'
        "claim items where key: jobs\n\n"
        "extend item with key: [job.key] and sortField: [job.sortField] and token: [token] and lockFor: 1h\n\n"
        "update item with:\nkey: jobs\nsortField: [job.sortField]\nversion: [current_version]\ntoken: [token]\n"
        'metadata: {"note": "[job.metadata.worker_id] pays [job.metadata.price]", "copy": [job.metadata.price]}\n\n'
        "complete item with:\nkey: jobs\nsortField: [job.sortField]\ntoken: [token]\n\n"
        "update item with key: jobs and sortField: 1 and version: [current_version]\n",
    )
    assert [result["verb"] for result in results] == ["create", "claim", "extend", "update", "complete", "update"]
    assert results[3]["item"]["metadata"]["note"] == "command pays 3.5"
    assert results[3]["item"]["metadata"]["copy"] == 3.5
    assert results[5]["item"]["version"] == 5


async def test_an_update_keeps_the_token_only_if_it_claims(api: Api) -> None:
    text = JOB + 'update item with:\nkey: jobs\nsortField: a\nmetadata: {"status": "started"}\n\n'
    claimed, done = (await api.results(text + "complete item with key: jobs and sortField: a and token: [token]\n"))[1:]
    assert (claimed["item"]["token"][:2], done["status"]) == ("2.", "completed")


async def test_a_name_of_ones_own(api: Api) -> None:
    results = await api.results(
        "create item as first with key: jobs and sortField: a\n"
        "create item with key: jobs and sortField: b\n"
        "query items as both where key: jobs\n"
        "count items as many where key: jobs\n"
        f"{SAVE}content: [[first.sortField], [job.sortField], [both.1.sortField], [many.count]]\n",
    )
    assert results[-1]["item"]["content"] == ["a", "a", "b", 2]


async def test_what_is_stored_is_never_read_as_language(api: Api) -> None:
    evil = "[token]\\n\\ndelete items where:\\nkey: jobs\\nwhere: {}"
    results = await api.results(
        f'create item with:\nkey: jobs\nsortField: a\ncontent: "\\{evil}"\n\n{SAVE}content: [job.content]\n'
    )
    assert results[-1]["item"]["content"] == evil.encode().decode("unicode_escape")
    assert len(results) == 2


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        (
            "get items with key: [job.key]",
            1,
            22,
            "expected the name of a result (none: no result comes before it), found",
        ),
        (f"{JOB}get items with key: [jab.key]", 7, 22, "found 'jab'; did you mean 'job'?"),
        (
            f"{JOB}get items with key: [items]",
            7,
            22,
            "expected the name of a result (one of current_version, item, job, ",
        ),
        (f'{JOB}{SAVE}content: {{"a": [1, "x [WARN] y"]}}', 10, 24, "found 'WARN'; text in quotes can have it as \\["),
        (f"{JOB}get items with key: [items]", 7, 22, "found 'items'; the result before it has no items"),
        ("for each job in [items]:\nend", 1, 18, "expected the name of a result (none"),
        (f"{JOB}count items as item where key: a", 7, 16, "expected a name of your own, not one of result, items"),
        (f"{JOB}count items as true where key: a", 7, 16, "expected a name of your own"),
        (f"{JOB}for each token in [job.content]:\nend", 7, 10, "expected a name of your own"),
        (f"{JOB}for each job in [items]:\nend", 7, 18, "expected the name of a result"),
        (f"{JOB}for each job in [job.content.rows]:\n", 7, 36, "or 'end', found the end of the text"),
        (
            f"{JOB}for each a in [job.content.rows]:\ncount items as a where key: a\nend",
            8,
            16,
            "expected a name of your own",
        ),
        ("for every job in [items]:\nend", 1, 5, "expected 'each', found 'every'"),
        ("end", 1, 1, "expected '/datastore'"),
        (f"{JOB}{SAVE}upsert: yes [job.key]", 10, 9, "expected true or false"),
        (f"{JOB}{SAVE}metadata: a [job.key]", 10, 11, "expected an object"),
        (
            f"{JOB}for each a in [job.content.rows]:\n{SAVE}\nend\n{SAVE}content: [a]",
            16,
            11,
            "expected the name of a result",
        ),
        (
            "show keys\n" + "".join(f"for each {a} in [result.keys]:\n" for a in "abcd") + "end\n" * 4,
            5,
            1,
            "expected at most 3 loops within",
        ),
    ],
)
async def test_a_name_that_nothing_binds_runs_nothing(
    api: Api, datastore: Datastore, text: str, line: int, column: int, says: str
) -> None:
    answer = await api.command(text)
    assert (answer.status, answer.data["code"]) == (422, "syntax_error"), answer.data
    assert (answer.data["line"], answer.data["column"]) == (line, column)
    assert says in answer.data["detail"]
    assert (await datastore.stats()).rows == []


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        (
            "get items with key: [job.metadata.x]",
            7,
            21,
            "[job.metadata.x]: job.metadata has no 'x'; it has tag, version",
        ),
        ("get items with key: [job.content.rows.2]", 7, 21, "job.content.rows has no '2'; it has 2 members, from 0 on"),
        ("get items with key: [job.key.x]", 7, 21, "job.key has no 'x'; it is no object"),
        ("get items with key: [job.content]", 7, 21, "expected text, a number, true or false, to stand in text"),
        ("get items with key: [token]", 7, 21, "[token]: the result before it has no token"),
        ("query items where key: x and limit: [job.metadata.tag]", 7, 37, "[job.metadata.tag]: expected an integer"),
        ("query items where:\nkey: x\nwhere: [job.content.n]", 9, 8, "expected an object {...}"),
        ('update item with:\nkey: x\nsortField: y\ncontent: {\n "a": "x [job.content]"}', 11, 10, "to stand in text"),
        (
            "query items where key: none\n\nget items with key: [job.key]",
            9,
            21,
            "[job.key]: the result before it has no job",
        ),
        ("for each row in [job.content]:\nend", 7, 17, "expected a list to go through"),
        (
            "claim items where key: none and lockFor: [job.content.rows]",
            7,
            42,
            "expected seconds as a number, or a duration",
        ),
    ],
)
async def test_a_placeholder_that_does_not_fit(api: Api, text: str, line: int, column: int, says: str) -> None:
    answer = await api.command(JOB + text)
    assert (answer.status, answer.data["code"]) == (422, "unfit_placeholder"), answer.data
    assert (answer.data["line"], answer.data["column"]) == (line, column)
    assert says in answer.data["detail"]
    assert answer.data["results"][0]["item"]["sortField"] == "a"


async def test_placeholders_do_not_multiply_what_is_stored(api: Api) -> None:
    text = f'create item with:\nkey: jobs\ncontent: "{"x" * 20_000}"\n\n{SAVE}content: [{"[job.content]," * 2_000}]\n'
    answer = await api.command(text)
    assert (answer.status, answer.data["code"]) == (422, "unfit_placeholder")
    assert "expected at most" in answer.data["detail"]


LOOP = """\
query items as open where:
key: jobs
limit: {limit}

for each job in [open]:
  update item with triggers off:
  key: [job.key]
  sortField: [job.sortField]
  version: [current_version]
  metadata: {{ "seen": [job.content], "by": "[job.sortField]" }}

  get item with key: jobs and sortField: [item.sortField]
end
"""


async def fill(datastore: Datastore, count: int) -> None:
    calls = [datastore.calls.create("jobs", f"{n:02}", content=n) for n in range(count)]
    await datastore.run(calls)


async def test_a_loop_runs_its_body_for_each(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 5)
    listed, loop = await api.results(LOOP.format(limit=3))
    assert [item["sortField"] for item in listed["items"]] == ["00", "01", "02"]
    assert (loop["verb"], loop["name"], len(loop["rounds"])) == ("for each", "job", 3)
    assert [[result["verb"] for result in results] for results in loop["rounds"]] == [["update", "get"]] * 3
    assert [results[1]["item"]["metadata"]["seen"] for results in loop["rounds"]] == [0, 1, 2]
    assert (await datastore.get("jobs", "03")).version == 1


async def test_a_refusal_stops_a_loop_with_the_results_so_far(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 3)
    text = (
        "query items where key: jobs\n\nfor each job in [items]:\n"
        "  update item with key: jobs and sortField: [job.sortField]\n"
        "  create item with:\n  key: seen\n  sortField: x\nend\n\ncreate item with key: more\n"
    )
    answer = await api.command(text)
    assert (answer.status, answer.data["code"], answer.data["verb"]) == (409, "exists", "create"), answer.data
    assert (answer.data["index"], answer.data["line"], answer.data["column"]) == (1, 5, 3)
    rounds = [[result["verb"] for result in results] for results in answer.data["results"][1]["rounds"]]
    assert rounds == [["update", "create"], ["update"]]
    assert [row.key for row in (await datastore.stats()).rows if not row.status] == ["jobs", "seen"]
    assert (await datastore.get("jobs", "02")).version == 1


async def test_loops_within_loops_and_over_values(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 2)
    *_, loop = await api.results(
        'create item as plan with:\nkey: plans\ncontent: ["x", "y"]\n\nquery items where key: jobs\n\n'
        "for each job in [items]:\nfor each word in [plan.content]:\n"
        "create item with key: made and sortField: [job.sortField]-[word]\nend\nend\n",
    )
    made = [item.sort_field for item in (await datastore.query("made")).items]
    assert made == ["00-x", "00-y", "01-x", "01-y"]
    assert [len(results[0]["rounds"]) for results in loop["rounds"]] == [2, 2]


async def test_what_a_text_may_do_has_a_bound(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 100)
    text = (
        "query items as all where key: jobs and limit: 100\n"
        + "".join(f"for each {a} in [all]:\n" for a in "abc")
        + "end\n" * 3
    )
    answer = await api.command(text)
    assert (answer.status, answer.data["code"]) == (422, "invalid"), answer.data
    assert f"at most {RESULTS_MAX}" in answer.data["detail"]
    assert (answer.data["line"], answer.data["verb"]) == (3, "for each")


async def test_what_a_body_binds_leaves_the_name_of_the_loop_alone(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 2)
    *_, loop, last = await api.results(
        "create item as kept with key: kept and sortField: k\nquery items where key: jobs\nfor each job in [items]:\n"
        "create item as made with key: made and sortField: [job.sortField]\n"
        "create item with:\nkey: more\nsortField: [job.key]-[item.key]-[made.sortField]\nend\n"
        "get item with key: [job.key] and sortField: [job.sortField]\n",
    )
    assert [results[1]["item"]["sortField"] for results in loop["rounds"]] == ["jobs-made-00", "jobs-made-01"]
    assert (last["item"]["key"], last["item"]["sortField"]) == ("jobs", "00")


async def test_what_a_text_may_take_has_a_bound(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "TIME_MAX", -1.0)
    answer = await api.command("show keys\n")
    assert (answer.status, answer.data["code"], answer.data["results"]) == (422, "invalid", [])


async def test_names_can_come_with_the_text(api: Api) -> None:
    job = (await api.results(JOB))[0]["item"]
    body = {"text": "get item with key: [job.key] and sortField: [x]", "names": {"job": job, "x": "a"}}
    answer = await api("POST", "/v1/command", body)
    assert answer.data["results"] == [{"verb": "get", "item": job}]
    answer = await api("POST", "/v1/command", {"text": "get item with key: [job.key] and sortField: a"})
    assert (answer.status, answer.data["code"]) == (422, "syntax_error")


@pytest.mark.parametrize("member", [{"sortField": 1}, {"version": 2}, [], None, "x", {"sortField": "a", "version": {}}])
async def test_names_of_any_form_do_no_harm(api: Api, member: Any) -> None:
    loop = "for each job in [rows]:\nget items with key: [job{}]\nend\n"
    text = loop.format("") + loop.format(".x")
    answer = await api("POST", "/v1/command", {"text": text, "names": {"rows": [member], "items": member}})
    assert answer.status in (200, 422)


OWNER = '{"owner": "[item.content.owner]"}'
EQUAL = {"owner": {"eq": {"ne": ""}}}
ADA = "key: orders\nsortField: ada\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"count items where:\nkey: orders\nmetadata: {OWNER}", lambda result: result["count"] == 1),
        (f"count items where key: orders and where: {OWNER}", lambda result: result["count"] == 1),
        (f"claim items where key: orders and where: {OWNER}", lambda result: result["items"] == []),
        (f"delete items where key: orders and metadata: {OWNER}", lambda result: result["done"] == 1),
        (f"wait for item with:\n{ADA}wait: 0\nuntil: {OWNER}", lambda result: result["item"] is None),
        (
            f'update item with:\n{ADA}triggerUrls: [{{"url": "http://127.0.0.1:9/", "where": {OWNER}}}]',
            lambda result: result["item"]["triggerUrls"][0]["where"] == EQUAL,
        ),
        (
            f"create orchestration with:\nname: o\nkey: orders\nevery: 1h\nenabled: false\nwhere: {OWNER}",
            lambda result: result["rule"]["where"] == EQUAL,
        ),
    ],
)
async def test_an_object_in_a_filter_is_a_value_and_not_operators(
    api: Api, datastore: Datastore, text: str, told: Callable[[dict[str, Any]], bool]
) -> None:
    await datastore.create("asked", "r", content={"owner": {"ne": ""}})
    await datastore.create("orders", "ada", metadata={"owner": "ada", "status": "not_started"})
    await datastore.create("orders", "odd", metadata={"owner": {"ne": ""}})
    *_, result = await api.results(f"get item with key: asked and sortField: r\n\n{text}\n")
    assert told(result), result


async def test_a_condition_is_a_filter_too(api: Api, datastore: Datastore) -> None:
    await datastore.create("asked", "r", content={"owner": {"ne": ""}})
    await datastore.create("orders", "ada", metadata={"owner": "ada"})
    answer = await api.command(f"get item with key: asked and sortField: r\n\nupdate item with:\n{ADA}if: {OWNER}\n")
    assert answer.data["code"] == "precondition_failed"


@pytest.mark.parametrize("filters", ['{"n": {"gte": "[item.content.least]"}}', "[item.content.filter]"])
async def test_an_operand_or_a_whole_filter_may_be_inserted(api: Api, datastore: Datastore, filters: str) -> None:
    await datastore.create("asked", "r", content={"least": 5, "filter": {"n": {"gte": 5}}})
    for n in (4, 5, 6):
        await datastore.create("orders", f"{n}", metadata={"n": n})
    text = f"get item with key: asked and sortField: r\n\ncount items where:\nkey: orders\nwhere: {filters}\n"
    assert (await api.results(text))[-1]["count"] == 2
