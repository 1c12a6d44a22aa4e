"""What a trigger may say of when it is called, how, and signed by which secret: to a real receiver."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import redis.asyncio as aioredis
from standardwebhooks import Webhook, WebhookVerificationError

from conftest import wait_until
from hookline import Datastore
from hookline.errors import Invalid
from hookline_server.event import endpoint_of
from hookline_server.loopguard import PAUSE
from jobs import outbox_length
from receiver import Receiver
from relays import create_job, relaying, start_job

pytestmark = pytest.mark.settings(
    call_timeout=5.0, tick=0.05, delivery_schedule=(0.05, 0.1), delivery_timeout=5.0, loop_limit=5
)

OLD, NEW = ("whsec_" + base64.b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))


async def make(datastore: Datastore, *triggers: dict[str, Any], **metadata: Any) -> None:
    await datastore.create("docs", "a", metadata=metadata, trigger_urls=[{"url": "http://h/", **it} for it in triggers])


async def test_status_events_fire_where_an_item_comes_into_the_status(datastore: Datastore) -> None:
    await make(datastore, {"events": ["status:done", "status:new"]}, status="new")
    assert await outbox_length(datastore) == 1, "by its creation"
    for status, fired in (("open", 1), ("done", 2), ("done", 2), ("open", 2), ("done", 3)):
        await datastore.update("docs", "a", metadata={"status": status, "n": fired})
        assert await outbox_length(datastore) == fired
    await datastore.delete("docs", "a")
    assert await outbox_length(datastore) == 3


async def test_status_events_of_the_engines_own_verbs(datastore: Datastore) -> None:
    await datastore.configure("jobs", trigger_urls=[{"url": "http://h/", "events": ["status:completed"]}])
    await datastore.create("jobs", "a", metadata={"status": "not_started"})
    (item,) = (await datastore.claim("jobs", worker_id="w")).items
    assert await outbox_length(datastore) == 0
    await datastore.settle([datastore.calls.complete("jobs", "a", item.token or "")])
    assert await outbox_length(datastore) == 1


async def test_filters_are_asked_of_the_item_as_it_is_after_the_change(datastore: Datastore) -> None:
    where = {"size": {"gt": 10}, "kind": {"in": ["a", "b"]}, "status": "open"}
    await make(
        datastore, {"events": ["created", "updated", "deleted"], "where": where}, size=1, kind="a", status="open"
    )
    assert await outbox_length(datastore) == 0
    for change, fired in (({"size": 11}, 1), ({"kind": "c"}, 1), ({"kind": "b"}, 2), ({"status": "shut"}, 2)):
        await datastore.update("docs", "a", metadata=change)
        assert await outbox_length(datastore) == fired
    await datastore.delete("docs", "a")
    assert await outbox_length(datastore) == 2
    item = await _again(datastore, where)
    assert item["triggerUrls"][0]["where"] == where
    await datastore.delete("docs", "b")
    assert await outbox_length(datastore) == 3


async def _again(datastore: Datastore, where: Any) -> dict[str, Any]:
    triggers = [{"url": "http://h/", "events": ["deleted"], "where": where, "retry": ["5s", 90]}]
    metadata = {"size": 99, "kind": "b", "status": "open"}
    await datastore.create("docs", "b", metadata=metadata, trigger_urls=triggers)
    shown = (await datastore.get("docs", "b")).to_dict()
    assert shown["triggerUrls"][0]["retry"] == ["5s", "90s"]
    return shown


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        ({"events": ["status:"]}, "/events"),
        ({"events": ["status:a\0"]}, "/events"),
        ({"events": ["state:a"]}, "/events"),
        ({"where": {"size": {"near": 1}}}, "/where/size"),
        ({"where": []}, "/where"),
        ({"retry": ["soon"]}, "/retry"),
        ({"retry": "5s"}, "/retry"),
        ({"retry": [1] * 33}, "/retry"),
        ({"format": "xml"}, "/format"),
        ({"ordered": 1}, "/ordered"),
        ({"secret": "whsec_c2hvcnQ="}, "/secret"),
        ({"secret": [NEW, OLD, NEW]}, "/secret"),
        ({"secret": []}, "/secret"),
        ({"secret": OLD[6:]}, "/secret"),
        ({"colour": 1}, "/colour"),
    ],
)
async def test_bad_options_are_told(datastore: Datastore, bad: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as told:
        await make(datastore, bad)
    assert [flaw.pointer for flaw in told.value.flaws] == [f"/triggerUrls/0{pointer}"]
    assert OLD[6:] not in str(told.value)


async def test_a_retry_schedule_of_its_own(datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [500] * 10
    async with relaying(datastore):
        await start_job(datastore, receiver.url, retry=[])
        lane = f"hookline.deliveries.{endpoint_of(receiver.url)}"

        async def dead(count: int) -> list[Any]:
            found = (await datastore.query(lane, where={"status": "failed"})).items
            return found if len(found) == count else []

        (item,) = await wait_until(lambda: dead(1))
        assert (item.metadata["attempts"], item.metadata["max_attempts"]) == (1, 1)
        await start_job(datastore, receiver.url, "b", retry=["10ms"] * 4)
        found = await wait_until(lambda: dead(2))
        assert sorted(item.metadata["attempts"] for item in found) == [1, 5]


async def test_cloud_events(datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [500]
    async with relaying(datastore):
        await start_job(datastore, receiver.url, "a/b c", format="cloudevents")
        first, again = await receiver.wait_for(2)
    assert first.body == again.body
    event = first.data
    assert first.headers["content-type"] == "application/cloudevents+json"
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "subject", "datacontenttype")} == {
        "specversion": "1.0",
        "id": first.headers["webhook-id"],
        "source": "/hookline/default/jobs",
        "type": "hookline.item.updated",
        "subject": "a/b c",
        "datacontenttype": "application/json",
    }
    assert event["time"] == event["data"]["occurredAt"]
    assert event["data"]["newDataset"]["metadata"]["status"] == "started"
    assert event["data"]["token"]


async def test_a_trigger_signs_by_its_own_secrets_also_later(datastore: Datastore, receiver: Receiver) -> None:
    receiver.statuses = [500]
    async with relaying(datastore):
        await start_job(datastore, receiver.url, secret=OLD)
        for post in await receiver.wait_for(2):
            assert Webhook(OLD).verify(post.body, post.headers)
            with pytest.raises(WebhookVerificationError):
                Webhook(NEW).verify(post.body, post.headers)
        shown = (await datastore.get("jobs", "a")).to_dict()["triggerUrls"]
        assert shown == [{"url": receiver.url, "events": ["updated"], "hasApiKey": True, "hasSecret": True}]
        # What was read can be written: the secrets that are not shown stay.
        await datastore.update("jobs", "a", trigger_urls=shown, triggers=False)
        await _touch(datastore, receiver, 3, {OLD: True})
        await datastore.update("jobs", "a", trigger_urls=[{"url": receiver.url, "secret": [NEW, OLD]}], triggers=False)
        await _touch(datastore, receiver, 4, {OLD: True, NEW: True})
        await datastore.update("jobs", "a", trigger_urls=[{"url": receiver.url, "secret": NEW}], triggers=False)
        await _touch(datastore, receiver, 5, {OLD: False, NEW: True})
        await datastore.update("jobs", "a", trigger_urls=[{"url": receiver.url, "secret": ""}], triggers=False)
        await _touch(datastore, receiver, 6, {OLD: False, NEW: False})
        assert "hasSecret" not in (await datastore.get("jobs", "a")).to_dict()["triggerUrls"][0]


async def _touch(datastore: Datastore, receiver: Receiver, count: int, valid: dict[str, bool]) -> None:
    await datastore.update("jobs", "a", metadata={"n": count})
    post = (await receiver.wait_for(count))[-1]
    for secret, wanted in valid.items():
        try:
            Webhook(secret).verify(post.body, post.headers)
        except WebhookVerificationError:
            assert not wanted
        else:
            assert wanted


async def test_secrets_are_nowhere_in_the_store(datastore: Datastore, raw: aioredis.Redis) -> None:
    await make(datastore, {"secret": [NEW, OLD]})
    await datastore.update("docs", "a", metadata={"x": 1})
    assert await outbox_length(datastore) == 1
    dumped = [await raw.dump(name) or b"" for name in await raw.keys("*")]
    secrets = [secret[6:].encode() for secret in (OLD, NEW)]
    secrets += [base64.b64decode(secret) for secret in secrets]
    assert not any(secret in dump for secret in secrets for dump in dumped)


async def test_a_loop_is_slowed_and_told_of_and_loses_nothing(
    datastore: Datastore, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with relaying(datastore):
        await create_job(datastore, receiver.url)
        for number in range(8):
            await datastore.update("jobs", "a", metadata={"n": number})
        await start_job(datastore, receiver.url, "other")
        await receiver.wait_for(6)
        lane = f"hookline.deliveries.{endpoint_of(receiver.url)}"

        async def kept() -> list[Any]:
            found = (await datastore.query(lane)).items
            return found if len(found) == 3 else []

        for item in await wait_until(kept):
            assert item.status == "scheduled"
            assert "loop" in item.metadata["last_error"]
    assert [text for text in caplog.messages if "loop" in text] == [
        f"item jobs/a calls {receiver.url.removesuffix('/run')} again and again, as in a loop: its webhooks are slowed"
    ]
    assert PAUSE > 1
