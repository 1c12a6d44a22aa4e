"""A claim that began on an index which is gone when it goes on."""

from __future__ import annotations

from typing import Any

from hookline import Claimed, Datastore


async def test_a_claim_goes_on_in_line_when_its_index_is_gone(datastore: Datastore) -> None:
    await datastore.configure("jobs", indexes={"n": "number"})
    waiting = {"status": "not_started"}
    await datastore.run([datastore.calls.create("jobs", f"{n:04}", metadata={"n": 0}) for n in range(1200)])
    await datastore.run([datastore.calls.create("jobs", f"x{n:04}", metadata={**waiting, "n": 1}) for n in range(1300)])
    await datastore.create("jobs", "y", metadata={**waiting, "n": 0, "m": 1})
    await datastore.query("jobs", order="n", limit=1)
    options: dict[str, Any] = {"worker_id": "w", "where": {"n": 0, "m": 1}}
    first = await datastore._perform(datastore.calls.claim("jobs", **options))
    assert isinstance(first, Claimed)
    assert (first.more, first.after and first.after[0]) == (True, b"\0n")
    await datastore.configure("jobs", indexes=None)
    again = await datastore._perform(datastore.calls.claim("jobs", **options, after=first.after))
    assert isinstance(again, Claimed)
    assert again.more
    claimed = await datastore.claim("jobs", **options)
    assert [item.sort_field for item in claimed.items] == ["y"]
