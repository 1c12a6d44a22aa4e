"""Clients that go away, and requests that are cancelled: at whatever point, every effect is whole or is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import redis.asyncio as aioredis

from api import Api
from conftest import NOW_MS, Clock, wait_until
from hookline import Datastore
from hookline_server.app import create_app
from hookline_server.shares import Shares
from invariants import check_invariants
from jobs import WAITING
from rawhttp import dialled, request

HOUR = 3600.0
Facts = dict[str, tuple[Any, Any]]
"""What the items of a key are: status, and how often they were claimed."""


@dataclass(frozen=True)
class Ask:
    """A request on a key with ``waiting`` items in line and ``held`` ones, each named by its number.

    ``body`` makes what is sent of the key and the tokens of the held items.
    """

    name: str
    method: str
    path: str
    body: Callable[[str, list[str]], Any]
    waiting: int = 0
    held: int = 0


def _creates(key: str) -> list[dict[str, Any]]:
    return [{"key": key, "sortField": f"new {number}", "metadata": WAITING} for number in range(3)]


def _settlement(key: str, tokens: list[str]) -> dict[str, Any]:
    shown = [{"sortField": f"held {number}", "token": token} for number, token in enumerate(tokens)]
    return {"complete": shown[:1], "fail": shown[1:2], "release": shown[2:3], "extend": shown[3:]}


ASKS = [
    Ask("create", "POST", "/v1/items", lambda key, _: _creates(key)[0]),
    Ask("create many", "POST", "/v1/items", lambda key, _: {"items": _creates(key)}),
    Ask(
        *("batch", "POST", "/v1/items:batch"),
        lambda key, _: {
            "operations": [
                *({"op": "create", **new} for new in _creates(key)),
                {"op": "update", "key": key, "sortField": "waiting 0", "metadata": {"status": "cancelled"}},
                {"op": "update", "key": key, "sortField": "new 0", "metadata": {"status": "mine"}},
                {"op": "delete", "key": key, "sortField": "waiting 1"},
            ]
        },
        waiting=2,
    ),
    Ask("replace", "PUT", "/v1/items/{key}/waiting%200", lambda *_: {"metadata": {"status": "mine"}}, waiting=1),
    Ask("delete all", "POST", "/v1/items/{key}/delete", lambda *_: {"where": {}}, waiting=3),
    Ask("claim", "POST", "/v1/jobs/{key}/claim", lambda *_: {"workerId": "w", "limit": 2}, waiting=3),
    Ask("claim, waiting", "POST", "/v1/jobs/{key}/claim", lambda *_: {"workerId": "w", "wait": 5}, waiting=1),
    Ask("settle", "POST", "/v1/jobs/{key}/settle", _settlement, held=4),
    Ask(
        *("settle and claim", "POST", "/v1/jobs/{key}/settle"),
        lambda key, tokens: {**_settlement(key, tokens), "workerId": "w", "claim": {"limit": 2}},
        waiting=3,
        held=4,
    ),
]


class Cut:
    """Runs a coroutine as its task does, and has that task cancelled where it waits for the n-th time."""

    def __init__(self, work: Coroutine[Any, Any, None], place: int) -> None:
        self._work, self._place = work, place
        self.reached = False

    def __await__(self) -> Generator[Any, None, None]:
        steps, task, thrown = self._work.__await__(), asyncio.current_task(), None
        assert task
        for number in count():
            try:
                step = steps.throw(thrown) if thrown else next(steps)
            except StopIteration:
                return
            if number == self._place:
                self.reached = True
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                thrown = None
                yield step
            except BaseException as error:
                thrown = error

    async def run(self) -> None:
        """To the end, or until it is cancelled."""
        await self


async def served(app: Any, ask: Ask, path: str, content: bytes, place: int) -> bool:
    """Serve a request over bare ASGI, cancelled where it waits for the n-th time -> whether it got so far."""
    parts = [content[:9], content[9:]]

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        if not parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    scope: dict[str, Any] = {
        "type": "http",
        "method": ask.method,
        "path": path.replace("%20", " "),
        "raw_path": path.encode(),
    }
    scope |= {"query_string": b"", "root_path": "", "http_version": "1.1", "headers": [], "client": None}
    cut = Cut(app(scope, receive, send), place)
    await asyncio.gather(asyncio.create_task(cut.run()), return_exceptions=True)
    return cut.reached


async def facts(datastore: Datastore, key: str) -> Facts:
    page = await datastore.query(key, limit=100)
    return {item.sort_field: (item.metadata["status"], item.metadata.get("attempts")) for item in page.items}


async def prepare(datastore: Datastore, ask: Ask, key: str) -> list[str]:
    """The items that a request works on -> the tokens of the held ones."""
    for number in range(ask.held):
        await datastore.create(key, f"held {number}", metadata=WAITING)
    held = await datastore.claim(key, worker_id="w", limit=ask.held) if ask.held else None
    for number in range(ask.waiting):
        await datastore.create(key, f"waiting {number}", metadata=WAITING)
    return [item.token or "" for item in held.items] if held else []


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.name)
async def test_a_request_that_is_cancelled_anywhere_has_whole_effects(
    ask: Ask, datastore: Datastore, clock: Clock, raw: aioredis.Redis
) -> None:
    shares = Shares(1)
    app = create_app(datastore, requests=shares)
    clock.ms = NOW_MS

    async def run(key: str, place: int) -> tuple[bool, Facts, Facts]:
        tokens = await prepare(datastore, ask, key)
        before = await facts(datastore, key)
        content = json.dumps(ask.body(key, tokens)).encode()
        reached = await served(app, ask, ask.path.replace("{key}", key), content, place)
        assert not shares._held
        await datastore._batcher.close()
        return reached, before, await facts(datastore, key)

    _, _, whole = await run("whole", 1_000_000)
    untouched = partly = 0
    for place in count():
        key = f"jobs{place}"
        reached, before, after = await run(key, place)
        await check_invariants(raw)
        for name in {*before, *after, *whole}:
            assert after.get(name) in (before.get(name), whole.get(name)), (place, name)
        if not reached:
            assert after == whole
            break
        untouched += after == before
        partly += after != before
        # What was taken for a client that is gone comes back when its lock has passed.
        taken = {name for name, (status, _) in after.items() if status == "started"}
        clock.advance(HOUR)
        again = await datastore.claim(key, worker_id="other", limit=100)
        assert taken <= {item.sort_field for item in again.items}
    assert untouched
    assert partly


async def test_who_waits_for_a_claim_and_goes_claims_nothing_more(api: Api, datastore: Datastore) -> None:
    asked = request("POST", "/v1/jobs/jobs/claim", {"workerId": "gone", "wait": 20})
    for follower in (b"", request("GET", "/livez"), request("POST", "/v1/items", Content_Length="100") + b"{"):
        async with dialled(api.port) as line:
            await line.send(asked + follower)
            await wait_until(lambda: datastore.wakes.listeners() == 1)
        await wait_until(lambda: datastore.wakes.listeners() == 0)
        made = await datastore.create("jobs", metadata=WAITING)
        (item,) = (await datastore.claim("jobs", worker_id="w")).items
        assert (item.sort_field, item.metadata["attempts"]) == (made.sort_field, 1)


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.name)
async def test_a_client_that_goes_at_any_byte_leaves_whole_effects(
    ask: Ask, api: Api, datastore: Datastore, raw: aioredis.Redis
) -> None:
    async def run(key: str, part: float) -> tuple[Facts, Facts]:
        tokens = await prepare(datastore, ask, key)
        before = await facts(datastore, key)
        asked = request(ask.method, ask.path.replace("{key}", key), ask.body(key, tokens))
        async with dialled(api.port) as line:
            await line.send(asked[: int(len(asked) * part)])
            if part == 1:
                await asyncio.sleep(0.001)
        await wait_until(lambda: not any(wire._active for wire in api.limits._connections))  # type: ignore[attr-defined]
        await datastore._batcher.close()
        return before, await facts(datastore, key)

    tokens = await prepare(datastore, ask, "whole")
    await api(ask.method, ask.path.replace("{key}", "whole"), ask.body("whole", tokens))
    whole = await facts(datastore, "whole")
    for number, part in enumerate((0.1, 0.5, 0.9, 0.999, 1, 1, 1)):
        before, after = await run(f"jobs{number}", part)
        await check_invariants(raw)
        for name in {*before, *after, *whole}:
            assert after.get(name) in (before.get(name), whole.get(name)), (part, name)
        assert part == 1 or after == before
