"""The cycle: a whole answer leaves in one piece, and no header can become another one, or an answer."""

from __future__ import annotations

from typing import Any

import pytest

from api import Answer, asking
from rawhttp import dialled, request

LENGTH = (b"content-length", b"2")
PLAIN = [{"type": "http.response.body", "body": b"ok"}]


async def answered(status: int, headers: list[Any], parts: list[dict[str, Any]], method: str = "GET") -> list[Answer]:
    """What a client gets to read of an application that sends this."""

    async def send_all(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/livez":
            status_, headers_, parts_ = 200, [LENGTH], PLAIN
        else:
            status_, headers_, parts_ = status, headers, parts
        await send({"type": "http.response.start", "status": status_, "headers": headers_})
        for part in parts_:
            await send(part)

    app: Any = send_all
    async with asking(app) as api, dialled(api.port) as line:
        await line.send(request(method, "/"), request("GET", "/livez", close=True))
        if method == "HEAD":
            head = await line.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 2\r\n" in head
        return await line.rest()


@pytest.mark.parametrize(
    ("headers", "parts"),
    [
        ([LENGTH], PLAIN),
        ([], PLAIN),
        ([(b"content-length", b"0")], [{"type": "http.response.body"}]),
        (
            [LENGTH],
            [
                {"type": "http.response.body", "body": b"o", "more_body": True},
                {"type": "http.response.body", "body": b"k"},
            ],
        ),
    ],
    ids=["in one piece", "of no length", "empty", "in two"],
)
async def test_an_answer_and_the_one_after_it(headers: list[Any], parts: list[dict[str, Any]]) -> None:
    body = b"".join(part.get("body", b"") for part in parts)
    answers = await answered(200, headers, parts)
    assert [(answer.status, answer.body) for answer in answers] == [(200, body), (200, b"ok")]


async def test_a_head_alone_has_no_body() -> None:
    assert [answer.body for answer in await answered(200, [LENGTH], PLAIN, "HEAD")] == [b"ok"]


async def test_no_content_has_none() -> None:
    statuses = [answer.status for answer in await answered(204, [], [{"type": "http.response.body", "body": b""}])]
    assert statuses == [204, 200]


@pytest.mark.parametrize("text", [b"a\r\nx-more: b", b"a\nx", b"a\rx", b"a\0b", b"a\x1fb"])
async def test_a_header_is_one_line(text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answers = await answered(200, [LENGTH, (b"location", text)], PLAIN)
    assert answers[0].status == 500
    assert "location" not in answers[0].headers
    assert "x-more" not in answers[0].headers
    caplog.clear()


@pytest.mark.parametrize("length", [b"1", b"3"])
async def test_a_length_that_is_not_the_bodys_ends_the_connection(
    length: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answers = await answered(200, [(b"content-length", length)], PLAIN)
    assert len(answers) < 2
    caplog.clear()
