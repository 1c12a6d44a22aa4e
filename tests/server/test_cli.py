"""The command line as a shell sees it: help, refusals, exit codes, completion."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys

import pytest

from hookline_server.cli import app
from process import hookline

COMMANDS = sorted(
    command.name or str(getattr(command.callback, "__name__", ""))
    for group in app.registered_groups
    if group.typer_instance
    for command in group.typer_instance.registered_commands
)


async def test_the_help_lists_every_command() -> None:
    code, said = await hookline("--help")
    assert code == 0
    assert set(COMMANDS) <= set(re.findall(r"^│ ([a-z-]+) ", said, re.MULTILINE))
    assert {"serve", "run", "export"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_help_of_a_command_has_an_example(command: str) -> None:
    code, said = await hookline(command, "-h")
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
        (["orchestrate", "--key", "jobs", "--where", "{"], "hookline: --where: Expecting"),
        (["run", "--output", "xml", "-"], "--output"),
        (["run", "no-such-file"], "no-such-file"),
        (["shell"], "hookline: a shell needs a terminal"),
    ],
)
async def test_what_cannot_be_meant_ends_with_2_and_a_sentence(args: list[str], sentence: str) -> None:
    code, said = await hookline(*args)
    assert code == 2, said
    assert sentence in said
    assert "Traceback" not in said


async def test_ctrl_c_ends_with_130() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hookline_server", "receive", "--port", "0", stdout=asyncio.subprocess.PIPE
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


def test_to_begin_does_not_wait_for_what_a_server_needs() -> None:
    heavy = {"redis", "uvicorn", "starlette", "aiohttp", "asyncio", "cryptography", "msgspec", "lark", "prompt_toolkit"}
    check = f"import sys, hookline_server.cli; print(sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"
