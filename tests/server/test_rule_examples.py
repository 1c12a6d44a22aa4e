"""Every example of docs/orchestrations.md, and the commands of rules on the command line, against a live server."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from api import Api
from hookline import Datastore
from hookline_server.cli.rules import orchestrations, schedules
from process import hookline

DOCUMENT = (Path(__file__).parents[2] / "docs" / "orchestrations.md").read_text()


def commands(group: typer.Typer) -> Iterator[tuple[str, str]]:
    for command in group.registered_commands:
        yield command.name or "", command.callback.__doc__ or ""


async def test_every_example_of_the_page_runs(api: Api, datastore: Datastore) -> None:
    server = {"HOOKLINE_URL": f"http://127.0.0.1:{api.port}"}
    said: dict[str, str] = {}
    for block in re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            _, *arguments = shlex.split(line)
            code, text = await hookline(*arguments, **server)
            assert code == 0, (line, text)
            said[" ".join(arguments[:2])] = text
    assert re.search(r"T02:30:00\+0[12]:00", said["schedules next"])
    assert "nightly" in said["schedules list"]
    assert "not_started" in said["schedules run"]
    claimed = (await datastore.query("jobs", where={"status": "started"})).items
    assert [item.metadata["type"] for item in claimed] == ["report"]
    assert claimed[0].sort_field in said["orchestrations run"]
    assert "claimed" in said["orchestrations runs"]
    for block in re.findall(r"^```hookline\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        assert (await api.command(block)).status == 200, block
    assert (await api("GET", "/v1/orchestrations/push")).data["maxInFlight"] == 20
    assert not (await api("GET", "/v1/orchestrations/reports")).data["enabled"]


async def test_answers_as_json_and_refusals(api: Api) -> None:
    server = {"HOOKLINE_URL": f"http://127.0.0.1:{api.port}"}
    code, said = await hookline("schedules", "create", "a", "--key", "jobs", "--every", "1h", "--json", **server)
    assert (code, json.loads(said)["every"]) == (0, "1h")
    code, said = await hookline("schedules", "delete", "a", **server)
    assert (code, said) == (0, "")
    code, said = await hookline("schedules", "show", "a", **server)
    assert code > 0
    assert "no schedule has this name" in said
    code, said = await hookline("schedules", "create", "a", "--key", "jobs", "--content", "{", **server)
    assert code == 2
    assert "--content" in said


@pytest.mark.parametrize(("group", "name"), [(orchestrations, "orchestrations"), (schedules, "schedules")])
def test_every_command_has_an_example(group: typer.Typer, name: str) -> None:
    for command, text in commands(group):
        assert re.search(rf"Examples:\n\s+hookline {name} {command}\b", text), command
