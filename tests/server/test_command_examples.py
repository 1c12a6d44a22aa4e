"""Every example of docs/commands.md, in order, against one live server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api import Api
from hookline import Datastore
from hookline_server.command import Command, Loop, Statement, parse
from hookline_server.command.verbs import VERBS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
EXAMPLES = re.findall(r"^```hookline\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def verbs(statements: list[Statement]) -> list[str]:
    return [
        verb
        for statement in statements
        for verb in ([statement.verb] if isinstance(statement, Command) else ["for each", *verbs(statement.body)])
    ]


async def test_every_example_runs(api: Api, datastore: Datastore) -> None:
    for example in EXAMPLES:
        answer = await api.command(example)
        assert answer.status == 200, f"{example}\n{answer.data}"
        for result, statement in zip(answer.data["results"], parse(example), strict=True):
            if isinstance(statement, Loop):
                assert result["rounds"], example
    shipped = (await datastore.get("shipments", "o-1-1")).content
    assert shipped == {"lines": [{"sku": "a", "count": 2}], "note": "for ada, version 1"}
    order = (await datastore.get("orders", "o-1")).metadata
    assert (order["first"], order["shipment"], order["owner"]) == (2, "o-1-1", "grace")
    assert (await datastore.get("reports", "r-1")).status == "completed"
    assert (await datastore.get("reports", "r-2")).status == "cancelled"
    assert (await datastore.key_settings("jobs")).max_attempts == 10


def test_every_verb_has_an_example() -> None:
    shown = {verb for example in EXAMPLES for verb in verbs(parse(example))}
    assert shown == {*VERBS, "for each"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_table_of_verbs_names_every_field(verb: str) -> None:
    word, _, noun = verb.partition(" ")
    head = {"wait": "wait for item", "pause": "pause", "resume": "resume"}.get(verb, f"{word} {noun or 'item'}")
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("|") and re.search(rf"`{head}s?\b", line)]
    assert rows, head
    fields = " ".join(row.split("|")[2] for row in rows)
    for name in VERBS[verb].fields:
        assert re.search(rf"\b{name}\b", fields), (verb, name)
    for name in VERBS[verb].required:
        assert re.search(rf"\*\*[^*]*\b{name}\b", fields), (verb, name)
