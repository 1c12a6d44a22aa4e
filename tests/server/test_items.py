"""Items over HTTP: create, read, list, query, replace, patch, delete."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
import redis.asyncio as aioredis

from api import Answer, Api
from hookline import Datastore
from jobs import outbox_length

MERGE = {"Content-Type": "application/merge-patch+json"}
ITEM = "/v1/items/jobs/a"


async def names(api: Api, path: str) -> list[str]:
    answer = await api("GET", path)
    assert answer.status == 200, answer.data
    return [item["sortField"] for item in answer.data["items"]]


# Creating


async def test_create_shows_the_item_where_it_is_and_its_etag(api: Api) -> None:
    answer = await api.create(
        content={"rows": [1, 2.0]},
        metadata={"status": "not_started", "type": "report"},
        triggerUrls={"https://worker.example/run": "secret"},
    )
    assert answer.headers["location"] == ITEM
    assert answer.headers["etag"] == '"1.0"'
    assert answer.headers["content-type"] == "application/json"
    created_at = answer.data["createdAt"]
    assert answer.data == {
        "key": "jobs",
        "sortField": "a",
        "content": {"rows": [1, 2.0]},
        "metadata": {"status": "not_started", "type": "report", "attempts": 0, "version": 1},
        "triggerUrls": [{"url": "https://worker.example/run", "events": ["updated"], "hasApiKey": True}],
        "version": 1,
        "createdAt": created_at,
        "updatedAt": created_at,
    }
    assert (await api("GET", ITEM)).data == answer.data


async def test_create_without_sort_field_orders_by_time(api: Api) -> None:
    made = [(await api("POST", "/v1/items", {"key": "jobs"})).data["sortField"] for _ in range(3)]
    assert made == sorted(set(made))
    assert await names(api, "/v1/items/jobs") == made


async def test_create_of_what_exists(api: Api) -> None:
    await api.create(content=1)
    answer = await api("POST", "/v1/items", {"key": "jobs", "sortField": "a", "content": 2})
    assert (answer.status, answer.data["code"], answer.data["item"]["content"]) == (409, "exists", 1)
    answer = await api("POST", "/v1/items", {"key": "jobs", "sortField": "a", "content": 2, "upsert": True})
    assert (answer.status, answer.data["content"], answer.data["version"]) == (200, 2, 2)
    assert "location" not in answer.headers


async def test_create_takes_json_of_no_stated_kind(api: Api) -> None:
    answer = await api("POST", "/v1/items", data=b'{"key":"jobs"}', skip_auto_headers=["Content-Type"])
    assert answer.status == 201


async def test_what_is_nearly_a_word_of_the_engine_is_warned_of(api: Api) -> None:
    metadata = {"status": "not-started", "maxAttempts": 3}
    answer = await api.create(metadata=metadata)
    assert answer.data["metadata"] == {**metadata, "version": 1}
    assert [warning.split("did you mean ")[1] for warning in answer.data["warnings"]] == [
        "max_attempts?",
        "not_started?",
    ]
    (warning,) = (await api("PATCH", ITEM, {"metadata": {"status": "complete"}})).data["warnings"]
    assert warning.startswith("status complete is a word of your own")
    answer = await api("PATCH", ITEM, {"metadata": {"status": "completed", "maxAttempts": None}})
    assert "warnings" not in answer.data
    operation = {"op": "create", "key": "jobs", "sortField": "b", "metadata": {"status": "Started"}}
    (told,) = (await api("POST", "/v1/items:batch", {"operations": [operation]})).data["results"]
    assert "did you mean started?" in told["item"]["warnings"][0]


async def test_a_lock_that_is_past_is_warned_of(api: Api) -> None:
    metadata = {"status": "started", "worker_id": "w", "locked_until": "2024-03-15T10:10:00Z"}
    answer = await api.create(metadata=metadata)
    assert "already past" in answer.data["warnings"][0]
    assert answer.data["token"].startswith("1.")
    found = (await api("GET", ITEM)).data
    assert "warnings" not in found
    assert "token" not in found


async def test_a_batch_has_an_outcome_per_item_in_order(api: Api) -> None:
    await api.create(content="old")
    items = [{"key": "jobs", "sortField": name} for name in ("b", "a", "b")]
    answer = await api("POST", "/v1/items", {"items": [*items, {"key": "more"}]})
    assert answer.status == 207
    results = answer.data["results"]
    assert [result["status"] for result in results] == [201, 409, 409, 201]
    assert results[0]["item"]["sortField"] == "b"
    assert results[1]["problem"]["code"] == "exists"
    assert results[1]["problem"]["item"]["content"] == "old"
    assert results[3]["item"]["key"] == "more"


async def test_a_batch_may_upsert_and_an_item_may_not(api: Api) -> None:
    await api.create()
    items = [{"key": "jobs", "sortField": "a"}, {"key": "jobs", "sortField": "a", "upsert": False}]
    answer = await api("POST", "/v1/items", {"items": items, "upsert": True})
    assert [result["status"] for result in answer.data["results"]] == [200, 409]


async def test_a_batch_of_500(api: Api) -> None:
    items = [{"key": "jobs", "sortField": f"{place:03d}"} for place in range(500)]
    answer = await api("POST", "/v1/items", {"items": items})
    assert [result["item"]["sortField"] for result in answer.data["results"]] == [item["sortField"] for item in items]


# Names in the path


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "/",
        "a//b/",
        "query",
        "é ü",
        "日本語",
        "\U0001f600",
        "100%",
        "a?b#c",
        "a+b c",
        "%2F",
        ".",
        "a:b@c",
        "x" * 512,
        "\n",
        "a\nb\n",
    ],
    ids=ascii,
)
async def test_any_sort_field_round_trips(api: Api, name: str) -> None:
    created = await api.create(name, content=name)
    path = "/v1/items/jobs/" + quote(name, safe="")
    assert created.headers["location"] == path
    assert (await api("GET", path)).data["sortField"] == name
    assert (await api("PUT", path, {"content": 2})).status == 200
    assert (await api("PATCH", path, {"content": 3})).data["content"] == 3
    assert (await api("DELETE", path)).status == 204
    assert await names(api, "/v1/items/jobs") == []


async def test_slashes_may_stand_as_they_are(api: Api) -> None:
    await api.create("a/b/c")
    assert (await api("GET", "/v1/items/jobs/a/b/c")).data["sortField"] == "a/b/c"
    assert (await api("GET", "/v1/items/jobs/a%2Fb/c")).data["sortField"] == "a/b/c"


# Reading


async def test_get_answers_304_to_who_has_it(api: Api) -> None:
    etag = (await api.create()).headers["etag"]
    for tag in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await api("GET", ITEM, headers={"If-None-Match": tag})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
    await api("PATCH", ITEM, {"content": 1})
    assert (await api("GET", ITEM, headers={"If-None-Match": etag})).status == 200


async def test_extending_a_lock_changes_the_etag_but_not_the_version(api: Api) -> None:
    await api.create(metadata={"status": "not_started"})
    claimed = (await api("POST", "/v1/jobs/jobs/claim", {"workerId": "w", "lockFor": "1m"})).data["items"][0]
    before = (await api("GET", ITEM)).headers["etag"]
    extend = {"sortField": "a", "token": claimed["token"], "lockFor": "2m"}
    await api("POST", "/v1/jobs/jobs/settle", {"extend": [extend]})
    after = await api("GET", ITEM, headers={"If-None-Match": before})
    assert after.status == 200
    assert after.headers["etag"].partition(".")[0] == before.partition(".")[0] == '"2'
    assert (await api("PATCH", ITEM, {"content": 1}, headers={"If-Match": before})).status == 200


async def test_head_is_get_without_the_body(api: Api) -> None:
    await api.create()
    got, head = await api("GET", ITEM), await api("HEAD", ITEM)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["etag"] == got.headers["etag"]
    assert head.headers["content-length"] == got.headers["content-length"]
    assert (await api("HEAD", "/v1/items/jobs/unknown")).status == 404


async def test_list_filters_by_what_a_query_string_can_say(api: Api) -> None:
    await api.create("number", metadata={"status": "done", "size": 3, "nested": {"on": True}})
    await api.create("text", metadata={"status": "done", "size": "3"})
    await api.create("other", metadata={"status": "open", "size": 4, "priority": 3})
    assert await names(api, "/v1/items/jobs") == ["number", "other", "text"]
    assert await names(api, "/v1/items/jobs?order=sortField:desc") == ["text", "other", "number"]
    assert await names(api, "/v1/items/jobs?status=open") == ["other"]
    assert await names(api, "/v1/items/jobs?metadata.status=done&order=sortField") == ["number", "text"]
    assert await names(api, "/v1/items/jobs?metadata.size=3") == ["number", "text"]
    assert await names(api, "/v1/items/jobs?metadata.size=%223%22") == ["text"]
    assert await names(api, "/v1/items/jobs?metadata.nested.on=true") == ["number"]
    assert await names(api, "/v1/items/jobs?metadata.priority=3&status=open") == ["other"]
    assert await names(api, f"/v1/items/jobs?metadata.size={2**70}") == []
    assert await names(api, "/v1/items/none") == []


async def test_list_goes_page_by_page(api: Api) -> None:
    for name in "abcde":
        await api.create(name)
    found: list[str] = []
    cursor = ""
    for _ in range(4):
        answer = await api("GET", f"/v1/items/jobs?limit=2&cursor={cursor}")
        found += [item["sortField"] for item in answer.data["items"]]
        cursor = answer.data["cursor"]
        if cursor is None:
            break
    assert found == list("abcde")
    assert cursor is None


async def test_light_items_have_no_content(api: Api) -> None:
    await api.create(content="x" * 1000)
    (light,) = (await api("GET", "/v1/items/jobs?format=light")).data["items"]
    (full,) = (await api("GET", "/v1/items/jobs?format=full")).data["items"]
    assert full.pop("content")
    assert light == full


async def test_query_with_a_body(api: Api) -> None:
    for place, name in enumerate("abc"):
        await api.create(name, metadata={"size": place})
    body = {"where": {"size": {"gte": 1}}, "order": "sortField:desc", "limit": 1, "explain": True}
    first = (await api("POST", "/v1/items/jobs/query", body)).data
    assert [item["sortField"] for item in first["items"]] == ["c"]
    assert first["explain"]["examined"] >= 1
    second = (await api("POST", "/v1/items/jobs/query", body | {"cursor": first["cursor"]})).data
    assert [item["sortField"] for item in second["items"]] == ["b"]
    everything = (await api("POST", "/v1/items/jobs/query", {"cursor": None})).data
    assert len(everything["items"]) == 3
    assert "explain" not in everything


# Changing


async def test_put_creates_then_replaces_whole(api: Api) -> None:
    made = await api("PUT", ITEM, {"content": 1, "metadata": {"a": 1}, "triggerUrls": {"http://x.example": "k"}})
    assert (made.status, made.headers["location"], made.headers["etag"]) == (201, ITEM, '"1.0"')
    replaced = await api("PUT", ITEM, {"metadata": {"b": 2}})
    assert (replaced.status, replaced.headers["etag"]) == (200, '"2.0"')
    assert (replaced.data["content"], replaced.data["metadata"]) == (None, {"b": 2, "version": 2})
    assert replaced.data["triggerUrls"] == []


async def test_put_with_preconditions(api: Api) -> None:
    assert (await api("PUT", ITEM, {"content": 0}, headers={"If-Match": '"1"'})).status == 412
    assert (await api("PUT", ITEM, {"content": 0}, headers={"If-Match": "*"})).status == 412
    assert (await api("PUT", ITEM, {"content": 1}, headers={"If-None-Match": "*"})).status == 201
    exists = await api("PUT", ITEM, {"content": 2}, headers={"If-None-Match": "*"})
    assert (exists.status, exists.data["code"], exists.data["item"]["content"]) == (412, "precondition_failed", 1)
    assert (await api("PUT", ITEM, {"content": 3}, headers={"If-Match": "*"})).data["version"] == 2
    assert (await api("PUT", ITEM, {"content": 4}, headers={"If-Match": '"1.0"'})).status == 412
    assert (await api("PUT", ITEM, {"content": 4}, headers={"If-Match": '"2.0"'})).data["version"] == 3
    assert (await api("PUT", ITEM, {"metadata": {"version": 2}})).data["code"] == "version_conflict"
    assert (await api("GET", ITEM)).data["content"] == 4


async def test_if_match_takes_any_version_that_there_can_be(
    api: Api, datastore: Datastore, raw: aioredis.Redis
) -> None:
    await api.create()
    await raw.hset(datastore.calls.item_name("jobs", "a"), "v", 2**52 - 1)
    etag = (await api("GET", ITEM)).headers["etag"]
    written = await api("PATCH", ITEM, {"content": 1}, headers={"If-Match": etag})
    assert (written.status, written.data["version"]) == (200, 2**52)


@pytest.mark.parametrize("tag", ['"1"', '"1.0"', '"1.99"', 'W/"1.0"', "*", ' "1" '])
async def test_if_match_compares_the_version_only(api: Api, tag: str) -> None:
    await api.create()
    assert (await api("PATCH", ITEM, {"content": 1}, headers={"If-Match": tag})).status == 200
    stale = await api("PATCH", ITEM, {"content": 2}, headers={"If-Match": '"1"'})
    assert (stale.status, stale.data["code"], stale.data["item"]["version"]) == (412, "precondition_failed", 2)
    assert (await api("DELETE", ITEM, headers={"If-Match": '"1"'})).status == 412
    assert (await api("DELETE", ITEM, headers={"If-Match": '"2"'})).status == 204


async def test_if_match_and_version_must_both_hold(api: Api) -> None:
    await api.create()
    for header, version, status in (('"1"', 2, 409), ('"2"', 1, 412), ('"1"', 1, 200)):
        answer = await api("PATCH", ITEM, {"content": 1, "version": version}, headers={"If-Match": header})
        assert answer.status == status


async def test_patch_merges_metadata_and_tells_absent_from_null(api: Api) -> None:
    await api.create(content=1, metadata={"keep": {"a": 1}, "drop": 1}, triggerUrls={"http://x.example": "k"})
    answer = await api("PATCH", ITEM, {"metadata": {"drop": None, "add": 2, "keep": {"b": 1}}})
    assert answer.data["metadata"] == {"keep": {"b": 1}, "add": 2, "version": 2}
    assert (answer.data["content"], len(answer.data["triggerUrls"])) == (1, 1)
    answer = await api("PATCH", ITEM, {"content": None, "triggerUrls": None})
    assert (answer.data["content"], answer.data["triggerUrls"]) == (None, [])
    assert answer.data["metadata"] == {"keep": {"b": 1}, "add": 2, "version": 3}


async def test_a_list_of_triggers_keeps_the_api_key_it_does_not_bring(api: Api) -> None:
    await api.create(triggerUrls={"http://x.example": "k"})
    shown = (await api("GET", ITEM)).data["triggerUrls"]
    answer = await api("PATCH", ITEM, {"triggerUrls": [*shown, {"url": "http://y.example", "events": ["created"]}]})
    assert [trigger["hasApiKey"] for trigger in answer.data["triggerUrls"]] == [True, False]


async def test_patch_to_started_is_a_claim_and_the_token_goes_on(api: Api) -> None:
    await api.create(metadata={"status": "not_started"})
    start = {"metadata": {"status": "started", "worker_id": "w", "locked_until": "+10m"}}
    claimed = await api("PATCH", ITEM, start)
    token = claimed.data["token"]
    again = await api("PATCH", ITEM, start)
    assert (again.status, again.data["code"]) == (409, "locked")
    assert "token" not in again.data["item"]
    # Extended: no new version, and so 200 and never 201.
    extended = await api("PATCH", ITEM, start | {"token": token})
    assert (extended.status, extended.data["version"]) == (200, 2)
    assert (await api("PATCH", ITEM, {"content": 1, "token": "2.x"})).data["code"] == "stale_token"
    assert (await api("PATCH", ITEM, {"metadata": {"status": "completed"}, "token": token})).status == 200


async def test_triggers_off_writes_no_event(api: Api, datastore: Datastore) -> None:
    await api.create(triggerUrls=[{"url": "http://x.example", "events": ["updated", "deleted"]}])
    for method, path in (("PATCH", ITEM), ("PUT", ITEM)):
        assert (await api(method, f"{path}?triggers=off", {"content": method})).status == 200
    assert await outbox_length(datastore) == 0
    await api.create("b", triggerUrls=[{"url": "http://x.example", "events": ["updated", "deleted"]}])
    await api("PATCH", "/v1/items/jobs/b?triggers=on", {"content": 1})
    await api("PATCH", "/v1/items/jobs/b", {"content": 2})
    assert await outbox_length(datastore) == 2
    await api("DELETE", "/v1/items/jobs/b?triggers=off")
    assert await outbox_length(datastore) == 2


async def test_delete(api: Api) -> None:
    await api.create()
    answer = await api("DELETE", ITEM)
    assert (answer.status, answer.body) == (204, b"")
    assert (await api("GET", ITEM)).status == 404


async def test_reserved_keys_can_be_read(api: Api, datastore: Datastore) -> None:
    await datastore.create("hookline.x", "a", content=1, reserved=True)
    assert (await api("GET", "/v1/items/hookline.x/a")).data["content"] == 1
    assert await names(api, "/v1/items/hookline.x") == ["a"]
    assert (await api("DELETE", "/v1/items/hookline.x/a")).data["code"] == "reserved_key"


# Merge patch


async def merge(api: Api, body: str, **headers: str) -> Answer:
    return await api("PATCH", ITEM, data=body.encode(), headers=MERGE | headers)


async def test_merge_patch_goes_into_objects(api: Api) -> None:
    await api.create(
        content={"a": {"b": 1, "c": [1]}, "d": 1}, metadata={"size": {"x": 1, "y": 2}, "keep": 1, "drop": 1}
    )
    answer = await merge(
        api, '{"content": {"a": {"b": null, "c": [2]}, "e": {"f": null}}, "metadata": {"size": {"x": 9}, "drop": null}}'
    )
    assert answer.status == 200, answer.data
    assert answer.data["content"] == {"a": {"c": [2]}, "d": 1, "e": {}}
    assert answer.data["metadata"] == {"size": {"x": 9, "y": 2}, "keep": 1, "version": 2}


async def test_merge_patch_of_null_empties(api: Api) -> None:
    await api.create(content=1, metadata={"status": "open", "a": 1}, triggerUrls={"http://x.example": "k"})
    answer = await merge(api, '{"content": null, "metadata": null, "triggerUrls": null}')
    assert (answer.data["content"], answer.data["metadata"], answer.data["triggerUrls"]) == (None, {"version": 2}, [])


async def test_merge_patch_names_no_version_by_itself(api: Api) -> None:
    await api.create(metadata={"status": "completed"})
    start = '{"metadata": {"status": "started", "worker_id": "w"}}'
    assert (await merge(api, start)).data["code"] == "not_claimable"
    assert (await merge(api, '{"metadata": {"version": 2}}')).data["code"] == "version_conflict"
    assert (await merge(api, '{"metadata": {"status": "started", "worker_id": "w", "version": 1}}')).status == 200


async def test_merge_patch_with_if_match(api: Api) -> None:
    await api.create()
    assert (await merge(api, '{"content": 1}', **{"If-Match": '"2"'})).status == 412
    assert (await merge(api, '{"content": 1}', **{"If-Match": '"1"'})).status == 200
    assert (await merge(api, '{"content": 2}', **{"If-Match": "*"})).status == 200
    assert (await api("PATCH", "/v1/items/jobs/none", data=b"{}", headers=MERGE)).status == 404


@pytest.mark.parametrize("levels", [64, 900, 940, 960, 980, 1000, 5000])
async def test_merge_patch_that_is_too_deep(api: Api, levels: int) -> None:
    await api.create()
    answer = await merge(api, '{"content": ' + '{"a":' * levels + "1" + "}" * levels + "}")
    assert (answer.status, answer.data.get("code")) == ((200, None) if levels == 64 else (422, "invalid"))


async def test_merge_patches_at_once_all_count(api: Api) -> None:
    await api.create(content={})
    answers = await asyncio.gather(*(merge(api, f'{{"content": {{"{place}": 1}}}}') for place in range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert (await api("GET", ITEM)).data["content"] == {str(place): 1 for place in range(4)}


async def test_a_merge_that_never_gets_through_gives_up(
    api: Api, datastore: Datastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.create(content={})
    get, tries = datastore.get, 0

    async def overtaken(key: str, sort_field: str) -> Any:
        nonlocal tries
        tries += 1
        found = await get(key, sort_field)
        await datastore.update(key, sort_field, content={"other": tries})
        return found

    monkeypatch.setattr(datastore, "get", overtaken)
    answer = await merge(api, '{"content": {"mine": 1}}')
    assert (answer.status, answer.data["code"]) == (409, "version_conflict")
    assert answer.data["item"]["content"] == {"other": tries}
    assert 1 < tries < 20


async def test_patch_of_another_kind_says_which_are_taken(api: Api) -> None:
    await api.create()
    answer = await api("PATCH", ITEM, data=b"[]", headers={"Content-Type": "application/json-patch+json"})
    assert answer.status == 415
    assert {"application/json", "application/vnd.msgpack", "application/merge-patch+json"} <= set(
        answer.headers["accept-patch"].split(", ")
    )
