"""What the verbs send, and what they do not: bad arguments, named by pointers."""

from __future__ import annotations

from typing import Any

import pytest

from hookline import UNSET, Calls, SecretBox
from hookline.call import Call
from hookline.codec import unpack_answer
from hookline.errors import REFUSALS, Invalid, ReservedKey
from hookline.keysettings import Known
from hookline.outcome import Claimed, Outcome
from hookline.row import pack_operations
from hookline.sortfield import TRIED_MAX, Spread


@pytest.fixture
def calls() -> Calls:
    return Calls("default", 16, SecretBox(bytes(32)), Spread())


def test_a_call_goes_to_the_partition_of_its_item(calls: Calls) -> None:
    made = [
        calls.create("jobs", "a"),
        calls.update("jobs", "a"),
        calls.delete("jobs", "a"),
        calls.fail("jobs", "a", "t"),
    ]
    assert {call.partition for call in made} == {calls.partition("jobs", "a")} == {10}
    assert [call.script for call in made] == ["create", "patch", "delete", "settle"]
    assert calls.claim("jobs", worker_id="w", partition=3).partition == 3


@pytest.mark.parametrize("partitions", [1, 2, 3, 16, 24, 256])
def test_an_item_without_a_name_may_go_elsewhere(partitions: int) -> None:
    calls = Calls("default", partitions, SecretBox(bytes(32)), Spread())
    tried = [calls.create("jobs")]
    while tried[-1].elsewhere:
        tried.append(calls.elsewhere(tried[-1]))
    assert len({call.partition for call in tried}) == len(tried) == min(partitions, TRIED_MAX)
    for call in tried:
        assert call.partition == calls.partition("jobs", call.sort_field)
        assert call.request == tried[0].request | {"sort": call.sort_field}
    assert calls.create("jobs", "a").elsewhere is calls.create("jobs", partition=0).elsewhere is None


@pytest.mark.parametrize(
    ("metadata", "script"),
    [
        (None, "patch"),
        ({"status": "not_started"}, "patch"),
        ({"status": "my own"}, "patch"),
        ({"status": "started"}, "patch_drain"),
        ({"status": "completed"}, "patch_drain"),
        ({"status": "failed"}, "patch_drain"),
        ({"status": "cancelled"}, "patch_drain"),
    ],
)
def test_what_drains_may_run_at_the_memory_limit(calls: Calls, metadata: dict[str, Any] | None, script: str) -> None:
    assert calls.update("jobs", "a", metadata=metadata).script == script
    assert calls.create("hookline.deliveries.x", "a", metadata=metadata, reserved=True).script == "create_drain"


def test_what_is_sent(calls: Calls) -> None:
    update = calls.update("jobs", "a", metadata={"x": None, "at": "CURRENT_TIMESTAMP"}, version=2, triggers=False)
    assert unpack_answer(pack_operations([update.pack(Known(7))])) == [{
        b"set": {}, b"unset": [b"m:x"], b"now": [b"m:at"], b"expect": 2, b"triggers": b"off", b"key": b"jobs",
        b"sort": b"a", b"generation": 7,
    }]  # fmt: skip
    creates = [calls.create("jobs", name, metadata={"status": "not_started"}) for name in "ab"]
    assert unpack_answer(pack_operations([create.pack(Known(7)) for create in creates])) == [[
        {b"triggers": b"on", b"line": b"5", b"key": b"jobs", b"generation": 7, b"width": 7},
        [b"a", b"s", b"not_started", b"c", b"\xc0", b"a", b"0", b"b", b"s", b"not_started", b"c", b"\xc0", b"a", b"0"],
    ]]  # fmt: skip
    assert calls.update("jobs", "a", content=None).request["set"] == {"c": b"\xc0"}
    assert calls.update("jobs", "a", content=UNSET).request["set"] == {}
    assert calls.update("jobs", "a", trigger_urls=None).request["unset"] == ["t"]
    claims = [calls.update("jobs", "a", metadata={"status": "started"}).request["nonce"] for _ in range(100)]
    assert len(set(claims)) == 100
    assert repr(UNSET) == "UNSET"


def test_what_is_sent_is_not_shown(calls: Calls) -> None:
    assert "canary" not in repr(calls.update("jobs", "a", content="canary"))


def test_every_word_has_its_error() -> None:
    for word, refusal in REFUSALS.items():
        outcome = Outcome(word, "jobs", "a")
        assert not outcome.ok
        assert type(outcome.error()) is refusal


@pytest.mark.parametrize(
    ("answer", "warnings"),
    [
        ([b"ok", False, False], ()),
        (
            [b"ok", False, {b"warnings": [b"lock_past", b"lock_ignored"]}],
            ("locked_until is already", "locked_until was"),
        ),
    ],
)
def test_warnings_are_sentences(calls: Calls, answer: list[Any], warnings: tuple[str, ...]) -> None:
    outcome = calls.update("jobs", "a").decode(answer)
    assert isinstance(outcome, Outcome)
    assert [warning[: len(start)] for warning, start in zip(outcome.warnings, warnings, strict=True)] == list(warnings)


def test_an_answer_without_items(calls: Calls) -> None:
    call: Call = calls.claim("jobs", worker_id="w")
    claimed = call.decode([b"ok", False, {b"items": [], b"more": True, b"next_ms": 5.0}])
    assert isinstance(claimed, Claimed)
    assert (claimed.items, claimed.next_ms, claimed.more) == ([], 5, True)


@pytest.mark.parametrize("verb", ["create", "update", "delete", "claim", "complete"])
def test_reserved_keys(calls: Calls, verb: str) -> None:
    arguments: dict[str, Any] = {"claim": {"worker_id": "w"}}.get(verb, {"sort_field": "a"})
    if verb == "complete":
        arguments["token"] = "1.a"
    with pytest.raises(ReservedKey):
        getattr(calls, verb)("hookline.deliveries.x", **arguments)
    getattr(calls, verb)("hookline.deliveries.x", **arguments, reserved=True)


@pytest.mark.parametrize(
    ("verb", "options", "at"),
    [
        ("create", {"key": ""}, ["/key"]),
        ("create", {"key": "a b"}, ["/key"]),
        ("create", {"sort_field": ""}, ["/sortField"]),
        ("create", {"sort_field": "a\0"}, ["/sortField"]),
        ("create", {"content": float("nan")}, ["/content"]),
        ("create", {"content": {"a": 2**64}, "metadata": {"priority": 10}, "trigger_urls": 5}, [
            "/metadata/priority", "/content/a", "/triggerUrls",
        ]),
        ("create", {"metadata": {"version": 2}}, ["/metadata/version"]),
        ("create", {"metadata": {"attempts": 1}}, ["/metadata/attempts"]),
        ("create", {"metadata": {"status": "scheduled"}}, ["/metadata/scheduled_at"]),
        ("update", {"metadata": {"version": None}}, ["/metadata/version"]),
        ("update", {"metadata": {"version": 1}, "version": 2}, ["/version"]),
        ("update", {"token": ""}, ["/token"]),
        ("update", {"token": "é"}, ["/token"]),
        ("complete", {"token": 5}, ["/token"]),
        ("complete", {"token": "x" * 129}, ["/token"]),
        ("complete", {"metadata": []}, ["/metadata"]),
        ("complete", {"metadata": {"status": "x", "version": 1}}, ["/metadata/status", "/metadata/version"]),
        ("complete", {"triggers": "maybe"}, ["/triggers"]),
        ("fail", {"retry_after": "soon"}, ["/retryAfter"]),
        ("fail", {"error": ""}, ["/error"]),
        ("fail", {"metadata": {"last_error": "x"}}, ["/metadata/last_error"]),
        ("release", {"delay": -1}, ["/delay"]),
        ("extend", {"lock_for": "1 fortnight"}, ["/lockFor"]),
        ("claim", {"worker_id": ""}, ["/workerId"]),
        ("claim", {"worker_id": 5}, ["/workerId"]),
        ("claim", {"limit": -1}, ["/limit"]),
        ("claim", {"limit": 501}, ["/limit"]),
        ("claim", {"limit": True}, ["/limit"]),
        ("claim", {"lock_for": "x"}, ["/lockFor"]),
        ("claim", {"triggers": True}, ["/triggers"]),
        ("claim", {"where": {"x": {"like": 1}}}, ["/where/x"]),
    ],
)  # fmt: skip
def test_bad_arguments(calls: Calls, verb: str, options: dict[str, Any], at: list[str]) -> None:
    needed: dict[str, Any] = {"key": "jobs"}
    needed |= {"worker_id": "w"} if verb == "claim" else {"sort_field": "a"}
    if verb in ("complete", "fail", "release", "extend"):
        needed["token"] = "1.a"
    with pytest.raises(Invalid) as invalid:
        getattr(calls, verb)(**{**needed, **options})
    assert [flaw.pointer for flaw in invalid.value.flaws] == at
