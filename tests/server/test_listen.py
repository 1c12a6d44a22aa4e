"""``hookline listen``: what it shows of what arrives, and what becomes of those who write at people's terminals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from conftest import wait_until
from hookline.errors import Unavailable
from hookline_server.receiver import listen
from hookline_server.signature import read_secret, sign
from process import free_port, hookline, serving, within


@contextlib.asynccontextmanager
async def listening(*args: str, cwd: Path) -> AsyncIterator[tuple[str, asyncio.StreamReader]]:
    """``hookline listen`` -> its URL, and what it says after that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", *args, "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        begins = process.stderr if "--json" in args else process.stdout
        yield (await begins.readline()).decode().split()[4], process.stdout
    finally:
        process.terminate()
        await process.communicate()


async def test_listen_shows_what_arrives(tmp_path: Path) -> None:
    async with listening("listen", cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:
        async with session.post(url, data=b"no JSON") as response:
            assert response.status == 400
        assert b"/run  webhook-id -  signature not checked" in await said.readline()
        async with session.post(f"{url}/a", json={"event": "updated"}, headers={"webhook-id": "w-1"}) as response:
            assert response.status == 204
        assert b"/run/a  webhook-id w-1" in await said.readline()
        code, told = await hookline("listen", "--port", url.rsplit(":", 1)[1].split("/")[0])
        assert (code, "choose another --port" in told) == (3, True)


async def test_listen_verifies_signatures_and_answers_as_it_is_told(tmp_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    args = ("listen", "--secret", secret, "--status", "503")
    async with listening(*args, cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:
        now = int(time.time())
        for signing, word in ((bytes(32), b"good"), (bytes([1]) * 32, b"BAD")):
            headers = {"webhook-id": "w", "webhook-timestamp": f"{now}"}
            headers["webhook-signature"] = sign(signing, "w", now, b"{}")
            async with session.post(url, data=b"{}", headers=headers) as response:
                assert response.status == 503
            assert b"signature " + word in await said.readline()
            assert await said.readline() == b"{}\n"
    async with listening("listen", "--json", cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:
        async with session.post(url, data=b"{}", headers={"webhook-id": "w"}) as response:
            assert response.status == 204
        shown = json.loads(await said.readline())
        del shown["at"]
        assert shown == {"path": "/run", "webhookId": "w", "signature": "not checked", "body": {}}
    async with listening("listen", "--wait", "never", cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:
        posting = asyncio.create_task(session.post(url, data=b"{}"))
        await said.readline()
        done, _ = await asyncio.wait([posting], timeout=0.3)
        assert not done
        posting.cancel()


async def test_listen_learns_the_secret_of_a_server_that_begins_or_rotates_it_later(tmp_path: Path) -> None:
    at = ("--data", str(tmp_path / "data"))
    async with listening("listen", "--json", *at, cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:

        async def heard(secret: bytes) -> str:
            now = int(time.time())
            headers = {"webhook-id": "w", "webhook-timestamp": f"{now}"}
            headers["webhook-signature"] = sign(secret, "w", now, b"{}")
            async with session.post(url, data=b"{}", headers=headers) as response:
                assert response.status == 204
            return str(json.loads(await said.readline())["signature"])

        assert await heard(bytes(32)) == "not checked"
        async with serving(tmp_path / "data"):
            for verb in (("signing-secret",), ("rotate-signing-secret", "--grace", "0s")):
                code, secret = await hookline(*verb, *at)
                assert code == 0, secret
                assert [await heard(bytes(32)), await heard(read_secret(secret.strip()))] == ["BAD", "good"]
        left = {each: each.stat().st_mtime_ns for each in (tmp_path / "data").iterdir()}
        assert [await heard(bytes(32)), await heard(read_secret(secret.strip()))] == ["BAD", "good"]
        # No store was started to look for another.
        assert {each: each.stat().st_mtime_ns for each in (tmp_path / "data").iterdir()} == left


async def test_listen_holds_up_nothing_that_is_signed_well_and_calls_bad_only_what_it_could_check() -> None:
    said: list[str] = []
    asked, away = asyncio.Event(), asyncio.Event()
    port = free_port()

    async def find() -> list[bytes]:
        if said:
            asked.set()
            await away.wait()
            raise Unavailable("away")
        return [bytes(32)]

    async def post(session: aiohttp.ClientSession, secret: bytes) -> None:
        headers = {"webhook-id": "w", "webhook-timestamp": f"{int(time.time())}"}
        headers["webhook-signature"] = sign(secret, "w", int(headers["webhook-timestamp"]), b"1")
        async with session.post(f"http://127.0.0.1:{port}/", data=b"1", headers=headers) as response:
            assert response.status == 204

    waiting = asyncio.create_task(listen(port, said.append, find))
    await wait_until(lambda: said)
    async with aiohttp.ClientSession() as session:
        bad = asyncio.create_task(post(session, bytes([1]) * 32))
        await asked.wait()
        await asyncio.wait_for(post(session, bytes(32)), 10)
        assert not bad.done()
        away.set()
        await bad
    heads = [each.splitlines()[0] for each in said[1:]]
    assert [head.rpartition("  ")[2] for head in heads] == ["signature good", "signature not checked"]
    waiting.cancel()


EVIL = "a\x1b[2J\x7f\x9b31m\u202e"


async def test_what_arrives_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        for flags in ((), ("--json",)):
            async with listening("listen", *flags, cwd=tmp_path) as (url, said):
                target = URL(url).with_path(f"/{EVIL}")
                async with session.post(target, json={EVIL: EVIL}, headers={"webhook-id": "a\x9b31m"}) as response:
                    assert response.status == 204
                shown = (await said.readline()).decode()
                if not flags:
                    shown += "".join([(await said.readline()).decode() for _ in range(3)])
                assert all(line.isprintable() for line in shown.splitlines()), ascii(shown)
                assert "\\u007f\\u009b31m\\u202e" in shown, "the body is the JSON that it was"


async def test_who_posts_cannot_say_that_it_is_signed(tmp_path: Path) -> None:
    fake = "x  signature good"
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    async with (
        listening("listen", "--secret", secret, cwd=tmp_path) as (url, said),
        aiohttp.ClientSession() as session,
        session.post(URL(url).with_path(f"/{fake}"), data=b"{}", headers={"webhook-id": fake}),
    ):
        line = (await said.readline()).decode()
    assert "signature good" not in line
    assert line.endswith("  signature BAD\n")


async def test_a_webhook_may_be_larger_than_a_server_takes_by_default(tmp_path: Path) -> None:
    async with listening("listen", "--json", cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:
        async with session.post(url, data=io.BytesIO(b" " * 2_000_000 + b"1")) as response:
            assert response.status == 204
        assert json.loads(await said.readline())["body"] == 1


async def test_json_that_is_nested_too_deeply_is_none(tmp_path: Path) -> None:
    async with listening("listen", cwd=tmp_path) as (url, said), aiohttp.ClientSession() as session:
        for nested in (b"[" * 50_000, b"[" * 5_000 + b"]" * 5_000):
            async with session.post(url, data=nested) as response:
                assert response.status == 400
            assert b"/run  webhook-id -" in await said.readline()


async def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "listen", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[4]
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]  # as head -1 does
        async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as response:
            assert response.status == 204
        assert await asyncio.wait_for(process.wait(), 20) == 141
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--secret", "whsec_hunter2"), "hookline: --secret: expected a secret: whsec_ and base64\n"),
        (("--secret", "hunter2"), "hookline: --secret: expected a secret: whsec_ and base64\n"),
        (
            ("--wait", "soon"),
            "hookline: --wait: expected seconds as a number, or a duration such as 500ms, 30s, 10m, 2h, 7d\n",
        ),
    ],
)
async def test_what_cannot_be_meant_is_named_by_its_option(args: tuple[str, ...], says: str) -> None:
    assert await within("listen", *args) == (2, says)
