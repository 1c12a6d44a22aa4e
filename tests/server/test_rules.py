"""What orchestrations and schedules have in common, and what each of them does, by a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Api
from conftest import NOW_MS, Clock
from hookline import Datastore, Item, archive
from hookline.errors import Invalid, KeyFull, ReservedKey
from hookline.transfer import export, restore
from hookline_server import rules
from hookline_server.orchestrations import Orchestration, Orchestrations
from hookline_server.schedules import Schedule, Schedules
from jobs import WAITING, outbox_length, spoil, tags, token_of
from scripts import at

CALLED = [{"url": "https://worker.example/run", "apiKey": "its-secret-key", "events": ["created"], "retry": ["5s"]}]


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW_MS)


@pytest.fixture
def schedules(datastore: Datastore) -> Schedules:
    return Schedules(datastore)


@pytest.fixture
def orchestrations(datastore: Datastore) -> Orchestrations:
    return Orchestrations(datastore)


async def names(datastore: Datastore, key: str = "jobs", **where: Any) -> list[str]:
    return [item.sort_field for item in (await datastore.query(key, where=where, limit=1000)).items]


async def runs(kind: Schedules | Orchestrations, name: str) -> list[dict[str, Any]]:
    return [item.content for item in (await kind.runs(name)).items]


async def test_an_item_for_each_tick_with_its_places_filled(
    schedules: Schedules, datastore: Datastore, clock: Clock
) -> None:
    content = {"of": ["{schedule.name}", {"at": "{schedule.tick} / {schedule.localTick}"}], "n": 1, "kept": "{name}"}
    schedule = Schedule(
        key="jobs",
        every="60s",
        time_zone="Asia/Kolkata",
        content=content,
        metadata={**WAITING, "for": "{schedule.tick}"},
    )
    await schedules.put("hourly", schedule)
    for _ in range(2):
        await schedules.run_due()
        await schedules.run_due()
        clock.advance(60)
    assert await names(datastore) == [f"hourly-{at(0)}", f"hourly-{at(60)}"]
    item = await datastore.get("jobs", f"hourly-{at(60)}")
    assert item.content == {
        "of": ["hourly", {"at": f"{at(60)} / 2027-01-15T13:31:00+05:30"}],
        "n": 1,
        "kept": "{name}",
    }
    assert (item.status, item.metadata["for"]) == ("not_started", at(60))
    first, second = reversed(await runs(schedules, "hourly"))
    assert first == {"by": "tick", "tick": at(0), "startedAt": at(0), "endedAt": at(0), "created": 1}
    assert second["tick"] == at(60)
    stored = schedules.describe(await schedules.get("hourly"))
    assert (stored["nextRun"], stored["lastRun"]) == (at(120), second)


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ({"type": "report"}, "not_started"),
        ({}, "not_started"),
        ({"status": "draft"}, "draft"),
        ({"status": None}, None),
    ],
)
async def test_an_item_is_a_job_unless_its_status_is_named(
    schedules: Schedules, datastore: Datastore, metadata: dict[str, Any], status: str | None
) -> None:
    await schedules.put("hourly", Schedule(key="jobs", metadata=metadata))
    created = (await schedules.run_by_hand("hourly")).only
    item = await datastore.get("jobs", created.sort_field)
    assert (item.status, item.metadata.get("type")) == (status, metadata.get("type"))


@pytest.mark.parametrize(
    ("catch_up", "late", "made", "skipped"),
    [
        ("one", 59, [0], 0),
        ("one", 250, [180, 240], 3),
        ("skip", 250, [240], 4),
        ("skip", 305, [300], 5),
        ("all", 250, [0, 60, 120, 180, 240], 0),
        ("all", 90_000, [60 * number for number in range(501, 1501)], 0),
    ],
)
async def test_ticks_at_which_no_server_was_there(
    schedules: Schedules, datastore: Datastore, clock: Clock, catch_up: Any, late: int, made: list[int], skipped: int
) -> None:
    await schedules.put("minutely", Schedule(key="jobs", every="60s", catch_up=catch_up))
    clock.advance(late)
    await schedules.run_due()
    assert await names(datastore) == sorted(f"minutely-{at(tick)}" for tick in made)
    (run,) = await runs(schedules, "minutely")
    assert (run["created"], run.get("skipped", 0)) == (len(made), skipped)
    (coming,) = await schedules.next("minutely", 1)
    assert coming["at"] == at(late // 60 * 60 + 60)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_those_that_catch_up_let_others_go_first(
    datastore: Datastore, clock: Clock, store: Any, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[str, int]] = []

    class Slow(Schedules):
        async def perform(self, view: Any, item: Item, rule: Any, ticks: Any) -> Any:
            turns.append((item.sort_field, len(ticks)))
            clock.advance(len(ticks) / 6)
            return await super().perform(view, item, rule, ticks)

    monkeypatch.setattr(rules, "TURN", 10)
    await datastore.connection.command("FLUSHALL")
    settings = replace(datastore.settings, partitions=partitions)
    async with Datastore(store.url, settings, datastore.secrets, now_ms=clock) as spread:
        schedules = Slow(spread)
        late = [f"late{number:02d}" for number in range(40)]
        for name in late:
            await schedules.put(name, Schedule(key="late", every="1h", catch_up="all"))
        clock.advance(24 * 3600)
        others: dict[str, Any] = {f"{kind}{number}": kind for kind in ("skip", "one", "all") for number in range(3)}
        for name, kind in others.items():
            await schedules.put(name, Schedule(key="jobs", every="10s", catch_up=kind))
        await schedules.run_due()
        end = max(place for place, (name, _) in enumerate(turns) if name in late)
        assert {name for name, _ in turns[: end // 2]} >= set(others)
        assert {turns.count((name, 10)) for name in late} == {2}
        every_hour = [at(3600 * hour) for hour in range(25)]
        assert await names(spread, "late") == [f"{name}-{tick}" for name in late for tick in every_hour]
        for name in late:
            (run,) = await runs(schedules, name)
            assert (run["tick"], run["created"], run.get("existed", 0)) == (at(0), 25, 0)
            assert not {"until", "priority", "run"} & set((await schedules.get(name)).metadata)
        # Meanwhile the others have lost nothing.
        await schedules.run_due()
        ticks = [at(tick) for tick in range(24 * 3600, ((clock.ms or 0) - NOW_MS) // 1000 + 1, 10)]
        assert len(ticks) > 15
        assert await names(spread) == sorted(f"{name}-{tick}" for name in others for tick in ticks)


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
async def test_a_tick_that_was_begun_in_time_was_not_missed(
    schedules: Schedules, datastore: Datastore, clock: Clock, catch_up: Any
) -> None:
    """Whoever goes on with it, and when."""
    await schedules.put("hourly", Schedule(key="jobs", every="1h", catch_up=catch_up))
    gone: dict[str, Any] = {
        "worker_id": "orchestrator",
        "lock_for": rules.RUN_LOCK,
        "triggers": "off",
        "reserved": True,
    }
    assert (await datastore.claim(schedules.key, **gone)).items
    clock.advance(120)
    await schedules.run_due()
    assert await names(datastore) == [f"hourly-{at(0)}"]
    (run,) = await runs(schedules, "hourly")
    assert "skipped" not in run


async def test_skipped_is_what_was_missed_by_more_than_a_minute(
    schedules: Schedules, datastore: Datastore, clock: Clock
) -> None:
    await schedules.put("hourly", Schedule(key="jobs", every="1h", catch_up="skip", jitter="10s"))
    clock.advance(71)
    await schedules.run_due()
    assert await names(datastore) == []
    (run,) = await runs(schedules, "hourly")
    assert (run["skipped"], "created" in run) == (1, False)
    clock.advance(3540)
    await schedules.run_due()
    assert await names(datastore) == [f"hourly-{at(3600)}"]


@pytest.mark.parametrize("catch_up", ["one", "skip", "all"])
@pytest.mark.parametrize(("every", "jitter", "late"), [("1s", "0s", 6.5), ("2s", "2s", 9), ("50s", "50s", 109)])
async def test_what_is_late_by_less_is_not_missed(
    schedules: Schedules, datastore: Datastore, clock: Clock, catch_up: Any, every: str, jitter: str, late: float
) -> None:
    await schedules.put("often", Schedule(key="jobs", every=every, jitter=jitter, catch_up=catch_up))
    clock.advance(late)
    await schedules.run_due()
    ticks = [at(tick) for tick in range(0, int(late) + 1, int(every[:-1]))]
    assert await names(datastore) == [f"often-{tick}" for tick in ticks]
    (run,) = await runs(schedules, "often")
    assert (run["tick"], run["created"], "skipped" in run) == (at(0), len(ticks), False)


async def test_what_the_store_cannot_take_is_not_missed_by_that(
    schedules: Schedules, datastore: Datastore, clock: Clock, store: Any
) -> None:
    await schedules.put("often", Schedule(key="jobs", every="20s", trigger_urls=CALLED, catch_up="skip"))
    clock.advance(30)
    full = replace(datastore.settings, outbox_max=1)
    await datastore.create("other", "a", trigger_urls=CALLED)
    async with Datastore(store.url, full, datastore.secrets, now_ms=clock) as narrow:
        for _ in range(20):
            await Schedules(narrow).run_due()
            clock.advance(rules.RETRY)
    await schedules.run_due()
    assert await names(datastore) == [f"often-{at(0)}", f"often-{at(20)}"]


async def test_the_triggers_of_a_schedule_are_those_of_its_items(schedules: Schedules, datastore: Datastore) -> None:
    await schedules.put("hourly", Schedule(key="jobs", every="1h", trigger_urls=CALLED))
    without_key = [{**CALLED[0], "apiKey": None}]
    stored = await schedules.put("hourly", Schedule(key="jobs", every="1h", trigger_urls=without_key))
    assert "its-secret-key" not in str(schedules.describe(stored)) + str(stored.content)
    assert schedules.describe(stored)["triggerUrls"] == [
        {"url": CALLED[0]["url"], "events": ["created"], "hasApiKey": True, "retry": ["5s"]}
    ]
    await schedules.run_due()
    item = await datastore.get("jobs", f"hourly-{at(0)}")
    assert [trigger.to_dict() for trigger in item.triggers] == schedules.describe(stored)["triggerUrls"]
    # The schedule itself has fired nothing, its item one event.
    assert await outbox_length(datastore) == 1


@pytest.mark.parametrize("anew", [False, True])
async def test_a_rule_that_is_deleted_in_its_tick_takes_the_record_of_that_along(
    schedules: Schedules, clock: Clock, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    often, perform = Schedule(key="jobs", every="20s"), schedules.perform

    async def perform_meanwhile(*args: Any) -> Any:
        done = await perform(*args)
        await schedules.delete("often")
        clock.advance(0.1)
        if anew:
            await schedules.put("often", often)
        return done

    await schedules.put("often", often)
    monkeypatch.setattr(schedules, "perform", perform_meanwhile)
    await schedules.run_due()
    await schedules.put("often", often)
    assert await runs(schedules, "often") == []


async def test_by_hand_an_item_of_this_moment(schedules: Schedules, datastore: Datastore, clock: Clock) -> None:
    await schedules.put("nightly", Schedule(key="jobs", cron="0 3 * * *"))
    clock.advance(1.5)
    created = await schedules.run_by_hand("nightly")
    assert [outcome.sort_field for outcome in created.outcomes] == [f"nightly-{at(1.5)}"]
    (run,) = await runs(schedules, "nightly")
    assert (run["by"], run["tick"], run["created"]) == ("hand", None, 1)
    await datastore.configure("jobs", max_length=1)
    clock.advance(1)
    with pytest.raises(KeyFull):
        await schedules.run_by_hand("nightly")
    assert "error" in (await runs(schedules, "nightly"))[0]


async def test_disabled_it_waits_for_nothing_and_enabled_for_the_next_tick(schedules: Schedules, clock: Clock) -> None:
    await schedules.put("nightly", Schedule(key="jobs", cron="0 3 * * *", trigger_urls=CALLED))
    before = await schedules.get("nightly")
    disabled = schedules.describe(await schedules.enable("nightly", False))
    assert (disabled["enabled"], disabled["nextRun"], len(disabled["triggerUrls"])) == (False, None, 1)
    assert await schedules.next("nightly", 3) == []
    clock.advance(86400 * 3)
    await schedules.run_due()
    assert await runs(schedules, "nightly") == []
    enabled = await schedules.enable("nightly", True)
    assert enabled.metadata["tick"] == before.metadata["tick"] + 86_400_000 * 3
    assert await schedules.next("nightly", 2) == [
        {"at": "2027-01-19T03:00:00Z", "local": "2027-01-19T03:00:00+00:00"},
        {"at": "2027-01-20T03:00:00Z", "local": "2027-01-20T03:00:00+00:00"},
    ]


async def test_a_run_that_is_to_be_tried_again_is_none_of_a_rule_that_was_enabled_anew(
    schedules: Schedules, datastore: Datastore
) -> None:
    await schedules.put("nightly", Schedule(key="jobs", cron="0 3 * * *"))
    begun = {"attempts": 1, "until": NOW_MS, "priority": 0, "run": {"created": 1}}
    await datastore.update(schedules.key, "nightly", metadata=begun, reserved=True)
    enabled = (await schedules.enable("nightly", True)).metadata
    assert enabled["attempts"] == 0
    assert not {"until", "priority", "run"} & set(enabled)
    await datastore.update(schedules.key, "nightly", metadata=begun, reserved=True)
    again = (await schedules.put("nightly", Schedule(key="jobs", cron="0 3 * * *"))).metadata
    assert not {"until", "priority", "run"} & set(again)


async def test_stored_again_a_rule_runs_when_it_would_have(
    schedules: Schedules, datastore: Datastore, clock: Clock
) -> None:
    schedule = Schedule(key="jobs", every="1h")
    await schedules.put("hourly", schedule)
    await schedules.run_due()
    clock.advance(600)
    again = await schedules.put("hourly", replace_content(schedule, 2))
    assert schedules.describe(again)["nextRun"] == at(3600)
    assert schedules.describe(again)["lastRun"]["created"] == 1
    await schedules.run_due()
    assert len(await names(datastore)) == 1
    changed = await schedules.put("hourly", Schedule(key="jobs", every="2h"))
    assert schedules.describe(changed)["nextRun"] == at(600)


def replace_content(schedule: Schedule, content: Any) -> Schedule:
    return Schedule(key=schedule.key, every=schedule.every, content=content)


async def test_the_random_delay_is_no_longer_than_asked(
    schedules: Schedules, datastore: Datastore, clock: Clock
) -> None:
    for number in range(8):
        await schedules.put(f"s{number}", Schedule(key="jobs", every="1h", jitter="30m"))
    due = {(await schedules.get(f"s{number}")).metadata["scheduled_at"] for number in range(8)}
    assert len(due) > 1
    assert all(at(0) <= each <= at(1800) for each in due)
    clock.advance(1800)
    await schedules.run_due()
    assert await names(datastore) == [f"s{number}-{at(0)}" for number in range(8)]


async def test_a_run_tells_what_it_claimed_and_what_kept_it_from_more(
    datastore: Datastore, clock: Clock, raw: aioredis.Redis, store: Any
) -> None:
    await raw.flushall()
    settings = replace(datastore.settings, partitions=3)
    async with Datastore(store.url, settings, datastore.secrets, now_ms=clock) as spread:
        made = [await spread.create("jobs", f"{number:02d}", metadata=WAITING) for number in range(40)]
        spoilt = spread.calls.partition("jobs", "00")
        await spoil(raw, f"{tags(spread)[spoilt]}:s:jobs:not_started")
        left = [item for item in made if spread.calls.partition("jobs", item.sort_field) != spoilt]
        orchestrations = Orchestrations(spread)
        await orchestrations.put("all", Orchestration(key="jobs", limit=100, every="1s"))
        clock.advance(2)
        await orchestrations.run_due()
        told = orchestrations.describe(await orchestrations.get("all"))["lastRun"]
        assert (told["claimed"], bool(told["error"])) == (len(left), True)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_no_more_are_started_than_may_be(
    datastore: Datastore, clock: Clock, partitions: int, tmp_path: Path, store: Any
) -> None:
    if partitions > 1:
        await datastore.connection.command("FLUSHALL")
        settings = replace(datastore.settings, partitions=partitions)
        async with Datastore(store.url, settings, datastore.secrets, now_ms=clock) as spread:
            await bounded(spread, clock)
    else:
        await bounded(datastore, clock)


async def bounded(datastore: Datastore, clock: Clock) -> None:
    for number in range(40):
        await datastore.create("jobs", f"{number:02d}", metadata=WAITING)
    servers = [Orchestrations(datastore) for _ in range(3)]
    rule = Orchestration(key="jobs", limit=8, every="1s", lock_for="60s", max_in_flight=6)
    await servers[0].put("push", rule)
    for _ in range(3):
        # At once: by each server that finds it due, and by hand.
        await asyncio.gather(
            *(server.run_due() for server in servers), *(server.run_by_hand("push") for server in servers)
        )
        clock.advance(1)
    running = await names(datastore, status="started")
    assert len(running) == 6

    # What a worker completes, gives back or loses makes room; what it prolongs does not.
    done, prolonged, *_ = (await datastore.query("jobs", where={"status": "started"})).items
    await datastore.update("jobs", done.sort_field, metadata={"status": "completed"}, triggers=False)
    await servers[0].run_by_hand("push")
    now = await names(datastore, status="started")
    assert len(now) == 6
    assert done.sort_field not in now
    token = await token_of(datastore, prolonged)
    await datastore.settle([datastore.calls.extend("jobs", prolonged.sort_field, token, lock_for="1h")])
    clock.advance(120)
    claimed = await servers[0].run_by_hand("push")
    # Of several partitions the first ones may have enough in line.
    assert claimed.expired > 0 or datastore.calls.partitions > 1
    assert prolonged.sort_field not in [item.sort_field for item in claimed.items]
    live = [
        item
        for item in (await datastore.query("jobs", where={"status": "started"})).items
        if (item.locked_until_ms or 0) > (clock.ms or 0)
    ]
    assert len(live) == 6


async def test_of_a_run_is_told_what_it_met(orchestrations: Orchestrations, datastore: Datastore, clock: Clock) -> None:
    await orchestrations.put("all", Orchestration(key="jobs", every="1h", limit=3))
    for name in "abcde":
        await datastore.create("jobs", name, metadata={**WAITING, "max_attempts": 1 if name == "a" else 0})
    await datastore.claim("jobs", worker_id="w", limit=2, lock_for="30s")
    clock.advance(60)
    await orchestrations.run_due()
    (run,) = await runs(orchestrations, "all")
    assert run == {
        "by": "tick", "tick": at(0), "startedAt": at(60), "endedAt": at(60),
        "claimed": 3, "expiredLocks": 1, "deadLettered": 1, "lostRaces": 0,
    }  # fmt: skip
    assert await names(datastore, status="failed") == ["a"]


async def test_orchestrations_of_long_names_claim_each_for_itself(
    orchestrations: Orchestrations, datastore: Datastore
) -> None:
    long = ["n" * 114, "n" * 127 + "a", "n" * 127 + "b"]
    for name in long:
        await datastore.create("jobs", name[-5:], metadata=WAITING)
        await datastore.create("jobs", name[-5:] + "2", metadata=WAITING)
        await orchestrations.put(name, Orchestration(key="jobs", every="1h", limit=5, max_in_flight=1))
    await orchestrations.run_due()
    workers = {
        item.metadata["worker_id"] for item in (await datastore.query("jobs", where={"status": "started"})).items
    }
    assert len(workers) == 3
    assert f"orchestration:{long[0]}" in workers
    assert [(await runs(orchestrations, name))[0]["claimed"] for name in long] == [1, 1, 1]


async def test_what_the_store_cannot_take_now_is_tried_again(
    schedules: Schedules, datastore: Datastore, clock: Clock, store: Any
) -> None:
    await schedules.put("hourly", Schedule(key="jobs", every="1h", trigger_urls=CALLED))
    full = replace(datastore.settings, outbox_max=1)
    await datastore.create("jobs", "a", trigger_urls=CALLED)
    async with Datastore(store.url, full, datastore.secrets, now_ms=clock) as narrow:
        await Schedules(narrow).run_due()
        assert await runs(schedules, "hourly") == []
        clock.advance(rules.RETRY)
    await schedules.run_due()
    assert await names(datastore) == ["a", f"hourly-{at(0)}"]
    (run,) = await runs(schedules, "hourly")
    assert (run["tick"], run["created"]) == (at(0), 1)


@pytest.mark.parametrize(
    ("schedule", "pointer"),
    [
        (Schedule(key="no good"), "/key"),
        (Schedule(key="jobs", every="1h", cron="* * * * *"), "/cron"),
        (Schedule(key="jobs", every="1m", jitter="2m"), "/jitter"),
        (Schedule(key="jobs", cron="* * * * *", jitter="61s"), "/jitter"),
        (Schedule(key="jobs", cron="0,10 3 1 1 *", jitter="11m"), "/jitter"),
        (Schedule(key="jobs", jitter="soon"), "/jitter"),
        (Schedule(key="jobs", sort_field="always the same"), "/sortField"),
        (Schedule(key="jobs", sort_field="x" * 500 + "{schedule.tick}"), "/sortField"),
        (Schedule(key="jobs", metadata={"priority": 11}), "/metadata/priority"),
        (Schedule(key="jobs", content=2**70), "/content"),
        (Schedule(key="jobs", trigger_urls={"ftp://x": ""}), "/triggerUrls/ftp:~1~1x"),
    ],
)
async def test_a_schedule_that_could_create_nothing_is_refused(
    schedules: Schedules, schedule: Schedule, pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await schedules.put("it", schedule)
    assert refused.value.flaws[0].pointer == pointer


@pytest.mark.parametrize(("cron", "jitter"), [("* * * * *", "60s"), ("0,10 3 1 1 *", "10m"), ("0 0 29 2 *", "1d")])
async def test_a_delay_may_be_as_long_as_the_time_between_two_runs(
    schedules: Schedules, cron: str, jitter: str
) -> None:
    await schedules.put("it", Schedule(key="jobs", cron=cron, jitter=jitter, time_zone="Europe/Berlin"))


async def test_no_schedule_creates_what_is_the_engines_own(schedules: Schedules) -> None:
    with pytest.raises(ReservedKey):
        await schedules.put("it", Schedule(key="hookline.schedules"))


async def test_over_http(api: Api, datastore: Datastore) -> None:
    body = {"key": "jobs", "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "triggerUrls": CALLED, "catchUp": "all"}
    answer = await api("PUT", "/v1/schedules/nightly", body)
    assert (answer.status, answer.headers["location"]) == (201, "/v1/schedules/nightly")
    assert b"its-secret-key" not in answer.body
    assert (await api("PUT", "/v1/schedules/nightly", body)).status == 200
    created = await api("POST", "/v1/schedules/nightly/run")
    assert created.status == 201
    assert await names(datastore) == [created.data["sortField"]]
    (run,) = (await api("GET", "/v1/schedules/nightly/runs?limit=1")).data["items"]
    assert run["by"] == "hand"
    (tick, _, _) = (await api("GET", "/v1/schedules/nightly/next?count=3")).data["ticks"]
    assert "T02:30:00+0" in tick["local"]
    assert (await api("GET", "/v1/schedules/nightly/next?count=0")).status == 422
    assert (await api("POST", "/v1/schedules/nightly/disable")).data["enabled"] is False
    assert (await api("POST", "/v1/schedules/nightly/enable")).data["enabled"] is True
    (listed,) = (await api("GET", "/v1/schedules")).data["items"]
    assert listed["name"] == "nightly"
    assert (await api("DELETE", "/v1/schedules/nightly")).status == 204
    for path in ("", "/runs", "/next"):
        assert (await api("GET", f"/v1/schedules/nightly{path}")).status == 404
    assert (await api("PUT", "/v1/orchestrations/push", {"key": "jobs", "maxInFlight": 0})).status == 422
    assert (await api("PUT", "/v1/orchestrations/push", {"key": "jobs", "maxInFlight": 3})).data["maxInFlight"] == 3


async def test_a_list_of_rules_goes_on_where_its_page_ends(api: Api, orchestrations: Orchestrations) -> None:
    for name in ("a", "b", "c"):
        await orchestrations.put(name, Orchestration(key="jobs"))
    answer = await api("GET", "/v1/orchestrations?limit=2")
    assert answer.status == 200, answer.data
    link = answer.headers["link"].removeprefix("<").partition(">")[0]
    following = await api("GET", f"/v1/orchestrations{link}")
    assert [[rule["name"] for rule in each.data["items"]] for each in (answer, following)] == [["a", "b"], ["c"]]
    assert (following.data["cursor"], "link" in following.headers) == (None, False)
    text = f"show orchestrations\nshow orchestrations with cursor: {(await orchestrations.page(limit=1)).cursor}"
    shown = (await api.command(text)).data["results"]
    assert [[rule["name"] for rule in each["rules"]] for each in shown] == [["a", "b", "c"], ["b", "c"]]


@pytest.mark.parametrize("kind", ["orchestrations", "schedules"])
async def test_one_that_cannot_be_read_keeps_nobody_from_the_others(
    api: Api, datastore: Datastore, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """An archive may bring one: it is named, passed over in lists and at ticks, and can be replaced and deleted."""
    path = f"/v1/{kind}"
    for name in ("good", "zwei"):
        assert (await api("PUT", f"{path}/{name}", {"key": "jobs", "every": "1h"})).status == 201
    whole = [line async for step in export(datastore) for line in step.lines.splitlines()]
    lines = [json.loads(line) for line in whole[1:-1]]
    lines = [{**line, "content": None} if line.get("sortField") == "good" else line for line in lines]
    for name in ("good", "zwei"):
        assert (await api("DELETE", f"{path}/{name}")).status == 204
    (*_, done) = [step async for step in restore(datastore, [whole[0], *map(archive.line, lines), whole[-1]])]
    assert (done.whole, done.failed) == (True, 0)

    for method, more in (("GET", ""), ("GET", "/runs"), ("GET", "/next"), ("POST", "/run"), ("POST", "/enable")):
        answer = await api(method, f"{path}/good{more}")
        assert (answer.status, answer.data["code"]) == (500, "corrupt")
        assert f"{kind[:-1]} good cannot be read" in answer.data["detail"]
    assert [rule["name"] for rule in (await api("GET", path)).data["items"]] == ["zwei"]
    assert [stored.name for stored in await getattr(datastore, kind).all()] == ["zwei"]
    server = Schedules(datastore) if kind == "schedules" else Orchestrations(datastore)
    await server.run_due()
    assert f"a run of {kind[:-1]} good failed: {kind[:-1]} good cannot be read" in caplog.text
    assert "Traceback" not in caplog.text

    assert (await api("PUT", f"{path}/good", {"key": "jobs", "every": "1h"})).data["nextRun"]
    assert (await api("GET", f"{path}/good")).status == 200
    await datastore.update(server.key, "good", content={"key": "jobs", "odd": 1}, reserved=True)
    assert (await api("GET", f"{path}/good")).status == 500
    assert (await api("DELETE", f"{path}/good")).status == 204
    assert (await api("GET", f"{path}/good")).status == 404
