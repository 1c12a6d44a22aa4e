"""API keys, and several namespaces over the same connections."""

from __future__ import annotations

from dataclasses import replace

from hookline import Datastore
from hookline.keyring import Keyring


async def test_the_life_of_an_api_key(keyring: Keyring) -> None:
    key, text = await keyring.create("acme", scopes=["work"], patterns=["jobs"])
    rotated = await keyring.rotate(key.id)
    await keyring.note_use(key.id)
    for each in (text, rotated):
        found = await keyring.verify(each)
        assert found is not None
        assert (found.id, found.grant) == (key.id, key.grant)
    (listed,) = await keyring.all()
    assert listed.used_ms
    await keyring.revoke(key.id)
    assert [await keyring.verify(each) for each in (text, rotated)] == [None, None]
    assert await keyring.any_made()


async def test_namespaces_share_connections_and_nothing_else(datastore: Datastore) -> None:
    settings = replace(datastore.settings, namespace="acme")
    async with Datastore(datastore.connection.nodes, settings, datastore.secrets) as acme:
        assert acme.calls.partitions == datastore.calls.partitions
        await acme.create("jobs", "a", metadata={"status": "not_started"})
        assert (await datastore.query("jobs")).items == []
        assert (await datastore.claim("jobs", worker_id="w")).items == []
        assert [item.sort_field for item in (await acme.claim("jobs", worker_id="w")).items] == ["a"]
        first_ms = await acme.upkeep.next_ms()
        assert first_ms > await acme.connection.now_ms(), "when the lock expires"
        assert await datastore.upkeep.next_ms() == float("inf")
    # It closes without closing what is not its own.
    await datastore.create("jobs", "b")
