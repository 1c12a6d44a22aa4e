"""The command line as a shell sees it: help, refusals, exit codes, completion."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from typer import Typer
from typer.main import get_command

from hookline import EmbeddedStore, Settings, configuration
from hookline.secret import load_key
from hookline_server.app import ROUTES
from hookline_server.cli import app
from hookline_server.cli.ending import CODES
from hookline_server.cli.page import page
from hookline_server.openapi import build
from process import free_port, hookline, within


def commands(of: Typer) -> Iterator[str]:
    """Every command below, with the names of the groups that it is in."""
    for command in of.registered_commands:
        yield command.name or str(getattr(command.callback, "__name__", ""))
    for group in of.registered_groups:
        if group.typer_instance:
            name = f"{group.name} " if isinstance(group.name, str) else ""
            yield from (name + command for command in commands(group.typer_instance))


COMMANDS = sorted(commands(app))


async def test_the_help_lists_every_command() -> None:
    code, said = await hookline("--help")
    assert code == 0
    assert {command.split()[0] for command in COMMANDS} <= set(re.findall(r"^│ ([a-z-]+) ", said, re.MULTILINE))
    assert {"serve", "run", "export", "items query", "jobs claim", "keys list"} <= set(COMMANDS)


async def test_the_help_and_the_docs_tell_every_exit_code() -> None:
    code, said = await within("--help", COLUMNS="200", TERMINAL_WIDTH="2000")
    assert code == 0
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    told = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert told == [(str(number), says) for number, says in CODES.items()]
    for number, says in told:
        assert f"{number} {says}" in " ".join(said.split())


WITHOUT_JSON = {
    "serve": "says when it listens, and then only logs",
    "worker": "only logs",
    "shell": "is for a terminal",
    "export": "is JSON anyway",
    "openapi": "is JSON anyway",
    "bench": "hands its arguments to another package's commands",
}


def test_every_command_has_json_or_a_reason() -> None:
    def walk(command: Any, *names: str) -> Iterator[tuple[str, set[str]]]:
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, *names, name)
        if not hasattr(command, "commands"):
            yield " ".join(names), {option for parameter in command.params for option in parameter.opts}

    options = dict(walk(get_command(app)))
    assert set(options) == set(COMMANDS)
    assert {name for name, has in options.items() if "--json" not in has} == set(WITHOUT_JSON)


def test_no_help_loses_what_stands_in_brackets() -> None:
    """Rich takes ``[word]`` for a style, and shows nothing of it, unless a backslash stands before."""

    def texts(command: Any) -> Iterator[str]:
        for each in (command, *command.params):
            yield getattr(each, "help", None) or ""
        for below in getattr(command, "commands", {}).values():
            yield from texts(below)

    found = [text for text in texts(get_command(app)) if "[" in text]
    assert found
    for text in found:
        assert Text.from_markup(text).plain == text.replace("\\[", "[")


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_help_of_a_command_has_an_example(command: str) -> None:
    code, said = await within(*command.split(), "-h")
    assert code == 0
    assert re.search(rf"Examples?: *\n.*hookline {command}\b", said, re.DOTALL), said


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["crate"], "No such command 'crate'"),
        (["serve", "--prot", "80"], "No such option: --prot"),
        (["orchestrate"], "Missing option '--key'"),
        (["orchestrate", "--key", "jobs", "--limit", "0"], "--limit"),
        (["orchestrate", "--key", "jobs", "--every", "soon"], "hookline: --every: expected"),
        (["orchestrate", "--key", "jobs", "--where", "{"], "hookline: --where: expected JSON, or @FILE"),
        (["orchestrate", "--key", "jobs", "--where", '{"a": 1, "a": 2}'], "hookline: --where: expected each name once"),
        (["orchestrate", "--key", "jobs", "--where", "@none"], "hookline: --where: cannot read none"),
        (["orchestrate", "--key", "jobs", "--where", "[" * 100_000], "hookline: --where: expected JSON that is nested"),
        (
            ["orchestrate", "--key", "jobs", "--lock-for", "5 x"],
            "hookline: --lock-for: expected seconds as a number, or a",
        ),
        (["top", "--every", "-5"], "hookline: --every: expected seconds as a number, or a"),
        (["orchestrate", "--key", "jobs", "--every", "1s", "--cron", "* * * * *"], "hookline: --cron: expected either"),
        (["orchestrate", "--key", "jobs", "--cron", "often"], "hookline: --cron: expected minute, hour"),
        (
            ["orchestrate", "--key", "jobs", "--cron", "* * * * *", "--time-zone", "M"],
            "hookline: --time-zone: expected",
        ),
        (["orchestrate", "--key", "jobs", "--jitter", "some"], "hookline: --jitter: expected"),
        (["orchestrate", "--key", "jobs", "--max-in-flight", "0"], "--max-in-flight"),
        (["run", "--output", "xml", "-"], "--output"),
        (["keys", "rotate", "0123456789ab", "--grace", "soon"], "hookline: --grace: expected"),
        (["run", "no-such-file"], "no-such-file"),
        (["shell"], "hookline: a shell needs a terminal"),
    ],
)
async def test_what_cannot_be_meant_ends_with_2_and_a_sentence(args: list[str], sentence: str) -> None:
    code, said = await within(*args)
    assert code == 2, said
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import hookline\nworker = hookline.Worker(\n", "{file}, line 2: SyntaxError: '(' was never closed"),
        ("import hookline\n\nimport no_such_module\n", "{file}, line 3: No module named 'no_such_module'"),
        ("from hookline import Wroker\n", "{file}, line 1: cannot import name 'Wroker' from 'hookline'"),
        ("def f():\n    return {}['x']\n\nf()\n", "{file}, line 2: KeyError: 'x'"),
        ("import broken_below\n", "{directory}/broken_below.py, line 1: ZeroDivisionError: division by zero"),
        ("import json\n\njson.loads('{')\n", "{file}, line 3: JSONDecodeError: Expecting"),
        ("x = 1\n", "has no attribute 'worker'"),
        ("worker = 1\n", "expected a Worker, not int"),
    ],
)
async def test_a_module_that_cannot_be_imported_is_told_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "reports_here.py").write_text(text)
    (tmp_path / "broken_below.py").write_text("1 / 0\n")
    try:
        code, said = await within("worker", "reports_here:worker")
    finally:
        sys.modules.pop("reports_here", None)
    assert code == 2, said
    assert said.startswith("hookline: reports_here:worker: ")
    assert says.format(file=tmp_path / "reports_here.py", directory=tmp_path) in said
    assert len(said.splitlines()) == 1


ASKING = [
    "items query docs",
    "deliveries list",
    "settings show docs",
    "schedules list",
    "orchestrate --key docs --once",
    "run /dev/null",
    "top --once",
]
"""A command of each of the ways in which they ask a server."""


@pytest.mark.parametrize("command", ASKING)
async def test_a_server_is_named_by_an_address_and_shown_a_key_that_can_be_sent(command: str) -> None:
    for url in ("foo", "http://", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::1", "http://127.0.0.1?x=1"):
        said = await within(*command.split(), "--url", url)
        assert said == (2, "hookline: --url: expected an address such as http://127.0.0.1:8080\n")
    for key in ("a\nb", "ключ", "\udcff"):
        code, told = await within(*command.split(), "--url", "http://127.0.0.1:1", "--api-key", key)
        assert (code, told.startswith("hookline: --api-key: expected visible characters")) == (2, True), told


@pytest.mark.parametrize("command", ASKING)
async def test_no_password_of_an_address_is_shown(command: str) -> None:
    code, said = await within(*command.split(), "--url", f"http://ops:hunter2@127.0.0.1:{free_port()}")
    assert code == 3, said
    assert "hunter2" not in said


@pytest.mark.parametrize("command", ASKING)
async def test_no_command_goes_where_it_was_not_sent(command: str) -> None:
    """What is redirected would ask another server, show it the API key, and write by a GET."""
    asked: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, said = await within(*command.split(), "--url", f"http://127.0.0.1:{port}")
    assert (code, bool(asked)) == (3, True), said
    assert not any(b"elsewhere" in head for head in asked)


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ("deliveries list --key \udcff", "--key: "),
        ("workers quiet \udcff a", "KEY: "),
        ("orchestrate --once --key \udcff", "--key: "),
        ('settings set jobs --indexes "\udcff"', ""),
    ],
)
async def test_arguments_that_are_no_text_are_refused(args: str, place: str) -> None:
    said = await within(*args.split(), "--url", "http://127.0.0.1:1")
    assert said == (2, f"hookline: {place}expected text in UTF-8\n")


async def test_the_server_that_is_asked_is_the_one_of_the_settings(tmp_path: Path) -> None:
    file, port = tmp_path / "hookline.toml", free_port()
    file.write_text(f"port = {port}\n")
    for command in ASKING:
        code, said = await within(*command.split(), HOOKLINE_CONFIG=str(file))
        assert (code, f"answers at http://127.0.0.1:{port}: " in said) == (3, True), said
    code, said = await within("schedules", "list", HOOKLINE_PORT="eighty")
    assert (code, said.startswith("hookline: HOOKLINE_PORT: expected a whole number")) == (2, True)


def shell(script: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell, in which ``hookline`` is ours."""
    ours = f'hookline() {{ "{sys.executable}" -m hookline_server "$@"; }}; {script}'
    return subprocess.run(["sh", "-c", ours], capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
@pytest.mark.parametrize("command", ["openapi", "--help", "export", "doctor"])
async def test_a_full_disk_is_a_sentence(tmp_path: Path, command: str) -> None:
    async with EmbeddedStore(tmp_path / "data", fsync="no"):
        load_key(None, tmp_path / "data")
        data = "--data data" if command in ("export", "doctor") else ""
        done = await asyncio.to_thread(shell, f"hookline {command} {data} > /dev/full", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "hookline: cannot write: No space left on device\n")


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("hookline shell <&-", 2, "hookline: a shell needs a terminal"),
        ("hookline items create docs --metadata - <&-", 2, "hookline: --metadata: expected JSON"),
        ("hookline run - --url http://127.0.0.1:1 <&-", 3, "hookline: no Hookline server answers"),
        ("hookline top --once --url http://127.0.0.1:1 >&-", 3, "hookline: no Hookline server answers"),
        ("hookline doctor >&-", 3, "hookline: there is no data in hookline-data"),
        ("hookline items get docs a --url http://127.0.0.1:1 >&- 2>&- <&-", 3, ""),
    ],
)
def test_a_stream_that_is_closed_is_an_empty_one(tmp_path: Path, script: str, code: int, says: str) -> None:
    done = shell(script, cwd=tmp_path)
    assert (done.returncode, done.stderr.startswith(says), "Traceback" in done.stderr) == (code, True, False), done


async def test_an_archive_goes_to_no_stream_that_is_closed(tmp_path: Path) -> None:
    async with EmbeddedStore(tmp_path / "data", fsync="no"):
        script = "hookline export --data data --without-api-keys >&-"
        done = await asyncio.to_thread(shell, script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "hookline: standard output is closed: name a file for the archive, as in 'hookline export > items.ndjson'\n",
    )


@pytest.mark.parametrize(
    "command", ["openapi", "--help", "keys --help", "export --without-api-keys", "doctor", "listen --port 0"]
)
async def test_a_command_whose_reader_goes_away_ends_as_sigpipe_ends_others(tmp_path: Path, command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with EmbeddedStore(tmp_path / "data", fsync="no") as store:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hookline_server", *command.split()),
            stdout=writer,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOOKLINE_STORE_URL": store.url, "PYTHONUNBUFFERED": ""},
        )
        os.close(writer)
        _, said = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said) == (141, b"")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("--version", "typer"),
        ("keys list", "typer"),
        ("keys list --store redis://127.0.0.1:1", "redis"),
        ("items get jobs a", "httpx"),
        ("bench", "typer"),
        ("bench", "hookline_bench"),
        ("serve", "uvicorn"),
        ("serve", "hookline_lua"),
    ],
)
@pytest.mark.parametrize(("signum", "code"), [("SIGINT", 130), ("SIGTERM", -signal.SIGTERM)])
def test_ctrl_c_while_modules_load(tmp_path: Path, command: str, module: str, signum: str, code: int) -> None:
    """Also within a module that would hide it."""
    lost = f"import signal\ntry:\n    signal.raise_signal(signal.{signum})\nexcept BaseException:\n    pass\n"
    (tmp_path / f"{module}.py").write_text(lost)
    arguments = [sys.executable, "-m", "hookline_server", *command.split()]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "HOOKLINE_DATA": str(tmp_path)}
    done = subprocess.run(arguments, env=environ, capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_a_command_as_ctrl_c_does(tmp_path: Path, signum: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hookline_server", "demo"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"},
        start_new_session=True,
    )
    assert process.stdout is not None
    url = re.search(r"http://\S+:\d+", (await process.stdout.readline()).decode())
    assert url
    process.send_signal(signum)
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said) == (-signum, b"")
    assert list(tmp_path.glob("hookline-demo-*")) == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url[0].rpartition(":")[2]))


async def test_ctrl_c_ends_with_130() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline_server", "listen", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, said) == (130, b"")


async def test_the_version() -> None:
    code, said = await hookline("--version")
    assert code == 0
    assert re.fullmatch(r"hookline, version \d+\.\d+\.\d+\S*\n", said)


async def test_completion_completes() -> None:
    words = {"COMP_WORDS": "hookline signing-secret --da", "COMP_CWORD": "2", "_HOOKLINE_COMPLETE": "complete_bash"}
    assert await hookline(**words) == (0, "--data\n")
    code, script = await hookline(_HOOKLINE_COMPLETE="source_bash")
    assert code == 0
    subprocess.run(["bash", "-n"], input=script.encode(), check=True)
    assert "complete -o default -F _hookline_completion hookline" in script
    words["COMP_WORDS"], words["COMP_CWORD"] = "hookline jobs re", "2"
    assert await hookline(**words) == (0, "release\nredrive\nresume\n")


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash, whose completion it installs")
async def test_completion_is_installed_where_the_shell_finds_it(tmp_path: Path) -> None:
    """As from the prompt of a shell, which names itself by being the parent."""
    home = {**os.environ, "HOME": str(tmp_path)}
    install = f"{sys.executable} -m hookline_server --install-completion; true"
    said = subprocess.run(["bash", "-c", install], env=home, capture_output=True, text=True, check=True).stdout
    assert "bash completion installed" in said
    asks = "source ~/.bashrc; COMP_WORDS=(hookline item) COMP_CWORD=1; _hookline_completion hookline; echo $COMPREPLY"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = subprocess.run(["bash", "-c", asks], env={**home, "PATH": path}, capture_output=True, text=True, check=True)
    assert found.stdout == "items\n"


def test_to_begin_does_not_wait_for_what_a_server_needs() -> None:
    heavy = {"redis", "uvicorn", "starlette", "aiohttp", "asyncio", "cryptography", "msgspec", "lark", "prompt_toolkit"}
    check = f"import sys, hookline_server.cli; print(sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"


async def test_serve_has_an_option_for_every_setting_but_the_key_to_all_secrets() -> None:
    code, said = await hookline("serve", "--help", COLUMNS="200")
    assert code == 0
    told = set(re.findall(r"│ (--[a-z-]+)", said)) - {"--help"}
    assert told == {configuration.flag(setting) for setting in fields(Settings)} - {""}
    assert [setting.name for setting in fields(Settings) if not configuration.flag(setting)] == ["secret_key"]
    assert "redis://, rediss:// or unix:// URL of a store" in said
    assert "[default: 1s,5s,30s,2m,10m,1h,3h,8h,1d]" in said


async def test_an_option_that_cannot_be_read_is_named_by_itself_and_the_file_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "hookline.toml"
    file.write_text("tick = 0\n")
    code, said = await hookline("serve", "--port", "eighty", "--config", str(file))
    assert code == 2
    assert "hookline: --port: expected a whole number: port to listen on" in said
    assert f"hookline: {file}: tick: expected a number from 0.01 on" in said


@pytest.mark.parametrize("command", ["serve", "doctor"])
@pytest.mark.parametrize("how", ["--store", "HOOKLINE_STORE_URL", "store_url"])
async def test_a_url_of_a_store_that_cannot_be_read_is_named_as_it_was_given(
    tmp_path: Path, command: str, how: str
) -> None:
    url = "redis+sentinel://host:70000/main"
    (file := tmp_path / "hookline.toml").write_text(f"port = 0\nstore_url = '{url}'\n" if how == "store_url" else "")
    given = {"--store": ["--store", url]}.get(how, [])
    environ = {"HOOKLINE_CONFIG": str(file), "HOOKLINE_PORT": "0", "HOOKLINE_DATA": str(tmp_path)}
    code, said = await hookline(command, *given, **environ | ({how: url} if how == "HOOKLINE_STORE_URL" else {}))
    assert code == 2
    assert f"hookline: {how}: expected a URL such as redis://" in said
    assert "redis+sentinel://host:26379,host:26379/mymaster" in said


async def test_the_api_has_a_document() -> None:
    code, said = await hookline("openapi")
    assert code == 0
    assert json.loads(said) == json.loads(json.dumps(build(ROUTES)))


def test_the_page_of_the_settings_is_current() -> None:
    written = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    assert written == page(), "write it anew: make docs"
