"""What operators do by the command line: ``deliveries``, ``endpoints``, ``workers``, ``settings``; all of it real."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api import Api
from conftest import wait_until
from hookline import Datastore
from hookline.registry import Presence
from hookline_server.event import endpoint_of
from process import within
from receiver import Receiver
from relays import relaying, start_job

pytestmark = pytest.mark.settings(call_timeout=5.0, tick=0.05, delivery_schedule=(0.05,), delivery_timeout=5.0)


@pytest.fixture
def url(api: Api) -> str:
    return f"http://127.0.0.1:{api.port}"


async def documents(url: str, *args: str) -> list[Any]:
    """What a command says with --json."""
    code, said = await within(*args, "--url", url, "--json")
    assert code == 0, said
    return [json.loads(line) for line in said.splitlines()]


async def fail(url: str, datastore: Datastore, receiver: Receiver, *names: str) -> list[Any]:
    """Let the webhooks of these jobs become dead letters."""
    receiver.statuses = [500] * (2 * len(names))
    for name in names:
        await start_job(datastore, receiver.url, name)

    async def dead() -> list[Any]:
        found = await documents(url, "deliveries", "list", "--status", "failed")
        return found if len(found) == len(names) else []

    found: list[Any] = await wait_until(dead)
    return found


async def test_deliveries_are_listed_shown_and_redriven(url: str, datastore: Datastore, receiver: Receiver) -> None:
    assert await within("deliveries", "list", "--url", url) == (0, "none\n")
    async with relaying(datastore):
        first, second, _ = dead = await fail(url, datastore, receiver, "a", "b", "c")
        assert {each["url"] for each in dead} == {receiver.url}
        some = ("--status", "failed", "--endpoint", receiver.url, "--limit", "2")
        code, said = await within("deliveries", "list", *some, "--url", url)
        assert code == 0
        names, _, *rows = said.splitlines()
        assert names.split()[:5] == ["id", "status", "event", "url", "item"]
        assert [row.split()[0] for row in rows] == [first["id"], second["id"]], "the id can be given to what follows"
        assert await documents(url, "deliveries", "list", "--sort-field", first["item"]["sortField"]) == [first]
        (whole,) = await documents(url, "deliveries", "show", first["id"])
        assert whole["payload"]["newDataset"]["sortField"] == first["item"]["sortField"]
        assert await documents(url, "deliveries", "redrive", first["id"]) == [{"done": 1, "passedOver": 0}]
        await wait_until(lambda: len(receiver.posts) == 7)
        others = ("deliveries", "redrive", "--endpoint", endpoint_of(receiver.url))
        assert await documents(url, *others) == [{"done": 2, "passedOver": 0}]
        await wait_until(lambda: len(receiver.posts) == 9)
        await wait_until(lambda: documents(url, "deliveries", "list", "--status", "completed"))


async def test_deliveries_are_cancelled_and_their_endpoint_paused(
    url: str, datastore: Datastore, receiver: Receiver
) -> None:
    limits = {"concurrency": 2, "rate": 9.0}
    pause = ("endpoints", "pause", receiver.url, "--reason", "repair")
    (paused,) = await documents(url, *pause)
    assert (paused["id"], paused["status"], paused["reason"]) == (endpoint_of(receiver.url), "paused", "repair")
    limit = ("endpoints", "limit", receiver.url, "--concurrency", "2", "--rate", "9")
    assert await documents(url, *limit) == [paused | limits], "what else was decided stays"
    async with relaying(datastore):
        for name in ("a", "b", "c"):
            await start_job(datastore, receiver.url, name)

        async def kept() -> list[Any]:
            found = await documents(url, "deliveries", "list")
            return found if len(found) == 3 else []

        first = (await wait_until(kept))[0]
        code, said = await within("deliveries", "redrive", first["id"], "--url", url)
        assert (code, "the delivery is not in one of failed, cancelled" in said) == (1, True)
        assert "next: 'hookline deliveries list' shows" in said
        assert await documents(url, "deliveries", "cancel", first["id"]) == [{"done": 1, "passedOver": 0}]
        assert await documents(url, "deliveries", "cancel", "--all") == [{"done": 2, "passedOver": 0}]
        assert receiver.posts == []
    (row,) = await documents(url, "endpoints", "list", "--status", "paused")
    assert row["deliveries"] == {"cancelled": 3}
    code, said = await within("endpoints", "list", "--url", url)
    assert (code, said.splitlines()[2].split()[:3]) == (0, [paused["id"], receiver.url, "paused"])
    assert await within("endpoints", "list", "--status", "disabled", "--url", url) == (0, "none\n")
    (active,) = await documents(url, "endpoints", "activate", paused["id"])
    assert (active["status"], active["reason"]) == ("active", None)
    assert {name: active[name] for name in limits} == limits, "what else was decided stays"
    (disabled,) = await documents(url, "endpoints", "disable", receiver.url, "--reason", "gone")
    assert disabled["status"] == "disabled"
    assert (await documents(url, "endpoints", "show", receiver.url))[0]["reason"] == "gone"
    (free,) = await documents(url, "endpoints", "limit", receiver.url)
    assert (free["concurrency"], free["rate"], free["reason"]) == (None, None, "gone")


async def test_workers_are_listed_and_signalled(url: str, datastore: Datastore) -> None:
    somebody = Presence("jobs", "host:1/a", "host", 1, ("report", "mail"), 10, 2)
    assert await within("workers", "list", "--url", url) == (0, "none\n")
    await datastore.heartbeat(somebody)
    code, said = await within("workers", "list", "--url", url)
    assert (code, said.splitlines()[2].split()[:3]) == (0, ["jobs", "host:1/a", "host"])
    for signal in ("quiet", "stop"):
        (told,) = await documents(url, "workers", signal, "jobs", "host:1/a")
        assert told == {"key": "jobs", "workerId": "host:1/a", "signal": signal}
        assert await datastore.heartbeat(somebody) == signal
        assert (await documents(url, "workers", "list"))[0]["signal"] == signal


async def test_settings_of_a_key_are_changed_and_brought_back(url: str, datastore: Datastore) -> None:
    change = ("settings", "set", "jobs", "--max-attempts", "0", "--backoff", '["1s", "5s"]', "--record-deliveries")
    (changed,) = await documents(url, *change, "--indexes", '{"type": "string"}')
    assert (changed["maxAttempts"], changed["backoff"], changed["recordDeliveries"]) == (0, ["1s", "5s"], True)
    assert (await datastore.key_settings("jobs")).max_attempts == 0
    reset = ("settings", "set", "jobs", "--reset", "max-attempts", "--reset", "record-deliveries", "--backoff", "30s")
    (changed,) = await documents(url, *reset, "--lock-for", "15m")
    assert (changed["maxAttempts"], changed["recordDeliveries"], changed["lockFor"]) == (10, False, "15m")
    assert (await documents(url, "settings", "show", "jobs"))[0]["indexes"] == {"type": "string"}
    code, said = await within("settings", "show", "jobs", "--url", url)
    assert (code, "lockFor           15m\n" in said) == (0, True), said


async def test_an_address_may_end_with_a_slash(url: str) -> None:
    for args in ("deliveries list", "orchestrate --key jobs --once", "items query jobs", "run /dev/null"):
        code, said = await within(*args.split(), "--url", f"{url}/")
        assert code == 0, said


@pytest.mark.parametrize(
    ("args", "code", "sentences"),
    [
        ("deliveries show none", 4, ["no delivery has this id", "next: 'hookline deliveries list' shows"]),
        ("deliveries list --status faild", 2, ["hookline: --status: expected one of scheduled, not_started, started"]),
        ("deliveries list --endpoint x", 2, ["hookline: --endpoint: expected the id of an endpoint"]),
        ("deliveries redrive", 2, ["expected either an ID, or what selects"]),
        ("deliveries cancel a.b --all", 2, ["expected either an ID, or what selects"]),
        ("endpoints pause none", 4, ["no endpoint has this id", "next: 'hookline endpoints list' shows"]),
        ("endpoints pause ftp://x/", 2, ["expected"]),
        ("endpoints limit https://worker.example/run --rate 0", 2, ["expected a number above 0"]),
        ("workers stop jobs none", 4, ["no worker", "next: 'hookline workers list' shows"]),
        ("settings set jobs", 2, ["expected what to change"]),
        ("settings set jobs --reset locks", 2, ["hookline: --reset: expected an option of this command"]),
        ("settings set jobs --lock-for 5m --reset lock-for", 2, ["expected either --lock-for, or --reset lock-for"]),
        ("settings set jobs --lock-for soon", 2, ["hookline: --lock-for: expected"]),
        ('settings set jobs --retention {"failed":3}', 2, ["hookline: --retention /failed: expected"]),
        ("settings show a+b", 2, ["hookline: KEY: expected"]),
    ],
)
async def test_what_is_refused(url: str, args: str, code: int, sentences: list[str]) -> None:
    ended, said = await within(*args.split(), "--url", url)
    assert ended == code, said
    for sentence in sentences:
        assert sentence in said
    assert "Traceback" not in said
