"""``hookline orchestrate`` as it goes on: its ticks, and what it says of each run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api import Api
from conftest import beside, wait_until
from hookline import Datastore
from hookline.errors import HooklineError
from hookline.recurrence import Recurrence
from hookline.transport import Http
from hookline_server.foreground import Foreground

EVERY_SECOND = Recurrence(every=1000)


def foreground(url: str, said: list[str], **more: Any) -> Foreground:
    claim = {"workerId": "orchestrate", "limit": 1, "lockFor": "10m", "triggers": "on"}
    fields: dict[str, Any] = {"recurrence": EVERY_SECOND, "jitter_ms": 0, "as_json": True} | more
    return Foreground(server=Http(url), key="jobs", claim=claim, say=said.append, **fields)


async def test_it_claims_again_at_each_tick_and_says_so(api: Api, datastore: Datastore) -> None:
    for name in ("a", "b"):
        await datastore.create("jobs", name, metadata={"status": "not_started"})
    said: list[str] = []
    async with beside(foreground(f"http://127.0.0.1:{api.port}", said).run()) as task:
        await wait_until(lambda: len(said) == 2 or task.done())
    assert [json.loads(line)["sortFields"] for line in said] == [["a"], ["b"]]


async def test_where_no_server_answers_it_says_so_and_goes_on() -> None:
    said: list[str] = []
    async with beside(foreground("http://127.0.0.1:1", said).run()) as task:
        await wait_until(lambda: said or task.done())
        assert not task.done()
    assert "no Hookline server answers" in json.loads(said[0])["error"]


async def test_what_the_server_refuses_ends_it(api: Api) -> None:
    rule = foreground(f"http://127.0.0.1:{api.port}", [])
    rule.claim["lockFor"] = 0
    with pytest.raises(HooklineError, match="duration above 0"):
        await rule.run()


async def test_for_people_a_run_is_a_sentence(api: Api, datastore: Datastore) -> None:
    await datastore.pause("jobs")
    said: list[str] = []
    run = foreground(f"http://127.0.0.1:{api.port}", said, jitter_ms=200, as_json=False).run()
    async with beside(run) as task:
        await wait_until(lambda: said or task.done())
    assert said[0].endswith("claimed 0 of jobs, which is paused")


async def test_for_people_no_name_can_pass_for_a_line(api: Api, datastore: Datastore) -> None:
    await datastore.create("jobs", "a\n12:00:00 claimed 9", metadata={"status": "not_started"})
    said: list[str] = []
    await foreground(f"http://127.0.0.1:{api.port}", said, recurrence=None, as_json=False).run()
    assert said[0].endswith("claimed 1 of jobs a\\n12:00:00 claimed 9")
