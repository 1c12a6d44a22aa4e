"""Arguments that no verb takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hookline import Datastore, EmbeddedStore, SecretBox, Settings
from hookline.calls import CLAIM_MAX, QUERY_MAX
from hookline.errors import Invalid


@pytest.mark.parametrize("limit", [0, -1, CLAIM_MAX + 1, 1.0, True, None])
async def test_bad_limit_of_a_claim(datastore: Datastore, limit: Any) -> None:
    with pytest.raises(Invalid, match="/limit: expected a whole number from 1 to 500"):
        await datastore.claim("jobs", worker_id="w", limit=limit)


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ({"key": ""}, "/key"),
        ({"limit": 0}, "/limit"),
        ({"limit": QUERY_MAX + 1}, "/limit"),
        ({"limit": "5"}, "/limit"),
        ({"order": "created"}, "/order"),
        ({"order": "sortfield"}, "/order"),
        ({"order": 5}, "/order"),
        ({"where": []}, "/where"),
        ({"cursor": ""}, "/cursor"),
        ({"cursor": 5}, "/cursor"),
    ],
)
async def test_bad_queries(datastore: Datastore, query: dict[str, Any], at: str) -> None:
    with pytest.raises(Invalid) as invalid:
        await datastore.query(**{"key": "jobs", **query})
    assert [flaw.pointer for flaw in invalid.value.flaws] == [at]


@pytest.mark.parametrize("lock_for", [0, "0s"])
async def test_a_claim_holds_for_some_time(datastore: Datastore, lock_for: object) -> None:
    """Else one claim of many could be given an item twice."""
    with pytest.raises(Invalid, match="above 0"):
        await datastore.claim("jobs", worker_id="w", lock_for=lock_for)


async def test_a_datastore_that_is_not_open_says_so(store: EmbeddedStore, settings: Settings) -> None:
    datastore = Datastore(store.url, settings, SecretBox(bytes(32)))
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: datastore.create("jobs", "a"),
        lambda: datastore.get("jobs", "a"),
        lambda: datastore.query("jobs"),
        lambda: datastore.claim("jobs", worker_id="w"),
        lambda: datastore.configure("jobs", paused=True),
        datastore.sweep,
    ]
    for act in acts:
        with pytest.raises(AttributeError, match="the datastore is not open"):
            await act()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = datastore.nothing  # type: ignore[attr-defined]
    await datastore.close()
