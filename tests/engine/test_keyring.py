"""API keys as they are stored: what verifies, what rotates, what is gone for good."""

from __future__ import annotations

import asyncio
import time
import zlib

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore, SecretBox
from hookline.errors import Incompatible, Invalid, KeyNotAllowed, MissingScope, UnknownApiKey
from hookline.grant import Grant, read_grant
from hookline.item import FLAWS_MAX
from hookline.keyring import KEYS_MAX, Keyring, read_id
from invariants import check_invariants


async def test_a_key_verifies_and_its_secret_is_nowhere_in_the_store(keyring: Keyring, raw: aioredis.Redis) -> None:
    made, text = await keyring.create("acme", name="ci", scopes=["work"], patterns=["jobs", "reports.*"])
    found = await keyring.verify(text)
    assert found is not None
    assert (found.id, found.name, found.namespace) == (made.id, "ci", "acme")
    assert found.grant == Grant(("work",), ("jobs", "reports.*"))
    assert text.startswith(f"hl_{made.id}_")
    assert read_id(text) == made.id
    secret = text.split("_")[2]
    stored = repr([await raw.hgetall(name) async for name in raw.scan_iter("hl:api-key:*")])
    assert secret not in stored
    assert secret[:64] not in stored
    assert text not in repr(found)
    await check_invariants(raw)


async def test_what_is_no_key_or_another_ones_does_not_verify(keyring: Keyring, datastore: Datastore) -> None:
    _, text = await keyring.create("acme")
    _, other = await keyring.create("acme")
    swapped = text[:16] + other[16:-8]
    swapped += f"{zlib.crc32(swapped.encode()):08x}"
    assert read_id(swapped) == read_id(text)
    for wrong in ("", "hl_", text[:-1], f"{text[:-1]}{(int(text[-1], 16) + 1) % 16:x}", swapped, "\u00e9" * 88):
        assert await keyring.verify(wrong) is None
    assert await Keyring(datastore.connection, SecretBox(bytes(32))).verify(text) is None, "another pepper"


async def test_rotate_keeps_the_one_before_for_a_while(keyring: Keyring, clock: Clock) -> None:
    key, text = await keyring.create("acme")
    second = await keyring.rotate(key.id, grace=600)
    third = await keyring.rotate(key.id, grace=600)
    assert [bool(await keyring.verify(each)) for each in (text, second, third)] == [True, True, True]
    clock.ms = round(time.time() * 1000) - 700_000
    fourth = await keyring.rotate(key.id, grace=600)
    assert [bool(await keyring.verify(each)) for each in (third, fourth)] == [False, True]
    found = await keyring.verify(text)
    assert found is None or found.ends_ms is not None


async def test_two_rotations_at_once_are_both_good(keyring: Keyring) -> None:
    key, _ = await keyring.create("acme")
    texts = await asyncio.gather(keyring.rotate(key.id), keyring.rotate(key.id))
    assert [bool(await keyring.verify(text)) for text in texts] == [True, True]


async def test_nothing_brings_a_revoked_key_back(keyring: Keyring, raw: aioredis.Redis) -> None:
    key, text = await keyring.create("acme")
    await keyring.revoke(key.id)
    await keyring.note_use(key.id)
    assert await keyring.verify(text) is None
    for change in (keyring.rotate, keyring.revoke):
        with pytest.raises(UnknownApiKey):
            await change(key.id)
    (listed,) = await keyring.all()
    assert listed.revoked_ms
    assert await raw.ttl(f"hl:api-key:{key.id}") > 0
    await raw.delete(f"hl:api-key:{key.id}")
    assert await keyring.all() == []
    assert await keyring.any_made()
    with pytest.raises(UnknownApiKey):
        await keyring.rotate("0123456789ab")


async def test_they_are_listed_in_order(keyring: Keyring, clock: Clock) -> None:
    assert not await keyring.any_made()
    clock.ms = NOW_MS
    first, _ = await keyring.create("acme", name="first", lasts=60)
    clock.advance(1)
    second, _ = await keyring.create("globex", name="second")
    listed = await keyring.all()
    assert [(key.id, key.name, key.ends_ms) for key in listed] == [
        (first.id, "first", NOW_MS + 60_000),
        (second.id, "second", None),
    ]


async def test_keys_of_another_secret_are_told(keyring: Keyring, datastore: Datastore) -> None:
    key, _ = await keyring.create("acme")
    other = Keyring(datastore.connection, SecretBox(bytes(32)))
    for refused in (other.any_made(), other.all(), other.create("acme"), other.rotate(key.id), other.revoke(key.id)):
        with pytest.raises(Incompatible, match="another secret"):
            await refused


async def test_another_secret_is_told_before_there_are_keys_and_without_a_mark(
    keyring: Keyring, datastore: Datastore, raw: aioredis.Redis
) -> None:
    other = Keyring(datastore.connection, SecretBox(bytes(32)))
    await other.check()
    await keyring.check(claim=True)
    for claim in (False, True):
        with pytest.raises(Incompatible, match="servers of this store have another secret"):
            await other.check(claim=claim)
    with pytest.raises(Incompatible, match="servers of this store have another secret"):
        await other.create("acme")
    await keyring.create("acme")
    await raw.delete("hl:secret-mark")
    with pytest.raises(Incompatible, match="made under another secret"):
        await other.check(claim=True)
    assert not await raw.exists("hl:secret-mark"), "as of keys that a release without it has made"


async def test_bad_arguments_are_named(keyring: Keyring) -> None:
    with pytest.raises(Invalid) as raised:
        await keyring.create("No Namespace", name="\n", scopes=["reed"], patterns=["a b"])
    assert [flaw.pointer for flaw in raised.value.flaws] == ["/namespace", "/name", "/scopes/0", "/patterns/0"]
    for scopes, patterns in (([], []), ("read", []), (["read"], "jobs"), (["read"], ["x"] * 33)):
        with pytest.raises(Invalid):
            read_grant(scopes, patterns)
    with pytest.raises(Invalid) as raised:
        read_grant(["reed"] * 1000, ["a b"] * 1000)
    assert [flaw.pointer for flaw in raised.value.flaws] == [*(f"/scopes/{n}" for n in range(FLAWS_MAX)), "/patterns"]


async def test_there_are_so_many_at_most(keyring: Keyring, raw: aioredis.Redis) -> None:
    await keyring.create("acme")
    await raw.sadd("hl:api-keys", *range(KEYS_MAX))
    with pytest.raises(Invalid, match="at most"):
        await keyring.create("acme")


def test_what_a_grant_covers() -> None:
    grant = Grant(("write",), ("jobs", "reports.*", "*-archive"))
    for key in ("jobs", "reports.a", "reports.", "old-archive"):
        grant.check("read", key)
        grant.check("write", key)
    for key in ("jobs2", "reports", "ajobs", "hookline.x", "jobs\n"):
        assert not grant.covers(key)
    assert not Grant(("read",), ("*a" * 60 + "b",)).covers("a" * 128)  # by trying each way it would take years
    with pytest.raises(KeyNotAllowed):
        grant.check("read", "reports")
    with pytest.raises(MissingScope):
        grant.check("work", "jobs")
    with pytest.raises(MissingScope):
        Grant(("write",)).check("read", "hookline.orchestrations")
    assert Grant(("admin",)).whole
    assert not Grant(("admin",), ("jobs",)).whole
