"""The rate of requests that a caller may make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from api import Api, asking
from hookline import Datastore
from hookline_server import rate
from hookline_server.app import create_app
from hookline_server.gate import Gate
from hookline_server.problem import Problem
from hookline_server.rate import Rate, rate_of
from rawhttp import dialled, request
from server.conftest import MakeKey


class Time:
    """A clock that stands where it is put."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(limit: Rate, caller: str = "a") -> tuple[int, str]:
    """What a request is told: 200, or the seconds that it has to wait; and the state of its bucket."""
    try:
        return 200, limit.take(caller)[1][1].decode()
    except Problem as problem:
        return int(problem.headers["Retry-After"]), problem.headers["RateLimit"]


def test_a_bucket_empties_and_fills_evenly() -> None:
    clock = Time()
    limit = Rate(3, 60, clock)
    assert [told(limit) for _ in range(4)] == [
        (200, '"default";r=2;t=20'),
        (200, '"default";r=1;t=40'),
        (200, '"default";r=0;t=60'),
        (20, '"default";r=0;t=60'),  # it took nothing
    ]
    assert told(limit, "b") == (200, '"default";r=2;t=20')
    clock.now += 19.5
    assert told(limit)[0] == 1
    clock.now += 0.5
    assert [told(limit)[0] for _ in range(2)] == [200, 20]
    clock.now += 1000
    assert [told(limit)[0] for _ in range(4)] == [200, 200, 200, 20]


def test_callers_are_forgotten_from_the_least_recent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "CALLERS_MAX", 3)
    limit = Rate(1, 60, Time())
    assert [told(limit, name)[0] for name in "abc"] == [200, 200, 200]
    assert told(limit, "a")[0] == 60
    assert told(limit, "d")[0] == 200
    assert [told(limit, name)[0] for name in "ab"] == [60, 200]
    assert len(limit._full) == 3


@pytest_asyncio.fixture(loop_scope="session")
async def strict(datastore: Datastore) -> AsyncIterator[Api]:
    """A server that takes three requests a minute."""
    settings = replace(datastore.settings, rate_limit=3)
    async with asking(create_app(datastore, rate=rate_of(settings)), settings) as api:
        yield api


async def test_each_caller_is_told_and_refused_before_its_body_is_read(strict: Api) -> None:
    for left in (2, 1, 0):
        answer = await strict("PUT", f"/v1/items/jobs/{left}", {})
        assert answer.status == 201
        assert answer.headers["ratelimit-policy"] == '"default";q=3;w=60'
        assert answer.headers["ratelimit"].startswith(f'"default";r={left};t=')
    async with dialled(strict.port) as line:
        await line.send(request("PUT", "/v1/items/jobs/x", Content_Length="1000"))
        (answer,) = await line.rest()
    assert (answer.status, answer.data["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert answer.headers["ratelimit"].startswith('"default";r=0;t=')
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await strict("GET", "/livez")).status == 200
    async with dialled(strict.port, "127.0.0.9") as line:
        await line.send(request("GET", "/v1/items/jobs/2", close=True))
        assert [answer.status for answer in await line.rest()] == [200]


async def test_an_api_key_is_a_caller_of_its_own(strict: Api, gate: Gate, make_key: MakeKey) -> None:
    strict.app.state.gate = gate
    one, other = await make_key("default"), await make_key("default")
    for headers, statuses in ((one, [200, 200, 200, 429]), (other, [200])):
        answers = [await strict("GET", "/v1/items/jobs", headers=headers) for _ in statuses]
        assert [answer.status for answer in answers] == statuses
    for _ in range(5):  # who shows none has no bucket
        nobody = await strict("GET", "/v1/items/jobs")
        assert (nobody.status, "ratelimit" in nobody.headers) == (401, False)


async def test_without_a_limit_nothing_is_told(api: Api) -> None:
    assert "ratelimit" not in (await api("GET", "/v1/items/jobs")).headers
