"""API keys as they are stored: what verifies, what rotates, what is gone for good."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

import pytest
import redis.asyncio as aioredis

from conftest import NOW_MS, Clock
from hookline import Datastore, SecretBox
from hookline.errors import Incompatible, Invalid, KeyNotAllowed, MissingScope, Unavailable, UnknownApiKey
from hookline.grant import Grant, read_grant
from hookline.item import FLAWS_MAX
from hookline.keyring import KEYS_MAX, NAMESPACE_KEYS_MAX, SECRETS_MAX, ApiKey, Keyring, read_id
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


async def test_a_key_has_so_many_secrets_at_most(keyring: Keyring) -> None:
    key, text = await keyring.create("acme")
    for _ in range(SECRETS_MAX - 1):
        last = await keyring.rotate(key.id)
    with pytest.raises(Invalid, match="16 secrets of this key are good: end them all with a grace of 0"):
        await keyring.rotate(key.id)
    assert await keyring.verify(text)
    assert await keyring.verify(last)
    fresh = [await keyring.rotate(key.id, grace=0), await keyring.rotate(key.id)]
    assert [bool(await keyring.verify(each)) for each in (text, last, *fresh)] == [False, False, True, True]
    found = await keyring.get(key.id)
    assert found
    assert len(found.macs) == 2


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
    for refused in (
        other.any_made(),
        other.all(),
        other.all("acme"),
        other.create("acme"),
        other.rotate(key.id),
        other.revoke(key.id),
    ):
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


async def test_the_keys_of_a_namespace_are_listed_without_those_of_others(
    keyring: Keyring, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: [(await keyring.create(name))[0].id for _ in range(3)] for name in ("acme", "meta")}
    await fill(keyring, raw, "globex", 120)
    at_once, most, read = 0, 0, 0

    async def get(key_id: str) -> ApiKey | None:
        nonlocal at_once, most, read
        at_once, read = at_once + 1, read + 1
        most = max(most, at_once)
        found = await Keyring.get(keyring, key_id)
        at_once -= 1
        return found

    monkeypatch.setattr(keyring, "get", get)
    for name, ids in made.items():
        assert sorted(key.id for key in await keyring.all(name)) == sorted(ids)
    assert read == 6
    assert len(await keyring.all("globex")) == 120
    assert (len(await keyring.all()), most) == (126, 50)
    assert await keyring.all("nobody") == []


async def test_an_id_without_a_key_is_dropped_from_the_lists(keyring: Keyring, raw: aioredis.Redis) -> None:
    key, _ = await keyring.create("acme")
    for listing in ("acme", None):
        await raw.sadd("hl:api-keys", "0123456789ab")
        await raw.sadd("hl:api-keys:of:acme", "0123456789ab")
        assert [each.id for each in await keyring.all(listing)] == [key.id]
        assert not await raw.sismember("hl:api-keys", "0123456789ab")
    assert await raw.smembers("hl:api-keys:of:acme") == {key.id.encode(), b"0123456789ab"}
    assert [each.id for each in await keyring.all("acme")] == [key.id]
    assert await raw.smembers("hl:api-keys:of:acme") == {key.id.encode()}


async def test_a_key_that_is_being_made_is_not_taken_for_one_that_has_gone(
    keyring: Keyring, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keyring.create("acme")
    commands, listing = datastore.connection.command_on, False

    async def command_on(name: str, *args: Any) -> Any:
        nonlocal listing
        if not listing:
            listing = True
            await keyring.all()
            await keyring.all("acme")
            listing = False
        return await commands(name, *args)

    monkeypatch.setattr(datastore.connection, "command_on", command_on)
    made, _ = await keyring.create("acme")
    for listed in (await keyring.all(), await keyring.all("acme")):
        assert made.id in [key.id for key in listed]


@pytest.mark.parametrize("steps", [1, 2])
async def test_what_was_cut_off_while_a_key_was_made_is_harmless(
    keyring: Keyring, datastore: Datastore, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    await keyring.create("globex")
    commands, done = datastore.connection.command_on, 0

    async def command_on(name: str, *args: Any) -> Any:
        nonlocal done
        if args[0] in ("SADD", "HSET"):
            done += 1
            if done > steps:
                raise Unavailable("cut off")
        return await commands(name, *args)

    with monkeypatch.context() as cut:
        cut.setattr(datastore.connection, "command_on", command_on)
        with pytest.raises(Unavailable):
            await keyring.create("acme")
    assert await keyring.all("acme") == []
    left = [key for key in await keyring.all() if key.namespace == "acme"]
    assert len(left) == steps - 1, "whoever lists all sees it, and can revoke it"
    made, text = await keyring.create("acme")
    assert [key.id for key in await keyring.all("acme")] == [made.id]
    assert await keyring.verify(text)
    await check_invariants(raw)


async def fill(keyring: Keyring, raw: aioredis.Redis, namespace: str, count: int) -> None:
    """Make keys by the store's own commands, as copies of one."""
    made, _ = await keyring.create(namespace)
    fields: dict[Any, Any] = await raw.hgetall(f"hl:api-key:{made.id}")
    ids = [f"{number:012x}" for number in range(count - 1)]
    pipe = raw.pipeline(transaction=False)
    for key_id in ids:
        pipe.hset(f"hl:api-key:{key_id}", mapping=fields)
    pipe.sadd("hl:api-keys", *ids)
    pipe.sadd(f"hl:api-keys:of:{namespace}", *ids)
    await pipe.execute()


async def test_a_namespace_has_so_many_at_most(keyring: Keyring, raw: aioredis.Redis) -> None:
    await fill(keyring, raw, "acme", NAMESPACE_KEYS_MAX)
    with pytest.raises(Invalid, match="at most 1000 API keys of a namespace: revoke those that nobody uses"):
        await keyring.create("acme")
    await keyring.create("globex")
    for _ in range(3):  # revoked ones are listed, but keep nobody from making others
        await keyring.revoke((await keyring.all("acme"))[0].id)
        _, text = await keyring.create("acme")
        assert await keyring.verify(text)
        assert len(await keyring.all("acme")) == NAMESPACE_KEYS_MAX
    assert await raw.scard("hl:api-keys") == NAMESPACE_KEYS_MAX + 2
    assert len([name async for name in raw.scan_iter("hl:api-key:*", count=1000)]) == NAMESPACE_KEYS_MAX + 1


async def test_of_the_revoked_the_oldest_are_forgotten_and_no_more_than_need_be(
    keyring: Keyring, raw: aioredis.Redis, clock: Clock
) -> None:
    clock.ms = NOW_MS
    await fill(keyring, raw, "acme", NAMESPACE_KEYS_MAX - 1)
    for number in range(60):
        clock.advance(1)
        await keyring.revoke(f"{number:012x}")
    await keyring.create("acme")
    assert len([key for key in await keyring.all("acme") if key.revoked_ms]) == 60, "there was room"
    await keyring.create("acme")
    left = [key for key in await keyring.all("acme") if key.revoked_ms]
    assert sorted(key.id for key in left) == [f"{number:012x}" for number in range(50, 60)]


async def test_a_store_has_so_many_at_most(keyring: Keyring, raw: aioredis.Redis) -> None:
    key, _ = await keyring.create("acme")
    await raw.sadd("hl:api-keys", *range(KEYS_MAX - 1))
    with pytest.raises(Invalid, match="at most 10000 API keys in the store: revoke some"):
        await keyring.create("acme")
    await keyring.revoke(key.id)
    made, _ = await keyring.create("acme")
    assert [each.id for each in await keyring.all("acme")] == [made.id]
    await keyring.note_use(key.id)
    assert not await raw.exists(f"hl:api-key:{key.id}"), "a server that knew it leaves nothing either"


async def test_one_that_is_forgotten_while_its_use_is_noted_leaves_nothing(
    keyring: Keyring, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = await keyring.create("acme")
    now_ms = keyring._connection.now_ms

    async def later() -> int:
        await raw.delete(f"hl:api-key:{key.id}")
        return await now_ms()

    monkeypatch.setattr(keyring._connection, "now_ms", later)
    await keyring.note_use(key.id)
    assert not await raw.exists(f"hl:api-key:{key.id}")


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
