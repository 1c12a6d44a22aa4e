"""``hookline items`` and ``hookline jobs`` against a real server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from api import Api
from hookline import Datastore, query
from hookline_server.gate import Gate
from jobs import WAITING, fill
from process import hookline, within


@pytest.fixture
def url(api: Api) -> str:
    return f"http://127.0.0.1:{api.port}"


async def said_json(url: str, *args: str, stdin: str = "") -> Any:
    """What a command says with --json, one document."""
    code, said = await within(*args, "--url", url, "--json", stdin=stdin)
    assert code == 0, said
    assert said.count("\n") == 1
    return json.loads(said)


async def test_the_life_of_an_item(url: str, datastore: Datastore, tmp_path: Path) -> None:
    (tmp_path / "content.json").write_text('{"n": [1, 2.5, null], "ä": "\\u009b"}')
    made = await said_json(url, "items", "create", "docs", "a/b c", "--content", f"@{tmp_path}/content.json")
    assert (
        made
        == (await datastore.get("docs", "a/b c")).to_dict()
        == await said_json(url, "items", "get", "docs", "a/b c")
    )
    given = ("--metadata", "-", "--content", "null", "--version", "1")
    updated = await said_json(url, "items", "update", "docs", "a/b c", *given, stdin='{"x": 1}')
    assert (updated["version"], updated["content"], updated["metadata"]["x"]) == (2, None, 1)
    replaced = await said_json(url, "items", "create", "docs", "a/b c", "--upsert", "--content", "7")
    assert (replaced["version"], replaced["content"], "x" in replaced["metadata"]) == (3, 7, False)
    code, said = await within("items", "get", "docs", "a/b c", "--url", url)
    assert code == 0
    assert [line.split(None, 1) for line in said.splitlines()][:3] == [
        ["key", "docs"],
        ["sortField", "a/b c"],
        ["content", "7"],
    ]
    assert await said_json(url, "items", "delete", "docs", "a/b c") == {"done": 1, "passedOver": 0}
    assert (await datastore.count("docs")).count == 0


async def test_items_are_utf_8_and_in_any_other_encoding_they_are_shown(url: str, datastore: Datastore) -> None:
    given = ("items", "create", "docs", "a", "--content", "-", "--url", url, "--json")
    code, said = await hookline(*given, stdin='"日😀"', PYTHONIOENCODING="iso-8859-5")
    assert (code, json.loads(said)["content"]) == (0, "日😀"), said
    assert (await datastore.get("docs", "a")).content == "日😀"


async def test_pause_and_resume(url: str, datastore: Datastore) -> None:
    """As processes of their own."""
    await fill(datastore, 1)
    assert await hookline("jobs", "pause", "jobs", "--url", url) == (0, "key     jobs\npaused  true\n")
    assert (await within("jobs", "claim", "jobs", "--url", url))[0] == 4
    assert await hookline("jobs", "resume", "jobs", "--json", HOOKLINE_URL=url) == (
        0,
        '{"key": "jobs", "paused": false}\n',
    )
    assert (await within("jobs", "claim", "jobs", "--url", url))[0] == 0


async def test_a_query_shows_any_number_page_by_page(url: str, datastore: Datastore) -> None:
    names = await fill(datastore, 600)
    code, said = await within("items", "query", "jobs", "--url", url, "--json")
    assert code == 0
    assert [json.loads(line)["sortField"] for line in said.splitlines()] == names
    code, said = await within(
        *("items", "query", "jobs", "--url", url, "--order", "sortField:desc", "--limit", "300", "--where"),
        '{"n": {"lt": 400}}',
    )
    assert code == 0
    header, rule, *rows = said.splitlines()
    assert (header.split()[:3], set(rule)) == (["sortField", "version", "status"], {"-", " "})
    assert [row.split()[0] for row in rows] == names[399:99:-1]
    assert await said_json(url, "items", "query", "jobs", "--count", "--where", '{"n": {"gte": 100}}') == {"count": 500}


async def test_who_reads_a_query_may_go_away(url: str, datastore: Datastore) -> None:
    await fill(datastore, 300, x="x" * 4000)
    command = (sys.executable, "-m", "hookline_server", "items", "query", "jobs", "--url", url, "--json")
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(*command, **pipes, limit=100)  # type: ignore[arg-type]
    assert process.stdout
    assert process.stderr
    assert await process.stdout.read(1) == b"{"
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert (await process.stderr.read()).decode() == ""
    assert await asyncio.wait_for(process.wait(), 20) == 141


async def test_the_life_of_a_job(url: str, datastore: Datastore) -> None:
    await said_json(url, "items", "create", "jobs", "a", "--metadata", json.dumps(WAITING))

    async def claim() -> str:
        claimed = await said_json(url, "jobs", "claim", "jobs", "--lock-for", "10m", "--worker-id", "w")
        assert (claimed["sortField"], claimed["metadata"]["worker_id"]) == ("a", "w")
        return str(claimed["token"])

    token = await claim()
    extended = await said_json(url, "jobs", "extend", "jobs", "a", token, "--lock-for", "1h")
    assert extended["lockedUntil"] == (await datastore.get("jobs", "a")).metadata["locked_until"]
    assert (await said_json(url, "jobs", "release", "jobs", "a", token))["status"] == "not_started"
    failed = await said_json(url, "jobs", "fail", "jobs", "a", await claim(), "--error", "no", "--retry-after", "0s")
    assert (failed["status"], (await datastore.get("jobs", "a")).metadata["last_error"]) == ("not_started", "no")
    done = await said_json(url, "jobs", "complete", "jobs", "a", await claim(), "--metadata", '{"rows": 3}')
    assert done == {"key": "jobs", "sortField": "a", "version": 7, "status": "completed", "lockedUntil": None}
    assert (await datastore.get("jobs", "a")).metadata["rows"] == 3


async def test_cancel_and_redrive_one_and_all(url: str, datastore: Datastore) -> None:
    await fill(datastore, 5)
    await datastore.update("jobs", "0004", metadata={"status": "failed"})
    assert (await said_json(url, "jobs", "cancel", "jobs", "0000"))["done"] == 1
    code, said = await within("jobs", "cancel", "jobs", "0004", "--url", url)
    assert (code, said.splitlines()[0]) == (1, "hookline: the item has ended already: it is failed")
    code, said = await within("jobs", "redrive", "jobs", "0003", "--url", url)
    assert (code, said.splitlines()[0]) == (1, "hookline: only an item with status failed is redriven")
    assert await said_json(url, "jobs", "cancel", "jobs", "--where", '{"n": {"lt": 3}}') == {"done": 2, "passedOver": 0}
    assert (await said_json(url, "jobs", "redrive", "jobs", "0004"))["done"] == 1
    await datastore.update("jobs", "0003", metadata={"status": "failed"})
    assert await said_json(url, "jobs", "redrive", "jobs", "--where", "{}") == {"done": 1, "passedOver": 0}
    found = [item.status for item in (await datastore.query("jobs")).items]
    assert found == ["cancelled"] * 3 + ["not_started"] * 2
    assert await said_json(url, "items", "delete", "jobs", "--where", '{"status": "cancelled"}') == {
        "done": 3,
        "passedOver": 0,
    }


async def test_one_item_is_cancelled_by_the_rule_of_the_text(url: str, api: Api, datastore: Datastore) -> None:
    """With a status of the user's own, with none, scheduled; and names that a text would read as its own."""
    await datastore.create("docs", "mine", metadata={"status": "mine"})
    await datastore.create("docs", '[item] and "key": x', metadata={})
    await datastore.create("docs", "due", metadata={"status": "not_started", "scheduled_at": "+1h"})
    for name in ("mine", '[item] and "key": x', "due"):
        for _ in range(2):  # what is repeated under the same key is no second cancel, which would be refused
            args = ("jobs", "cancel", "docs", name, "--idempotency-key", f"k{name[0]}".strip("["))
            assert (await said_json(url, *args))["done"] == 1
        assert (await datastore.get("docs", name)).status == "cancelled"
        assert (await api.command(f"cancel item with:\nkey: docs\nsortField: {json.dumps(name)}\n")).status >= 400


async def test_cancel_of_all_leaves_the_scheduled_ones(url: str, datastore: Datastore) -> None:
    await fill(datastore, 1)
    await datastore.create("jobs", "due", metadata={"status": "not_started", "scheduled_at": "+1h"})
    code, said = await within("jobs", "cancel", "jobs", "--url", url)
    assert (code, "'{}' is all with status not_started" in said) == (2, True)
    assert (await said_json(url, "jobs", "cancel", "jobs", "--where", "{}"))["done"] == 1
    assert (await datastore.get("jobs", "due")).status == "scheduled"
    both = '{"status": {"in": ["scheduled", "not_started"]}}'
    assert (await said_json(url, "jobs", "cancel", "jobs", "--where", both))["done"] == 1


async def test_rules_say_what_they_did_not_do(url: str) -> None:
    rule = ("orchestrations", "create", "nightly", "--key", "jobs", "--every", "1h", "--url", url)
    assert (await within(*rule))[0] == 0
    assert await within("orchestrations", "run", "nightly", "--url", url) == (0, "nothing was claimed\n")
    assert await within("orchestrations", "run", "nightly", "--url", url, "--json") == (0, "")
    code, said = await within("orchestrations", "runs", "nightly", "--url", url)
    assert (code, "hand" in said, "null" in said) == (0, True, False)
    assert (await said_json(url, "orchestrations", "runs", "nightly", "--limit", "1"))["tick"] is None
    assert await within("orchestrations", "delete", "nightly", "--url", url) == (0, "deleted nightly\n")
    assert await within("items", "query", "jobs", "--url", url) == (0, "none\n")
    assert await within("items", "query", "jobs", "--url", url, "--json") == (0, "")


async def test_a_list_of_rules_is_read_to_its_end(url: str, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await within("schedules", "list", "--url", url) == (0, "none\n")
    for name in ("a", "b", "c"):
        assert (await api("PUT", f"/v1/schedules/{name}", {"key": "jobs", "content": "x" * 1000})).status == 201
    monkeypatch.setattr(query, "ANSWER_MAX", 1500)  # bytes of a page
    code, said = await within("schedules", "list", "--url", url, "--json")
    assert (code, [json.loads(line)["name"] for line in said.splitlines()]) == (0, ["a", "b", "c"])


async def test_a_command_that_is_repeated_writes_once(url: str, datastore: Datastore) -> None:
    create = ("items", "create", "jobs", "--metadata", json.dumps(WAITING), "--idempotency-key", "nightly")
    made = [await said_json(url, *create) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0]["sortField"] == "nightly"
    claim = ("jobs", "claim", "jobs", "--idempotency-key", "c")
    token, again = [(await said_json(url, *claim))["token"] for _ in range(2)]
    assert token == again
    complete = ("jobs", "complete", "jobs", "nightly", token, "--idempotency-key", "d")
    done = [await said_json(url, *complete) for _ in range(2)]
    assert done[0] == done[1]
    assert (await datastore.get("jobs", "nightly")).version == 3
    assert (await within("jobs", "complete", "jobs", "nightly", token, "--url", url))[0] == 1


async def test_a_duration_may_be_a_bare_number_of_seconds(url: str, datastore: Datastore) -> None:
    await fill(datastore, 1)
    claimed = await said_json(url, "jobs", "claim", "jobs", "--lock-for", "90", "--wait", "0.5")
    token, name = claimed["token"], claimed["sortField"]
    await said_json(url, "jobs", "extend", "jobs", name, token, "--lock-for", "900")
    assert (await datastore.get("jobs", name)).metadata["locked_until"] > claimed["metadata"]["locked_until"]
    changed = await said_json(url, "settings", "set", "jobs", "--lock-for", "300", "--backoff", "7")
    assert (changed["lockFor"], changed["backoff"]) == ("5m", "7s")
    rule = await said_json(url, "schedules", "create", "a", "--key", "jobs", "--every", "5", "--jitter", "1")
    assert (rule["every"], rule["jitter"]) == ("5s", "1s")
    rule = await said_json(url, "orchestrations", "create", "a", "--key", "docs", "--every", "5", "--lock-for", "90")
    assert rule["lockFor"] == "90s"


async def test_a_rule_without_times_is_said_to_be_run_by_hand(url: str) -> None:
    for kind in ("orchestrations", "schedules"):
        create = (kind, "create", "a", "--key", "docs", "--url", url)
        said = f"without --every or --cron it is run by hand: hookline {kind} run a"
        assert said in (await within(*create))[1]
        assert said not in (await within(*create, "--every", "1h"))[1]
        assert said not in (await within(*create, "--json"))[1]


async def test_a_status_has_an_option(url: str) -> None:
    create = ("items", "create", "jobs", "--status", "not_started")
    await said_json(url, *create)
    made = await said_json(url, *create, "--metadata", '{"type": "report"}')
    assert {"status": "not_started", "type": "report"}.items() <= made["metadata"].items()
    find = ("items", "query", "jobs", "--status", "not_started")
    assert (await said_json(url, *find, "--count"))["count"] == 2
    assert await said_json(url, *find, "--where", '{"type": "report"}') == made
    code, said = await within(*find, "--where", '{"status": "failed"}', "--url", url)
    assert (code, said) == (2, "hookline: --status: expected it either here or in --where\n")


@pytest.mark.parametrize(
    ("args", "code", "sentences"),
    [
        ("items get jobs none", 4, ["no item has this key", "next: 'hookline items query KEY'"]),
        ("jobs claim jobs", 4, ["there is nothing to claim in jobs\n"]),
        ("items create docs there", 1, ["an item with this key and sortField exists", "next: --upsert"]),
        ("items update docs there --version 7", 1, ["not the current one", "next: 'hookline items get'"]),
        ("jobs complete docs there 1.0", 1, ["has ended", "next: claim it again"]),
        ("items create hookline.x a", 1, ["their own routes"]),
        ("items create a/b c", 2, ["hookline: KEY: expected 1 to 128 characters"]),
        ("items query docs --order x", 2, ["hookline: --order: expected"]),
        ("items query docs --count --limit 1", 2, ["expected either --count, or --order and --limit"]),
        ("items query docs --where {", 2, ["--where: expected JSON, or @FILE", "line 1 column 2"]),
        ('items query docs --where {"a":1,"a":2}', 2, ["each name once in an object: a"]),
        ("items create docs --content NaN", 2, ["--content: expected JSON, which has no NaN"]),
        ("items create docs --content @none", 2, ["--content: cannot read none"]),
        ("items delete docs", 2, ["either a SORT_FIELD, or --where"]),
        ("items delete docs there --where {}", 2, ["either a SORT_FIELD, or --where"]),
        ("jobs cancel docs", 2, ["either a SORT_FIELD, or --where"]),
        ("jobs claim docs --wait soon", 2, ["--wait: expected"]),
        ("items create docs --idempotency-key ä", 2, ["hookline: --idempotency-key: expected"]),
        ("items get docs a --url ftp://127.0.0.1", 2, ["hookline: --url: expected an address"]),
        ('items create docs a --no-triggers --metadata {"status":3}', 2, ["hookline: --metadata /status: expected"]),
        ("jobs claim jobs --lock-for soon", 2, ["hookline: --lock-for: expected"]),
        ("jobs fail docs a t --retry-after soon", 2, ["hookline: --retry-after: expected"]),
        ("items create docs a --no-triggers --metadata 3", 2, ["hookline: --metadata: expected"]),
        ("jobs cancel a/b c", 2, ["hookline: KEY: expected 1 to 128 characters"]),
        ("orchestrations create a --key b --every 1m --limit 0", 2, ["hookline: --limit: expected"]),
        ("orchestrations create a+b --key b --every 1m", 2, ["hookline: NAME: expected"]),
        ("orchestrations create a --key b/c --every 1m", 2, ["hookline: --key: expected"]),
        ("orchestrations show none", 4, ["no orchestration", "next: 'hookline orchestrations list'"]),
    ],
)
async def test_what_is_refused_says_so_by_its_exit_code(
    url: str, datastore: Datastore, args: str, code: int, sentences: list[str]
) -> None:
    await datastore.create("docs", "there")
    ended, said = await within(*args.split(), *(() if "--url" in args else ("--url", url)))
    assert ended == code, said
    assert said.startswith("hookline: ")
    for sentence in sentences:
        assert sentence in said
    assert "Traceback" not in said


async def test_without_an_api_key_that_may_do_it(url: str, gate: Gate, make_key: Any) -> None:
    reads = (await make_key("default", scopes=["read"]))["Authorization"].split()[1]
    for key, sentence in (
        ("", "next: show a good one by --api-key"),
        ("hl_no", "next: show"),
        (reads, "next: 'hookline keys list'"),
    ):
        code, said = await within("items", "create", "docs", "a", "--url", url, HOOKLINE_API_KEY=key)
        assert code == 5, said
        assert sentence in said
        assert not key or key not in said


async def test_a_server_that_is_away_or_gives_no_answer() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        asked = ("items get docs a", "items create docs a", "jobs pause docs", "schedules list", "top --once")
        for args in (*asked, "orchestrate --key docs --once"):
            code, said = await within(*args.split(), "--url", url)
            assert (code, "Traceback" in said) == (3, False)
            assert f"no Hookline server answers at {url}" in said
            assert "next: try again; 'hookline serve' starts a server" in said


@pytest.mark.parametrize("args", ["items query docs", "orchestrations list", "top --once"])
async def test_an_address_with_a_path_is_told_to_be_without(url: str, args: str) -> None:
    code, said = await within(*args.split(), "--url", f"{url}/v1")
    assert (code, said.count("next: --url is the address of the server alone")) == (1, 1), said
    assert "Traceback" not in said


async def test_an_answer_of_a_proxy_is_no_answer_of_a_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for args, expected in (("deliveries list", 3), ("items get a b", 3), ("deliveries redrive --all", 6)):
            code, said = await within(*args.split(), "--url", url)
            assert (code, "status 502" in said, "Traceback" in said) == (expected, True, False), said


async def test_a_write_without_an_answer_names_the_key_to_repeat_it_with(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        code, said = await within("items", "create", "docs", "a", "--url", url, "--idempotency-key", "nightly")
        assert code == 6
        assert "next: the same command with --idempotency-key nightly does it if it was not done" in said
        for args in ("orchestrations run nightly", "deliveries redrive --all", "orchestrate --key docs --once"):
            code, said = await within(*args.split(), "--url", url)
            assert code == 6, said
            assert "did not tell what became of it: " in said
            assert "next: look at what is there before you repeat it" in said
        (tmp_path / "text").write_text("show keys")
        code, said = await within("run", str(tmp_path / "text"), "--url", url)
        assert code == 6, said
        assert (await within("schedules", "list", "--url", url))[0] == 3


async def test_the_step_after_an_unknown_outcome_is_one_that_the_command_has() -> None:
    """Where a server says by itself that it does not know."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int((re.search(rb"(?i)content-length: (\d+)", head) or [b"", b"0"])[1]))
        body = b'{"code": "outcome_unknown", "detail": "lost"}'
        writer.write(b"HTTP/1.1 503 Unknown\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for verb in ("extend", "release"):
            code, said = await within("jobs", verb, "docs", "a", "1.0123456789abcdef", "--url", url)
            _, helped = await within("jobs", verb, "--help", COLUMNS="200")
            assert code == 6, said
            assert ("--idempotency-key" in said) == ("--idempotency-key" in helped) == (verb == "release"), said
            assert "next: the same command " in said
        assert "next: the same command again: " in (await within("jobs", "pause", "docs", "--url", url))[1]


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "hookline_server", *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command and tells the most memory that it took, in KiB."""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is told in other units")
async def test_a_query_of_many_holds_a_page_of_them(url: str, datastore: Datastore) -> None:
    """Items of 40 MB in all, and a process that takes little more than for one page of 5 MB."""
    await fill(datastore, 2000, x="x" * 20_000)

    async def peak(*args: str) -> int:
        command = (sys.executable, "-c", PEAK, "items", "query", "jobs", "--url", url, "--json", *args)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return int(said)

    assert await peak() - await peak("--limit", "250") < 20_000
