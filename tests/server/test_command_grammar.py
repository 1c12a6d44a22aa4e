"""The command language: what a text means, and what is said about one that means nothing."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from guide import CLAIM, COMPLETE, CREATE, QUERY_EXPIRED, QUERY_WAITING
from hookline.item import INTEGER_MAX, INTEGER_MIN
from hookline_server.command import TEXT_MAX, Command, CommandSyntaxError, parse
from hookline_server.command.verbs import KINDS, VERBS


def parsed(text: str) -> list[Command]:
    """The commands of a text without loops."""
    return [statement for statement in parse(text) if isinstance(statement, Command)]


def one(text: str) -> Command:
    (command,) = parsed(text)
    return command


COMMANDS = [CREATE, QUERY_WAITING, CLAIM, QUERY_EXPIRED, COMPLETE]
LIFE = "\n".join(COMMANDS)
JOB = {"key": "jobs", "sortField": "job-2024-03-15-001"}
LIFE_MEANS = [
    Command(
        "create",
        {
            **JOB,
            "content": {"report_type": "monthly", "department": "sales"},
            "metadata": {
                "status": "not_started",
                "type": "report_generation",
                "created_at": "2024-03-15T09:00:00Z",
            },
            "triggerUrls": {"http://127.0.0.1:9000/run": "your-api-key"},
        },
        False,
        line=1,
        column=1,
    ),
    Command("query", {"key": "jobs", "metadata": {"status": "not_started"}, "limit": 10}, False, line=17, column=1),
    Command(
        "update",
        {
            **JOB,
            "metadata": {
                "status": "started",
                "worker_id": "worker-123",
                "started_at": "2024-03-15T10:00:00Z",
                "version": 1,
                "locked_until": "2024-03-15T10:10:00Z",
            },
        },
        False,
        line=24,
        column=1,
    ),
    Command(
        "query",
        {
            "key": "jobs",
            "metadata": {"status": "started", "locked_until": {"lt": "CURRENT_TIMESTAMP"}},
            "limit": 10,
        },
        False,
        line=35,
        column=1,
    ),
    Command(
        "update",
        {
            **JOB,
            "metadata": {
                "status": "completed",
                "completed_at": "2024-03-15T10:05:00Z",
                "result": {"success": True, "records_processed": 1000},
            },
        },
        True,
        line=43,
        column=1,
    ),
]


def test_the_life_of_a_job_as_one_text() -> None:
    assert parse(LIFE) == LIFE_MEANS
    assert parse(LIFE.replace("\n", "\r\n")) == LIFE_MEANS


@pytest.mark.parametrize("place", range(5))
def test_the_life_of_a_job_command_by_command(place: int) -> None:
    command = one(COMMANDS[place])
    meant = LIFE_MEANS[place]
    assert (command.verb, command.fields, command.triggers_off) == (
        meant.verb,
        meant.fields,
        meant.triggers_off,
    )
    assert (command.line, command.column) == (1, 1)


AB = {"key": "a", "sortField": "b"}
BLOCK = "key: a\nsortField: b\n"
ABT = {**AB, "token": "2.x"}
HELD = f"{BLOCK}token: 2.x\n"
CREATE = "create item with:\nkey: a\n"
QUERY = "query items where:\nkey: a\n"
CLAIM = "claim items where:\nkey: a\n"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("/datastore create a new item with:\nkey: a", {"key": "a"}),
        ("/selected-datastore create new item with:\nkey: a", {"key": "a"}),
        ("create item with:\nkey: a\nupsert: true", {"key": "a", "upsert": True}),
        ("CREATE Item WITH :\nKEY: a\nsortfield: b", AB),
        ("create item with key: a and sortField: b", AB),
        (f"update item with:\n{BLOCK}version: 3", {**AB, "version": 3}),
        (f"{QUERY}where: {{}}", {"key": "a", "where": {}}),
        (f"{QUERY}order: x:desc\ncursor: 12", {"key": "a", "order": "x:desc", "cursor": "12"}),
        ("query items where key: a and limit: 5", {"key": "a", "limit": 5}),
        ("query items where: key: a and limit: 5\n", {"key": "a", "limit": 5}),
        ("get item with : key: a and sortField: b", AB),
        ("create item with: key: a and content: {\n'b': 1} and sortField: b", {**AB, "content": {"b": 1}}),
        ("get items with key: a", {"key": "a"}),
        ("get items with key: a and limit: 2 and cursor: c", {"key": "a", "limit": 2, "cursor": "c"}),
        ("/datastore get item with key: a and sortField: b", AB),
        ("get item with:\nkey: a\nsortField: b", AB),
        ("delete item with key: a AND sortField: b", AB),
        (f"delete item with:\n{BLOCK}version: 7", {**AB, "version": 7}),
        (
            f"{CLAIM}metadata: {{'type': 'x'}}\nlimit: 5\nworkerId: 7",
            {"key": "a", "metadata": {"type": "x"}, "limit": 5, "workerId": "7"},
        ),
        (
            f"{CLAIM}lockFor: 10m\nwait: 20\ntriggers: off",
            {"key": "a", "lockFor": "10m", "wait": 20, "triggers": "off"},
        ),
        (f"complete item with:\n{HELD}metadata: {{}}", {**ABT, "metadata": {}}),
        (
            "complete item with key: a and sortField: b and token: 2.x and metadata: {\n 'n': [1,\n2]} ",
            {**ABT, "metadata": {"n": [1, 2]}},
        ),
        (
            f"fail item with:\n{HELD}error: 404\nretryAfter: 1.5",
            {**ABT, "error": "404", "retryAfter": 1.5},
        ),
        (f"release item with:\n{HELD}delay: '30s'", {**ABT, "delay": "30s"}),
        (f"extend item with:\n{HELD}lockFor: 60", {**ABT, "lockFor": 60}),
    ],
)
def test_forms(text: str, fields: dict[str, Any]) -> None:
    verb = next(word for word in text.lower().split() if word in VERBS)
    assert parse(text) == [Command(verb, fields, False, 1, 1)]


@pytest.mark.parametrize(
    "text",
    [
        f"update item with triggers off:\n{BLOCK}",
        f"/datastore update item with trigger off:\n{BLOCK}",
        f"Delete Item With Triggers  Off:\n{BLOCK}",
        "delete item with triggers off key: a and sortField: b",
        "delete item with triggers off and key: a and sortField: b",
        "delete item with triggers off: key: a and sortField: b",
    ],
)
def test_triggers_off(text: str) -> None:
    command = one(text)
    assert command.triggers_off
    assert command.fields == AB


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"b": [1, 2.5, -3e2, true, false, null, "x"]}', {"b": [1, 2.5, -300.0, True, False, None, "x"]}),
        ("{a: 1, $b: .5, 'c': +0x1F, \"d\": 5.,}", {"a": 1, "$b": 0.5, "c": 31, "d": 5.0}),
        ("{ // it's {\n 'a': /* } */ 1, \n}", {"a": 1}),
        ("[1, 2,]", [1, 2]),
        ("\n\n  [\n1\n]  ", [1]),
        (r"""{"\"}": '\'{', "\u0061": "\ud83d\ude00"}""", {'"}': "'{", "a": "\N{GRINNING FACE}"}),
        (
            '{"a": "/datastore create item with:", "b": "\\n/datastore x"}',
            {"a": "/datastore create item with:", "b": "\n/datastore x"},
        ),
        ("[" * 64 + "]" * 64, json.loads("[" * 64 + "]" * 64)),
        (f"[{INTEGER_MIN}, {INTEGER_MAX}]", [INTEGER_MIN, INTEGER_MAX]),
        (f"{INTEGER_MAX}", INTEGER_MAX),
        ("10", 10),
        ("-1.5e3", -1500.0),
        ("true", True),
        ("null", None),
        ('"10"', "10"),
        ("'it\\'s'", "it's"),
        ('""', ""),
        ("plain text, as it is: {x} # all of it \t", "plain text, as it is: {x} # all of it"),
        ("https://example.org/#a//b", "https://example.org/#a//b"),
        ("+49123", "+49123"),
        ("007", "007"),
        ("True", "True"),
        ("Nancy", "Nancy"),
    ],
)
def test_values(written: str, value: object) -> None:
    for text in (
        f"create item with:\nkey: a\ncontent:{written}\n",
        f"create item with:\n\tContent :\t{written}\r\n key:a",
    ):
        command = one(text)
        assert command.fields == {"key": "a", "content": value}
        assert type(command.fields["content"]) is type(value)


@pytest.mark.parametrize("written", ["job-1", "10", "1.0", "null", "true", "NaN", "'10'", '"10"', "1e999", "9" * 30])
def test_a_text_field_keeps_what_looks_like_a_number(written: str) -> None:
    command = one(f"get item with:\nkey: a\nsortField: {written}")
    assert command.fields["sortField"] == written.strip("\"'")


@pytest.mark.parametrize("field", ["key", "sortField", "cursor"])
@pytest.mark.parametrize("written", ["a,", "a, limit: 5", "a limit: 5", "\u201ca\u201d", "`a`", "a\u200b", "a;key : b"])
def test_a_name_that_has_taken_in_too_much_must_be_in_quotes(field: str, written: str) -> None:
    key = [] if field == "key" else ["key: a"]
    for joined, begun in ((" and ", "get item with "), ("\n", "get item with:\n")):
        with pytest.raises(CommandSyntaxError, match=r"in quotes|straight quotes"):
            parse(begun + joined.join([*key, f"{field}: {written}"]))
        assert one(begun + joined.join([*key, f"{field}: '{written}'"])).fields[field] == written


@pytest.mark.parametrize("written", ["a,", "a, limit: 5", "\u201ca\u201d", "`a`", "\u200ba \N{WOMAN}\u200d\N{ROCKET}"])
def test_prose_is_kept_as_it_is(written: str) -> None:
    assert one(f"create item with key: a and content: {written}").fields["content"] == written
    assert one(f"fail item with:\n{HELD}error: {written}\n").fields["error"] == written


@pytest.mark.parametrize(
    "written", ["a,b", "a:b", "a , b", "job, limits: 5", "sortField:desc", "Ann\u2019s", "30 2 * * 1,5"]
)
def test_a_name_may_have_what_is_no_field(written: str) -> None:
    assert one(f"query items where:\nkey: a\norder: {written}\n").fields["order"] == written


@pytest.mark.parametrize("written", ["b and c", "and", "b  and c:d", "b:c", "'b and limit: 1'"])
def test_an_inline_text_ends_only_before_the_next_field(written: str) -> None:
    if written == "b  and c:d":
        with pytest.raises(CommandSyntaxError, match=r"expected a field of get .*, found 'c'"):
            parse(f"get item with sortField: {written} and key: a")
    else:
        command = one(f"get item with sortField: {written} and key: a")
        assert command.fields == {"sortField": written.strip("'"), "key": "a"}


def test_nothing_but_comments_is_no_command() -> None:
    assert parse("") == parse(" \n\t\r\n") == parse("# a\n  // b\n#") == parse("\ufeff") == []


def test_comments_blank_lines_and_indentation() -> None:
    first, second = parsed(
        "\ufeff# jobs\n\n  /datastore  get\titems with key: a  \n// next\n\t#\n\n"
        "  update item with:\n  # the id\n\n\tkey: a\n // and\n  sortField: b  \n\n"
    )
    assert first == Command("get", {"key": "a"}, False, line=3, column=3)
    assert second == Command("update", AB, False, line=7, column=3)
    assert second.places == {"key": (10, 7), "sortField": (12, 14)}


def test_a_json_pointer_leads_to_the_place_of_a_value() -> None:
    command = one("\ncreate item with:\nkey: a\nmetadata:\n  {}")
    assert command.place("/metadata/status") == (5, 3)
    assert command.place("/key") == (3, 6)
    assert command.place("/content") == command.place("") == (2, 1)


@pytest.mark.parametrize(
    ("text", "line", "column", "fragment"),
    [
        (
            "/datastore crate item with:\nkey: a",
            1,
            12,
            "expected 'create', 'update', 'query', 'count', 'get', 'delete'",
        ),
        ("/datastore crate item with:\nkey: a", 1, 12, "found 'crate'; did you mean 'create'?"),
        ("crate item with:\nkey: a", 1, 1, "found 'crate'; did you mean 'create'?"),
        (f"{CREATE}\nupdte item with:", 4, 1, "found 'updte'; did you mean 'update'?"),
        ("/datastor get items with key: a", 1, 1, "did you mean '/datastore'?"),
        (
            "create itme with:",
            1,
            8,
            "expected 'a', 'new', 'item', 'orchestration' or 'schedule', found 'itme'; did you mean 'item'?",
        ),
        ("create item wth:", 1, 13, "expected 'as' or 'with', found 'wth'; did you mean 'with'?"),
        ("query item where:", 1, 7, "expected 'items', found 'item'"),
        ("query items with:", 1, 13, "expected 'as' or 'where', found 'with'"),
        ("update item with trigers off:", 1, 18, "found 'trigers'; did you mean 'triggers off'?"),
        ("complete item with triggers off:", 1, 20, "expected no 'triggers off' in complete"),
        ("create item with: key a", 1, 19, "or the end of the line, found 'key'; is a ':' missing after 'key'?"),
        ("create item with: x", 1, 19, "expected a field such as 'key: value' or the end of the line, found 'x'"),
        ("create item with: key: a, content: 1", 1, 27, "expected 'and' before the next field, found 'content'"),
        ("create item with: key: a\nsortField: b", 2, 1, "found 'sortField'; fields stand all on the line of their"),
        ("for each job in [items]: get", 1, 26, "expected the end of the line, found 'get'"),
        ("create item with  \r\nkey: a", 1, 17, "':', found the end of the line"),
        ("/datastore", 1, 11, "found the end of the text"),
        ("hello", 1, 1, "expected '/datastore', 'create'"),
        ("\x00", 1, 1, r"found '\x00'"),
        ("get item with key: a and sortField: b\nx", 2, 1, "'disable', 'run' or 'for each', found 'x'"),
        ("get items with:\nkey: a\nx", 3, 1, "expected a field such as 'key: value' or the next command, found 'x'"),
        (f"{QUERY}\nfor each job in [items]:\nget items with key: a\nx", 6, 1, "'run', 'for each' or 'end', found 'x'"),
        (f"{QUERY}\nfor each job in [items]:\nend\nend", 6, 1, "or 'for each', found 'end'; no loop is open here"),
        (f"{CREATE}colour: x", 3, 1, "expected a field of create (key, sortField, content, metadata, "),
        (f"{CREATE}colour: x", 3, 1, ", triggerUrls, upsert), found 'colour'"),
        (f"{CREATE}sort_field: x", 3, 1, "found 'sort_field'; did you mean 'sortField'?"),
        (f"{CREATE}create: x", 3, 1, "expected a field of create"),
        (f"{CREATE}limit: 1", 3, 1, "expected a field of create"),
        (f"{CREATE}content here", 3, 1, "found 'content'; is a ':' missing after 'content'?"),
        (f"{CREATE}Key: b", 3, 1, "expected each field once, found 'key' again after line 2"),
        (f"{CREATE}}}", 3, 1, "found '}'"),
        ("\n\n create item with:\ncontent: 1", 3, 2, "expected the field 'key' in this create, found none"),
        ("update item with key: a", 1, 1, "expected the field 'sortField' in this update"),
        ("fail item with key: a and sortField: b", 1, 1, "expected the field 'token' in this fail"),
        ("get item with sortField: b and limit: 5", 1, 32, "expected either 'sortField' or 'limit'"),
        (f"{QUERY}where: {{}}\nmetadata: {{}}", 4, 1, "expected either 'metadata' or 'where'"),
        ("get item with key: a and sortField:", 1, 36, "expected a value"),
        (f"{CREATE}content:\nmetadata: {{}}", 3, 9, "expected a value, found the end of the line"),
        (f"{CREATE}metadata: [1]", 3, 11, "expected an object {...}, found '['"),
        (f"{CREATE}metadata: x", 3, 11, "expected an object {...}, found 'x'"),
        (f"{CREATE}upsert: True", 3, 9, "expected true or false, found 'True'; did you mean 'true'?"),
        (f"{QUERY}limit: ten", 3, 8, "expected an integer, found 'ten'"),
        (f"{QUERY}limit: 10.0", 3, 8, "expected an integer, found '10.0'"),
        (f"{QUERY}limit: true", 3, 8, "expected an integer, found 'true'"),
        (f"{QUERY}limit: NaN", 3, 8, "expected an integer, found 'NaN'"),
        (f"{QUERY}limit: '10'", 3, 8, "expected an integer"),
        (f"{QUERY}limit: [10]", 3, 8, "expected an integer, found '['"),
        (f"{QUERY}limit: +5", 3, 8, "expected an integer, found '+5'"),
        (f"{QUERY}limit: 10,", 3, 10, "expected the end of the line, found ','"),
        (f"{QUERY}limit: 10 # ten", 3, 11, "expected the end of the line, found '#'"),
        (f"{QUERY}limit: 5 and then stop", 3, 10, "expected the end of the line, found 'and'"),
        (f"{QUERY}limit: 10\u200b", 3, 10, "expected the end of the line, found '\\u200b'"),
        (f"{QUERY}\nquery items where:\nkey: a\nlimit: [result.n],", 6, 18, "expected the end of the line, found ','"),
        ("query items where key: a and limit: 10;", 1, 39, "expected the end of the line, found ';'"),
        ("query items where key: a and limit: 10, order: x", 1, 41, "expected 'and' before the next field"),
        (f"{CREATE}upsert: true,", 3, 13, "expected the end of the line, found ','"),
        (f"{CREATE}upsert: True,", 3, 9, "expected true or false, found 'True,'; did you mean 'true'?"),
        (f"{CLAIM}triggers: off;", 3, 14, "expected the end of the line, found ';'"),
        (f"{CLAIM}lockFor: 10m,", 3, 13, "expected the end of the line, found ','; text that ends with a comma must"),
        (
            'create item with key: a and sortField: b, content: {"a": 1}, metadata: {"status": "not_started"}',
            1,
            43,
            "expected 'and' before the next field, found 'content'; text that has 'content:' in it must be in quotes",
        ),
        ("create item with key: a and sortField: b, content: {\n'a': 1}", 1, 43, "expected 'and' before the next"),
        (f"{CREATE}sortField: b and content: {{}}", 3, 18, "expected the next field on a line of its own"),
        (f"{CREATE}sortField: b,", 3, 13, "expected the end of the line, found ','"),
        (f"{CREATE}sortField: \u201cb\u201d", 3, 12, "or straight ones, found '\u201c'; use straight quotes"),
        (f"{CREATE}sortField: b`", 3, 13, "or straight ones, found '`'; use straight quotes"),
        (f"{CREATE}sortField: b\u200bc", 3, 13, "expected no invisible character, found '\\u200b'"),
        (f"update item with triggers-off:\n{BLOCK}", 1, 18, "found 'triggers-off'; did you mean 'with triggers off'?"),
        (f"update item without triggers:\n{BLOCK}", 1, 13, "found 'without'; did you mean 'with triggers off'?"),
        (f"update item triggers off with:\n{BLOCK}", 1, 13, "found 'triggers'; did you mean 'with triggers off'?"),
        (f"update item with:\n{BLOCK}triggers: off", 4, 1, "found 'triggers'; did you mean 'with triggers off'?"),
        ("delete items with key: a", 1, 19, "expected 'triggers off', found 'key'; fields follow 'where', not 'with'"),
        ("delete items with trigger of where key: a", 1, 19, "found 'trigger'; did you mean 'triggers off'?"),
        (f"{CREATE}colour:\n", 3, 1, "expected a field such as 'key: value', found 'colour'"),
        (f"{QUERY}limit: {'1' * 5000}", 3, 8, "expected an integer of at most 64 bits"),
        (f"{CLAIM}triggers: onn", 3, 11, "expected 'key', 'on' or 'off', found 'onn'; did you mean 'on'?"),
        (f"{CLAIM}lockFor: null", 3, 10, "expected seconds as a number, or a duration such as 10m"),
        (f"fail item with:\n{HELD}error: [Errno 2] No", 5, 8, "expected text, found '['; text that begins"),
        ("get items with key: \ud800", 1, 21, "an unpaired surrogate"),
        ("#" * TEXT_MAX + "\n", 1, TEXT_MAX + 1, "at most 65536 bytes of text, found 65537 bytes"),
        ("#\n" + "\u00e9" * (TEXT_MAX // 2), 2, TEXT_MAX // 2, "found 65538 bytes"),
    ],
)
def test_bad_text(text: str, line: int, column: int, fragment: str) -> None:
    with pytest.raises(CommandSyntaxError) as caught:
        parse(text)
    error = caught.value
    assert (error.line, error.column) == (line, column)
    assert fragment in str(error)
    assert str(error).startswith(f"line {line}, column {column}: expected {error.expected}, found {error.found}")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("written", "line", "column", "fragment"),
    [
        ("  \r\n", 1, 9, "expected a value, found the end of the text"),
        ('"abc', 1, 10, 'expected this " to be closed on its line'),
        ("'abc\\'", 1, 10, "expected this ' to be closed on its line"),
        ('"abc" d', 1, 16, "expected the end of the line, found 'd'"),
        ("{} # x", 1, 13, "expected the end of the line, found '#'"),
        ('{\n "a": 1\n', 1, 10, "expected a '}' that closes this '{', found the end of the text"),
        ('{ "a": {"b": [ }}', 1, 23, "expected a ']' that closes this '[', found '}' at line 3, column 25"),
        ("{\n 'a': 1\nlimit: 4\n\n/datastore query items where:", 1, 10, "found '/datastore' at line 7, column 1"),
        ("{\n 'a': {\n\nget items with key: a", 2, 7, "found 'get' at line 6, column 1"),
        ("{\n 'a': 1\nerror: don't", 1, 10, "closes this '{', found \"'\" at line 5, column 11"),
        ('{"a": "x}\nmetadata: {"a": "y"}', 1, 16, 'expected this " to be closed'),
        ("[1, /* x ]", 1, 14, "expected this /* to be closed"),
        ('{"a" 1}', 1, 15, "expected ':', found '1'"),
        ('{"a": 1\n "b": 2}', 2, 2, "expected ',' or '}', found '\"'"),
        ('{"a": }', 1, 16, "expected a value, found '}'"),
        ("{,}", 1, 11, "expected a name in quotes or '}', found ','"),
        ("{1: 2}", 1, 11, "expected a name in quotes, found '1'"),
        ("[1,,2]", 1, 13, "expected a value or ']', found ','"),
        ("[1;]", 1, 11, "expected text in quotes, a number, true, false or null"),
        ("[01]", 1, 11, "expected text in quotes, a number"),
        ("[1_0]", 1, 11, "expected text in quotes, a number"),
        ("[ture]", 1, 11, "found 'ture'; did you mean 'true'?"),
        ('{"a": CURRENT_TIMESTAMP}', 1, 16, "expected text in quotes"),
        ('["\\u12"]', 1, 13, "expected well-formed JSON"),
        ('{"a": 1, "a": 2}', 1, 19, "expected each name once in an object, found 'a' again"),
        ("{'a': 1,\n b: {a: 1}, \"\\u0061\": 2}", 2, 13, "expected each name once in an object"),
        ("NaN", 1, 10, "expected a finite number, found 'NaN'; as text it must be in quotes"),
        ("-Infinity", 1, 10, "expected a finite number"),
        ("[1, NaN]", 1, 14, "expected a finite number, found 'NaN'"),
        ("{a: +Infinity,}", 1, 14, "expected a finite number"),
        ("1e999", 1, 10, "expected a number of at most 64 bits"),
        ("[-1e999]", 1, 11, "expected a number of at most 64 bits"),
        (f"{INTEGER_MAX + 1}", 1, 10, "expected an integer of at most 64 bits"),
        (f"[0, {INTEGER_MIN - 1}]", 1, 14, "expected an integer of at most 64 bits"),
        ("[0x10000000000000000]", 1, 11, "expected an integer of at most 64 bits"),
        (f"[{'1' * 5000}]", 1, 11, "expected an integer of at most 64 bits"),
        (f"{'[' * 65}{']' * 65}", 1, 74, "expected at most 64 levels of nesting"),
        (f"{'{a:' * 65}1{'}' * 65}", 1, 202, "expected at most 64 levels of nesting"),
    ],
)
def test_bad_value(written: str, line: int, column: int, fragment: str) -> None:
    test_bad_text(f"{CREATE}content: {written}", line + 2, column, fragment)


def test_a_text_of_the_greatest_length_is_read() -> None:
    assert parse("#" * TEXT_MAX) == parse("##" + "\u00e9" * (TEXT_MAX // 2 - 1)) == []


def test_an_error_shows_its_line_and_survives_a_process() -> None:
    with pytest.raises(CommandSyntaxError) as caught:
        parse("/datastore\tcrate item with:\nkey: a")
    assert caught.value.code == "syntax_error"
    assert caught.value.excerpt == "/datastore crate item with:\n           ^"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.column, again.excerpt) == (str(caught.value), 12, caught.value.excerpt)


def test_an_error_far_to_the_right_shows_what_is_around_it() -> None:
    with pytest.raises(CommandSyntaxError) as caught:
        parse(f"{CREATE}content: [{'1, ' * 1000}?{', 1' * 1000}]")
    shown, caret = caught.value.excerpt.split("\n")
    assert len(shown) <= 100
    assert shown[len(caret) - 1] == "?"


def test_the_tables_fit_together() -> None:
    kinds: dict[str, set[str]] = {}
    for what in VERBS.values():
        assert set(what.required) <= set(what.fields)
        assert all(set(pair) <= set(what.fields) for pair in what.exclusive)
        for name, kind in what.fields.items():
            assert kind.rstrip("?") in KINDS or "|" in kind
            kinds.setdefault(name.lower(), set()).add(kind.rstrip("?"))
    # The parser knows a field's kind before it looks at the verb.
    assert all(len(kind) == 1 for kind in kinds.values())
