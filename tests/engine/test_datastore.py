"""The engine's verbs over a real store."""

from __future__ import annotations

from hookline import Datastore


async def test_create_and_get(datastore: Datastore) -> None:
    created = await datastore.create("jobs", "a", content={"x": [1, 2.0, {}, []]}, metadata={"type": "report"})
    assert created.item is not None
    assert await datastore.get("jobs", "a") == created.item
