"""What bodies are written in: JSON or msgpack, compressed or not, as the client asks."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given

from api import Answer, Api
from hookline_server import negotiate, strictmsgpack
from hookline_server.problem import Problem
from values import JSON, same

MSGPACK = "application/vnd.msgpack"
ITEM = "/v1/items/jobs/a"
MIB = 1_048_576


def unpacked(answer: Answer) -> Any:
    return msgpack.unpackb(answer.body)


async def packed(api: Api, method: str, path: str, value: Any, **headers: str) -> Answer:
    return await api(method, path, data=msgpack.packb(value), headers={"Content-Type": MSGPACK} | headers)


async def send_raw(api: Api, raw: bytes, **headers: str) -> Answer:
    return await api("POST", "/v1/items", data=raw, headers={"Content-Type": MSGPACK} | headers)


# msgpack


@pytest.mark.parametrize("name", ["application/vnd.msgpack", "application/msgpack", "application/x-msgpack"])
async def test_an_item_goes_in_and_out_as_msgpack(api: Api, name: str) -> None:
    item = {"key": "jobs", "sortField": "a", "content": {"n": [1, 2.5, None, True, "é", 2**64 - 1, -(2**63)]}}
    answer = await api("POST", "/v1/items", data=msgpack.packb(item), headers={"Content-Type": name, "Accept": name})
    assert (answer.status, answer.headers["content-type"]) == (201, name)
    assert unpacked(answer)["content"] == item["content"]
    assert answer.headers["etag"] == '"1.0-m"'
    plain = await api("GET", ITEM)
    assert (plain.headers["content-type"], plain.headers["etag"]) == ("application/json", '"1.0"')
    assert plain.data == unpacked(await api("GET", ITEM, headers={"Accept": name}))


async def test_either_tag_is_a_precondition_but_each_body_has_its_own(api: Api) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "sortField": "a"})
    for known, accept, status in (
        ('"1.0"', "*/*", 304),
        ('"1.0-m"', "*/*", 200),
        ('"1.0-m"', MSGPACK, 304),
        ('"1.0"', MSGPACK, 200),
        ('"0.0", W/"1.0-m"', MSGPACK, 304),
    ):
        answer = await api("GET", ITEM, headers={"If-None-Match": known, "Accept": accept})
        assert answer.status == status, (known, accept)
        assert answer.headers["etag"] == ('"1.0-m"' if accept == MSGPACK else '"1.0"')
        assert answer.headers["vary"] == "accept, accept-encoding"
    assert (await api("PATCH", ITEM, {"content": 1}, headers={"If-Match": '"1.0-m"'})).status == 200
    assert (await api("PATCH", ITEM, {"content": 1}, headers={"If-Match": '"1.0-m"'})).status == 412


async def test_problems_are_in_the_form_that_was_asked_for(api: Api) -> None:
    answer = await api("GET", ITEM, headers={"Accept": MSGPACK})
    assert (answer.status, answer.headers["content-type"]) == (404, MSGPACK)
    assert unpacked(answer)["code"] == "not_found"
    answer = await api("GET", "/v1/nothing/here", headers={"Accept": f"{MSGPACK}, */*;q=0.5"})
    assert (answer.status, unpacked(answer)["code"]) == (404, "unknown_path")
    answer = await api("GET", ITEM, headers={"Accept": "application/x-ndjson"})
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_what_nobody_can_read_is_not_done(api: Api) -> None:
    item = {"key": "jobs", "sortField": "a"}
    answer = await api("POST", "/v1/items", item, headers={"Accept": "text/html"})
    assert (answer.status, answer.data["code"]) == (406, "not_acceptable")
    assert "vnd.msgpack" in answer.data["detail"]
    assert (await api("GET", ITEM)).status == 404
    assert (await api("GET", "/livez", headers={"Accept": "text/html"})).status == 200


def test_room_is_not_made_for_all_that_is_declared() -> None:
    raw = b"\xdd\x00\x0f\xff\xff" * 209_716
    tracemalloc.start()
    with pytest.raises(Problem, match="at most 100000 members"):
        strictmsgpack.decode(raw)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10 * MIB
    assert strictmsgpack.decode(msgpack.packb([0] * 100_000)) == [0] * 100_000


@pytest.mark.parametrize(
    ("sent", "status", "code", "pointer"),
    [
        (b"", 422, "invalid", ""),
        (b"\xc1", 400, "invalid_msgpack", None),
        (msgpack.packb({"key": "jobs"})[:-1], 400, "invalid_msgpack", None),
        (msgpack.packb({"key": "jobs"}) * 2, 400, "invalid_msgpack", None),
        (b"\x81\xa3key\xa1\xff", 400, "invalid_msgpack", None),
        (b"\xdd\xff\xff\xff\xff", 400, "invalid_msgpack", None),
        (b"\x82\xa3key\xa4jobs\xa3key\xa4jobs", 422, "invalid", "/key"),
        (b"\x82\xa3key\xa4jobs\xa7content\x91\x82\xa1a\x01\xa1a\x02", 422, "invalid", "/content/0/a"),
        (b"\x82\xa3key\xa4jobs\xa7content\x81\x01\x02", 422, "invalid", "/content"),
        (b"\x82\xa3key\xa4jobs\xa7content\x81" + b"\x91" * 900 + b"\x01\x02", 422, "invalid", "/content"),
        (msgpack.packb({"key": "jobs", "content": [b"raw"]}), 422, "invalid", "/content/0"),
        (msgpack.packb({"key": "jobs", "content": msgpack.ExtType(5, b"x")}), 422, "invalid", "/content"),
        (msgpack.packb({"key": "jobs", "content": msgpack.Timestamp(1)}), 422, "invalid", "/content"),
        (msgpack.packb({"key": "jobs", "content": float("nan")}), 422, "invalid", "/content"),
        (msgpack.packb({"key": "jobs", "upsert": float("inf")}), 422, "invalid", "/upsert"),
        (b"\x82\xa3key\xa4jobs\xa7content" + b"\x91" * 65 + b"\x01", 422, "invalid", "/content" + "/0" * 64),
        (b"\x82\xa3key\xa4jobs\xa7content" + b"\x91" * 900 + b"\x01", 422, "invalid", ""),
        (b"\x91" * 100_000, 422, "invalid", ""),
        (msgpack.packb({"key": "jobs", "sortfield": "x"}), 422, "invalid", "/sortfield"),
    ],
)
async def test_msgpack_that_is_not_what_json_could_be(
    api: Api, sent: bytes, status: int, code: str, pointer: str | None
) -> None:
    answer = await send_raw(api, sent)
    assert (answer.status, answer.data["code"]) == (status, code), answer.data
    if pointer is not None:
        assert [error["pointer"] for error in answer.data["errors"]] == [pointer]
    assert (await api("GET", "/v1/items/jobs")).data["items"] == []


@given(JSON)
def test_any_json_value_is_read_from_msgpack(value: Any) -> None:
    assert same(strictmsgpack.decode(msgpack.packb(value)), value)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"*/*", negotiate.JSON),
        (b"", negotiate.JSON),
        (b",", negotiate.JSON),
        (b"application/*", negotiate.JSON),
        (b"application/json; charset=utf-8", negotiate.JSON),
        (b"text/html, application/xhtml+xml, */*;q=0.8", negotiate.JSON),
        (b"Application/JSON;Q=0.1, application/vnd.msgpack ; q=0.2", negotiate.MSGPACK),
        (b"application/vnd.msgpack;q=0.2, application/json;q=0.2", negotiate.JSON),
        (b"application/json;q=0, application/*;q=0.1", negotiate.MSGPACK),
        (b"application/x-msgpack", "application/x-msgpack"),
        (b"application/x-ndjson", negotiate.LINES),
        (b"application/json;q=0", None),
        (b"*/*;q=0", None),
        (b"application/json;q=2", None),
        (b"text/plain", None),
        (b"application/json;q=0.9999, application/x-msgpack;q=0.001", "application/x-msgpack"),
        (b"text/html, " * 100 + b"application/vnd.msgpack", negotiate.MSGPACK),
    ],
)
def test_accept(accept: bytes, chosen: str | None) -> None:
    assert negotiate.media_type(accept) == chosen


@pytest.mark.parametrize(
    ("written", "takes"),
    [
        (b"gzip", True),
        (b"br, X-GZIP", True),
        (b"*", True),
        (b"gzip;q=0, *", False),
        (b"identity, *;q=0", False),
        (b"br", False),
        (b"gzip;q=nan", False),
        (b"", False),
    ],
)
def test_accept_encoding(written: bytes, takes: bool) -> None:
    assert negotiate.takes_gzip(written) is takes


# gzip


async def compressed(api: Api, raw: bytes, **headers: str) -> Answer:
    told = {"Content-Type": "application/json", "Content-Encoding": "gzip"} | headers
    return await api("POST", "/v1/items", data=raw, headers=told)


async def test_a_compressed_request(api: Api) -> None:
    item = b'{"key":"jobs","sortField":"a","content":"%b"}' % (b"x" * 100_000)
    parts = b"".join(gzip.compress(item[start : start + 30_000]) for start in range(0, len(item), 30_000))
    for raw in (gzip.compress(item), parts):
        answer = await compressed(api, raw)
        assert answer.status == 201
        assert (await api("GET", ITEM)).data["content"] == "x" * 100_000
        assert (await api("DELETE", ITEM)).status == 204
    packed = gzip.compress(msgpack.packb({"key": "jobs"}))
    assert (await compressed(api, packed, **{"Content-Type": MSGPACK})).status == 201


@pytest.mark.parametrize("size", [MIB + 1, 100 * MIB])
async def test_a_bomb_is_not_inflated(api: Api, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = 0
    begin = zlib.decompressobj

    class Counting:
        def __init__(self, **options: Any) -> None:
            self.inner = begin(**options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def decompress(self, *args: Any) -> bytes:
            nonlocal inflated
            piece = self.inner.decompress(*args)
            inflated += len(piece)
            return piece

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    whole = gzip.compress(b" " * size, 9)
    members = gzip.compress(b" " * 50_000, 9) * (size // 50_000 + 1)
    for raw in (whole, members[: MIB - 1]):
        inflated = 0
        answer = await compressed(api, raw)
        assert (answer.status, answer.data["code"]) == (413, "body_too_large")
        assert MIB < inflated <= MIB + 65_536


@pytest.mark.parametrize(
    ("raw", "encoding", "status", "code"),
    [
        (b'{"key":"jobs"}', "gzip", 400, "invalid_gzip"),
        (gzip.compress(b'{"key":"jobs"}', mtime=0)[:-1], "gzip", 400, "invalid_gzip"),
        (gzip.compress(b'{"key":"jobs"}', mtime=0)[:-5] + b"12345", "gzip", 400, "invalid_gzip"),
        (gzip.compress(b'{"key":"jobs"}', mtime=0) + b"more", "gzip", 400, "invalid_gzip"),
        (gzip.compress(b"", mtime=0) * 50_000, "gzip", 400, "invalid_gzip"),
        (zlib.compress(b'{"key":"jobs"}'), "deflate", 415, "unsupported_media_type"),
        (
            gzip.compress(gzip.compress(b'{"key":"jobs"}', mtime=0), mtime=0),
            "gzip, gzip",
            415,
            "unsupported_media_type",
        ),
        (gzip.compress(gzip.compress(b'{"key":"jobs"}', mtime=0), mtime=0), "gzip", 400, "invalid_json"),
        (b"", "gzip", 422, "invalid"),
    ],
)
async def test_what_is_not_compressed_as_it_says(api: Api, raw: bytes, encoding: str, status: int, code: str) -> None:
    answer = await compressed(api, raw, **{"Content-Encoding": encoding})
    assert (answer.status, answer.data["code"]) == (status, code)
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip"
    assert (await api("GET", "/v1/items/jobs")).data["items"] == []


@pytest.mark.parametrize("size", [5_000, 200_000])
async def test_a_large_answer_is_compressed_for_who_asks(api: Api, size: int) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "sortField": "a", "content": "x" * size})
    whole = await api("GET", ITEM, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in whole.headers
    assert whole.headers["etag"] == '"1.0"'
    for accept, etag in (("*/*", 'W/"1.0"'), (MSGPACK, 'W/"1.0-m"')):
        told = {"Accept-Encoding": "gzip", "Accept": accept}
        answer = await api("GET", ITEM, headers=told)
        assert (answer.headers["content-encoding"], answer.headers["etag"]) == ("gzip", etag)
        assert int(answer.headers["content-length"]) < len(whole.body) / 10
        read = unpacked(answer) if accept == MSGPACK else answer.data
        assert read == whole.data
        known = await api("GET", ITEM, headers={**told, "If-None-Match": etag})
        assert known.status == 304
    assert (await api("DELETE", ITEM, headers={"If-Match": 'W/"1.0"'})).status == 204


async def test_a_small_answer_is_not_compressed(api: Api) -> None:
    await api("POST", "/v1/items", {"key": "jobs", "sortField": "a"})
    assert "content-encoding" not in (await api("GET", ITEM, headers={"Accept-Encoding": "gzip"})).headers
