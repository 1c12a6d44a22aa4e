"""Bad input: each row is one request, what is said about it, and nothing written."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Api
from hookline_server import heavy
from hookline_server.problem import Problem
from rawhttp import dialled, request
from values import nested

JSON = {"Content-Type": "application/json"}
MERGE = {"Content-Type": "application/merge-patch+json"}
TEXT = {"Content-Type": "text/plain"}
MIB = 1_048_576
ITEM = "/v1/items/jobs/known"
CLAIM = "/v1/jobs/jobs/claim"
SETTLE = "/v1/jobs/jobs/settle"
TOLD = {"host": "h", "pid": 1, "handlers": [], "concurrency": 1, "inFlight": 0}


@dataclass(frozen=True)
class Row:
    """A request, and what is expected of its answer."""

    name: str
    method: str
    path: str
    status: int
    code: str
    pointer: str | None = None
    says: str = ""
    body: Any = None
    data: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def create(name: str, status: int, code: str, pointer: str | None, says: str, data: bytes) -> Row:
    return Row(name, "POST", "/v1/items", status, code, pointer, says, data=data, headers=JSON)


def bad(name: str, method: str, path: str, pointer: str, says: str, **sent: Any) -> Row:
    """A request with one bad field."""
    return Row(name, method, path, 422, "invalid", pointer, says, **sent)


def new(name: str, pointer: str, says: str, **fields: Any) -> Row:
    body = {"key": "jobs", "sortField": "new"} | fields
    return bad(name, "POST", "/v1/items", pointer, says, body=body)


def command(name: str, says: str, text: bytes) -> Row:
    return Row(name, "POST", "/v1/command", 422, "syntax_error", None, says, data=text, headers=TEXT)


ROWS = [
    # Not JSON
    create("no body", 422, "invalid", "", "expected a JSON body", b""),
    create("cut off", 400, "invalid_json", None, "line 2, column 10", b'{"key": "jobs",\n"content"'),
    create("trailing comma", 400, "invalid_json", None, "line 1, column", b'{"key": "jobs",}'),
    create("two values", 400, "invalid_json", None, "extra data", b'{"key": "jobs"} {}'),
    create("NaN", 400, "invalid_json", None, "byte 26: NaN is not JSON", b'{"key":"jobs", "content": NaN}'),
    create("infinity", 400, "invalid_json", None, "-Infinity is not JSON", b'{"key":"jobs","content":-Infinity}'),
    create("not UTF-8", 400, "invalid_json", None, "byte 8 is not", b'{"key":"\xff"}'),
    create("byte order mark", 400, "invalid_json", None, "BOM", b'\xef\xbb\xbf{"key":"jobs"}'),
    create("a list", 422, "invalid", "", "expected an object, got a list", b"[]"),
    create("text", 422, "invalid", "", "expected an object, got text", b'"jobs"'),
    # JSON that readers do not agree on
    create("a name twice", 422, "invalid", "/key", "each name once", b'{"key":"jobs","key":"more"}'),
    create(
        *("a name twice, inside", 422, "invalid", "/content/0/a~1b", "each name once"),
        b'{"key":"jobs","content":[{"a/b":1,"c":"x:y","a/b":2}]}',
    ),
    create(
        *("a name twice, an escaped colon to hide it", 422, "invalid", "/content/a", "each name once"),
        b'{"key":"jobs","content":{"a":1,"a":2,"c":"\\u003A"}}',
    ),
    create(
        *("a name twice, once escaped", 422, "invalid", "/metadata/status", "each name once"),
        b'{"key":"jobs","metadata":{"status":"x","\\u0073tatus":"y"}}',
    ),
    create(
        "half a surrogate pair",
        422,
        "invalid",
        "/content",
        "unpaired surrogates",
        b'{"key":"jobs","content":"\\ud800"}',
    ),
    create(
        *("half a surrogate pair in a name", 422, "invalid", "/content", "unpaired surrogates"),
        b'{"key":"jobs","content":{"\\udfff":{"a":1e999}}}',
    ),
    create(
        *("an integer of 65 bits", 422, "invalid", "/content/0", "at most 64 bits"),
        b'{"key":"jobs","content":[18446744073709551616]}',
    ),
    create(
        *("an integer of 65 bits, negative", 422, "invalid", "/content/n", "at most 64 bits"),
        b'{"key":"jobs","content":{"n":-9223372036854775809}}',
    ),
    create(
        *("an integer of 5000 digits", 422, "invalid", "/metadata/n", "at most 64 bits"),
        b'{"key":"jobs","metadata":{"n":' + b"9" * 5000 + b"}}",
    ),
    create("a number too large", 422, "invalid", "/content", "finite", b'{"key":"jobs","content":1e400}'),
    create("depth of 100,000", 422, "invalid", "", "64 levels", b'{"key":"jobs","content":' + b"[" * 100_000),
    new("depth over 64", "/content" + "/0" * 64, "64 levels", content=nested(65)),
    new("depth over 64 in metadata", "/metadata/deep" + "/0" * 64, "64 levels", metadata={"deep": nested(65)}),
    # Fields
    # To look for where this one is takes long, if each part of it is tried as a place.
    new(
        "unknown field like a place",
        "/ - at `$." + "a" * 990 + "...",
        "unknown field",
        **{" - at `$." + "a" * 100_000 + "`x": 1},
    ),
    new("unknown field", "/sortfield", "unknown field; expected one of key, sortField", sortfield="x"),
    new("wrong type", "/metadata", "expected an object, got text", metadata="not_started"),
    new("wrong type of a flag", "/upsert", "expected true or false, got text", upsert="yes"),
    bad("missing key", "POST", "/v1/items", "/key", "required", body={"sortField": "new"}),
    new("key of a wrong type", "/key", "expected text, got a whole number", key=7),
    new("key empty", "/key", "1 to 128 characters", key=""),
    new("key too long", "/key", "1 to 128 characters", key="k" * 129),
    new("key with a brace", "/key", "1 to 128 characters", key="a}b"),
    new("sortField empty", "/sortField", "1 to 512 bytes", sortField=""),
    new("sortField too long", "/sortField", "1 to 512 bytes", sortField="é" * 257),
    new("sortField with NUL", "/sortField", "without NUL", sortField="a\0b"),
    new("sortField null", "/sortField", "expected text, got null", sortField=None),
    new("version of a new item", "/metadata/version", "a new item has version 1", metadata={"version": 2}),
    new("version null", "/metadata/version", "whole number", metadata={"version": None}),
    new("status of a wrong type", "/metadata/status", "expected text", metadata={"status": 1}),
    new("time that is none", "/metadata/scheduled_at", "RFC 3339", metadata={"scheduled_at": "tomorrow"}),
    new("priority out of bounds", "/metadata/priority", "0 to 9", metadata={"priority": 10}),
    new("trigger that is no URL", "/triggerUrls/ftp:~1~1x", "http", triggerUrls={"ftp://x": "k"}),
    new("trigger of unknown field", "/triggerUrls/0/key", "unknown field", triggerUrls=[{"url": "http://x", "key": 1}]),
    Row("reserved key", "POST", "/v1/items", 403, "reserved_key", None, "hookline.", body={"key": "hookline.x"}),
    # Many at once: one that is malformed refuses all
    *(
        bad(f"batch: {name}", "POST", "/v1/items", pointer, says, body=body)
        for name, pointer, says, body in [
            ("bad key", "/items/1/key", "characters", {"items": [{"key": "jobs"}, {"key": "?"}]}),
            ("unknown field", "/items/1/kay", "unknown field", {"items": [{"key": "jobs"}, {"kay": "?"}]}),
            ("missing key", "/items/0/key", "required", {"items": [{}]}),
            ("not a list", "/items", "expected a list, got an object", {"items": {}}),
            ("empty", "/items", "1 to 500 items", {"items": []}),
            ("too many", "/items", "1 to 500 items", {"items": [{"key": "jobs"}] * 501}),
            ("and one", "/key", "unknown field", {"items": [{"key": "jobs"}], "key": "jobs"}),
        ]
    ),
    Row(
        *("batch: reserved key", "POST", "/v1/items", 403, "reserved_key", None, "hookline."),
        body={"items": [{"key": "jobs"}, {"key": "hookline.x"}]},
    ),
    # The body as a whole
    create("over 1 MiB", 413, "body_too_large", None, str(MIB), b'{"key":"jobs","content":"' + b"x" * MIB + b'"}'),
    Row(
        *("a form", "POST", "/v1/items", 415, "unsupported_media_type", None, "application/json"),
        data=b"key=jobs",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Row(
        *("UTF-16", "POST", "/v1/items", 415, "unsupported_media_type", None, "UTF-8"),
        data='{"key":"jobs"}'.encode("utf-16"),
        headers={"Content-Type": "application/json; charset=utf-16"},
    ),
    # One item
    Row("unknown item", "GET", "/v1/items/jobs/unknown", 404, "not_found", None, "no item"),
    Row("unknown item, update", "PATCH", "/v1/items/jobs/unknown", 404, "not_found", None, "no item", body={}),
    Row("unknown item, delete", "DELETE", "/v1/items/jobs/unknown", 404, "not_found", None, "no item"),
    bad("bad key in the path", "PUT", "/v1/items/a%20b/x", "/key", "characters", body={}),
    bad("a slash in the key", "PUT", "/v1/items/a%2Fb/x", "/key", "characters", body={}),
    bad("no sortField in the path", "PUT", "/v1/items/jobs/", "/sortField", "1 to 512", body={}),
    Row("path not UTF-8", "PUT", "/v1/items/jobs/%FF", 400, "invalid_path", None, "UTF-8", body={}),
    bad("NUL in the path", "PUT", "/v1/items/jobs/%00", "/sortField", "NUL", body={}),
    Row("reserved key in the path", "PUT", "/v1/items/hookline.x/a", 403, "reserved_key", None, "", body={}),
    bad("identity in a PUT", "PUT", ITEM, "/key", "unknown field", body={"key": "jobs"}),
    bad("version null", "PATCH", ITEM, "/metadata/version", "number", body={"metadata": {"version": None}}),
    bad("version 0", "PATCH", ITEM, "/version", ">= 1", body={"version": 0}),
    bad("version beyond all", "PATCH", ITEM, "/version", "<= 9007199254740991", body={"version": 2**70}),
    bad("versions apart", "PATCH", ITEM, "/version", "same", body={"version": 1, "metadata": {"version": 2}}),
    Row("version of the past", "PATCH", ITEM, 409, "version_conflict", None, "current", body={"version": 7}),
    bad("token empty", "PATCH", ITEM, "/token", "token", body={"token": ""}),
    bad("triggers half on", "DELETE", f"{ITEM}?triggers=half", "/triggers", "on or off"),
    bad("misspelt parameter", "DELETE", f"{ITEM}?trigger=off", "/trigger", "expected triggers"),
    bad("parameter twice", "DELETE", f"{ITEM}?triggers=off&triggers=on", "", "once"),
    *(
        Row(
            f"If-Match {written}",
            "DELETE",
            ITEM,
            400,
            "invalid_header",
            None,
            "If-Match",
            headers={"If-Match": written},
        )
        for written in ("1", '"1', '"1.0", "2.0"', '"a b"', "")
    ),
    *(
        Row(f"If-Match {written}", "DELETE", ITEM, 412, "precondition_failed", None, "", headers={"If-Match": written})
        for written in ('"one"', '"1.0.0"', '"-1"', 'W/"0"', '""')
    ),
    Row(
        "version of what is not there", "PUT", f"{ITEM}x", 404, "not_found", None, "", body={"metadata": {"version": 1}}
    ),
    *(
        bad(f"worker's {name}", "PUT", "/v1/workers/jobs/w", f"/{name}", ">= 0", body=TOLD | {name: -1})
        for name in ("pid", "concurrency", "inFlight")
    ),
    bad("endpoints asleep", "GET", "/v1/endpoints?status=asleep", "/status", "active, paused"),
    Row("If-Match of the past", "DELETE", ITEM, 412, "precondition_failed", None, "", headers={"If-Match": '"9.0"'}),
    Row("If-None-Match", "PUT", ITEM, 400, "invalid_header", None, "*", body={}, headers={"If-None-Match": '"1.0"'}),
    bad("merge of a list", "PATCH", ITEM, "", "an object", data=b"[]", headers=MERGE),
    bad("merge of a key", "PATCH", ITEM, "/key", "unknown field", data=b'{"key":1}', headers=MERGE),
    bad("merge into metadata", "PATCH", ITEM, "/metadata", "object", data=b'{"metadata":1}', headers=MERGE),
    bad(
        *("merge too deep", "PATCH", ITEM, "/content" + "/a" * 64, "64 levels"),
        data=b'{"content":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        headers=MERGE,
    ),
    Row(
        *("patch of another kind", "PATCH", ITEM, 415, "unsupported_media_type", None, "merge-patch"),
        data=b"[]",
        headers={"Content-Type": "application/json-patch+json"},
    ),
    # Searching
    bad("limit 0", "GET", "/v1/items/jobs?limit=0", "/limit", "1 to 1000"),
    bad("limit 1001", "GET", "/v1/items/jobs?limit=1001", "/limit", "1 to 1000"),
    bad("limit of words", "GET", "/v1/items/jobs?limit=ten", "/limit", "whole number"),
    bad("unknown parameter", "GET", "/v1/items/jobs?state=x", "/state", "expected status, order"),
    bad("query not UTF-8", "GET", "/v1/items/jobs?status=%FF", "", "UTF-8"),
    bad("two statuses", "GET", "/v1/items/jobs?status=a&metadata.status=b", "/status", "same status"),
    bad("format", "GET", "/v1/items/jobs?format=thin", "/format", "full or light"),
    bad("cursor", "GET", "/v1/items/jobs?cursor=abc", "/cursor", "cursor of the page before"),
    bad("order", "POST", "/v1/items/jobs/query", "/order", "sortField", body={"order": "size"}),
    bad("operator", "POST", "/v1/items/jobs/query", "/where/n", "operators", body={"where": {"n": {"near": 1}}}),
    bad("where", "POST", "/v1/items/jobs/query", "/where", "object", body={"where": "x"}),
    # Jobs
    bad("claim of 0", "POST", CLAIM, "/limit", "1 to 500", body={"workerId": "w", "limit": 0}),
    bad("claim of 501", "POST", CLAIM, "/limit", "1 to 500", body={"workerId": "w", "limit": 501}),
    bad("claim of 1.5", "POST", CLAIM, "/limit", "whole number", body={"workerId": "w", "limit": 1.5}),
    bad("claim of nobody", "POST", CLAIM, "/workerId", "required", body={}),
    bad("claim of a nameless", "POST", CLAIM, "/workerId", "expected text", body={"workerId": ""}),
    bad("lock", "POST", CLAIM, "/lockFor", "10m", body={"workerId": "w", "lockFor": "ten"}),
    bad("lock of ages", "POST", CLAIM, "/lockFor", "seconds", body={"workerId": "w", "lockFor": 10**400}),
    bad("lock of null", "POST", CLAIM, "/lockFor", "null", body={"workerId": "w", "lockFor": None}),
    bad("wait", "POST", CLAIM, "/wait", "seconds", body={"workerId": "w", "wait": -1}),
    bad("triggers", "POST", CLAIM, "/triggers", "key, on, off", body={"workerId": "w", "triggers": "all"}),
    bad("claim, unknown field", "POST", CLAIM, "/worker", "unknown", body={"worker": "w"}),
    Row("claim, reserved key", "POST", "/v1/jobs/hookline.x/claim", 403, "reserved_key", body={"workerId": "w"}),
    bad("claim, bad key", "POST", "/v1/jobs/a%20b/claim", "/key", "characters", body={"workerId": "w"}),
    bad("token missing", "POST", SETTLE, "/complete/0/token", "required", body={"complete": [{"sortField": "known"}]}),
    bad(
        *("bad among good", "POST", SETTLE, "/fail/1/retryAfter", "seconds"),
        body={
            "fail": [
                {"sortField": "known", "token": "TOKEN"},
                {"sortField": "known", "token": "TOKEN", "retryAfter": "soon"},
            ]
        },
    ),
    bad(
        *("owned by the engine", "POST", SETTLE, "/complete/0/metadata/status", "set by the engine"),
        body={"complete": [{"sortField": "known", "token": "TOKEN", "metadata": {"status": "failed"}}]},
    ),
    bad(
        *("extend, unknown field", "POST", SETTLE, "/extend/0/for", "unknown field"),
        body={"extend": [{"sortField": "known", "token": "TOKEN", "for": 1}]},
    ),
    bad(
        *("501 operations", "POST", SETTLE, "", "at most 500"),
        body={"release": [{"sortField": "known", "token": "TOKEN"}] * 501},
    ),
    bad(
        *("settle, then claim of 0", "POST", SETTLE, "/claim/limit", "1 to 500"),
        body={"complete": [{"sortField": "known", "token": "TOKEN"}], "workerId": "w", "claim": {"limit": 0}},
    ),
    bad(
        *("settle, then claim of nobody", "POST", SETTLE, "/claim/workerId", "/workerId"),
        body={"complete": [{"sortField": "known", "token": "TOKEN"}], "claim": {}},
    ),
    bad(
        *("settle, then claim what", "POST", SETTLE, "/claim/where", "object"),
        body={"complete": [{"sortField": "known", "token": "TOKEN"}], "workerId": "w", "claim": {"where": 1}},
    ),
    Row(
        "settle of strangers",
        "POST",
        "/v1/jobs/hookline.x/settle",
        403,
        "reserved_key",
        None,
        "",
        body={"claim": {}, "workerId": "w"},
    ),
    # Commands
    command("misspelt word", "line 1, column 1: expected '/datastore'", b"creat item with:\nkey: jobs\n"),
    command("misspelt field", "line 3, column 1", b"create item with:\nkey: jobs\nsortfeld: x\n"),
    command(
        "unclosed brace", "line 3, column 11: expected a '}'", b'create item with:\nkey: jobs\nmetadata: {"a": 1\n'
    ),
    command("command without key", "the field 'key'", b"create item with:\nsortField: x\n"),
    command("second command bad", "line 4", b"create item with:\nkey: jobs\n\ncrate item with:\nkey: jobs\n"),
    command(
        "command not UTF-8",
        "line 2, column 8: expected text of UTF-8, found byte 0xff",
        b"create item with:\nkey: \xc3\xa9 \xff\n",
    ),
    command("no words at all", "line 1", b"?"),
    Row(
        *("command over 64 KiB", "POST", "/v1/command", 413, "body_too_large", None, "65536"),
        data=b"#" * 65_537,
        headers=TEXT,
    ),
    bad("command without a text", "POST", "/v1/command", "/text", "required", body={}),
    Row(
        *("command as XML", "POST", "/v1/command", 415, "unsupported_media_type", None, "text/plain"),
        data=b"<text/>",
        headers={"Content-Type": "application/xml"},
    ),
    *(
        Row(f"command: {name}", "POST", "/v1/command", status, code, pointer, says, data=text, headers=TEXT)
        for name, status, code, pointer, says, text in [
            ("unknown item", 404, "not_found", None, "no item", b"get item with key: jobs and sortField: unknown\n"),
            ("claim of 0", 422, "invalid", "/limit", "1 to 500", b"claim items where:\nkey: jobs\nlimit: 0\n"),
            ("claim of 501", 422, "invalid", "/limit", "1 to 500", b"claim items where:\nkey: jobs\nlimit: 501\n"),
            ("reserved key", 403, "reserved_key", None, "", b"create item with:\nkey: hookline.x\n"),
            ("key", 422, "invalid", "/key", "characters", b"create item with:\nkey: a b\n"),
        ]
    ),
    # Paths and methods
    Row("unknown path", "GET", "/v2/items", 404, "unknown_path", None, "no route"),
    Row("no slash before the key", "GET", "/v1%2Fitems%2Fjobs%2Fx", 404, "unknown_path", None, "%2F"),
    Row(
        "no slash around the key",
        "POST",
        "/v1/jobs%2Fjobs%2Fclaim",
        404,
        "unknown_path",
        None,
        "%2F",
        {"workerId": "w"},
    ),
    Row("root", "GET", "/", 404, "unknown_path", None, "/openapi.json"),
    Row("slash at the end", "GET", "/livez/", 404, "unknown_path", None, "no route"),
    Row("unknown method", "DELETE", "/v1/items", 405, "method_not_allowed", None, "POST"),
    Row("method of a claim", "GET", CLAIM, 405, "method_not_allowed", None, "POST"),
    Row("method of an item", "POST", ITEM, 405, "method_not_allowed", None, "PATCH"),
    Row(
        "a page of another site",
        "DELETE",
        ITEM,
        403,
        "cross_site",
        None,
        "Origin",
        headers={"Origin": "http://evil.example"},
    ),
    Row("a page of no site", "DELETE", ITEM, 403, "cross_site", None, "Origin", headers={"Origin": "null"}),
]


async def everything(raw: aioredis.Redis) -> dict[bytes, Any]:
    """All that the store holds, but for the outcomes that it keeps for retries."""
    names: list[Any] = await raw.keys("*")
    return {name: await raw.dump(name) for name in names if b":o:" not in name}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_is_refused_with_its_reason_and_nothing_written(row: Row, api: Api, raw: aioredis.Redis) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "sortField": "known", "metadata": {"status": "not_started"}})
    before = await everything(raw)
    options = {"data": io.BytesIO(row.data)} if row.data is not None else {}
    answer = await api(row.method, row.path, row.body, headers=row.headers, **options)
    problem = answer.data
    assert (answer.status, problem["code"], problem["status"]) == (row.status, row.code, row.status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert row.says in problem["detail"]
    assert ("errors" in problem) == (row.code == "invalid")
    if row.pointer is not None:
        assert [row.pointer] == [flaw["pointer"] for flaw in problem["errors"]][:1]
        assert row.says in problem["errors"][0]["detail"]
    assert await everything(raw) == before


async def test_every_bad_field_is_named(api: Api) -> None:
    body = {"key": "jobs", "metadata": {"priority": 11, "status": 1, "fine": 1}, "triggerUrls": {"ftp://x": "k"}}
    answer = await api("POST", "/v1/items", body)
    assert [flaw["pointer"] for flaw in answer.data["errors"]] == [
        "/metadata/priority",
        "/metadata/status",
        "/triggerUrls/ftp:~1~1x",
    ]


async def test_thousands_of_bad_fields_are_not_all_named(api: Api) -> None:
    answer = await api("POST", "/v1/items", {"items": [{"key": "?"}] * 500})
    assert len(answer.data["errors"]) == 100
    assert answer.data["detail"].endswith("and 497 more")


async def test_a_body_without_its_length_is_still_measured(api: Api, raw: aioredis.Redis) -> None:
    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    before = await everything(raw)
    answer = await api("POST", "/v1/items", data=chunks(), headers=JSON)
    assert (answer.status, answer.data["code"]) == (413, "body_too_large")
    assert await everything(raw) == before


async def test_the_largest_body_is_taken(api: Api) -> None:
    frame = b'{"key":"jobs","content":"%s"}'
    body = frame % (b"x" * (MIB - len(frame) + 2))
    assert len(body) == MIB
    assert (await api("POST", "/v1/items", data=io.BytesIO(body), headers=JSON)).status == 201


@pytest.mark.parametrize(
    "content",
    [2**64 - 1, -(2**63), 1.0, 0.1, {}, [], None, "\U0001f600 \u2028 a:b", {"a:b": "c:d", "": {"": ":"}}, nested(64)],
    ids=repr,
)
async def test_what_is_at_the_bounds_comes_back_as_it_was(api: Api, content: Any) -> None:
    created = await api("POST", "/v1/items", {"key": "jobs", "sortField": "x", "content": content})
    assert created.status == 201
    found = (await api("GET", "/v1/items/jobs/x")).data["content"]
    assert (found, type(found)) == (content, type(content))


@pytest.mark.parametrize("levels", [63, 64, 200, 900, 999, 1000, 5000])
async def test_a_name_twice_far_down(api: Api, levels: int) -> None:
    body = b'{"key":"jobs","content":' + b"[" * levels + b'{"a":1,"a":1}' + b"]" * levels + b"}"
    answer = await api("POST", "/v1/items", data=body, headers=JSON)
    assert (answer.status, answer.data["code"]) == (422, "invalid")


async def test_escaped_colons_are_no_repetition(api: Api) -> None:
    body = b'{"key":"jobs","sortField":"x","content":{"a\\u003ab":"\\u003A","a":":"}}'
    assert (await api("POST", "/v1/items", data=body, headers=JSON)).data["content"] == {"a:b": ":", "a": ":"}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'"%b"', 201),
        (b'{"a":1,"b":"%b","a":2}', 422),
        (b'{"a:\\u003A":"\\\\u003a","b":"%b"}', 201),
        (b'{"a":"\\u003a","b":"%b","a":1}', 422),
        (b'["%b",]', 400),
        (b'["%b",NaN]', 400),
    ],
)
async def test_large_bodies_are_read_as_strictly(api: Api, content: bytes, status: int) -> None:
    body = b'{"key":"jobs","content":' + content % (b"x" * 200_000) + b"}"
    answer = await api("POST", "/v1/items", data=io.BytesIO(body), headers=JSON)
    assert answer.status == status
    if status == 201:
        assert answer.data["content"] == json.loads(body)["content"]


async def test_who_sends_large_bodies_that_are_none_rests_from_large_ones(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heavy, "REST", 1_000_000)
    good, bad = ({"key": "jobs", "content": "x" * 200_000}, b"[" + b"1," * 100_000)
    assert (await api("POST", "/v1/items", good)).status == 201
    assert (await api("POST", "/v1/items", data=io.BytesIO(bad), headers=JSON)).status == 400
    answer = await api("POST", "/v1/items", good)
    assert (answer.status, answer.data["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert (await api("POST", "/v1/items", {"key": "jobs"})).status == 201
    lines = json.dumps({"key": "jobs"}) + "\n" + json.dumps(good)
    answer = await api("POST", "/v1/items", data=lines.encode(), headers={"Content-Type": "application/x-ndjson"})
    assert [json.loads(line)["status"] for line in answer.body.splitlines()] == [201, 429]
    async with dialled(api.port, "127.0.0.7") as line:
        await line.send(request("POST", "/v1/items", good))
        assert (await line.answer()).status == 201
    async with dialled(api.port) as line:  # and need not send it first
        await line.send(request("POST", "/v1/items", Content_Length="200000"))
        assert (await line.answer()).status == 429
    heavy._rests.clear()
    assert (await api("POST", "/v1/items", good)).status == 201


def test_a_rest_ends_and_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy, "_rests", {})
    monkeypatch.setattr(heavy, "CALLERS_MAX", 2)
    for caller, seconds in (("a", 1000.0), ("b", 0.0), ("c", 0.001)):
        heavy._let_rest(caller, seconds)
    assert list(heavy._rests) == ["b", "c"]
    heavy.check_rest("a")
    heavy.check_rest("b")
    with pytest.raises(Problem) as caught:
        heavy.check_rest("c")
    assert caught.value.headers["Retry-After"] == "1"
