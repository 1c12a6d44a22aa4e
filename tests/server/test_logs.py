"""Log lines: both forms, what they belong to, what they leave out, and the line of a request."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from api import asking
from hookline import Datastore, Settings
from hookline.errors import Invalid, Unavailable
from hookline_server import logs
from hookline_server.app import create_app
from process import hookline, serving


class Lines:
    """A logger of its own, and what it wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(formatter)
        self.log = logging.getLogger("hookline_server.test")
        self.log.handlers[:] = [handler]
        self.log.propagate = False
        self.log.setLevel(logging.DEBUG)

    def read(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_json() -> None:
    lines = Lines(logs.Json())
    request = logs.REQUEST.set(b"r-1")
    event = logs.EVENT.set("default-0-17-0")
    lines.log.warning("key %s is odd", "jobs", extra={logs.FIELDS: {"route": "/v1/items"}})
    logs.EVENT.reset(event)
    lines.log.info("a")
    logs.REQUEST.reset(request)
    lines.log.info("b")
    first, second, third = map(json.loads, lines.read())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning", "logger": "hookline_server.test", "message": "key jobs is odd", "request": "r-1",
        "event": "default-0-17-0", "route": "/v1/items",
    }  # fmt: skip
    assert (second["request"], "event" in second, "request" in third) == ("r-1", False, False)


def test_text() -> None:
    lines = Lines(logs.Text())
    request = logs.REQUEST.set(b"r-1")
    lines.log.warning("key %s is odd", "jobs")
    logs.REQUEST.reset(request)
    lines.log.error("a step failed", exc_info=raised(Unavailable("no store at /run/store")))
    assert lines.read()[:2] == [
        "WARNING hookline_server.test: key jobs is odd [request r-1]",
        "ERROR hookline_server.test: a step failed",
    ]
    assert lines.read()[-1] == "  Unavailable: no store at /run/store"
    assert " raised" in lines.read()[-2]


@pytest.mark.parametrize("formatter", [logs.Json(), logs.Text()])
def test_what_others_exceptions_say_is_left_out(formatter: logging.Formatter) -> None:
    lines = Lines(formatter)
    lines.log.error("a step failed", exc_info=raised(ValueError("CANARY")))
    said = lines.stream.getvalue()
    assert "ValueError" in said
    assert "CANARY" not in said
    assert "tests/server/test_logs.py" in said or "server/test_logs.py" in said


@pytest.mark.parametrize("formatter", [logs.Json(), logs.Text()])
def test_a_text_can_not_make_a_line_of_its_own(formatter: logging.Formatter) -> None:
    lines = Lines(formatter)
    lines.log.error("key %s", "a\nERROR root: forged\r\x1b[2J\u2028x")
    (line,) = lines.read()
    assert "\x1b" not in line


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.OURS}
    yield
    root.handlers[:] = before
    root.setLevel(level)
    for name, had in levels.items():
        logging.getLogger(name).setLevel(had)


@pytest.mark.usefixtures("restored")
def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(replace(Settings(), log_level="debug", log_format="json"))
    logging.getLogger("hookline.connection").debug("one")
    logging.getLogger("aiohttp.client").info("two")
    logs.set_up(replace(Settings(), log_level="warning"))
    logging.getLogger("hookline_server.relay").info("three")
    logging.getLogger("hookline_server.relay").warning("four")
    said = capsys.readouterr().err
    assert [word for word in ("one", "two", "three", "four") if word in said] == ["one", "four"]


def test_a_warning_that_comes_again_is_held_back_for_a_minute() -> None:
    lines, now = Lines(logs.Text()), [5.0]
    lines.log.handlers[0].addFilter(logs.Repeats(lambda: now[0]))
    for _ in range(3):
        lines.log.warning("a look at %s failed", "the outbox")
        lines.log.error("an error")
    lines.log.warning("a look at %s failed", "the keys")
    event = logs.EVENT.set("default-0-17-0")
    for _ in range(2):
        lines.log.warning("a look at %s failed", "the keys")
    logs.EVENT.reset(event)
    for number in (b"1", b"2"):
        request = logs.REQUEST.set(number)
        lines.log.warning("unavailable")
        logs.REQUEST.reset(request)
    now[0] += logs.QUIET
    for _ in range(2):
        lines.log.warning("a look at %s failed", "the outbox")
    now[0] += logs.QUIET
    lines.log.warning("a look at %s failed", "the keys")
    place = "WARNING hookline_server.test: a look at the"
    assert [line for line in lines.read() if "ERROR" not in line] == [
        f"{place} outbox failed",
        f"{place} keys failed",
        *[f"{place} keys failed [event default-0-17-0]"] * 2,
        "WARNING hookline_server.test: unavailable [request 1]",
        f"{place} outbox failed (and 2 times more since this was said last)",
        f"{place} keys failed",
    ]
    assert len([line for line in lines.read() if "ERROR" in line]) == 3


async def test_asyncio_shows_no_values(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setFormatter(logs.Json())
    loop = asyncio.new_event_loop()
    logs.note_loop_errors(loop)

    async def broken() -> None:
        raise ValueError("CANARY")

    def run() -> None:
        async def forget() -> None:
            task = asyncio.ensure_future(broken())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del task

        loop.run_until_complete(forget())
        loop.close()

    await asyncio.to_thread(run)
    assert "never retrieved" in caplog.text
    assert "ValueError" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("level", ["off", "info"])
async def test_the_line_of_a_request(datastore: Datastore, caplog: pytest.LogCaptureFixture, level: str) -> None:
    caplog.set_level(logging.INFO, logger="hookline_server.traffic")
    caplog.handler.setFormatter(logs.Json())
    async with asking(create_app(datastore, log_requests=level)) as api:
        await api("POST", "/v1/items", {"key": "jobs", "sortField": "a"}, headers={"X-Request-Id": "r-1"})
        await api("GET", "/v1/items/jobs/b?metadata.x=CANARY", headers={"X-Request-Id": "r-2"})
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    if level == "off":
        assert lines == []
        return
    first, second = lines
    assert {name: first[name] for name in ("request", "method", "route", "status", "namespace", "level")} == {
        "request": "r-1", "method": "POST", "route": "/v1/items", "status": 201, "namespace": "default",
        "level": "info",
    }  # fmt: skip
    assert first["message"].startswith("POST /v1/items 201 in ")
    assert 0 < first["durationMs"] < 60_000
    assert (second["request"], second["status"]) == ("r-2", 422)
    assert "CANARY" not in caplog.text


async def test_lines_of_the_server(tmp_path: Path) -> None:
    options = ["--log-format", "json"]
    async with serving(tmp_path / "data", *options, HOOKLINE_LOG_REQUESTS="info", HOOKLINE_TICK="100ms") as server:
        process = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-c",
                "import sys, urllib.request as r; r.urlopen(sys.argv[1]).read()",
                f"{server.url}/livez",
            )
        )
        assert await process.wait() == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in server.said if line.startswith("{")]
    (line,) = [line for line in lines if line.get("route") == "/livez"]
    assert (line["method"], line["status"], line["level"]) == ("GET", 200, "info")


async def test_what_is_no_form_or_level_is_refused(tmp_path: Path) -> None:
    code, said = await hookline("serve", "--data", str(tmp_path), "--log-format", "yaml", HOOKLINE_LOG_LEVEL="loud")
    assert code == 2
    assert "--log-format: expected text or json" in said
    assert "LOG_LEVEL: expected debug, info, warning or error" in said
    with pytest.raises(Invalid, match="off, debug, info, warning or error"):
        replace(Settings(), log_requests="loud")
