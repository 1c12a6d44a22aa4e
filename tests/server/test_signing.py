"""The signing secret of a namespace is replaced without a gap: for a time both sign."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hookline import Datastore, SecretBox
from hookline.errors import Refused
from hookline.secret import load_key
from hookline_server import signing
from hookline_server.signature import format_secret
from hookline_server.signing import Signing
from process import hookline, serving
from receiver import Post, Receiver
from relays import relaying, start_job

pytestmark = pytest.mark.settings(call_timeout=5.0, tick=0.05)


def good(post: Post, *secrets: str) -> list[bool]:
    """Which of these secrets have signed it."""
    found = []
    for secret in secrets:
        try:
            Webhook(secret).verify(post.body, post.headers)
        except WebhookVerificationError:
            found.append(False)
        else:
            found.append(True)
    return found


async def test_both_sign_until_the_grace_is_over(
    datastore: Datastore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rotate(grace: float, *, force: bool = False) -> str:
        found = await Signing.read(datastore.connection, "default")
        found = await found.rotate(datastore.connection, "default", grace, force=force)
        return format_secret(found.secrets(datastore.secrets, "default")[0])

    async def called(name: str) -> Post:
        await start_job(datastore, receiver.url, name)
        return (await receiver.wait_for(len(receiver.posts) + 1))[-1]

    monkeypatch.setattr(signing, "FRESH", 0.0)
    first = format_secret(Signing().secrets(datastore.secrets, "default")[0])
    async with relaying(datastore):
        assert good(await called("a"), first) == [True]
        second = await rotate(60)
        assert second != first
        assert good(await called("b"), first, second) == [True, True]
        with pytest.raises(Refused, match="until 2"):
            await rotate(60)
        assert good(await called("c"), first, second) == [True, True]
        third = await rotate(60, force=True)
        assert good(await called("d"), first, second, third) == [False, True, True]
        fourth = await rotate(0, force=True)
        fifth = await rotate(0)
        assert good(await called("e"), third, fourth, fifth) == [False, False, True]


async def test_a_server_that_knows_its_secrets_goes_on_while_the_store_is_silent(
    datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "FRESH", 0.0)
    signer = signing.Signer(datastore)
    known = await signer.secrets()
    await datastore.connection.nodes.close()
    assert await signer.secrets() == known


async def test_beside_a_running_server(tmp_path: Path, receiver: Receiver) -> None:
    data = ("--data", str(tmp_path / "data"))

    async def secret(*command: str) -> str:
        code, said = await hookline(*command, *data)
        assert code == 0, said
        return said.strip()

    async with serving(tmp_path / "data") as server, aiohttp.ClientSession() as session:
        first = format_secret(SecretBox(load_key(None, tmp_path / "data")).derive("webhook-signing:default"))
        second = await secret("rotate-signing-secret", "--grace", "1h")
        assert first != second == await secret("signing-secret")
        async with session.post(f"{server.url}/v1/triggers/test", json={"url": receiver.url}) as response:
            assert (await response.json())["delivered"]
        assert good(receiver.posts[0], first, second) == [True, True]
        code, said = await hookline("rotate-signing-secret", *data)
        assert (code, "until 2" in said, "--force" in said) == (1, True, True), said
        assert await secret("signing-secret") == second
        third = await secret("rotate-signing-secret", "--grace", "0s", "--force")
        assert third == await secret("signing-secret") != second
        code, said = await hookline("rotate-signing-secret", "--namespace", "nobody", *data)
        assert (code, "no namespace 'nobody'" in said) == (4, True)
