"""Problem documents: every error has one, and none says what it should not."""

from __future__ import annotations

import inspect
import json
import logging
from typing import Any

import pytest

from api import Api
from hookline import Datastore, errors
from hookline.errors import HooklineError, Incompatible, Invalid, Refused
from hookline.item import check_value
from hookline_server import logs
from hookline_server.problem import KINDS, Problem, problem_of

SECRET = "redis://user:hunter2@10.0.0.7"


def raised(kind: type[HooklineError]) -> HooklineError:
    return Invalid.at("/key", "expected text") if kind is Invalid else kind(SECRET)


ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HooklineError)]
CODES = {HooklineError: "internal", Incompatible: "unavailable"}
"""A base, which is 500 where it is met all the same; and a store that does not let a server in any more."""


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own(kind: type[HooklineError]) -> None:
    if kind is not Refused:
        code = CODES.get(kind, kind.code)
        assert problem_of(raised(kind)).code == code
        assert code in KINDS


CONFLICTS = (
    "exists",
    "version_conflict",
    "locked",
    "stale_token",
    "not_claimable",
    "cancelled",
    "paused",
    "too_many_fields",
)


def test_statuses_are_as_designed() -> None:
    assert {code: status for code, (status, _) in KINDS.items() if status != 400} == {
        "invalid": 422,
        "syntax_error": 422,
        "unfit_placeholder": 422,
        "idempotency_key_reused": 422,
        "idempotency_key_in_use": 409,
        "body_too_large": 413,
        "unsupported_media_type": 415,
        "request_timeout": 408,
        "target_too_long": 414,
        "headers_too_large": 431,
        "rate_limited": 429,
        "overloaded": 503,
        "unknown_path": 404,
        "method_not_allowed": 405,
        "not_acceptable": 406,
        "cross_site": 403,
        "unknown_host": 403,
        **dict.fromkeys(("missing_api_key", "invalid_api_key"), 401),
        **dict.fromkeys(("missing_scope", "key_not_allowed"), 403),
        "too_many_attempts": 429,
        "unknown_api_key": 404,
        "not_found": 404,
        **dict.fromkeys(CONFLICTS, 409),
        "precondition_failed": 412,
        "reserved_key": 403,
        **dict.fromkeys(("key_full", "outbox_full", "unavailable", "store_full", "outcome_unknown"), 503),
        "corrupt": 500,
        "internal": 500,
    }


def break_with(datastore: Datastore, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def broken(*args: Any, **options: Any) -> None:
        raise error

    for verb in ("get", "create", "claim"):
        monkeypatch.setattr(datastore, verb, broken)


@pytest.mark.parametrize(
    "kind", [errors.Unavailable, errors.StoreFull, errors.OutcomeUnknown, errors.OutboxFull, errors.KeyFull]
)
async def test_what_may_be_repeated_says_when(
    kind: type[HooklineError], api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_with(datastore, monkeypatch, kind("later"))
    answer = await api("POST", "/v1/items", {"key": "jobs"})
    assert (answer.status, answer.data["code"], answer.headers["retry-after"]) == (503, kind.code, "1")
    command = await api.command("get item with key: jobs and sortField: a\n")
    assert (command.status, command.data["code"], command.headers["retry-after"]) == (503, kind.code, "1")
    assert command.data["results"] == []


@pytest.mark.parametrize(
    "error", [RuntimeError(SECRET), HooklineError(SECRET), Incompatible(SECRET), errors.Unavailable(SECRET)]
)
async def test_what_went_wrong_inside_goes_to_the_log_only(
    error: Exception,
    api: Api,
    datastore: Datastore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_with(datastore, monkeypatch, error)
    caplog.handler.setFormatter(logs.Json())
    with caplog.at_level(logging.WARNING):
        answer = await api("GET", "/v1/items/jobs/a", headers={"X-Request-Id": "find-me"})
    assert answer.status in (500, 503)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "find-me"
    assert b"hunter2" not in answer.body + repr(answer.headers).encode()
    (line,) = [json.loads(text) for text in caplog.text.splitlines()]
    assert line["request"] == "find-me"
    assert line["level"] == ("error" if answer.status == 500 else "warning")
    assert ("hunter2" in line["message"]) == isinstance(error, HooklineError)
    assert ("hunter2" in caplog.text) == isinstance(error, HooklineError)
    assert type(error).__name__ in line.get("exception", [type(error).__name__])[-1]
    monkeypatch.undo()
    assert (await api("GET", "/v1/items/jobs/a")).status == 404


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.KeyFull(), "INFO"),
        (errors.OutboxFull(), "WARNING"),
        (errors.StoreFull(""), "WARNING"),
        (errors.OutcomeUnknown(""), "WARNING"),
        (errors.Incompatible(""), "WARNING"),
        (Problem("overloaded", ""), "WARNING"),
        (errors.Corrupt(), "ERROR"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.code,
)
async def test_what_is_expected_to_happen_is_logged_as_no_error(
    error: Exception,
    level: str,
    api: Api,
    datastore: Datastore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    break_with(datastore, monkeypatch, error)
    with caplog.at_level(logging.INFO, logger="hookline_server.edge"):
        await api("POST", "/v1/items", {"key": "jobs"})
    (line,) = [record for record in caplog.records if record.name == "hookline_server.edge"]
    assert (line.levelname, line.exc_info) == (level, None)


async def test_a_spoilt_index_is_500_and_the_item_stays(api: Api, raw: Any) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "sortField": "a", "metadata": {"status": "not_started"}})
    (index,) = await raw.keys("*:s:jobs:not_started")
    await raw.delete(index)
    await raw.set(index, "spoilt")
    answer = await api("POST", "/v1/jobs/jobs/claim", {"workerId": "w"})
    assert (answer.status, answer.data["code"]) == (500, "corrupt")
    assert (await api("GET", "/v1/items/jobs/a")).data["version"] == 1


@pytest.mark.parametrize(
    "sane", ["abc-123", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", '<a>,{b}"~!', "x" * 128]
)
async def test_a_sane_request_id_comes_back(api: Api, sane: str) -> None:
    for path in ("/livez", "/nowhere", "/v1/items/jobs/none"):
        assert (await api("GET", path, headers={"X-Request-Id": sane})).headers["x-request-id"] == sane


@pytest.mark.parametrize("odd", ["", "two words", "x" * 129, "a\tb", "é"])
async def test_an_odd_request_id_is_replaced(api: Api, odd: str) -> None:
    given = [(await api("GET", "/livez", headers={"X-Request-Id": odd})).headers["x-request-id"] for _ in range(2)]
    assert given[0] != given[1]
    assert all(len(request_id) == 24 for request_id in given)


async def test_a_method_that_is_not_there_is_told_those_that_are(api: Api) -> None:
    for path, allowed in (
        ("/v1/items/jobs/a", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("/v1/items/jobs/query", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "POST"}),
        ("/v1/items", {"POST"}),
        ("/v1/items/jobs", {"GET", "HEAD"}),
        ("/v1/orchestrations/x", {"GET", "HEAD", "PUT", "DELETE"}),
    ):
        answer = await api("TRACE", path)
        assert (answer.status, answer.data["code"]) == (405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == {*allowed, "OPTIONS"}
        answer = await api("OPTIONS", path)
        assert (answer.status, answer.body) == (204, b"")
        assert set(answer.headers["allow"].split(", ")) == {*allowed, "OPTIONS"}
    assert (await api("OPTIONS", "/nowhere")).status == 404


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        ({"n" * 900_000: [10**30] * 60}, "/content/nnn"),
        ({"n" * 600: {"m" * 900_000: {"a": [[10**30]]}}}, f"/content/{'n' * 600}/mmm"),
        ({"n" * 50_000: "\ud800"}, "/content/nnn"),
    ],
    ids=["name", "path", "surrogate"],
)
async def test_long_names_are_cut(api: Api, content: Any, pointer: str) -> None:
    answer = await api("POST", "/v1/items", {"key": "e", "content": content})
    assert (answer.status, answer.data["code"], len(answer.body) < 40_000) == (422, "invalid", True)
    for flaw in answer.data["errors"]:
        assert flaw["pointer"].startswith(pointer)
        assert (flaw["pointer"][-4] != ".", flaw["pointer"][-3:], len(flaw["pointer"])) == (True, "...", 1003)
    first = answer.data["errors"][0]
    assert answer.data["detail"].startswith(f"{first['pointer']}: {first['detail']}")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/items", {"key": "e", "n" * 900_000: 1}),
        ("/v1/items/e/query", {"order": "n" * 900_000}),
        ("/v1/items/e/query", {"where": {"n" * 900_000: {"no": 1}}}),
        ("/v1/command", {"text": "get item with key: a and sortField: [b]", "names": {"n" * 900_000: 1}}),
        ("/v1/command", {"text": f"get item with key: a and sortField: [a.{'n' * 60_000}]", "names": {"a": {}}}),
        ("/v1/command", {"text": "get item with key: a and sortField: [a.b]", "names": {"a": {"n" * 900_000: 1}}}),
    ],
    ids=["field", "order", "where", "names", "placeholder", "members"],
)
async def test_nothing_of_the_callers_is_repeated_without_bound(api: Api, path: str, body: Any) -> None:
    answer = await api("POST", path, body)
    assert answer.status == 422
    assert len(answer.body) < 10_000


def test_pointers_are_short_where_they_are_made() -> None:
    with pytest.raises(Invalid) as raised:
        check_value({"n" * 5000: [10**30]}, "/content")
    (flaw,) = raised.value.flaws
    assert len(flaw.pointer) < 1010


async def test_a_problem_names_its_request(api: Api) -> None:
    answer = await api("GET", "/v1/items/jobs/none", headers={"X-Request-Id": "a/b"})
    assert answer.data["instance"] == "urn:hookline:request:a%2Fb"
    answer = await api("GET", "/nowhere")
    assert answer.data["instance"] == f"urn:hookline:request:{answer.headers['x-request-id']}"


async def test_a_page_of_this_server_may_write(api: Api) -> None:
    own = {"Origin": f"http://127.0.0.1:{api.port}"}
    assert (await api("POST", "/v1/items", {"key": "jobs"}, headers=own)).status == 201
    assert (await api("GET", "/v1/items/jobs", headers={"Origin": "http://evil.example"})).status == 200
