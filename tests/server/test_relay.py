"""The relay over a real store and a real receiver."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis
from standardwebhooks import Webhook

from conftest import wait_until
from hookline import Datastore, EmbeddedStore, Item, SecretBox, Settings
from hookline.errors import Unavailable
from hookline.outcome import Claimed
from hookline_server.egress import Answer
from hookline_server.endpoint import DELIVERIES, ENDPOINTS, Endpoints
from hookline_server.event import Delivery, Target, endpoint_of
from hookline_server.signature import format_secret
from jobs import is_drained, outbox_length
from proxy import proxied
from receiver import Receiver, receiving
from relays import create_job, relaying, start_job

pytestmark = pytest.mark.settings(
    call_timeout=5.0, tick=0.05, delivery_schedule=(0.05, 0.1), delivery_timeout=5.0, lane_concurrency=4
)


async def test_webhooks_are_of_their_namespaces_share(datastore: Datastore, receiver: Receiver) -> None:
    async with relaying(datastore, connections=1) as relay:
        shares = relay._sender._egress._shares
        await shares.take("default")
        await start_job(datastore, receiver.url)
        await wait_until(lambda: list(shares._queues) == ["default"])
        shares.give_back("default")
        await receiver.wait_for(1)


async def test_a_change_is_posted_signed_and_leaves_the_outbox(datastore: Datastore, receiver: Receiver) -> None:
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        (post,) = await receiver.wait_for(1)
        assert post.headers["x-api-key"] == "api-key"
        assert post.headers["content-type"] == "application/json"
        assert post.data["event"] == "updated"
        assert post.data["dataChanged"]["metadata"]["status"] == "started"
        assert post.data["dataChanged"]["metadata"]["worker_id"] == "w"
        assert post.data["previous"]["metadata"]["status"] == "not_started"
        assert post.data["previous"]["metadata"]["worker_id"] is None
        dataset = post.data["newDataset"]
        assert (dataset["key"], dataset["sortField"], dataset["content"]) == ("jobs", "a", {"n": 1})
        assert dataset["metadata"]["type"] == "r"
        assert dataset["metadata"]["version"] == post.data["version"] == 2
        secret = format_secret(datastore.secrets.derive("webhook-signing:default"))
        assert Webhook(secret).verify(post.body, post.headers)
        await wait_until(lambda: is_drained(datastore))
        token = post.data["token"]
        (outcome,) = await datastore.settle([datastore.calls.complete("jobs", "a", token)])
        assert outcome.ok
    assert len(receiver.posts) == 1


async def test_a_keys_triggers_are_called_for_its_items(datastore: Datastore, receiver: Receiver) -> None:
    """Also after a retry: their API key is sealed for the key, not for the item."""
    receiver.statuses = [500]
    own = f"{receiver.url}?own"
    await datastore.configure("jobs", trigger_urls={receiver.url: "of-the-key"})
    async with relaying(datastore):
        await create_job(datastore, own)
        (_, post) = await receiver.wait_for(2)
        assert (post.data["event"], post.headers["x-api-key"]) == ("created", "of-the-key")
        (item,) = (await datastore.claim("jobs", worker_id="w")).items
        post = (await receiver.wait_for(3))[2]
        assert (post.data["token"], post.headers["x-api-key"]) == (item.token, "of-the-key")
        await datastore.settle([datastore.calls.complete("jobs", "a", item.token or "", triggers="off")])
        await datastore.update("jobs", "a", metadata={"x": 1}, triggers=False)
        await datastore.update("jobs", "a", metadata={"x": 2})
        both = (await receiver.wait_for(5))[3:]
        assert {post.headers["x-api-key"] for post in both} == {"api-key", "of-the-key"}
        await datastore.delete("jobs", "a")
        post = (await receiver.wait_for(6))[5]
        assert (post.data["event"], post.headers["x-api-key"]) == ("deleted", "of-the-key")
        await wait_until(lambda: is_drained(datastore))
    assert len(receiver.posts) == 6


async def test_the_job_of_a_worker_that_died_too_often_is_told(datastore: Datastore, receiver: Receiver) -> None:
    await datastore.configure("jobs", trigger_urls=[{"url": receiver.url, "events": ["status:failed"]}])
    lost = {"status": "started", "worker_id": "w", "locked_until": "2024-03-15T10:10:00Z", "max_attempts": 1}
    await datastore.create("jobs", "a", content={"n": 1}, metadata=lost)
    async with relaying(datastore):
        await datastore.sweep()
        (post,) = await receiver.wait_for(1)
    assert (post.data["event"], post.data["newDataset"]["content"]) == ("updated", {"n": 1})
    changed = {"status": "failed", "last_error": "lock expired", "locked_until": None, "crashed_attempts": 1}
    assert post.data["dataChanged"]["metadata"] == changed


async def test_an_url_of_both_is_called_once(datastore: Datastore, receiver: Receiver) -> None:
    await datastore.configure("jobs", trigger_urls=[{"url": receiver.url, "events": ["updated"]}])
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await datastore.configure("jobs", trigger_urls=None)
        await datastore.update("jobs", "a", metadata={"status": "completed"})
        posts = await receiver.wait_for(2)
        assert [post.headers["x-api-key"] for post in posts] == ["api-key"] * 2


async def test_create_and_triggers_off_fire_nothing(datastore: Datastore, receiver: Receiver) -> None:
    await create_job(datastore, receiver.url)
    await datastore.update("jobs", "a", metadata={"status": "completed"}, triggers=False)
    assert await outbox_length(datastore) == 0


async def test_a_failed_delivery_is_retried_with_the_same_id_and_body(datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [500, 503]
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        posts = await receiver.wait_for(3)
        assert len({post.headers["webhook-id"] for post in posts}) == 1
        assert len({post.body for post in posts}) == 1
        assert all(post.headers["x-api-key"] == "api-key" for post in posts)
        lane = Target(receiver.url, b"").lane
        done = await wait_until(lambda: _ended(datastore, lane))
    assert [attempt["status"] for attempt in done.metadata["attempt_log"]] == [500, 503, 204]
    assert "payload" not in done.content
    assert not done.sealed_triggers


async def _ended(datastore: Datastore, lane: str) -> Item | None:
    items = (await datastore.query(lane)).items
    return items[0] if items and items[0].status == "completed" else None


async def test_out_of_attempts_it_is_a_dead_letter_without_secrets(datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [500] * 3
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(3)
        lane = Target(receiver.url, b"").lane
        dead = await wait_until(lambda: _failed(datastore, lane))
    assert dead.metadata["last_error"] == "HTTP 500"
    assert dead.metadata["attempts"] == 3
    assert dead.sort_field == receiver.posts[0].headers["webhook-id"]
    shown = repr(dead.to_dict())
    assert "api-key" not in shown
    assert receiver.posts[0].data["token"] not in shown
    assert await outbox_length(datastore) == 0


async def _failed(datastore: Datastore, lane: str) -> object:
    items = (await datastore.query(lane, where={"status": "failed"})).items
    return items[0] if items else None


async def test_an_endpoint_that_begins_to_fail_is_told_of_once_and_without_its_path(
    datastore: Datastore, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="hookline_server.health")
    receiver.statuses = [500] * 4
    async with relaying(datastore):
        for name in ("a", "b"):
            await start_job(datastore, f"{receiver.url}?key=in-the-query", name)
        await receiver.wait_for(6)
        again = await wait_until(lambda: [text for text in caplog.messages if "are taken again" in text])
    (told,) = [text for text in caplog.messages if "fail" in text]
    assert len(again) == 1
    assert f"webhooks to {receiver.url.removesuffix('/run')} fail (HTTP 500)" in told
    assert "in-the-query" not in caplog.text


async def test_gone_is_final(datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [410]
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        dead = await wait_until(lambda: _failed(datastore, Target(receiver.url, b"").lane))
    assert len(receiver.posts) == 1
    assert dead.metadata["last_error"] == "HTTP 410"


async def test_a_slow_endpoint_does_not_hold_up_another(datastore: Datastore, receiver: Receiver) -> None:
    async with receiving() as slow, relaying(datastore):
        slow.hang = asyncio.Event()
        for number in range(12):
            await start_job(datastore, slow.url, f"slow-{number}")
        await slow.wait_for(1)
        await start_job(datastore, receiver.url)
        await receiver.wait_for(1)
        slow.hang.set()
        await wait_until(lambda: len({post.headers["webhook-id"] for post in slow.posts}) == 12)


async def test_a_host_that_hangs_at_many_urls_does_not_hold_up_another(
    datastore: Datastore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline_server.slots.PATIENCE", 0.05)
    monkeypatch.setattr("hookline_server.slots.LATE_MAX", 16)
    monkeypatch.setattr("hookline_server.slots.LATE_OF_ORIGIN", 4)
    datastore.settings = replace(datastore.settings, relay_concurrency=4, delivery_timeout=60.0)
    async with receiving() as slow:
        slow.hang = asyncio.Event()
        for number in range(60):
            await create_job(datastore, f"{slow.url}?{number}", f"slow-{number}", events=["created"])
        async with relaying(datastore):
            for name in ("a", "b"):
                await create_job(datastore, receiver.url, name, events=["created"])
                await receiver.wait_for(len(receiver.posts) + 1)
            receiver.statuses = [500]
            await create_job(datastore, receiver.url, "c", events=["created"])
            await receiver.wait_for(4)
            assert len(slow.posts) < 24
            slow.hang.set()
            await slow.wait_for(60)
            await wait_until(lambda: len({post.headers["webhook-id"] for post in slow.posts}) == 60)


async def test_a_relay_that_is_gone_is_taken_over_by_the_next_of_its_name(
    datastore: Datastore, receiver: Receiver
) -> None:
    receiver.hang = asyncio.Event()
    async with relaying(datastore, grace=0):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(1)
    assert await outbox_length(datastore) == 1, "it was cut off between POST and acknowledge"
    receiver.hang.set()
    async with relaying(datastore):
        first, second = await receiver.wait_for(2)
        await wait_until(lambda: is_drained(datastore))
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


async def test_what_it_had_taken_is_not_forgotten_while_there_is_no_slot(
    store: EmbeddedStore,
    raw: aioredis.Redis,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hookline_server.relay.POLL", 0.02)
    apart = replace(settings, partitions=2, delivery_timeout=60.0)
    async with Datastore(store.url, apart, SecretBox(bytes(32))) as datastore:
        receiver.hang = asyncio.Event()
        async with relaying(datastore, grace=0):
            for number in range(8):
                await create_job(datastore, receiver.url, f"{number}", events=["created"])
            await wait_until(lambda: _pending(raw, 8))
        seen = len(receiver.posts)
        monkeypatch.setattr("hookline_server.slots.PATIENCE", 60.0)
        datastore.settings = replace(apart, relay_concurrency=1)
        async with relaying(datastore):
            await receiver.wait_for(seen + 1)
            await asyncio.sleep(0.5)  # the other partition asks for a slot many times
            receiver.hang.set()
            await wait_until(lambda: _pending(raw, 0))


async def _pending(raw: aioredis.Redis, count: int) -> bool:
    outboxes = [name async for name in raw.scan_iter("*:outbox")]
    groups = [group for name in outboxes for group in await raw.xinfo_groups(name)]
    return sum(int(group["pending"]) for group in groups) == count


async def test_where_one_webhook_of_an_event_cannot_be_kept_a_stop_still_waits_for_the_others(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.hang = asyncio.Event()
    async with receiving() as bad:
        bad.statuses = [500]
        triggers = [{"url": url, "events": ["created"]} for url in (bad.url, receiver.url)]
        await raw.set(f"hl:{{default/0}}:k:{Target(bad.url, b'').lane}", b"?")
        async with relaying(datastore):
            await datastore.create("jobs", "a", trigger_urls=triggers)
            await bad.wait_for(1)
            await receiver.wait_for(1)
            asyncio.get_running_loop().call_later(0.5, receiver.hang.set)
        assert receiver.hang.is_set()
        assert "has the wrong type in the store" in caplog.text


async def test_what_cannot_be_acknowledged_yet_is_not_posted_again(
    store: EmbeddedStore,
    settings: Settings,
    raw: aioredis.Redis,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def taken_again() -> bool:
        (held,) = await raw.xpending_range("hl:{default/0}:outbox", "relay", "-", "+", 10)
        return int(held["times_delivered"]) > 2

    quick = replace(settings, call_timeout=0.5)
    async with proxied(store.url) as proxy, Datastore(proxy.url, quick, SecretBox(bytes(32))) as far:
        await create_job(far, receiver.url, events=["created"])
        proxy.lost = {b"relay_done"}
        async with relaying(far) as relay:
            await wait_until(lambda: "the acknowledging of events failed" in caplog.text)
            relay._idle_ms = 100
            await wait_until(taken_again)
            proxy.lost = set()
            await wait_until(lambda: is_drained(far))
        assert len(receiver.posts) == 1


async def test_a_stop_does_not_wait_until_it_can_acknowledge(
    store: EmbeddedStore, settings: Settings, raw: aioredis.Redis, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    quick = replace(settings, call_timeout=0.5)
    async with proxied(store.url) as proxy, Datastore(proxy.url, quick, SecretBox(bytes(32))) as far:
        await create_job(far, receiver.url, events=["created"])
        proxy.lost = {b"relay_done"}
        async with relaying(far, grace=60):
            await wait_until(lambda: "the acknowledging of events failed" in caplog.text)
            begun = time.monotonic()
        assert time.monotonic() - begun < 15
        assert await raw.xlen("hl:{default/0}:outbox") == 1


async def test_an_endpoint_that_cannot_be_read_holds_up_no_other(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    other = f"{receiver.url}?other"
    for name, url in (("a", other), ("b", receiver.url)):
        await create_job(datastore, url, name, events=["created"])
    await raw.set(f"hl:{{default/0}}:i:{ENDPOINTS}:{endpoint_of(other)}", b"?")
    async with relaying(datastore):
        (post,) = await receiver.wait_for(1)
        assert post.data["newDataset"]["sortField"] == "b"
    assert await outbox_length(datastore) == 1


async def test_a_lost_consumer_group_begins_again(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(1)
        await wait_until(lambda: is_drained(datastore))
        await raw.delete("hl:{default/0}:outbox")
        await start_job(datastore, receiver.url, "b")
        await receiver.wait_for(2)


async def test_an_event_that_cannot_be_read_holds_up_nobody(
    datastore: Datastore, raw: aioredis.Redis, receiver: Receiver
) -> None:
    await raw.xadd("hl:{default/0}:outbox", {"event": "updated"})
    await raw.xgroup_create("hl:{default/0}:outbox", "relay", id="0")
    await raw.xreadgroup("relay", "relay", {"hl:{default/0}:outbox": ">"})
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(1)
    assert await outbox_length(datastore) == 1


async def test_kept_deliveries_that_cannot_be_read_take_no_place(datastore: Datastore, receiver: Receiver) -> None:
    """As many as may be attempted at once, and they come up again and again."""
    lane = Target(receiver.url, b"").lane
    for number in range(datastore.settings.lane_concurrency):
        await datastore.create(lane, f"{number}", content="spoilt", metadata={"status": "not_started"}, reserved=True)

    async def all_claimed() -> bool:
        return len((await datastore.query(lane, where={"status": "started"})).items) == 4

    async with relaying(datastore):
        await wait_until(all_claimed)
        receiver.statuses = [500]
        await start_job(datastore, receiver.url)
        await receiver.wait_for(2)


async def test_new_deliveries_and_kept_ones_share_the_bound_of_their_endpoint(
    datastore: Datastore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, gate = Target(receiver.url, b"").lane, asyncio.Event()

    async def claim(*args: Any) -> Claimed:
        await gate.wait()
        return await real(*args)

    async def is_seen() -> bool:
        return len(receiver.posts) == 3 or len((await datastore.query(lane)).items) == 3

    receiver.statuses = [500, 500]
    async with relaying(datastore) as relay:
        real = relay._deliveries.claim
        monkeypatch.setattr(relay._deliveries, "claim", claim)
        for name in ("a", "b"):
            await create_job(datastore, receiver.url, name, events=["created"])
        await receiver.wait_for(2)
        place = relay.lanes.get(endpoint_of(receiver.url))
        await wait_until(lambda: Endpoints(datastore).find([place.endpoint.id]))
        await Endpoints(datastore).configure(place.endpoint.id, {"concurrency": 2})
        await wait_until(lambda: place.endpoint.concurrency == 2 and place.draining and place.known_at > 0)
        receiver.hang = asyncio.Event()
        await create_job(datastore, receiver.url, "c", events=["created"])
        await wait_until(is_seen)
        gate.set()
        await receiver.wait_for(4)
        assert place.busy <= 2
        receiver.hang.set()
        await receiver.wait_for(5)


async def test_lanes_are_named_by_url_alone() -> None:
    assert Target("https://a.example/x", b"1").lane == Target("https://a.example/x", b"2").lane
    assert Target("https://a.example/x", b"").lane != Target("https://a.example/y", b"").lane
    assert Target("https://a.example/x", b"").lane.startswith(DELIVERIES)


async def test_stopped_it_waits_for_what_is_in_flight(datastore: Datastore, receiver: Receiver) -> None:
    receiver.hang = asyncio.Event()
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(1)
        asyncio.get_running_loop().call_later(0.1, receiver.hang.set)
    assert await outbox_length(datastore) == 0


async def test_a_receiver_that_echoes_the_token_does_not_get_it_into_the_delivery(
    datastore: Datastore, receiver: Receiver
) -> None:
    receiver.statuses, receiver.echo = [500] * 3, True
    async with relaying(datastore):
        await start_job(datastore, receiver.url)
        await receiver.wait_for(3)
        dead = await wait_until(lambda: _failed(datastore, Target(receiver.url, b"").lane))
    token = receiver.posts[0].data["token"]
    assert "***" in dead.metadata["last_error"]
    assert token not in repr(dead.to_dict())


async def test_a_probe_that_could_not_be_sent_leaves_room_for_the_next(
    datastore: Datastore, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Delivery] = []

    async def post(delivery: Delivery) -> Answer:
        tried.append(delivery)
        raise Unavailable("which secrets sign is not known")

    async with relaying(datastore) as relay:
        lane = relay.lanes.get(endpoint_of(receiver.url))
        lane.breaker.opened = 1
        assert lane.breaker.state(time.time()) == "half-open"
        monkeypatch.setattr(relay._sender, "post", post)
        await start_job(datastore, receiver.url)
        await wait_until(lambda: tried and lane.room(time.time()) == 1 and not lane.busy)
