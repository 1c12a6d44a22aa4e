"""``POST /v1/triggers/test``: a sample goes where a webhook would, in the same form, and nowhere else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook

from api import Api
from conftest import wait_until
from hookline import Datastore, SecretBox, Settings
from hookline.secret import load_key
from hookline_server.process import _egress
from hookline_server.signature import format_secret
from process import hookline, serving
from receiver import Receiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


async def send(api: Api, **sample: Any) -> dict[str, Any]:
    """Send a sample -> what came of it."""
    answer = await api("POST", "/v1/triggers/test", sample)
    assert answer.status == 200, answer.body
    told: dict[str, Any] = answer.data
    return told


async def test_it_is_signed_and_told_of(api: Api, receiver: Receiver) -> None:
    told = await send(api, url=receiver.url, apiKey="its-key", secret=SECRET)
    (post,) = await receiver.wait_for(1)
    assert (told["delivered"], told["status"], told["error"]) == (True, 204, None)
    assert told["ms"]["total"] >= told["ms"]["firstByte"] >= 0
    assert (post.headers["webhook-id"], post.headers["x-api-key"]) == (told["webhookId"], "its-key")
    assert post.data == told["sent"]
    assert Webhook(SECRET).verify(post.body, post.headers)
    assert "its-key" not in repr(told)


async def test_nothing_is_stored_and_a_failure_is_not_tried_again(
    api: Api, datastore: Datastore, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    told = await send(api, url=receiver.url, format="cloudevents")
    assert (told["delivered"], told["status"], told["sent"]["specversion"]) == (False, 500, "1.0")
    assert [post.data["id"] for post in receiver.posts] == [told["webhookId"]]
    assert (await datastore.stats()).rows == []


async def test_what_is_bad_is_named(api: Api, receiver: Receiver) -> None:
    url = receiver.url
    for bad, pointer in (
        ({"url": "ftp://x"}, "/url"),
        ({"url": url, "format": "x"}, "/format"),
        ({"url": url, "secret": "short"}, "/secret"),
        ({"url": url, "more": 1}, "/more"),
    ):
        answer = await api("POST", "/v1/triggers/test", bad)
        assert (answer.status, [error["pointer"] for error in answer.data["errors"]]) == (422, [pointer])
    assert receiver.posts == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://[64:ff9b::a00:1]/", "http://10.0.0.1/"])
async def test_the_guard_holds(api: Api, url: str) -> None:
    told = await send(api, url=url)
    assert (told["delivered"], told["status"], told["error"]) == (False, None, "refused_address")


async def test_a_server_signs_by_its_own_secret_and_does_not_call_itself(tmp_path: Path, receiver: Receiver) -> None:
    async with serving(tmp_path / "data") as server, aiohttp.ClientSession() as session:

        async def sent(url: str) -> dict[str, Any]:
            async with session.post(f"{server.url}/v1/triggers/test", json={"url": url}) as response:
                told: dict[str, Any] = await response.json()
                return told

        assert (await sent(receiver.url))["delivered"]
        refused = await sent(f"{server.url}/v1/command")
        assert (refused["error"], "never the port of the API" in refused["hint"]) == ("refused_address", True)
    (post,) = receiver.posts
    secret = SecretBox(load_key(None, tmp_path / "data")).derive("webhook-signing:default")
    assert Webhook(format_secret(secret)).verify(post.body, post.headers)


async def test_where_keys_are_required_loopback_is_reached_only_if_it_is_named(
    tmp_path: Path, receiver: Receiver
) -> None:
    data = tmp_path / "data"
    for allowed in ((), ("--egress-allow", "127.0.0.0/8")):
        async with serving(data, "--require-keys", *allowed) as server:
            code, key = await hookline("keys", "create", "--scope", "admin", "--data", str(data))
            assert code == 0
            async with aiohttp.ClientSession(server.url, headers={"X-API-Key": key.split()[-1]}) as session:
                async with session.post("/v1/triggers/test", json={"url": receiver.url}) as response:
                    told = await response.json()
                item = {"key": "jobs", "triggerUrls": [{"url": receiver.url, "events": ["created"]}]}
                async with session.post("/v1/items", json=item) as response:
                    assert response.status == 201

                async def kept(session: aiohttp.ClientSession = session) -> list[str | None]:
                    async with session.get("/v1/deliveries") as response:
                        return [each["lastError"] for each in (await response.json())["items"]]

                if allowed:
                    assert (told["delivered"], "hint" in told) == (True, False)
                    await receiver.wait_for(2)
                else:
                    assert (told["error"], "HOOKLINE_EGRESS_ALLOW" in told["hint"]) == ("refused_address", True)
                    await wait_until(kept)
                    (error,) = await kept()
                    assert error == f"refused_address: {told['hint']}"
                    assert receiver.posts == []


@pytest.mark.parametrize(
    ("given", "reached"),
    [
        ({}, True),
        ({"require_keys": True}, False),
        ({"host": "0.0.0.0"}, False),
        ({"roles": ("relay", "orchestrator")}, False),
        ({"require_keys": True, "egress_allow": ("127.0.0.0/8",)}, True),
    ],
)
async def test_who_reaches_loopback(given: dict[str, Any], reached: bool, receiver: Receiver) -> None:
    egress = _egress(Settings(**given), None, "unix:///store")
    answer = await egress.post(receiver.url, b"{}", {})
    assert (answer.ok, answer.error) == (reached, None if reached else "refused_address")
    await egress.close()
