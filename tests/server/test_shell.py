"""``hookline shell``: in a pseudo-terminal against a real server; and its parts by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import stat
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prompt_toolkit.history import InMemoryHistory

from conftest import wait_until
from hookline_server.command import CommandSyntaxError, parse
from hookline_server.command.verbs import VERBS
from hookline_server.shell.colours import colour
from hookline_server.shell.completion import CommandCompleter
from hookline_server.shell.heads import HEADS, LOOP, verb_of
from hookline_server.shell.history import PrivateHistory, may_hold_secrets, open_history
from hookline_server.shell.reading import is_whole
from process import Process, free_port, hookline, serving
from terminal import Terminal, terminal


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    async with serving(tmp_path_factory.mktemp("shell") / "data") as process:
        yield process


@pytest_asyncio.fixture(loop_scope="session")
async def shell(server: Process, tmp_path: Path) -> AsyncIterator[Terminal]:
    async with terminal("shell", "--url", server.url, XDG_STATE_HOME=str(tmp_path)) as opened:
        await opened.sees("hookline>")
        yield opened


async def enter(shell: Terminal, text: str, until: str) -> str:
    await wait_until(lambda: shell.is_prompting)
    shell.type(text)
    return await shell.sees(until)


async def press(shell: Terminal, keys: str, until: str, undo: str = "") -> None:
    """Press keys whose effect comes from what the shell loads beside the prompt; again, if it was not there yet."""
    await wait_until(lambda: shell.is_prompting)
    for _ in range(40):
        shell.type(keys)
        with contextlib.suppress(AssertionError):
            await wait_until(lambda: until in shell.shown, seconds=0.5)
            return
        shell.type(undo)
    raise AssertionError(f"{until!r} was not shown:\n{shell.shown}")


async def recall(shell: Terminal, text: str) -> None:
    """Call the last text back."""
    await press(shell, "\x1b[A", text, undo="\x1b[B")


async def test_commands_and_what_they_bind(shell: Terminal) -> None:
    shown = await enter(
        shell, 'create item with:\nkey: life\nsortField: a\nmetadata: {"status": "not_started"}\n\n', "updatedAt"
    )
    assert "not_started" in shown
    await enter(shell, "claim items where key: life\n", "claim: 1 item")
    # The token is that of the claim before, though each text is a request of its own.
    text = "complete item with key: [job.key] and sortField: [job.sortField] and token: [token]\n"
    await enter(shell, text, "completed")
    await enter(shell, "json\n", "hookline>")
    await enter(shell, "get items with key: life\n", '"sortField": "a"')


async def test_a_claim_that_found_nothing_has_no_job(shell: Terminal) -> None:
    await enter(shell, "claim items where key: nothing\n", "claim: 0 items")
    shown = await enter(shell, "get item with key: nothing and sortField: [job.sortField]\n", "^")
    assert "the result before it has no job" in " ".join(shown.split())


async def test_an_error_is_shown_under_the_word(shell: Terminal) -> None:
    shown = await enter(shell, "crate item with:\n", "^")
    assert "expected '/datastore'" in shown
    assert "did you mean 'create'?" in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[lines.index("  ^") - 1] == "  crate item with:"
    shown = await enter(shell, "get item with key: jobs and sortField: [job.x]\n", "^")
    assert "the name of a result (none: no result comes before it), found 'job'" in shown
    shown = await enter(shell, "query items where key: jobs and limit: 0\n", "^")
    lines = [line.rstrip() for line in shown.splitlines()]
    assert "expected a whole number from 1 to 1000" in shown
    assert lines[lines.index("  query items where key: jobs and limit: 0") + 1] == " " * 41 + "^"


async def test_a_loop_ends_with_end(shell: Terminal) -> None:
    await enter(shell, "create item with key: loop and sortField: a\n", "updatedAt")
    await enter(shell, "query items where key: loop\n", "query: 1 item")
    text = "for each job in [items]:\ndelete item with key: loop and sortField: [job.sortField]\n\nend\n"
    await enter(shell, text, "for each job: 1 round")


async def test_completion(shell: Terminal) -> None:
    await enter(shell, "create item with key: complete-me and sortField: a\n", "updatedAt")
    await enter(shell, "que", "que")
    await press(shell, "\t", "ry items where:")
    await enter(shell, "\nkey: compl", "key: compl")
    await press(shell, "\t", "ete-me")
    await enter(shell, "\nli", "li")
    await press(shell, "\t", "mit:")
    await enter(shell, "5\n\n", "query: 1 item")


async def test_colours(shell: Terminal) -> None:
    await enter(shell, "get items with key: nothing\n", "get: 0 items")
    typed = shell.raw.partition(b"get: 0 items")[0]
    assert b"\x1b[0;34;1mget" in typed
    assert b"\x1b[0;36mkey" in typed


async def test_the_history_is_kept_without_secrets(server: Process, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    async with terminal("shell", "--url", server.url, **state) as first:
        await first.sees("hookline>")
        await enter(first, "count items where key: remembered\n", "count  0")
        secret = 'create item with:\nkey: kept\nsortField: a\ntriggerUrls: {"http://127.0.0.1:9/": "hunter2"}\n\n'
        await enter(first, secret, "updatedAt")
        # Within the session it can still be called back.
        await recall(first, "hunter2")
        first.type("\x03")
        await enter(first, "help pause\n", "key: text")
        await wait_until(lambda: first.is_prompting)
        first.type("\x04")
        assert await asyncio.wait_for(first.process.wait(), 20) == 0
    path = tmp_path / "hookline" / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "+count items where key: remembered" in path.read_text()
    assert "hunter2" not in path.read_text()
    async with terminal("shell", "--url", server.url, **state) as second:
        await second.sees("hookline>")
        await recall(second, "help pause")
        await enter(second, "\n", "key: text")
        await enter(second, "help wait\n", "sortField: text (required)")
        second.type("exit\n")
        assert await asyncio.wait_for(second.process.wait(), 20) == 0


async def test_help_of_what_is_no_verb_names_the_nearest(shell: Terminal) -> None:
    assert "there is no verb 'cancle': did you mean 'cancel'?" in await enter(shell, "help cancle\n", "lists them")
    assert "key: text (required)" in await enter(shell, "help change settings\n", "triggerUrls: json")
    assert "change settings of:" in await enter(shell, "help\n", LOOP)
    await enter(shell, "help for\n", LOOP)


async def test_ctrl_c_stops_waiting_and_not_the_shell(shell: Terminal) -> None:
    shell.type("claim items where key: nothing-here and wait: 25\n")
    await shell.sees("wait: 25")
    await wait_until(lambda: not shell.is_prompting)
    shell.type("\x03")
    await shell.sees("no longer waited for")
    await enter(shell, "count items where key: none\n", "count  0")


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_to_end_leaves_the_terminal_as_it_was(
    shell: Terminal, signum: signal.Signals, waits: bool
) -> None:
    await wait_until(lambda: shell.is_prompting)
    if waits:
        shell.type("claim items where key: nothing-here and wait: 25\n")
        await shell.sees("wait: 25")
        await wait_until(lambda: not shell.is_prompting)
    shell.process.send_signal(signum)
    assert await asyncio.wait_for(shell.process.wait(), 10) == 130
    assert termios.tcgetattr(shell.descriptor)[3] & termios.ECHO
    await wait_until(lambda: shell.raw.rfind(b"\x1b[?2004l") > shell.raw.rfind(b"\x1b[?2004h"))
    assert b"Traceback" not in shell.raw


async def test_without_a_server_the_shell_says_so_and_goes_on(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with terminal("shell", "--url", url, XDG_STATE_HOME=str(tmp_path)) as shell:
        assert "start one with 'hookline serve', or name its --url" in await shell.sees("hookline>")
        await enter(shell, "show keys\n", "no Hookline server answers")


async def test_a_shell_needs_a_terminal() -> None:
    code, said = await hookline("shell")
    assert (code, "hookline run -" in said) == (2, True)


async def test_run_shows_tables_and_points_at_what_was_refused(server: Process) -> None:
    text = "create item with key: run and sortField: a\nquery items where key: run\n"
    code, said = await hookline("run", "--url", server.url, "--output", "table", "-", stdin=text)
    assert code == 0, said
    assert "\nquery: 1 item\nsortField  version\n---------  -------\na          1\n" in said
    code, said = await hookline("run", "--url", server.url, "-", stdin="\nget items with key: run and limit: -1\n")
    assert code == 2
    assert said.endswith("  get items with key: run and limit: -1\n" + " " * 37 + "^\n")
    code, said = await hookline("run", "--url", server.url, "-", stdin="crate item with:\n")
    assert said.endswith("  crate item with:\n  ^\n")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True),
        ("get items with key: a", True),
        ("show keys", True),
        ("create item with: key: a", True),
        ("create item", False),
        ("create item with:", False),
        ("create item with:\nkey: a", False),
        ("create item with:\nkey: a\n", True),
        ("create item with:\nkey: a\nmetadata: {", False),
        ("create item with:\nkey: a\nmetadata: {\n", False),
        ("create item with:\n", True),
        ("crate item with:", True),
        ("create item with:\nkoy: a", True),
        ("query items where key: a\nfor each job in [items]:", False),
        ("query items where key: a\nfor each job in [items]:\n", False),
        ("query items where key: a\nfor each job in [items]:\nend", True),
    ],
)
def test_when_enter_sends(text: str, whole: bool) -> None:
    assert is_whole(text, ()) is whole


@pytest.mark.parametrize(
    "text",
    [
        'create item with:\ntriggerUrls: {"http://x": "k"}',
        'create item with:\ntrigerUrsl: {"https://x": "k"}',
        "create item with:\nTRIGGER_URLS: [x]",
        "update item with:\ncontent: {apiKey: 'k'}",
        "update item with:\ncontent: {'api_key': 'k'}",
        "complete item with key: a and sortField: b and token: 2.abc",
        'complete item with:\ntoken: "2.abc"',
        "create item with:\ncontent: {password: 'k'}",
    ],
)
def test_what_may_hold_secrets(text: str, tmp_path: Path) -> None:
    assert may_hold_secrets(text)
    history = PrivateHistory(tmp_path / "history")
    history.append_string(text)
    history.append_string(" count items where key: unwritten")
    assert not (tmp_path / "history").exists()
    assert text in history.get_strings()


@pytest.mark.parametrize(
    "text",
    [
        "update item with triggers off:\nkey: a\nsortField: b",
        "complete item with key: a and sortField: b and token: [token]",
        'complete item with:\ntoken: "[mine.token]"',
        "claim items where key: a and triggers: on",
    ],
)
def test_what_is_remembered(text: str) -> None:
    assert not may_hold_secrets(text)


def test_a_history_file_of_others_becomes_private_and_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = tmp_path / "hookline" / "history"
    path.parent.mkdir()
    path.touch(0o644)
    assert isinstance(open_history(), PrivateHistory)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    assert isinstance(open_history(), InMemoryHistory)


def candidates(before: str) -> list[str]:
    completer = CommandCompleter(lambda: ["jobs", "notes"], lambda: ["items", "item", "token"])
    return [before[: len(before) - length] + text for text, length in completer.candidates(before)]


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("upd", ["update item with:", "update item with triggers off:"]),
        ("/datastore UPDATE  it", ["/datastore update item with:", "/datastore update item with triggers off:"]),
        ("pau", ["pause"]),
        ("pause ", ["pause key: "]),
        ("for", ["for each job in [items]:"]),
        ("get item with key: j", ["get item with key: jobs"]),
        (
            "get item with key: jobs and sort",
            [f"get item with key: jobs and {name}: " for name in ("sortField", "sortFields")],
        ),
        ("claim items where:\nkey: ", ["claim items where:\nkey: jobs", "claim items where:\nkey: notes"]),
        ("claim items where:\nkey: jobs\ntri", ["claim items where:\nkey: jobs\ntriggers: "]),
        ("claim items where:\nkey: jobs\nk", []),
        ("claim items where: k", ["claim items where: key: "]),
        ("claim items where: key: j", ["claim items where: key: jobs"]),
        ("claim items where: key: jobs and tri", ["claim items where: key: jobs and triggers: "]),
        ("query items where:\nkey: jobs\nwhere: k", []),
        ("claim items where:\ntriggers: o", ["claim items where:\ntriggers: on", "claim items where:\ntriggers: off"]),
        ("create item with:\nupsert: t", ["create item with:\nupsert: true"]),
        ("extend item with:\ntoken: [t", ["extend item with:\ntoken: [token"]),
        ('create item with:\nmetadata: { "a": "b', []),
    ],
)
def test_candidates(before: str, found: list[str]) -> None:
    assert candidates(before) == found


def test_heads_are_those_of_the_grammar() -> None:
    assert set(HEADS) == set(VERBS)
    values = {"object": "{}", "text": "x"}
    for verb, heads in HEADS.items():
        for head in heads:
            assert verb_of(f"/datastore {head}") == verb
            fields = [f"{name}: {values[VERBS[verb].fields[name]]}" for name in VERBS[verb].required]
            text = "\n".join([head, *fields]) if head.endswith(":") else f"{head} {' and '.join(fields)}"
            assert [getattr(command, "verb", None) for command in parse(text)] == [verb]
    with pytest.raises(CommandSyntaxError, match="'end'"):
        parse(f"query items where key: a\n{LOOP}")


def test_colours_of_a_line() -> None:
    line = '/datastore update item with key: [job.key] and version: 10 and metadata: {"a": true} # no comment'
    pieces = [(style.removeprefix("class:"), text) for style, text, *_ in colour(line)]
    assert "".join(text for _, text in pieces) == line
    coloured = [piece for piece in pieces if piece[0]]
    assert coloured[:4] == [
        ("verb", "/datastore update"),
        ("word", "item"),
        ("word", "with"),
        ("field", "key"),
    ]
    assert ("placeholder", "[job.key]") in coloured
    assert ("number", "10") in coloured
    assert ("string", '"a"') in coloured
    assert ("number", "true") in coloured
    assert [style for style, *_ in colour("  # a comment with: words")] == ["class:comment"]
