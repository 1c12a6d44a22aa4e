"""The gate: who is let in, for how long, and what it costs the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis.asyncio as aioredis

from api import Answer, Api, asking
from conftest import wait_until
from hookline import Client, Datastore, Worker
from hookline.errors import InvalidApiKey, KeyNotAllowed
from hookline.grant import Grant
from hookline.keyring import Keyring
from hookline_server import attempts, edge
from hookline_server import gate as gates
from hookline_server.app import create_app
from hookline_server.attempts import Attempts
from hookline_server.gate import Gate
from hookline_server.namespaces import Namespaces
from server.conftest import MakeKey

WRONG = "hl_0123456789ab_" + "0" * 64 + "2f6c5ed9"


def guess(number: int) -> dict[str, str]:
    """Headers that show a wrong key, for each number another."""
    return {"X-API-Key": WRONG[:-8] + f"{number:08x}"}


async def create(api: Api, headers: dict[str, str], sort_field: str = "a") -> Answer:
    return await api("PUT", f"/v1/items/jobs/{sort_field}", {"content": 1}, headers=headers)


async def looked_up(raw: aioredis.Redis) -> int:
    """How often an API key was read from the store."""
    calls: int = (await raw.info("commandstats")).get("cmdstat_hgetall", {}).get("calls", 0)
    return calls


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of these tests is looked up again because the machine is slow."""
    monkeypatch.setattr(gates, "KNOWN_FOR", 600.0)


async def test_both_headers_will_do(api: Api, gate: Gate, make_key: MakeKey) -> None:
    headers = await make_key("default")
    text = headers["Authorization"].split()[1]
    for shown in (headers, {"Authorization": f"bearer  {text}"}, {"X-API-Key": text}):
        assert (await create(api, shown)).status in (200, 201)
    for shown in ({"Authorization": f"Basic {text}"}, {"X-API-Key": f"{text}0"}, {"X-API-Key": ""}):
        refused = await create(api, shown)
        assert (refused.status, refused.data["code"]) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == 'Bearer realm="hookline", error="invalid_token"'
        assert text not in refused.body.decode()


async def test_a_key_that_is_known_costs_the_store_nothing(
    api: Api, gate: Gate, make_key: MakeKey, raw: aioredis.Redis
) -> None:
    headers = {**await make_key("default"), "Content-Type": "text/plain"}
    await raw.config_resetstat()
    nothing = [api("POST", "/v1/command", data=b"# nothing", headers=headers) for _ in range(50)]
    answers = await asyncio.gather(*nothing)
    assert {answer.status for answer in answers} == {200}
    assert await looked_up(raw) == 1


async def test_a_revoked_key_is_known_no_longer_than_it_is_said(
    api: Api, gate: Gate, make_key: MakeKey, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "KNOWN_FOR", 0.2)
    headers = await make_key("default")
    assert (await create(api, headers)).status == 201
    (key,) = await keyring.all()
    await keyring.revoke(key.id)

    async def refused() -> bool:
        return (await create(api, headers)).status == 401

    await wait_until(refused)


async def test_a_secret_ends_when_it_does_also_while_it_is_known(
    api: Api, gate: Gate, make_key: MakeKey, keyring: Keyring
) -> None:
    headers = await make_key("default", lasts=1.0)
    began = time.monotonic()
    first = await create(api, headers)
    assert first.status == 201 or time.monotonic() - began > 0.9

    async def refused() -> bool:
        return (await create(api, headers)).status == 401

    await wait_until(refused)


async def test_a_rotated_key_and_the_one_before_are_the_same_caller(
    api: Api, gate: Gate, make_key: MakeKey, keyring: Keyring
) -> None:
    headers = await make_key("default")
    (key,) = await keyring.all()
    text = await keyring.rotate(key.id, grace=600)
    for shown in (headers, {"X-API-Key": text}):
        assert (await create(api, shown)).status in (200, 201)
    assert {caller.id for _, caller in gate._known.values()} == {key.id}


async def test_the_use_of_a_key_is_noted(api: Api, gate: Gate, make_key: MakeKey, keyring: Keyring) -> None:
    headers = await make_key("default")
    assert [key.used_ms for key in await keyring.all()] == [None]
    await create(api, headers)

    async def noted() -> bool:
        return [key.used_ms is not None for key in await keyring.all()] == [True]

    await wait_until(noted)


async def test_wrong_keys_are_made_to_wait_and_known_ones_are_not(
    api: Api, gate: Gate, make_key: MakeKey, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PER_SECOND", 0.001)
    good, other = await make_key("default"), await make_key("default")
    assert (await create(api, good)).status == 201
    await raw.config_resetstat()
    answers = [await create(api, guess(number)) for number in range(attempts.FREE + 3)]
    assert [answer.status for answer in answers] == [401] * attempts.FREE + [429] * 3
    assert answers[-1].data["code"] == "too_many_attempts"
    assert int(answers[-1].headers["retry-after"]) > 100
    assert await looked_up(raw) <= attempts.FREE
    assert (await create(api, good)).status == 200
    assert (await create(api, other)).status == 429, "it is not known yet"


@pytest.mark.parametrize("known_for", [600.0, 0.0])
async def test_a_wrong_key_that_is_shown_on_and_on_keeps_nobody_else_out(
    api: Api,
    gate: Gate,
    make_key: MakeKey,
    keyring: Keyring,
    raw: aioredis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    known_for: float,
) -> None:
    monkeypatch.setattr(attempts, "PER_SECOND", 0.001)
    monkeypatch.setattr(gates, "KNOWN_FOR", known_for)
    revoked = await make_key("default")
    (key,) = await keyring.all()
    await keyring.revoke(key.id)
    await raw.config_resetstat()
    many = range(2 * attempts.FREE)
    answers = await asyncio.gather(*(create(api, revoked) for _ in many))
    answers += [await create(api, revoked) for _ in many]
    assert {(answer.status, answer.data["code"]) for answer in answers} == {(401, "invalid_api_key")}
    assert await looked_up(raw) == 1 if known_for else await looked_up(raw) > len(many)
    assert (await create(api, await make_key("default"))).status == 201
    # Once the others are used up, it is still told what it is.
    for number in range(attempts.FREE):
        refused = await create(api, guess(number))
    assert (refused.status, (await create(api, revoked)).status) == (429, 401)


async def test_a_wrong_key_that_becomes_good_is_found_out(
    api: Api, gate: Gate, make_key: MakeKey, raw: aioredis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the restore of a backup: a key is made at random, so none that is new was shown before."""
    monkeypatch.setattr(gates, "KNOWN_FOR", 0.2)
    headers = await make_key("default")
    (name,) = [name async for name in raw.scan_iter(match="hl:api-key:*")]
    kept = await raw.dump(name)
    assert kept is not None
    await raw.delete(name)
    assert (await create(api, headers)).status == 401
    await raw.restore(name, 0, kept)

    async def good() -> bool:
        return (await create(api, headers)).status == 201

    await wait_until(good)


async def test_the_wrong_keys_that_are_remembered_are_bounded(
    api: Api, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "WRONG_MAX", 3)
    for number in range(5):
        assert (await create(api, guess(number))).status == 401
    assert len(gate._wrong) == 3


def test_tries_come_back_and_the_list_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tries = Attempts()

    def wrong(peer: str, times: int = 1) -> int:
        for _ in range(times):
            tries.note_wrong(peer)
        return tries.wait(peer)

    assert [wrong("10.0.0.1", attempts.FREE - 1), wrong("10.0.0.1"), wrong("10.0.0.2")] == [0, 2, 0]
    now = 2.0
    assert [tries.wait("10.0.0.1"), wrong("10.0.0.1"), wrong("10.0.0.1", 100)] == [0, 2, 22]
    assert tries.wait("::ffff:10.0.0.1") == 22, "the same address"
    for place in range(attempts.FREE):
        tries.note_wrong(f"2001:db8::{place}")
    assert [tries.wait("2001:db8::ffff"), tries.wait("2001:db8:0:1::")] == [2, 0], "a network"
    for number in range(attempts.PEERS_MAX + 10):
        tries.note_wrong(f"10.1.{number // 256}.{number % 256}")
    assert len(tries._peers) == attempts.PEERS_MAX


async def test_the_keys_that_are_known_are_bounded(
    api: Api, gate: Gate, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "KNOWN_MAX", 3)
    for _ in range(5):
        assert (await create(api, await make_key("default"))).status in (200, 201)
    assert len(gate._known) == 3


async def test_open_until_the_first_key_is_made(
    api: Api, keyring: Keyring, namespaces: Namespaces, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "WATCH", 0.05)
    gate = api.app.state.gate = Gate(keyring, namespaces.open, unguarded=True)
    watching = asyncio.create_task(gate.run())
    try:
        assert (await create(api, {})).status == 201
        # Who shows a key means it: a wrong one is refused, and a new one is never taken for nobody.
        assert (await create(api, {"X-API-Key": WRONG})).status == 401
        assert (await create(api, {"Authorization": "Basic eA=="})).status == 200
        await make_key("acme")

        async def guarded() -> bool:
            return (await create(api, {})).status == 401

        await wait_until(guarded)
        (key,) = await keyring.all()
        await keyring.revoke(key.id)
        assert await keyring.any_made(), "with the last key revoked it does not open again"
    finally:
        watching.cancel()
        await gate.close()


async def test_without_the_store_nobody_new_is_let_in(
    api: Api, gate: Gate, make_key: MakeKey, raw: aioredis.Redis
) -> None:
    headers = await make_key("default")
    await raw.client_pause(3000, all=True)  # longer than the settings of these tests wait
    answer = await create(api, headers)
    assert (answer.status, answer.data["code"]) == (503, "unavailable")
    await raw.ping()


async def test_a_key_made_for_a_namespace_works_in_it(
    api: Api, gate: Gate, make_key: MakeKey, namespaces: Namespaces, datastore: Datastore
) -> None:
    headers = await make_key("acme")
    assert (await create(api, headers)).status == 201
    assert [item.sort_field for item in (await (await namespaces.open("acme")).query("jobs")).items] == ["a"]
    assert (await datastore.query("jobs")).items == []


async def test_api_keys_over_http(api: Api, gate: Gate, make_key: MakeKey, keyring: Keyring) -> None:
    admin = await make_key("acme", name="admin")
    made = await api("POST", "/v1/api-keys", {"name": "ci", "scopes": ["work"], "patterns": ["j*"]}, headers=admin)
    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    api_key, key_id = made.data["apiKey"], made.data["id"]
    stored = await keyring.verify(api_key)
    assert stored is not None
    assert (stored.namespace, stored.grant) == ("acme", Grant(("work",), ("j*",)))
    listed = await api("GET", "/v1/api-keys", headers=admin)
    assert [row["name"] for row in listed.data["apiKeys"]] == ["admin", "ci"]
    assert "apiKey" not in listed.data["apiKeys"][1]
    rotated = await api("POST", f"/v1/api-keys/{key_id}/rotate", {"grace": 0}, headers=admin)
    assert rotated.data["id"] == key_id
    assert await keyring.verify(api_key) is None
    assert await keyring.verify(rotated.data["apiKey"]) is not None
    # Those of another namespace are as if they were not there.
    other = await make_key("globex")
    for method, path in (("DELETE", key_id), ("POST", f"{key_id}/rotate")):
        answer = await api(method, f"/v1/api-keys/{path}", {} if method == "POST" else None, headers=other)
        assert (answer.status, answer.data["code"]) == (404, "unknown_api_key")
    assert (await api("DELETE", f"/v1/api-keys/{key_id}", headers=admin)).status == 204
    assert (await api("DELETE", f"/v1/api-keys/{key_id}", headers=admin)).status == 404
    refused = await api("POST", "/v1/api-keys", {"scopes": ["all"], "lasts": "soon"}, headers=admin)
    assert [flaw["pointer"] for flaw in refused.data["errors"]] == ["/lasts"]


async def test_a_list_of_api_keys_costs_nothing_for_those_of_other_namespaces(
    api: Api, gate: Gate, make_key: MakeKey, raw: aioredis.Redis
) -> None:
    own, *_ = [await make_key("acme" if number < 2 else "globex", name=str(number)) for number in range(20)]
    assert (await api("GET", "/v1/api-keys", headers=own)).status == 200  # and the gate knows it
    await raw.config_resetstat()
    listed = await api("GET", "/v1/api-keys", headers=own)
    assert [row["name"] for row in listed.data["apiKeys"]] == ["0", "1"]
    assert (await raw.info("commandstats"))["cmdstat_hgetall"]["calls"] == 2


async def test_beyond_its_limit_a_namespace_is_told_what_to_do(
    api: Api, gate: Gate, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.keyring.NAMESPACE_KEYS_MAX", 3)
    own, other = await make_key("acme"), await make_key("globex")
    made = [await api("POST", "/v1/api-keys", {}, headers=own) for _ in range(3)]
    assert [answer.status for answer in made] == [201, 201, 422]
    (flaw,) = made[2].data["errors"]
    assert flaw["detail"] == "expected at most 3 API keys of a namespace: revoke those that nobody uses"
    assert (await api("POST", "/v1/api-keys", {}, headers=other)).status == 201
    assert (await api("DELETE", f"/v1/api-keys/{made[0].data['id']}", headers=own)).status == 204
    assert (await api("POST", "/v1/api-keys", {}, headers=own)).status == 201


async def test_no_key_is_made_that_has_ended_already(api: Api, gate: Gate, make_key: MakeKey, keyring: Keyring) -> None:
    admin = await make_key("default")
    (key,) = await keyring.all()
    for path in ("/v1/api-keys", f"/v1/api-keys/{key.id}/rotate"):
        refused = await api("POST", path, {"lasts": 0}, headers=admin)
        assert (refused.status, refused.data["errors"]) == (
            422,
            [{"pointer": "/lasts", "detail": "expected a duration above 0"}],
        )
    assert len(await keyring.all()) == 1
    assert await keyring.verify(admin["Authorization"].split()[1])


# Names of other hosts

REBOUND = {"Host": "attacker.example:8080", "Origin": "http://attacker.example:8080"}


@pytest_asyncio.fixture(loop_scope="session")
async def unguarded(datastore: Datastore, keyring: Keyring, namespaces: Namespaces) -> AsyncIterator[Api]:
    """A server that asks for no API key as yet, and is known as queue.example and [fd00::1] too."""
    gate = Gate(keyring, namespaces.open, unguarded=True)
    async with asking(create_app(datastore, gate, hosts=("queue.example", "[fd00::1]"))) as api:
        yield api
    await gate.close()


async def test_a_page_that_was_bound_to_loopback_may_nothing(unguarded: Api, keyring: Keyring) -> None:
    for method, path, body in (
        ("GET", "/v1/items/jobs", None),
        ("GET", "/metrics", None),
        ("PUT", "/v1/items/jobs/a", {}),
        ("POST", "/v1/api-keys", {"scopes": ["admin"]}),
    ):
        refused = await unguarded(method, path, body, headers=REBOUND)
        assert (refused.status, refused.data["code"]) == (403, "unknown_host")
        assert "HOOKLINE_HOSTS" in refused.data["detail"]
    # Nor by what is not taken for a key, or for a good one.
    for shown, status in (({"Authorization": "Basic eA=="}, 403), ({"X-API-Key": WRONG}, 401)):
        assert (await create(unguarded, REBOUND | shown)).status == status
    assert await keyring.all() == []
    assert (await unguarded("GET", "/livez", headers=REBOUND)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *dict.fromkeys(["localhost", "LocalHost:8080", "app.localhost:1", "127.0.0.1:8080", "127.8.9.1"], 201).items(),
        *dict.fromkeys(["[::1]", "[::1]:8080", "queue.example", "Queue.Example:8443", "[fd00::1]:80"], 201).items(),
        *dict.fromkeys(["notlocalhost", "localhost.example", "127.0.0.1.example", "127.attacker.example"], 403).items(),
        *dict.fromkeys(
            ["queueXexample", "a.queue.example", "10.0.0.1", "0.0.0.0:8080", "[::2]", "[::]", ""], 403
        ).items(),
    ],
)
async def test_a_server_that_asks_for_no_key_is_asked_by_its_own_name(unguarded: Api, host: str, status: int) -> None:
    for expected in (status, 200 if status == 201 else status):
        assert (await create(unguarded, {"Host": host})).status == expected


async def test_who_names_no_host_is_no_browser(unguarded: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", unguarded.port)
    writer.write(b"GET /v1/items/jobs HTTP/1.0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_the_names_that_are_remembered_are_bounded(unguarded: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "_HOSTS_MAX", 3)
    for number in range(5):
        assert (await create(unguarded, {"Host": f"{number}.localhost"})).status in (200, 201)
    assert len(unguarded.app.edge._good) == 3  # type: ignore[attr-defined]


async def test_who_shows_a_key_may_ask_by_any_name(unguarded: Api, make_key: MakeKey) -> None:
    headers = await make_key("default")
    assert (await create(unguarded, REBOUND | headers)).status == 201
    refused = await create(unguarded, REBOUND)
    assert (refused.status, refused.data["code"]) == (401, "missing_api_key")


async def test_an_api_key_that_is_not_good_ends_the_worker(api: Api, gate: Gate, make_key: MakeKey) -> None:
    url = f"http://127.0.0.1:{api.port}"
    other = (await make_key("default", scopes=["admin"], patterns=["others"]))["Authorization"].split()[1]
    for api_key, error in ((None, InvalidApiKey), ("hl_wrong", InvalidApiKey), (other, KeyNotAllowed)):
        async with Client(url, api_key=api_key) as client:
            worker = Worker(client, "jobs")
            worker.handles()(print)
            with pytest.raises(error):
                await asyncio.wait_for(worker.run(), 10)
