"""``hookline keys`` and a server that asks for them, as processes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as aioredis

from hookline import EmbeddedStore
from process import hookline, serving, within


async def status(url: str, api_key: str = "") -> int:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/items/jobs", headers=headers) as answer:
        return answer.status


async def test_the_life_of_an_api_key_beside_a_running_server(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    async with serving(tmp_path / "data", HOOKLINE_REQUIRE_KEYS="true") as server:
        assert await status(server.url) == 401
        code, said = await hookline("keys", "create", "--name", "ops", "--scope", "read", "--pattern", "j*", *data)
        assert code == 0
        api_key = said.strip()
        assert await status(server.url, api_key) == 200
        key_id = api_key.split("_")[1]
        code, listed = await hookline("keys", "list", *data)
        assert code == 0
        header, row = listed.splitlines()
        assert header.split() == ["id", "name", "namespace", "scopes", "patterns", "created", "last", "used", "ends"]
        assert row.split()[:5] == [key_id, "ops", "default", "read", "j*"]
        assert api_key.split("_")[2][:16] not in listed
        code, listed = await hookline("keys", "list", "--json", *data)
        assert (code, json.loads(listed)["id"], json.loads(listed)["patterns"]) == (0, key_id, ["j*"])
        assert api_key.split("_")[2][:16] not in listed
        code, rotated = await hookline("keys", "rotate", key_id, "--grace", "0s", "--json", *data)
        assert code == 0
        rotated = json.loads(rotated)["apiKey"]
        assert await status(server.url, rotated.strip()) == 200
        for option in (("--api-key", rotated.strip()), ()):
            environ = {} if option else {"HOOKLINE_API_KEY": rotated.strip()}
            text = "get items with key: jobs"
            code, said = await hookline("run", "--url", server.url, *option, "-", stdin=text, **environ)
            assert code == 0, said
        code, said = await hookline("run", "--url", server.url, "-", stdin=text)
        assert code == 5
        assert "expected an API key" in said
        assert (await hookline("keys", "revoke", key_id, *data))[1] == f"revoked {key_id}\n"
        code, said = await hookline("keys", "revoke", key_id, *data)
        assert (code, said.splitlines()[0]) == (4, "hookline: no API key has this id, or it was revoked")
        assert re.search(rf"^{key_id} .* revoked 20", (await hookline("keys", "list", *data))[1], re.MULTILINE)
        said = "\n".join(server.said)
    assert api_key not in said
    assert rotated.strip() not in said


async def test_beyond_loopback_a_server_wants_an_api_key_first(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    code, said = await hookline("serve", "--host", "0.0.0.0", "--port", "0", "--data", data)
    assert code == 1
    assert f"there is no API key: make one with 'hookline keys create --data {data}'" in said
    assert "never awaited" not in said
    # It can be made before there is a server, where that will have its data.
    code, said = await hookline("keys", "create", "--data", data, "--scope", "all")
    assert (code, "hookline: --scope: expected one of" in said) == (2, True), said
    code, api_key = await hookline("keys", "create", "--data", data)
    assert code == 0
    async with serving(Path(data), "--host", "127.0.0.1") as server:
        assert await status(server.url) == 401
        assert await status(server.url, api_key.splitlines()[-1]) == 200


async def test_a_key_that_made_a_store_of_its_own_says_so(tmp_path: Path) -> None:
    """As where it is made in another directory than that of the running server, which knows nothing of it."""
    create = ("keys", "create", "--data", str(tmp_path / "data"))
    code, said = await hookline(*create)
    assert (code, f"made new data in {tmp_path}/data, for a server that starts there" in said) == (0, True)
    assert "made new data" not in (await hookline(*create))[1]


async def test_a_key_is_for_the_namespace_of_the_server(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    async with EmbeddedStore(tmp_path / "data", fsync="no"):
        code, said = await hookline("keys", "create", *data, HOOKLINE_NAMESPACE="acme")
        assert (code, "for namespace acme:\n" in said) == (0, True), said
        code, said = await hookline("keys", "create", "--json", "--namespace", "other", *data)
        assert (code, json.loads(said)["namespace"]) == (0, "other")
        code, said = await hookline("keys", "list", "--json", *data)
        assert [json.loads(line)["namespace"] for line in said.splitlines()] == ["acme", "other"]


async def test_a_key_that_has_ended_already_is_not_made(tmp_path: Path) -> None:
    code, said = await hookline("keys", "create", "--data", str(tmp_path / "data"), "--lasts", "0s")
    assert (code, said) == (2, "hookline: --lasts: expected a duration above 0\n")
    code, said = await hookline("keys", "list", "--data", str(tmp_path / "data"))
    assert "read" not in said


@pytest.mark.parametrize("made", [False, True])
async def test_insecure_is_said_to_be(tmp_path: Path, made: bool) -> None:
    if made:
        await hookline("keys", "create", "--data", str(tmp_path / "data"))
    async with serving(tmp_path / "data", "--host", "0.0.0.0", HOOKLINE_INSECURE="true") as server:
        port = server.url.rpartition(":")[2]
        assert await status(f"http://127.0.0.1:{port}") == (401 if made else 200), "keys are asked for all the same"
        assert any("anybody" in line for line in server.said) is not made


async def test_for_a_store_that_is_named_the_secret_must_be_the_servers(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path / "own", fsync="no") as store:
        named = ("keys", "create", "--store", store.url, "--data")
        code, said = await hookline(*named, str(tmp_path / "none"))
        assert code == 3
        assert "there is no secret in" in said
        assert not (tmp_path / "none").exists()
        assert (await hookline(*named, str(tmp_path), HOOKLINE_SECRET_KEY="00" * 32))[0] == 0
        code, said = await hookline(*named, str(tmp_path), HOOKLINE_SECRET_KEY="11" * 32)
        assert code == 3
        assert "made under another secret" in said


async def test_a_server_with_another_secret_than_the_others_does_not_start(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path / "own", fsync="no") as store:
        ours, theirs = {"HOOKLINE_SECRET_KEY": "00" * 32}, {"HOOKLINE_SECRET_KEY": "11" * 32}
        named = ("--store", store.url, "--data", str(tmp_path))
        async with serving(tmp_path, "--store", store.url, port=0, **ours):
            pass
        for command in (
            ("serve", "--port", "0", "--require-keys"),
            ("serve", "--roles", "relay"),
            ("keys", "list"),
            ("keys", "create"),
            ("signing-secret",),
        ):
            code, said = await (hookline if command[0] == "serve" else within)(*command, *named, **theirs)
            assert (code, "have another secret: name the data directory" in said) == (3, True), said
        assert (await within("keys", "create", *named, **ours))[0] == 0
        async with aioredis.Redis.from_url(store.url, protocol=2) as raw:
            await raw.delete("hl:secret-mark", "hl:api-keys")
            await raw.delete(*[name async for name in raw.scan_iter("hl:api-keys:of:*")])
        async with serving(tmp_path, "--store", store.url, port=0, **theirs) as server:
            assert await status(server.url) == 200, "as docs/security.md says"
            code, api_key = await within("keys", "create", "--name", "anew", "--scope", "admin", *named, **theirs)
            headers = {"X-API-Key": api_key.strip()}
            async with aiohttp.ClientSession() as session:
                listed = await (await session.get(f"{server.url}/v1/api-keys", headers=headers)).json()
            assert [key["name"] for key in listed["apiKeys"]] == ["anew"]
