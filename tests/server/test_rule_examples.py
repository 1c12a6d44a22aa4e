"""Every example of docs/orchestrations.md, and the commands of rules on the command line, against a live server."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from api import Api
from hookline import Datastore
from process import within

DOCUMENT = (Path(__file__).parents[2] / "docs" / "orchestrations.md").read_text()


async def test_every_example_of_the_page_runs(api: Api, datastore: Datastore) -> None:
    server = {"HOOKLINE_URL": f"http://127.0.0.1:{api.port}"}
    said: dict[str, str] = {}
    for block in re.findall(r"^```sh\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            _, *arguments = shlex.split(line)
            code, text = await within(*arguments, **server)
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
    assert await within("schedules", "list", **server) == (0, "none\n")
    code, said = await within("schedules", "create", "a", "--key", "jobs", "--every", "1h", "--json", **server)
    assert (code, json.loads(said)["every"]) == (0, "1h")
    code, said = await within("schedules", "delete", "a", **server)
    assert (code, said) == (0, "deleted a\n")
    code, said = await within("schedules", "show", "a", **server)
    assert code == 4
    assert "'hookline schedules list' shows what is there" in said
    assert "no schedule has this name" in said
    code, said = await within("schedules", "create", "a", "--key", "jobs", "--content", "{", **server)
    assert code == 2
    assert "--content" in said
