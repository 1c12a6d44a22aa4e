"""Who gives up waiting for the answer to a claim under an idempotency key finds it by the repeat."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from conftest import end, wait_until
from hookline import Datastore
from hookline.codec import unpack_answer
from hookline.once import _asked
from jobs import WAITING


@pytest.mark.parametrize("kept", [True, False], ids=["key", "no key"])
async def test_a_claim_that_was_given_up(raw: aioredis.Redis, datastore: Datastore, kept: bool) -> None:
    """Without a key, what was taken for it goes back in line."""
    await datastore.claim("jobs", worker_id="w", wait=0.01)  # from here on its wake messages are listened to
    await datastore.create("jobs", "a", metadata=WAITING)
    view = datastore.once("k") if kept else datastore
    await raw.client_pause(1000, all=False)
    claiming = asyncio.create_task(view.claim("jobs", worker_id="w", wait=9))
    await wait_until(lambda: datastore._batcher._lanes["claim", 0].calls > 0)
    await end(claiming)
    assert (await datastore.get("jobs", "a")).status == ("started" if kept else "not_started")
    again = await (datastore.once("k") if kept else datastore).claim("jobs", worker_id="w")
    assert again.replayed is kept
    (item,) = again.items
    (outcome,) = await datastore.settle([datastore.calls.complete("jobs", "a", item.token or "")])
    assert outcome.ok


def test_what_is_digested_keeps_its_form(datastore: Datastore) -> None:
    """A repeat that comes to another release than the first would be refused otherwise."""
    call = datastore.calls.create("jobs", "a", content=1, metadata=WAITING | {"priority": 7, "x": 2})
    assert list(unpack_answer(_asked(call)).items()) == [
        (b"triggers", b"on"),
        (b"line", b"7"),
        (b"new", [b"a", b"0", b"c", b"\x01", b"m:x", b"\x02", b"p", b"7", b"s", b"not_started"]),
        (b"key", b"jobs"),
        (b"sort", b"a"),
    ]
