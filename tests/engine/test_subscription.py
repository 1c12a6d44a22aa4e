"""Subscriptions: all that a process follows comes over one connection to each node."""

from __future__ import annotations

import asyncio
import contextlib
import operator
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio as aioredis

from conftest import beside, end, wait_until
from hookline import EmbeddedStore
from hookline.nodes import Nodes
from hookline.settings import Settings
from hookline.subscription import Subscriptions

EAGER: Any = getattr(asyncio, "eager_task_factory", None)


@contextlib.asynccontextmanager
async def following(subscriptions: Subscriptions, *names: str) -> AsyncIterator[list[str | None]]:
    """What is heard of channels, from when their messages arrive."""
    heard: list[str | None] = []
    async with beside(subscriptions.follow([(0, name) for name in names], lambda topic, _: heard.append(topic))):
        await wait_until(lambda: heard)
        yield heard


@pytest.fixture
def subscriptions(store: EmbeddedStore, settings: Settings) -> Subscriptions:
    return Nodes(store.url, settings).subscriptions


async def say(raw: aioredis.Redis, channel: str, text: str) -> None:
    await raw.execute_command("SPUBLISH", channel, text)  # type: ignore[no-untyped-call]


async def channels(raw: aioredis.Redis) -> list[int]:
    """How many channels each connection has subscribed to."""
    return sorted(int(each["ssub"]) for each in await raw.client_list("pubsub"))


async def test_many_followers_share_one_connection(raw: aioredis.Redis, subscriptions: Subscriptions) -> None:
    async def are(*counts: int) -> bool:
        return await channels(raw) == [*counts]

    async with following(subscriptions, "first", "second") as both:
        assert both == [None], "once for all channels of a node"
        async with contextlib.AsyncExitStack() as stack:
            tenants = [await stack.enter_async_context(following(subscriptions, f"t{n}")) for n in range(50)]
            assert await channels(raw) == [52]
            for name in ("second", "t7", "first"):
                await say(raw, name, f"of {name}")
            await wait_until(lambda: both == [None, "of second", "of first"])
            assert tenants[7] == [None, "of t7"]
            assert all(each == [None] for place, each in enumerate(tenants) if place != 7)
        await wait_until(lambda: are(2))
        await say(raw, "first", "a\0b")
        await wait_until(lambda: both[-2:] == ["a", "b"])
    await wait_until(lambda: are())
    async with following(subscriptions, "first"):
        assert await channels(raw) == [1], "begun anew after the last one had gone"


async def test_two_may_follow_one_channel(raw: aioredis.Redis, subscriptions: Subscriptions) -> None:
    async with following(subscriptions, "it") as first:
        async with following(subscriptions, "it") as second:
            assert await channels(raw) == [1]
            await say(raw, "it", "to both")
            await wait_until(lambda: first == second == [None, "to both"])
        await say(raw, "it", "to one")
        await wait_until(lambda: first[-1] == "to one")
        assert second == [None, "to both"]


async def test_who_leaves_and_comes_back_at_once_hears(raw: aioredis.Redis, subscriptions: Subscriptions) -> None:
    async with following(subscriptions, "other"):
        for number in range(20):
            async with following(subscriptions, "it") as heard:
                await say(raw, "it", str(number))
                await wait_until(partial(operator.eq, heard, [None, str(number)]))


async def test_who_follows_what_was_left_unanswered_is_told_once_it_is_followed_anew(
    raw: aioredis.Redis, subscriptions: Subscriptions
) -> None:
    """Told at the first answer, it would not look for what the end of that subscription has let pass by."""
    unanswered: list[int] = []
    async with following(subscriptions, "other"):
        (reader,) = subscriptions._readers.values()
        left = asyncio.create_task(subscriptions.follow([(0, "it")], lambda *_: None))
        await asyncio.sleep(0)
        left.cancel()
        again = asyncio.create_task(subscriptions.follow([(0, "it")], lambda *_: unanswered.append(len(reader._asked))))
        await wait_until(lambda: unanswered)
        again.cancel()
        await asyncio.gather(left, again, return_exceptions=True)
    assert unanswered == [0]


async def test_a_lost_connection_is_made_anew_for_all(
    raw: aioredis.Redis, subscriptions: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.02)
    async with following(subscriptions, "a", "b") as one, following(subscriptions, "c") as other:
        await raw.client_kill_filter(_type="pubsub")
        await wait_until(lambda: one == other == [None, None])
        await say(raw, "b", "there")
        await wait_until(lambda: one[-1] == "there")
        assert await channels(raw) == [3]


@pytest.mark.skipif(EAGER is None, reason="tasks that begin at once come with Python 3.12")
async def test_a_store_that_comes_later_is_heard_where_tasks_begin_at_once(
    store: EmbeddedStore, raw: aioredis.Redis, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.subscription.RECONNECT", 0.02)
    loop, there = asyncio.get_running_loop(), tmp_path / "store"
    loop.set_task_factory(EAGER)
    try:
        loop.call_later(0.1, there.symlink_to, urlsplit(store.url).path)
        async with following(Nodes(f"unix://{there}", settings).subscriptions, "it") as heard:
            await say(raw, "it", "there")
            await wait_until(lambda: heard == [None, "there"])
    finally:
        loop.set_task_factory(None)


async def test_one_that_breaks_on_a_message_takes_nothing_from_others(
    raw: aioredis.Redis, subscriptions: Subscriptions, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(topic: str | None, channel: str) -> None:
        raise ZeroDivisionError(topic, channel)

    async with following(subscriptions, "it") as heard:
        broken = asyncio.create_task(subscriptions.follow([(0, "it")], breaks))
        await wait_until(lambda: "a message was not heard" in caplog.messages)
        await say(raw, "it", "goes on")
        await wait_until(lambda: heard == [None, "goes on"])
        await end(broken)
