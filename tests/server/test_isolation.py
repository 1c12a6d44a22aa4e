"""What an API key does not allow is neither seen nor changed, on any route: namespaces, scopes, patterns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Answer, Api
from conftest import Clock
from hookline import Datastore
from hookline.calls import Calls
from hookline.limited import CALLS, VERBS, Limited, LimitedCalls
from hookline.registry import Presence
from hookline_server.app import ROUTES
from hookline_server.command.verbs import VERBS as COMMAND_VERBS
from hookline_server.event import endpoint_of
from hookline_server.gate import Gate
from hookline_server.guard import SCOPES
from hookline_server.namespaces import Namespaces
from hookline_server.orchestrations import Orchestrations
from hookline_server.rules import Running
from hookline_server.schedules import Schedules
from invariants import read_keyspace
from server.conftest import MakeKey
from server.probes import CANARY, COMMANDS, PROBES, URL, Probe, fill

OPEN = {"/livez", "/readyz", "/openapi.json", "/docs"}
KEY, COVERED = f"{CANARY}.jobs", "reports.a"
Held = dict[bytes, Any]

every_probe = pytest.mark.parametrize("probe", PROBES, ids=str)


@pytest.fixture(autouse=True)
def still(clock: Clock) -> None:
    """The clock stands, so that nothing changes by itself."""
    clock.advance(0)


async def held(raw: aioredis.Redis, namespace: str) -> Held:
    """All that a namespace holds, but the outcomes of calls."""
    within = f"hl:{{{namespace}/".encode()
    keyspace = {name: entry.value for name, entry in (await read_keyspace(raw)).items() if b":o:" not in name}
    api_keys = {name: value for name, value in keyspace.items() if name.startswith(b"hl:api-key:")}
    for value in api_keys.values():
        value.pop(b"used", None)
    own = {name: value for name, value in api_keys.items() if value[b"name"] == CANARY.encode()}
    return own | {name: value for name, value in keyspace.items() if name.startswith(within)}


async def ask(api: Api, probe: Probe, headers: dict[str, str], key: str = KEY, *filled: str) -> Answer:
    path, body, more = probe.request(key, *(filled or ("1.00", "0123456789ab")))
    return await api(probe.method, path, data=body, headers={**more, **headers})


def test_there_is_a_probe_for_every_route_and_every_command() -> None:
    """A new one cannot be forgotten."""
    there = {(method, route.path) for route in ROUTES for method in (route.methods or set()) - {"HEAD"}}
    assert {(probe.method, probe.route) for probe in PROBES if probe.method != "HEAD"} == there == set(SCOPES)
    assert set(COMMANDS) == set(COMMAND_VERBS)


def test_every_verb_of_the_engine_asks_the_grant() -> None:
    """Of a datastore as an API key may use it, nothing that takes a key or names is as it was."""
    own = _own(Limited) - {"run"}  # which takes calls, and these ask
    assert _taking(Datastore, "key", "names", "prefix") == set(VERBS) | own | _by_calls()
    assert _taking(Calls, "key") == set(CALLS) | {"partition", "item_name"}, "those two only compute"
    assert set(CALLS) <= set(vars(LimitedCalls))


def _taking(kind: type, *names: str) -> set[str]:
    public = {
        name: getattr(kind, name) for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))
    }
    return {name for name, verb in public.items() if set(names) & set(_arguments(verb))}


def _arguments(verb: Any) -> tuple[str, ...]:
    code = verb.__code__
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return names


def _own(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")} - set(VERBS)


def _by_calls() -> set[str]:
    """What is made of others that ask."""
    return {"create", "update", "delete", "configure", "key_settings", "pause", "resume"}


@every_probe
async def test_another_namespace_is_neither_seen_nor_changed(
    api: Api, gate: Gate, namespaces: Namespaces, raw: aioredis.Redis, make_key: MakeKey, probe: Probe
) -> None:
    acme = await namespaces.open("acme")
    filled = await fill(acme, KEY)
    await namespaces.open("globex")
    before = await held(raw, "acme")
    foreign = await ask(api, probe, await make_key("globex"), KEY, *filled)
    assert CANARY.encode() not in foreign.body.replace(KEY.encode(), b"")
    assert await held(raw, "acme") == before
    assert foreign.status < 500
    # The same from within works, so the probe is one that could do something.
    own = await ask(api, probe, await make_key("default" if probe.operating else "acme"), KEY, *filled)
    assert own.status < 400, own.body


@every_probe
async def test_an_api_key_is_asked_for(api: Api, gate: Gate, raw: aioredis.Redis, probe: Probe) -> None:
    for headers in ({}, {"Authorization": "Bearer hl_0123456789ab_" + "0" * 72}):
        answer = await ask(api, probe, headers)
        if probe.route in OPEN:
            assert answer.status == 200
            continue
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="hookline"')
    assert not [name async for name in raw.scan_iter("hl:{*") if b":o:" not in name]


@every_probe
@pytest.mark.parametrize("scope", ["read", "write", "work", "admin"])
async def test_each_asks_for_its_scope(
    api: Api, gate: Gate, datastore: Datastore, raw: aioredis.Redis, make_key: MakeKey, probe: Probe, scope: str
) -> None:
    filled = await fill(datastore, KEY)
    before = await held(raw, "default")
    answer = await ask(api, probe, await make_key("default", scopes=[scope]), KEY, *filled)
    if scope in probe.scopes or probe.route in OPEN:
        assert answer.status < 400, answer.body
    else:
        assert answer.status == 403
        assert probe.method == "HEAD" or answer.data["code"] == "missing_scope"
        assert await held(raw, "default") == before
        assert CANARY.encode() not in answer.body.replace(KEY.encode(), b"")


@every_probe
async def test_patterns_hold(
    api: Api, gate: Gate, datastore: Datastore, raw: aioredis.Redis, make_key: MakeKey, probe: Probe
) -> None:
    filled, covered = await fill(datastore, KEY), await fill(datastore, COVERED)
    before = await held(raw, "default")
    limited = await make_key("default", patterns=["jobs", "reports.*"])
    answer = await ask(api, probe, limited, KEY, *filled)
    assert await held(raw, "default") == before
    if probe.unlimited:
        assert (answer.status, answer.data["code"]) == (403, "missing_scope")
        return
    if probe.many:
        assert KEY.encode() not in answer.body
    elif probe.named:
        assert answer.status == 403
        assert probe.method == "HEAD" or answer.data["code"] == "key_not_allowed"
        assert CANARY.encode() not in answer.body.replace(KEY.encode(), b"")
    if re.search("(orchestration|schedule)s?\\b", str(probe.body)):
        return  # by its own route alone
    answer = await ask(api, probe, limited, COVERED, *covered)
    assert answer.status < 400, answer.body
    assert probe.route in OPEN or b"not_allowed" not in answer.body


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/jobs/jobs/settle", {"extend": [{"sortField": "secret", "token": "1.aaaa-1"}]}),
        ("/v1/jobs/jobs/settle", {"complete": [{"sortField": "secret", "token": "1.a-1"}], "claim": {"workerId": "w"}}),
        ("/v1/command", {"text": "complete item with key: jobs and sortField: secret and token: 1.aaaa-1"}),
    ],
)
async def test_who_may_only_work_sees_what_it_claims_alone(
    api: Api, gate: Gate, datastore: Datastore, make_key: MakeKey, path: str, asked: dict[str, Any]
) -> None:
    await datastore.create("jobs", "secret", content=CANARY)
    for scopes, shown in ((["work"], False), (["work", "read"], True)):
        answer = await api("POST", path, asked, headers=await make_key("default", scopes=scopes))
        assert b"stale_token" in answer.body
        assert (CANARY.encode() in answer.body) == shown


@pytest.mark.parametrize("route", ["/v1/items/hookline.orchestrations", "/v1/items/hookline.orchestrations/rule-jobs"])
async def test_keys_of_the_engine_are_read_with_admin_alone(
    api: Api, gate: Gate, datastore: Datastore, make_key: MakeKey, route: str
) -> None:
    await fill(datastore, "jobs")
    await datastore.leave(Presence("jobs", "w", "", 0, (), 1, 0))
    for scopes, limits, status in (
        (["read", "write", "work"], {}, 403),
        (["admin"], {}, 200),
        (["admin"], {"patterns": ["jobs"]}, 403),
    ):
        assert (await api("GET", route, headers=await make_key("default", scopes=scopes, **limits))).status == status
    everything = await make_key("default")
    assert (await api("DELETE", f"{route}/x", headers=everything)).data["code"] == "reserved_key"
    listed = await api("GET", "/v1/keys?prefix=hookline.", headers=await make_key("default", scopes=["read"]))
    assert listed.data["keys"] == []
    listed = await api("GET", "/v1/keys?prefix=hookline.", headers=everything)
    assert [row["key"] for row in listed.data["keys"] if "hookline.runs" not in row["key"]] == [
        f"hookline.deliveries.{endpoint_of(URL)}",
        "hookline.endpoints",
        "hookline.orchestrations",
        "hookline.schedules",
    ]


async def test_a_batch_with_one_operation_that_is_not_allowed_does_nothing(
    api: Api, gate: Gate, datastore: Datastore, raw: aioredis.Redis, make_key: MakeKey
) -> None:
    limited = await make_key("default", patterns=["jobs"])
    operations = [
        {"op": "create", "key": "jobs", "sortField": "a"},
        {"op": "get", "key": "secret", "sortField": "a"},
    ]
    answer = await api("POST", "/v1/items:batch", {"operations": operations}, headers=limited)
    assert (answer.status, answer.data["code"]) == (403, "key_not_allowed")
    assert await held(raw, "default") == {}


async def test_of_a_stream_each_line_is_asked(api: Api, gate: Gate, datastore: Datastore, make_key: MakeKey) -> None:
    limited = {**await make_key("default", patterns=["jobs"]), "Content-Type": "application/x-ndjson"}
    lines = b'{"key": "jobs", "sortField": "a"}\n{"key": "secret"}\n{"key": "jobs", "sortField": "b"}\n'
    answer = await api("POST", "/v1/items", data=lines, headers=limited)
    shown = [line.split(b'"status":')[1][:3] for line in answer.body.splitlines()]
    assert shown == [b"201", b"403", b"201"]
    assert [item.sort_field for item in (await datastore.query("jobs")).items] == ["a", "b"]


async def test_the_workers_of_others_leave_room_for_those_that_an_api_key_covers(
    api: Api, datastore: Datastore, gate: Gate, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.registry.LIVE_MAX", 2)
    for key in ("a", "b", "c", "zz"):
        await datastore.heartbeat(Presence(key, "w", "host", 1, (), 1, 0))
    answer = await api("GET", "/v1/workers", headers=await make_key("default", patterns=["zz"]))
    assert ([each["key"] for each in answer.data["workers"]], answer.data["leftOut"]) == (["zz"], 0)
    answer = await api("GET", "/v1/workers", headers=await make_key("default"))
    assert ([each["key"] for each in answer.data["workers"]], answer.data["leftOut"]) == (["a", "b"], 2)


ABOUT_RULES = re.compile(r"(orchestration|schedule)s?\b")
ENGINE = [f"hookline.{kind}" for kind in ("orchestrations", "schedules", "workers", "endpoints")]


@pytest.mark.parametrize("pattern", ["*", "*s", "h*", "*.deliveries.*"])
@pytest.mark.parametrize(
    "probe",
    [
        probe
        for probe in PROBES
        if (probe.named and "rule-KEY" not in probe.path) or ABOUT_RULES.search(str(probe.body))
    ],
    ids=str,
)
async def test_no_pattern_covers_the_keys_of_the_engine(
    api: Api, gate: Gate, datastore: Datastore, raw: aioredis.Redis, make_key: MakeKey, probe: Probe, pattern: str
) -> None:
    """In them is what belongs to all keys: rules, their runs, webhooks, workers."""
    filled = await fill(datastore, KEY)
    before, limited = await held(raw, "default"), await make_key("default", patterns=[pattern])
    by_command = ABOUT_RULES.search(str(probe.body))
    for key in [KEY] if by_command else [*ENGINE, f"hookline.deliveries.{endpoint_of(URL)}"]:
        answer = await ask(api, probe, limited, key, *filled)
        assert answer.status == 403 or (probe.many and b'"status":403' in answer.body), answer.body
        assert CANARY.encode() not in answer.body.replace(key.encode(), b"")
    assert await held(raw, "default") == before


@pytest.mark.parametrize(("pattern", "shown"), [("*", [KEY, COVERED]), ("*s", [KEY]), ("r*", [COVERED]), ("h*", [])])
async def test_lists_show_what_is_of_keys_that_are_covered(
    api: Api, gate: Gate, datastore: Datastore, make_key: MakeKey, pattern: str, shown: list[str]
) -> None:
    for key in (KEY, COVERED):
        await fill(datastore, key)
    limited = await make_key("default", patterns=[pattern])
    for route, held in (("orchestrations", "items"), ("schedules", "items"), ("workers", "workers"), ("keys", "keys")):
        answer = await api("GET", f"/v1/{route}", headers=limited)
        assert [each["key"] for each in answer.data[held]] == shown, route
    assert (await api("GET", "/v1/keys?prefix=hookline.", headers=limited)).data["keys"] == []
    for key in shown:
        for verb in ("run", "disable", "enable"):
            assert (await api("POST", f"/v1/orchestrations/rule-{key}/{verb}", headers=limited)).status == 200
        runs = await api("GET", f"/v1/orchestrations/rule-{key}/runs", headers=limited)
        assert [run["by"] for run in runs.data["items"]] == ["hand"]


@pytest.mark.parametrize("kind", ["orchestrations", "schedules"])
@pytest.mark.parametrize("way", ["delete", "put"])
async def test_what_ran_on_another_key_is_not_shown_with_a_rule_that_has_its_name(
    api: Api, gate: Gate, datastore: Datastore, raw: aioredis.Redis, make_key: MakeKey, kind: str, way: str
) -> None:
    path, own, limited = f"/v1/{kind}/nightly", await make_key("default"), await make_key("default", patterns=["jobs"])
    rules: Running[Any, Any] = Orchestrations(datastore) if kind == "orchestrations" else Schedules(datastore)
    rule: dict[str, Any] = {"every": "1h"}
    await api("PUT", path, {**rule, "key": "secret"}, headers=own)
    await rules.run_due()
    late = await rules.get("nightly")
    assert (await api("GET", f"{path}/runs", headers=own)).data["items"]
    assert (await api("GET", f"{path}/runs", headers=limited)).status == 403
    if way == "delete":
        await api("DELETE", path, headers=own)
        stored = await api("PUT", path, {**rule, "key": "jobs"}, headers=limited)
    else:
        stored = await api("PUT", path, {**rule, "key": "jobs"}, headers=own)
    assert stored.data["lastRun"] is None
    # Nor what ends only now.
    await rules.record("nightly", rules.rule(late), "000", {"by": "hand", "error": CANARY})
    assert (await api("GET", path, headers=limited)).data["lastRun"] is None
    assert (await api("GET", f"{path}/runs", headers=limited)).data["items"] == []
    (left,) = [name async for name in raw.scan_iter("hl:{default/0}:i:hookline.runs.*")]
    assert left.endswith(b"000"), "what ran before is gone"
    await api("PUT", path, {**rule, "key": "jobs", "enabled": False}, headers=limited)
    await api("POST", f"{path}/run", headers=limited)
    (run,) = (await api("GET", f"{path}/runs", headers=limited)).data["items"]
    await api("PUT", path, {**rule, "key": "jobs", "jitter": "1m"}, headers=limited)
    assert (await api("GET", f"{path}/runs", headers=limited)).data["items"] == [run], "of one key they stay"


@pytest.mark.parametrize("kind", ["orchestrations", "schedules"])
async def test_a_repeated_delete_leaves_a_rule_that_has_the_name_by_now(api: Api, kind: str) -> None:
    path, again = f"/v1/{kind}/nightly", {"Idempotency-Key": "once"}
    for _ in range(2):
        await api("PUT", path, {"key": "jobs"})
        await api("POST", f"{path}/run")
        assert (await api("DELETE", path, headers=again)).status == 204
    assert len((await api("GET", f"{path}/runs")).data["items"]) == 1
