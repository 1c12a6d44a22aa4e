"""What the heads of answers say: places, pages, preferences, methods, other sites; and waiting for a change."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote, urljoin

import msgpack
import pytest

from api import Answer, Api, asking
from conftest import wait_until
from hookline import Datastore
from hookline_server.app import ROUTES, create_app
from hookline_server.guard import SCOPES
from hookline_server.openapi import build

ITEM = "/v1/items/jobs/a"
MINIMAL = {"Prefer": "return=minimal"}
SITE = "https://app.example"


# Preferences


async def test_who_prefers_it_gets_no_item(api: Api) -> None:
    for method, path, body, status, etag in (
        ("POST", "/v1/items", {"key": "jobs", "sortField": "a"}, 201, '"1.0"'),
        ("POST", "/v1/items", {"key": "jobs", "sortField": "a", "upsert": True}, 204, '"2.0"'),
        ("PATCH", ITEM, {"content": 1}, 204, '"3.0"'),
        ("PUT", ITEM, {"content": 2}, 204, '"4.0"'),
        ("PUT", "/v1/items/jobs/b", {"content": 2}, 201, '"1.0"'),
    ):
        answer = await api(method, path, body, headers=MINIMAL)
        assert (answer.status, answer.headers["etag"]) == (status, etag)
        assert answer.headers["preference-applied"] == "return=minimal"
        assert ("location" in answer.headers) is (status == 201)
        assert ("content-type" in answer.headers) is bool(answer.body) is (status == 201)


async def test_of_what_it_made_it_gets_the_names(api: Api) -> None:
    """Who named no sortField learns it; and in msgpack the same."""
    answer = await api("POST", "/v1/items", {"key": "jobs", "content": 1}, headers=MINIMAL)
    location = f"/v1/items/jobs/{answer.data['sortField']}"
    assert (answer.status, answer.headers["location"]) == (201, location)
    assert answer.data == {"key": "jobs", "sortField": answer.data["sortField"], "version": 1}
    assert (await api("GET", location)).data["content"] == 1
    answer = await api("PUT", ITEM, {}, headers={**MINIMAL, "Accept": "application/msgpack"})
    assert (answer.status, msgpack.unpackb(answer.body)) == (201, {"key": "jobs", "sortField": "a", "version": 1})


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack", "application/x-ndjson"])
@pytest.mark.parametrize("prefer", ["", "return=minimal"])
async def test_an_answer_has_a_body_where_the_document_says_so(api: Api, prefer: str, accept: str) -> None:
    """Generated clients read one then, and fail without it."""
    operations = build(ROUTES)["paths"]
    for method, path, place in (("POST", "/v1/items", "/v1/items"), ("PUT", ITEM, "/v1/items/{key}/{sortField}")):
        for _ in range(2):
            body = {"key": "jobs", "sortField": "b", "upsert": True} if method == "POST" else {}
            answer = await api(method, path, body, headers={"Prefer": prefer, "Accept": accept})
            told = operations[place][method.lower()]["responses"][str(answer.status)]
            assert bool(answer.body) is ("content" in told)


@pytest.mark.parametrize("written", ['respond-async, Return="minimal"; x=1', "wait=3;a,return=minimal"])
async def test_preferences_among_others(api: Api, written: str) -> None:
    answer = await api("POST", "/v1/items", {"key": "jobs"}, headers={"Prefer": written})
    assert (answer.status, answer.data.keys()) == (201, {"key", "sortField", "version"})


@pytest.mark.parametrize("written", ["return=representation", "xreturn=minimal", "return=minimalist", ""])
async def test_other_preferences_change_nothing(api: Api, written: str) -> None:
    answer = await create_with(api, written)
    assert answer.data["version"] == 1
    assert "preference-applied" not in answer.headers


async def create_with(api: Api, prefer: str) -> Answer:
    return await api("POST", "/v1/items", {"key": "jobs"}, headers={"Prefer": prefer})


async def test_a_refusal_is_told_whatever_is_preferred(api: Api) -> None:
    await api.create()
    answer = await api("POST", "/v1/items", {"key": "jobs", "sortField": "a"}, headers=MINIMAL)
    assert (answer.status, answer.data["code"]) == (409, "exists")


async def test_an_orchestration_says_where_it_is(datastore: Datastore) -> None:
    async with asking(create_app(datastore)) as api:
        for status in (201, 200):
            answer = await api("PUT", "/v1/orchestrations/nightly", {"key": "jobs"})
            assert (answer.status, answer.headers.get("location")) == (
                status,
                "/v1/orchestrations/nightly" if status == 201 else None,
            )


# Pages


async def test_a_page_links_to_the_next(api: Api) -> None:
    for place in range(5):
        await api.create(f"{place}", metadata={"type": "a b&c=é"})
    path: str | None = f"/v1/items/jobs?limit=2&metadata.type={quote('a b&c=é')}&format=light"
    seen: list[str] = []
    pages = 0
    while path:
        answer = await api("GET", path)
        assert answer.status == 200, answer.data
        seen += [item["sortField"] for item in answer.data["items"]]
        link = answer.headers.get("link")
        assert (link is None) is (answer.data["cursor"] is None)
        assert link is None or (link.startswith("<?limit=2&") and link.endswith('>; rel="next"'))
        path = urljoin(path, link[1:].split(">")[0]) if link else None
        pages += 1
    assert (seen, pages) == (["0", "1", "2", "3", "4"], 3)


# Methods


@pytest.mark.parametrize("path", [ITEM, "/v1/items/jobs", "/v1/keys/jobs/settings", "/livez", "/readyz"])
async def test_head_says_what_get_says(api: Api, path: str) -> None:
    await api.create()
    got, headed = await api("GET", path), await api("HEAD", path)
    assert (headed.status, headed.body) == (200, b"")
    for name in ("content-length", "content-type", "etag", "vary"):
        assert headed.headers.get(name) == got.headers.get(name)


# Caches


PRIVATE = "private, no-cache"


@pytest.mark.parametrize("path", [path for (method, path), scopes in SCOPES.items() if method == "GET" and scopes])
async def test_no_shared_cache_keeps_what_is_read_for_a_caller(api: Api, path: str) -> None:
    asked = re.sub(r"\{[^}]+\}", "a", path)
    for method in ("GET", "HEAD"):
        answer = await api(method, asked)
        assert answer.headers["cache-control"] == PRIVATE, answer


async def test_however_it_is_read(api: Api) -> None:
    await api.create()
    for path, headers, status in (
        (ITEM, {"If-None-Match": '"1.0"'}, 304),
        (ITEM, {"Accept": "application/vnd.msgpack"}, 200),
        ("/v1/items/jobs", {"Accept": "application/x-ndjson"}, 200),
        ("/v1/items/jobs/none", {}, 404),
    ):
        answer = await api("GET", path, headers=headers)
        assert (answer.status, answer.headers["cache-control"]) == (status, PRIVATE)
    for answer in (await api("PUT", ITEM, {}), await api("GET", "/docs"), await api("GET", "/openapi.json")):
        assert "cache-control" not in answer.headers


# Pages of other sites


async def test_no_site_may_read_unless_it_is_named(api: Api) -> None:
    answer = await api("GET", "/v1/items/jobs", headers={"Origin": SITE})
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
    answer = await api("OPTIONS", "/v1/items", headers=preflight)
    assert (answer.status, answer.data["code"]) == (403, "cross_site")


async def test_a_named_site_may_use_the_api(datastore: Datastore) -> None:
    async with asking(create_app(datastore, cors_origins=(SITE, "http://localhost:3000"))) as api:
        told = {"Origin": SITE, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "if-match"}
        answer = await api("OPTIONS", ITEM, headers=told)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == SITE
        assert "PUT" in answer.headers["access-control-allow-methods"].split(", ")
        assert {"If-Match", "traceparent"} <= {*answer.headers["access-control-allow-headers"].split(", ")}
        assert "access-control-allow-credentials" not in answer.headers
        answer = await api("PUT", ITEM, {}, headers={"Origin": SITE})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (201, SITE)
        shown = {"etag", "location", "link", "ratelimit", "ratelimit-policy", "www-authenticate"}
        assert shown <= set(answer.headers["access-control-expose-headers"].split(", "))
        answer = await api("PUT", ITEM, {}, headers={"Origin": SITE, "If-Match": '"9"'})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (412, SITE)
        for origin in ("https://app.example.evil.example", "https://app.example:8443", "null"):
            answer = await api("PUT", ITEM, {}, headers={"Origin": origin})
            assert (answer.status, answer.data["code"]) == (403, "cross_site")
            assert "access-control-allow-origin" not in answer.headers
            assert "origin" in answer.headers["vary"]
        # It may read also what is refused before anything is done.
        answer = await api("GET", ITEM, headers={"Origin": SITE, "Accept": "image/png"})
        assert (answer.status, answer.headers.get("access-control-allow-origin")) == (406, SITE)
        # Without a preflight's header OPTIONS asks for the methods.
        assert "PATCH" in (await api("OPTIONS", ITEM, headers={"Origin": SITE})).headers["allow"]
        assert "origin" in (await api("GET", ITEM)).headers["vary"]


async def test_all_sites_may_but_never_with_credentials(datastore: Datastore) -> None:
    async with asking(create_app(datastore, cors_origins=("*",))) as api:
        answer = await api("PUT", ITEM, {}, headers={"Origin": SITE, "Cookie": "a=b"})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (201, "*")
        assert "access-control-allow-credentials" not in answer.headers


# Waiting for a change


async def waiting_for(api: Api, datastore: Datastore, **headers: str) -> asyncio.Task[Answer]:
    task = asyncio.create_task(api("GET", f"{ITEM}?wait=20", headers=headers))
    await wait_until(lambda: datastore.changes.listeners())
    return task


async def test_a_get_waits_for_the_next_change(api: Api, datastore: Datastore) -> None:
    await api.create()
    waiting = await waiting_for(api, datastore)
    await api("PATCH", ITEM, {"content": "new"})
    answer = await asyncio.wait_for(waiting, 10)
    assert (answer.status, answer.data["content"], answer.headers["etag"]) == (200, "new", '"2.0"')
    waiting = await waiting_for(api, datastore, **{"If-None-Match": '"2.0"'})
    await api("PATCH", ITEM, {"content": "newer"})
    assert (await asyncio.wait_for(waiting, 10)).data["content"] == "newer"
    # A change that the client has missed is told at once.
    answer = await asyncio.wait_for(api("GET", f"{ITEM}?wait=20s", headers={"If-None-Match": '"2.0"'}), 10)
    assert answer.data["version"] == 3


async def test_a_get_that_waited_in_vain(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.create()
    assert (await api("GET", f"{ITEM}?wait=20ms", headers={"If-None-Match": '"1.0"'})).status == 304
    assert (await api("GET", f"{ITEM}?wait=0")).status == 200
    monkeypatch.setattr("hookline_server.body.WAIT_MAX", 0.02)
    assert (await api("GET", f"{ITEM}?wait=1h")).status == 200, "it is cut"
    assert (await api("GET", "/v1/items/jobs/none?wait=20")).status == 404
    for wait in ("soon", "-1", "", "inf"):
        answer = await api("GET", f"{ITEM}?wait={wait}")
        assert (answer.status, answer.data["errors"][0]["pointer"]) == (422, "/wait"), wait


async def test_a_get_waits_for_a_deletion(api: Api, datastore: Datastore) -> None:
    await api.create()
    waiting = await waiting_for(api, datastore)
    await api("DELETE", ITEM)
    assert (await asyncio.wait_for(waiting, 10)).status == 404


async def test_who_goes_away_does_not_wait(api: Api, datastore: Datastore) -> None:
    await api.create()
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"GET %s?wait=20 HTTP/1.1\r\nHost: x\r\n\r\n" % ITEM.encode())
    await wait_until(lambda: datastore.changes.listeners())
    writer.close()
    await writer.wait_closed()
    await wait_until(lambda: not datastore.changes.listeners())
