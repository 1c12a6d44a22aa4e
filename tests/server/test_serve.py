"""``hookline serve`` as a process: what it says, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from conftest import wait_until
from hookline import EmbeddedStore
from hookline.secret import load_key
from hookline_server.process import is_loopback
from process import free_port, hookline, serving
from receiver import receiving


@pytest_asyncio.fixture(loop_scope="session")
async def own_store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    async with EmbeddedStore(tmp_path / "own", fsync="no") as store:
        yield store


async def test_it_says_where_it_listens_and_keeps_its_data_and_what_to_try(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        await wait_until(lambda: any("stop" in line for line in server.said))
        said = "\n".join(server.said)
    assert server.url in said
    assert str(tmp_path / "data") in said
    assert f"curl -s {server.url}/v1/items" in said
    assert "once there are API keys, -H 'X-API-Key: hl_...'" in said


async def test_it_goes_on_and_stops_where_nobody_reads_what_it_says(tmp_path: Path) -> None:
    port = free_port()
    reads, writes = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "serve", "--port", str(port), "--data", str(tmp_path / "data")),
        stdout=writes,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writes)
    try:
        with open(reads, "rb") as said:  # noqa: PTH123
            while b"Ctrl-C" not in await asyncio.to_thread(said.readline):
                assert process.returncode is None
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert (process.returncode, b"ERROR" in errors) == (0, False), errors


async def test_the_environment_gives_what_options_do_not(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path / "data", port=port, HOOKLINE_BODY_MAX="100") as server:
        assert server.url == f"http://127.0.0.1:{port}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/v1/items", json={"key": "jobs", "content": "x" * 100}) as response,
        ):
            assert response.status == 413


async def test_a_store_of_ones_own(tmp_path: Path, own_store: EmbeddedStore) -> None:
    async with (
        serving(tmp_path / "data", "--store", own_store.url) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/readyz") as response,
    ):
        assert response.status == 200


async def test_a_store_that_may_evict_is_refused(tmp_path: Path, own_store: EmbeddedStore) -> None:
    async with aioredis.Redis.from_url(own_store.url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
    code, said = await hookline("serve", "--port", "0", "--data", str(tmp_path / "data"), "--store", own_store.url)
    assert code == 3
    assert "allkeys-lru" in said
    assert "noeviction" in said


async def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    url = f"redis://:a-password@127.0.0.1:{free_port()}/0"
    code, said = await hookline("serve", "--port", "0", "--data", str(tmp_path / "data"), "--store", url)
    assert code == 3
    assert "the store" in said
    assert "a-password" not in said
    assert "Traceback" not in said


async def test_a_second_server_on_one_data_directory_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with serving(data):
        code, said = await hookline("serve", "--port", "0", "--data", str(data))
    assert code == 3
    assert "another server" in said
    assert str(data) in said


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        port = server.url.rsplit(":", 1)[1]
        code, said = await hookline("serve", "--port", port, "--data", str(tmp_path / "other"))
    assert code == 3
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


async def test_a_store_that_ends_ends_the_server(tmp_path: Path) -> None:
    """At once, though a write is under way that would be tried for two minutes: that store does not come back."""
    patient = serving(tmp_path / "data", HOOKLINE_CALL_TIMEOUT="60s")
    async with patient as server, aiohttp.ClientSession() as session:
        pid = int((tmp_path / "data" / "lock").read_text())
        async with session.post(f"{server.url}/v1/items", json={"key": "jobs"}) as response:
            assert response.status == 201
        os.kill(pid, signal.SIGSTOP)
        write = asyncio.create_task(session.post(f"{server.url}/v1/items", json={"key": "jobs"}))
        async with session.get(f"{server.url}/livez"):
            os.kill(pid, signal.SIGKILL)
        async with await write as response:
            assert response.status == 503
        assert await asyncio.wait_for(server.process.wait(), 20) == 3
        assert "the embedded store has ended" in "\n".join(server.said)


async def test_a_claim_that_waits_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server, aiohttp.ClientSession() as session:
        claim = asyncio.create_task(
            session.post(f"{server.url}/v1/jobs/jobs/claim", json={"workerId": "w", "wait": "20s"})
        )
        async with session.get(f"{server.url}/livez"):
            pass
        assert await server.stop() == 0
        async with await claim as response:
            assert (response.status, (await response.json())["items"]) == (200, [])


async def test_a_get_that_waits_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server, aiohttp.ClientSession() as session:
        async with session.post(f"{server.url}/v1/items", json={"key": "jobs", "sortField": "a"}):
            pass
        waiting = asyncio.create_task(session.get(f"{server.url}/v1/items/jobs/a?wait=20"))
        async with session.get(f"{server.url}/livez"):
            pass
        await asyncio.sleep(0.3)
        assert await server.stop() == 0
        async with await waiting as response:
            assert (response.status, (await response.json())["version"]) == (200, 1)


async def test_sites_are_named_in_the_settings(tmp_path: Path) -> None:
    origin = "https://app.example"
    async with (
        serving(tmp_path / "data", HOOKLINE_CORS_ORIGINS=origin) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/items", json={"key": "jobs"}, headers={"Origin": origin}) as response,
    ):
        assert (response.status, response.headers["access-control-allow-origin"]) == (201, origin)


@pytest.mark.parametrize(
    ("options", "status"),
    [([], 403), (["--hosts", "other.example"], 403), (["--hosts", "queue.example"], 201), (["--insecure"], 201)],
)
async def test_hosts_are_named_in_the_settings(tmp_path: Path, options: list[str], status: int) -> None:
    async with (
        serving(tmp_path / "data", *options) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/items", json={"key": "jobs"}, headers={"Host": "queue.example"}) as response,
    ):
        assert response.status == status


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HOOKLINE_PORT", "eighty", "HOOKLINE_PORT: expected a whole number"),
        ("HOOKLINE_TICK", "soon", "HOOKLINE_TICK: expected seconds"),
        ("HOOKLINE_SECRET_KEY", "too-short-secret", "HOOKLINE_SECRET_KEY"),
        ("HOOKLINE_EGRESS_ALLOW", "everything", "expected networks"),
    ],
)
async def test_a_bad_setting_is_named_without_its_value(
    tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    environ = {"HOOKLINE_PORT": "0", variable: value}
    code, said = await hookline("serve", "--data", str(tmp_path / "data"), **environ)
    assert code != 0
    assert expected in said
    assert value not in said
    assert "Traceback" not in said


async def test_run_prints_results_and_says_what_was_refused(tmp_path: Path) -> None:
    create = "create item with:\nkey: jobs\nsortField: a\n"
    async with serving(tmp_path / "data") as server:
        code, said = await hookline("run", "--url", server.url, "--json", "-", stdin=create)
        assert (code, json.loads(said)["item"]["sortField"], said.count("\n")) == (0, "a", 1)
        code, said = await hookline("run", "--url", server.url, "-", stdin=create)
        assert code == 1
        assert "exists" in said
        code, said = await hookline("run", "--url", server.url, "-", stdin="crate item with:\nkey: jobs\n")
        assert code == 2
        assert "create" in said
    code, said = await hookline("run", "--url", server.url, "-", stdin=create)
    assert code == 3
    assert "hookline serve" in said


async def test_orchestrate_claims_with_triggers_on(tmp_path: Path) -> None:
    async with receiving() as receiver, serving(tmp_path / "data") as server, aiohttp.ClientSession() as session:
        for name, status in (("waiting", "not_started"), ("lost", "started")):
            metadata = {"status": status} | ({"locked_until": "2024-03-15T10:10:00Z"} if status == "started" else {})
            item = {"key": "jobs", "sortField": name, "metadata": metadata, "triggerUrls": {receiver.url: "k"}}
            async with session.post(f"{server.url}/v1/items", json=item) as response:
                assert response.status == 201
        code, said = await hookline("orchestrate", "--url", server.url, "--key", "jobs", "--once")
        assert code == 0, said
        assert "claimed 2 of jobs" in said
        assert "Ctrl-C" not in said
        again = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hookline_server", "orchestrate", "--url", server.url, "--key", "jobs"),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert again.stderr
        assert again.stdout
        assert await again.stderr.readline() == b"claims every 5m until Ctrl-C; --once claims once\n"
        assert b"claimed 0 of jobs" in await again.stdout.readline()  # it is at work: as it begins a signal may be lost
        again.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(again.wait(), 20) == 130
        posts = await receiver.wait_for(2)
        assert {post.data["newDataset"]["sortField"] for post in posts} == {"waiting", "lost"}
        bounded = ("orchestrate", "--url", server.url, "--key", "more", "--once", "--max-in-flight", "1", "--json")
        for name in ("a", "b"):
            item = {"key": "more", "sortField": name, "metadata": {"status": "not_started"}}
            async with session.post(f"{server.url}/v1/items", json=item) as response:
                assert response.status == 201
        for names in (["a"], []):
            code, said = await hookline(*bounded)
            assert code == 0, said
            run = json.loads(said)
            assert (run["key"], run["claimed"], run["sortFields"]) == ("more", len(names), names)
        assert (await hookline("jobs", "pause", "more", "--url", server.url))[0] == 0
        assert json.loads((await hookline(*bounded))[1])["paused"] is True
        code, said = await hookline("jobs", "claim", "more", "--url", server.url)
        assert (code, "it is paused; 'hookline jobs resume'" in said) == (4, True)


async def test_signing_secret_is_the_one_that_receivers_verify_with(tmp_path: Path) -> None:
    code, said = await hookline("signing-secret", "--data", str(tmp_path))
    assert (code, "no secret" in said, list(tmp_path.iterdir())) == (1, True, [])
    load_key(None, tmp_path)
    code, first = await hookline("signing-secret", "--data", str(tmp_path))
    assert code == 0
    assert first.startswith("whsec_")
    code, again = await hookline("signing-secret", "--json", "--data", str(tmp_path))
    assert (code, json.loads(again)) == (0, {"signingSecret": first.strip()})


async def test_the_refused_command_is_named(tmp_path: Path) -> None:
    text = "create item with:\nkey: jobs\nsortField: a\n\n" * 2
    async with serving(tmp_path / "data") as server:
        (tmp_path / "commands").write_text(text)
        code, said = await hookline("run", "--url", server.url, str(tmp_path / "commands"))
    assert code == 1
    assert "command 2, line 5: an item with this key and sortField exists" in said


async def test_the_demo_holds() -> None:
    code, said = await hookline("demo", "--json")
    assert code == 0, said
    played = json.loads(said)
    assert played["held"]
    assert len(played["promises"]) == 8
    assert all(played["promises"].values())
    assert len(played["milliseconds"]) == 3


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_webhooks_may_reach_this_machine_only_if_only_it_can_reach_us(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
