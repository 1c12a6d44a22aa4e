"""Commands of the command language that are about rules: orchestrations and schedules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from hookline import Datastore
from hookline.rules import Rules
from hookline_server import body
from hookline_server.command import Command
from hookline_server.orchestrations import Orchestrations
from hookline_server.schedules import Schedules
from hookline_server.view import describe, describe_claimed

NEXT, RUNS = 5, 10
"""Times to come, and runs of the past, that are shown with a rule."""

Result = dict[str, Any]
Perform = Callable[[Rules[Any, Any], Command], Awaitable[Result]]
_KINDS: dict[str, type[Rules[Any, Any]]] = {"orchestration": Orchestrations, "schedule": Schedules}


async def _create(rules: Rules[Any, Any], command: Command) -> Result:
    fields = {name: value for name, value in command.fields.items() if name != "name"}
    return {"rule": rules.describe(await rules.put(command.fields["name"], body.convert(fields, rules.kind)))}


async def _show(rules: Rules[Any, Any], command: Command) -> Result:
    name = command.fields["name"]
    shown = rules.describe(await rules.get(name))
    runs = (await rules.runs(name, limit=RUNS)).items
    return {"rule": shown, "next": await rules.next(name, NEXT), "runs": [run.content for run in runs]}


async def _list(rules: Rules[Any, Any], command: Command) -> Result:
    page = await rules.page(**command.fields)
    return {"rules": [rules.describe(item) for item in page.items], "cursor": page.cursor}


async def _delete(rules: Rules[Any, Any], command: Command) -> Result:
    await rules.delete(command.fields["name"])
    return {"name": command.fields["name"]}


async def _enable(rules: Rules[Any, Any], command: Command) -> Result:
    enabled = command.verb.startswith("enable")
    return {"rule": rules.describe(await rules.enable(command.fields["name"], enabled))}


async def _run(rules: Rules[Any, Any], command: Command) -> Result:
    name = command.fields["name"]
    done = await rules.run_by_hand(name)
    if isinstance(rules, Orchestrations):
        return {"name": name} | describe_claimed(done)
    return {"name": name, "item": describe(done.only)}


_PERFORM: dict[str, Perform] = {
    "create": _create,
    "show": _show,
    "delete": _delete,
    "enable": _enable,
    "disable": _enable,
    "run": _run,
}


def _on(noun: str, perform: Perform) -> Callable[[Datastore, Command], Awaitable[Result]]:
    async def execute(datastore: Datastore, command: Command) -> Result:
        return await perform(_KINDS[noun](datastore), command)

    return execute


VERBS: dict[str, Callable[[Datastore, Command], Awaitable[Result]]] = {
    **{f"{word} {noun}": _on(noun, perform) for noun in _KINDS for word, perform in _PERFORM.items()},
    **{f"show {noun}s": _on(noun, _list) for noun in _KINDS},
}
"""Verb -> what runs a command of it on a datastore."""
