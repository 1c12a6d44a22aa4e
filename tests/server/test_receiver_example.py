"""The receiver of docs/triggers.md: the very text, run, with webhooks that a relay delivers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from api import Api
from conftest import wait_until
from hookline import Datastore
from hookline_server.signature import format_secret
from hookline_server.signing import Signing
from receiver import receiving
from relays import create_job, relaying

PAGE = Path(__file__).parents[2] / "docs/triggers.md"
pytestmark = pytest.mark.settings(call_timeout=5.0, tick=0.05, delivery_schedule=(0.2,) * 50, delivery_timeout=5.0)


@pytest.fixture
def named(api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples define, one after the other."""
    monkeypatch.setenv("SIGNING_SECRET", format_secret(Signing().secrets(datastore.secrets, "default")[0]))
    names: dict[str, Any] = {"__name__": "receiver"}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(code.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{api.port}"), names)
    return names


@contextlib.asynccontextmanager
async def served(named: dict[str, Any]) -> AsyncIterator[str]:
    """The example at a free port -> its URL."""
    runner = web.AppRunner(named["app"], shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/run"
    finally:
        await runner.cleanup()
        await named["client"].close()


async def claim(datastore: Datastore, **options: Any) -> str:
    (item,) = (await datastore.claim("jobs", worker_id="rule", triggers="on", **options)).items
    assert item.token
    return item.token


async def test_it_completes_and_what_fails_is_tried_again(named: dict[str, Any], datastore: Datastore) -> None:
    async with served(named) as url, relaying(datastore):
        await create_job(datastore, url)  # its content names no report
        await claim(datastore)
        failed = await datastore.wait_for("jobs", "a", until={"status": "scheduled"}, timeout=20)
        assert failed
        assert failed.metadata["last_error"] == "ValueError('it names no report')"
        content = {"report_type": "monthly"}
        await datastore.update("jobs", "a", content=content, metadata={"scheduled_at": None}, triggers=False)
        await claim(datastore)
        done = await datastore.wait_for("jobs", "a", timeout=20)
    assert done
    assert (done.status, done.metadata["result"], done.metadata["attempts"]) == ("completed", {"rows": 1000}, 2)


async def test_it_refuses_what_is_not_signed(named: dict[str, Any]) -> None:
    async with served(named) as url, aiohttp.ClientSession() as session, session.post(url, json={}) as answer:
        assert answer.status == 401


async def test_it_leaves_a_job_alone_whose_claim_has_ended(named: dict[str, Any], datastore: Datastore) -> None:
    """Its webhook waited while the receiver was down, and the job was cancelled."""
    worked = list[dict[str, Any]]()
    named["work"] = worked.append
    async with receiving() as down, served(named) as url:
        down.statuses = [500]
        await create_job(datastore, down.url)
        await claim(datastore)
        await datastore.update("jobs", "a", metadata={"status": "cancelled"}, triggers=False)
        async with relaying(datastore):
            _, late = await down.wait_for(2)
        headers = {name: late.headers[name] for name in late.headers if name.startswith("webhook-")}
        async with aiohttp.ClientSession() as session, session.post(url, data=late.body, headers=headers) as answer:
            assert answer.status == 204
        await wait_until(lambda: not named["running"])
        item = await datastore.get("jobs", "a")
    assert (item.status, worked) == ("cancelled", [])


async def test_an_update_with_the_token_of_an_ended_claim_is_refused(api: Api, datastore: Datastore) -> None:
    """As the page says: without the token it would overwrite what has become of the job."""
    await create_job(datastore, "http://127.0.0.1:9/run")
    done: dict[str, Any] = {"metadata": {"status": "completed"}}
    path = "/v1/items/jobs/a?triggers=off"
    stale = await claim(datastore, lock_for="1ms")
    token = await claim(datastore, wait=5)
    assert (await api("PATCH", path, {**done, "token": stale})).data["code"] == "stale_token"
    assert (await api("PATCH", path, {**done, "token": token})).status == 200
    for status, code in (("not_started", "stale_token"), ("cancelled", "cancelled")):
        await datastore.update("jobs", "a", metadata={"status": status}, triggers=False)
        answer = await api("PATCH", path, {**done, "token": token})
        assert (answer.status, answer.data["code"]) == (409, code)
    assert (await api("PATCH", path, done)).status == 200
    await datastore.update("jobs", "a", metadata={"status": "not_started"}, triggers=False)
    await claim(datastore)
    assert (await api("PATCH", path, {"metadata": {"status": "failed"}})).data["metadata"]["status"] == "failed"
    assert not (await datastore.claim("jobs", worker_id="w")).items
