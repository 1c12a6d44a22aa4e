"""``hookline top``: what it shows is what was done; a server that goes away and comes back."""

from __future__ import annotations

import asyncio
import json
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from api import Api
from conftest import wait_until
from hookline import Datastore
from hookline.errors import MissingScope
from hookline.figures import FAMILIES
from hookline.registry import Presence, Workers
from hookline_server.gate import Gate
from hookline_server.top import _duration, render
from hookline_server.vitals import KeyVitals, Monitor, Vitals
from jobs import WAITING, claim_one, fill
from process import free_port, hookline, serving
from terminal import terminal


def tallies() -> dict[str, float]:
    return {verb: row[0] for (verb,), row in FAMILIES["hookline_operations"].rows.items()}


def since(before: dict[str, float]) -> dict[str, float]:
    return {verb: count - before[verb] for verb, count in tallies().items() if count != before[verb]}


async def test_each_operation_is_counted_once_by_what_it_did(datastore: Datastore) -> None:
    await datastore.create("jobs", "warm", metadata=WAITING)
    before = tallies()
    await fill(datastore, 6)
    held = (await datastore.claim("jobs", worker_id="w", limit=4)).items
    calls = datastore.calls
    settled = [getattr(calls, verb)("jobs", item.sort_field, item.token or "") for verb, item in zip(
        ("complete", "fail", "release", "extend"), held, strict=True
    )]  # fmt: skip
    await datastore.settle([*settled, calls.complete("jobs", "0000", "1.no")])
    await datastore.update("jobs", "0004", metadata={"status": "started", "worker_id": "w"})
    await datastore.update("jobs", "0004", metadata={"status": "completed"})
    await datastore.update("jobs", "0004", metadata={"seen": True})
    await datastore.delete("jobs", "0005")
    await datastore.heartbeat(Presence("jobs", "w", "host", 1, ("run",), 10, 2))
    assert since(before) == {
        "create": 6, "claim": 5, "complete": 2, "fail": 1, "release": 1, "extend": 1, "update": 1, "delete": 1,
    }  # fmt: skip


async def test_what_came_before_under_the_same_idempotency_key_is_not_counted_again(datastore: Datastore) -> None:
    before = tallies()
    for _ in range(2):
        await datastore.once("a", body=b"a").create("jobs", metadata=WAITING)
    for _ in range(2):
        assert len((await datastore.once("b", body=b"b").claim("jobs", worker_id="w")).items) == 1
    assert since(before) == {"create": 1, "claim": 1}


async def test_a_look_has_what_the_server_holds(api: Api, datastore: Datastore) -> None:
    await fill(datastore, 3)
    await claim_one(datastore)
    await datastore.pause("jobs")
    await datastore.create("notes", "a")
    await datastore.heartbeat(Presence("jobs", "w", "host", 1, ("run",), 10, 2))
    api.app.state.metrics._rows._kept = None
    with Monitor(f"http://127.0.0.1:{api.port}/") as monitor:
        look = await asyncio.to_thread(monitor.look)
    found = {key.key: key for key in look.keys}
    assert set(found) == {"jobs", "notes"}
    jobs = found["jobs"]
    assert (jobs.namespace, jobs.statuses["not_started"], jobs.locks["held"], jobs.paused) == ("default", 2, 1, True)
    assert found["notes"].statuses["other"] == 1
    assert [(worker.worker_id, worker.in_flight) for worker in look.workers] == [("w", 2)]
    assert look.stores == {"default": True}
    assert look.operations == tallies()


def test_rates_are_what_was_added_by_the_second() -> None:
    first = Vitals("", "", 10.0, operations={"create": 5, "claim": 5, "complete": 1, "fail": 0})
    first.keys = [KeyVitals("default", "jobs", {"completed": 10})]
    second = Vitals("", "", 12.0, operations={"create": 8, "claim": 5, "complete": 41, "fail": 0})
    second.keys = [KeyVitals("default", "jobs", {"completed": 60}), KeyVitals("default", "new", {"completed": 1})]
    assert second.since(first).rates == {"create": 1.5, "claim": 0.0, "complete": 20.0, "fail": 0.0}
    assert [key.completed for key in second.keys] == [25.0, None]
    anew = Vitals("", "", 14.0, operations={"create": 9, "claim": 0, "complete": 0, "fail": 0})
    assert anew.since(second).rates is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (0.25, "0.2s"), (9.96, "10s"), (59.6, "1m"), (61, "1m 1s"), (7199, "1h 59m"), (90000, "1d 1h")],
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert _duration(seconds) == said


@pytest.mark.parametrize(("width", "figures"), [(140, 12), (80, 8), (60, 6), (40, 4), (14, 0)])
def test_in_a_narrow_terminal_a_figure_is_whole_or_not_there(width: int, figures: int) -> None:
    counts = dict.fromkeys(("not_started", "started", "completed", "failed", "scheduled"), 3_456_789)
    locks = dict.fromkeys(("expired", "lost", "refused"), 1_234_567)
    name = "reports.monthly.of.the.whole.company"
    look = Vitals("", "", 0.0, stores={"default": True})
    look.keys = [KeyVitals("default", name, counts, 1, 5025.0, locks=locks, completed=12_345.6)]
    look.workers = Workers([Presence("jobs", "worker.of.the.whole.company", "host", 1, ("run",), 54_321, 12_345)])
    console = Console(width=width, record=True, file=StringIO())
    console.print(render(look, 2.0))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.startswith((" reports.", " worker."))]
    assert len(rows) == 2
    found = [word for row in rows for word in row.replace("1h 23m", "1h_23m").split() if word[0].isdigit()]
    assert len(found) == figures
    assert set(found) <= {"3,456,789", "1,234,567", "12,345.6", "1h_23m", "12,345", "54,321"}
    assert ("no room for" in " ".join(lines)) == (figures < 12)


@pytest.mark.parametrize("up", [True, False])
def test_of_a_store_that_does_not_answer_it_does_not_say_that_there_is_nothing(up: bool) -> None:
    console = Console(record=True, file=StringIO())
    console.print(render(Vitals("", "", 0.0, stores={"default": up}), 2.0))
    said = console.export_text()
    assert ("no items" in said, "no workers" in said, "does not answer" in said) == (up, up, not up)


@pytest.mark.parametrize("width", [80, 60, 50, 40])
@pytest.mark.parametrize("name", ["jobs", "reports.monthly.of.the.whole.company", "月次レポート.全社.の.すべて"])
def test_in_a_narrow_terminal_it_is_said_that_a_key_is_paused(width: int, name: str) -> None:
    look = Vitals("", "", 0.0, stores={"default": True})
    locks = dict.fromkeys(("expired", "lost", "refused"), 0)
    look.keys = [
        KeyVitals(
            "default", name, {"not_started": 3_456_789, "completed": 3_456_789}, 1, 5025.0, paused=True, locks=locks
        )
    ]
    look.keys.append(KeyVitals("default", "other.reports.of.the.whole.company", locks=locks))
    look.workers = Workers([Presence("jobs", name, "host", 1, ("run",), 54_321, 12_345, signal="quiet")])
    console = Console(width=width, record=True, file=StringIO())
    console.print(render(look, 2.0))
    lines = console.export_text().splitlines()
    assert max(map(cell_len, lines)) <= width
    for sign in ("(paused)", "(quiet)"):
        (row,) = [line for line in lines if sign in line]
        shown = row.split()[0]
        begin, _, end = shown.partition("…")
        assert name.startswith(begin)
        assert shown == name or name.endswith(end)


async def test_once_for_scripts_and_for_people(api: Api, datastore: Datastore) -> None:
    await datastore.create("jobs", "a", metadata=WAITING)
    presence = Presence("jobs", "\x1b[2J", "host", 1, ("run",), 10, 2)
    await datastore.heartbeat(presence)
    to = ("--once", "--every", "1s", "--url", f"http://127.0.0.1:{api.port}")
    (code, line), (code_too, said) = await asyncio.gather(hookline("top", "--json", *to), hookline("top", *to))
    assert (code, code_too) == (0, 0), line + said
    look = json.loads(line)
    assert (look["up"], look["keys"][0]["key"], look["workers"][0]["workerId"]) == (True, "jobs", "\x1b[2J")
    assert set(look["rates"]) == {"create", "claim", "complete", "fail"}
    assert "\x1b" not in said
    for word in ("jobs", "waiting", "oldest", "\\x1b[2J", "in flight", "lag 0s", "per second  create "):
        assert word in said


async def test_workers_that_are_not_listed_are_told_of(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.registry.LIVE_MAX", 30)
    for number in range(33):
        await datastore.heartbeat(Presence("jobs", str(number), "host", 1, (), 10, 2))
    to = ("--once", "--every", "1s", "--url", f"http://127.0.0.1:{api.port}")
    (_, line), (_, said) = await asyncio.gather(hookline("top", "--json", *to), hookline("top", *to))
    assert (len(json.loads(line)["workers"]), json.loads(line)["workersLeftOut"]) == (30, 3)
    assert "and at least 13 more workers" in said
    _, said = await hookline("workers", "list", "--url", f"http://127.0.0.1:{api.port}")
    assert "and at least 3 more" in said


async def test_who_may_not_see_the_figures_is_told(api: Api, gate: Gate, make_key: Any) -> None:
    api_key = (await make_key("default", scopes=["read"]))["Authorization"].split()[1]
    with Monitor(f"http://127.0.0.1:{api.port}", api_key) as monitor, pytest.raises(MissingScope, match="admin"):
        await asyncio.to_thread(monitor.look)
    code, said = await hookline("top", "--url", f"http://127.0.0.1:{api.port}", HOOKLINE_API_KEY=api_key)
    assert code == 5
    assert "admin" in said
    assert api_key not in said


async def test_without_a_server_it_says_so_and_tries_again(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    code, said = await hookline("top", "--once", "--url", url)
    assert (code, said.startswith(f"hookline: no Hookline server answers at {url}")) == (3, True)
    async with terminal("top", "--every", "1s", "--url", url) as shown:
        await shown.sees(f"no Hookline server answers at {url}")
        await shown.sees("Trying again every 1s")
        async with serving(tmp_path / "data", port=port) as server:
            await shown.sees("no items")
            await server.kill()
            await shown.sees("no Hookline server answers")
        shown.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(shown.process.wait(), 20) == 130


async def test_a_signal_to_end_leaves_the_terminal_as_it_was() -> None:
    async with terminal("top", "--every", "1s", "--url", f"http://127.0.0.1:{free_port()}") as shown:
        await shown.sees("Trying again every 1s")
        shown.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(shown.process.wait(), 20) == -signal.SIGTERM
        pairs = ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"))
        await wait_until(lambda: all(shown.raw.rfind(off) > shown.raw.rfind(on) >= 0 for on, off in pairs))
