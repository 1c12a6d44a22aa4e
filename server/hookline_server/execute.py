"""Runs commands on a datastore, one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hookline import Datastore, Outcome
from hookline.errors import HooklineError
from hookline_server.body import read_wait
from hookline_server.command import Command
from hookline_server.view import describe, describe_claimed, describe_page, describe_settled

COMMAND_WORKER = "command"
"""The worker of a claim that names none."""

Result = dict[str, Any]


class Stopped(HooklineError):
    """A command was refused (``cause``); those before it ran, with these ``results``, those after it did not."""

    code = "stopped"

    def __init__(self, cause: HooklineError, index: int, command: Command, results: list[Result]) -> None:
        self.cause = cause
        self.index = index
        self.command = command
        self.results = results
        super().__init__(str(cause))


async def execute(datastore: Datastore, commands: Sequence[Command]) -> list[Result]:
    """Run commands in order -> a result each.

    Raises:
        Stopped: one was refused, or the store could not take it.
    """
    results: list[Result] = []
    for index, command in enumerate(commands):
        run = _VERBS.get(command.verb, _settle)
        try:
            result = await run(datastore, command)
        except HooklineError as error:
            raise Stopped(error, index, command, results) from error
        results.append({"verb": command.verb} | result)
    return results


async def _create(datastore: Datastore, command: Command) -> Result:
    return _written(await datastore.create(**_named(command)))


async def _update(datastore: Datastore, command: Command) -> Result:
    return _written(await datastore.update(**_named(command), triggers=not command.triggers_off))


async def _delete(datastore: Datastore, command: Command) -> Result:
    outcome = await datastore.delete(**_named(command), triggers=not command.triggers_off)
    return {"key": outcome.key, "sortField": outcome.sort_field}


async def _query(datastore: Datastore, command: Command) -> Result:
    return describe_page(await datastore.query(**_filtered(command)))


async def _get(datastore: Datastore, command: Command) -> Result:
    if "sortField" not in command.fields:
        return await _query(datastore, command)
    return {"item": (await datastore.get(**_named(command))).to_dict()}


async def _claim(datastore: Datastore, command: Command) -> Result:
    options = {"worker_id": COMMAND_WORKER} | _filtered(command)
    options["wait"] = read_wait(options.get("wait", 0))
    return describe_claimed(await datastore.claim(**options))


async def _settle(datastore: Datastore, command: Command) -> Result:
    call = getattr(datastore.calls, command.verb)(**_named(command))
    (outcome,) = await datastore.settle([call])
    if not outcome.ok:
        raise outcome.error()
    return {"key": outcome.key} | describe_settled(outcome)


_VERBS: dict[str, Callable[[Datastore, Command], Awaitable[Result]]] = {
    "create": _create,
    "update": _update,
    "delete": _delete,
    "query": _query,
    "get": _get,
    "claim": _claim,
}

_ARGUMENTS = {
    "sortField": "sort_field",
    "triggerUrls": "trigger_urls",
    "workerId": "worker_id",
    "lockFor": "lock_for",
    "retryAfter": "retry_after",
}


def _named(command: Command) -> dict[str, Any]:
    """The command's fields under the names of the engine's arguments."""
    return {_ARGUMENTS.get(name, name): value for name, value in command.fields.items()}


def _filtered(command: Command) -> dict[str, Any]:
    """The same, where ``metadata`` says which items are meant."""
    named = _named(command)
    if "metadata" in named:
        named["where"] = named.pop("metadata")
    return named


def _written(outcome: Outcome) -> Result:
    shown = describe(outcome)
    warnings = shown.pop("warnings", None)
    return {"item": shown, "warnings": warnings} if warnings else {"item": shown}
