"""Runs one command on a datastore."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import count
from typing import Any

from hookline import Datastore, Outcome, bulk
from hookline.bulk import Progress
from hookline.calls import QUERY_MAX
from hookline.errors import Invalid, NotClaimable, PreconditionFailed
from hookline.item import TERMINAL
from hookline.keysettings import ARGUMENTS as SETTINGS
from hookline.optimistic import try_again
from hookline.query import ANSWER_MAX
from hookline.stats import by_key, paced
from hookline_server import rulecommands
from hookline_server.body import read_wait
from hookline_server.command import Command
from hookline_server.stop import Stopping
from hookline_server.view import (
    describe,
    describe_claimed,
    describe_key,
    describe_page,
    describe_progress,
    describe_settings,
    describe_settled,
)

COMMAND_WORKER = "command"
"""The worker of a claim that names none."""
STEPS_MAX = 50
"""Steps of one change of many, of 100 items each; then it answers how far it is."""

Result = dict[str, Any]


async def execute(datastore: Datastore, command: Command) -> Result:
    """Run a command -> its result.

    Raises:
        HooklineError: it was refused, or the store could not take it.
    """
    return {"verb": command.verb} | await _VERBS.get(command.verb, _settle)(datastore, command)


async def _create(datastore: Datastore, command: Command) -> Result:
    return _written(await datastore.create(**_named(command), triggers=not command.triggers_off))


async def _update(datastore: Datastore, command: Command) -> Result:
    return _written(await datastore.update(**_named(command), triggers=not command.triggers_off))


async def _delete(datastore: Datastore, command: Command) -> Result:
    outcome = await datastore.delete(**_named(command), triggers=not command.triggers_off)
    return {"key": outcome.key, "sortField": outcome.sort_field}


async def _cancel(datastore: Datastore, command: Command) -> Result:
    """Cancel one item; it is read first, since an item that has ended cannot be cancelled."""
    named = _named(command)
    if again := await datastore.recall(**named):
        return _written(again)

    async def cancel() -> Outcome:
        current = await datastore.get(**named)
        if current.status in TERMINAL:
            raise NotClaimable(f"the item has ended already: it is {current.status}", current)
        change: dict[str, Any] = {"metadata": {"status": "cancelled"}, "match": current.version}
        return await datastore.update(**named, **change, triggers=not command.triggers_off)

    return _written(await try_again(cancel))


async def _redrive(datastore: Datastore, command: Command) -> Result:
    dead = {"status": "failed"}
    try:
        outcome = await datastore.update(
            **_named(command), metadata={"status": "not_started"}, only_if=dead, triggers=not command.triggers_off
        )
    except PreconditionFailed as refusal:
        raise PreconditionFailed("only an item with status failed is redriven", refusal.item) from None
    return _written(outcome)


async def _query(datastore: Datastore, command: Command) -> Result:
    named = _filtered(command)
    explain = named.pop("explain", False)
    page = await datastore.query(**named)
    return describe_page(page) | ({"explain": page.explanation.to_dict()} if explain else {})


async def _count(datastore: Datastore, command: Command) -> Result:
    named = _filtered(command)
    explain = named.pop("explain", False)
    count = await datastore.count(**named)
    shown = {"count": count.count, "cursor": count.cursor}
    return shown | ({"explain": count.explanation.to_dict()} if explain else {})


async def _get(datastore: Datastore, command: Command) -> Result:
    if "sortField" in command.fields:
        return {"item": (await datastore.get(**_named(command))).to_dict()}
    if "sortFields" not in command.fields:
        return await _query(datastore, command)
    wanted = command.fields["sortFields"]
    if len(wanted) > QUERY_MAX:
        raise Invalid.at("/sortFields", f"expected at most {QUERY_MAX} of them")
    names = [datastore.calls.name(command.fields["key"], sort_field) for sort_field in wanted]
    found = await datastore.get_some(names)
    if not found.keys() >= set(names):
        raise Invalid.at("/sortFields", f"expected items of at most {ANSWER_MAX} bytes in all: ask for fewer")
    return {"items": [item.to_dict() if item else None for item in map(found.__getitem__, names)]}


async def _claim(datastore: Datastore, command: Command) -> Result:
    options = {"worker_id": COMMAND_WORKER} | _filtered(command)
    options["wait"] = read_wait(options.get("wait", 0))
    claimed = await datastore.claim(**options)
    if options["wait"] and not claimed.items and datastore.wakes.released:
        raise Stopping
    return describe_claimed(claimed)


async def _settle(datastore: Datastore, command: Command) -> Result:
    call = getattr(datastore.calls, command.verb)(**_named(command))
    (outcome,) = await datastore.settle([call])
    if not outcome.ok:
        raise outcome.error()
    return {"key": outcome.key} | describe_settled(outcome)


async def _wait(datastore: Datastore, command: Command) -> Result:
    named = _named(command)
    seconds = read_wait(named.pop("wait", "20s"))
    item = await datastore.wait_for(**named, timeout=seconds)
    if item is None and datastore.changes.released:
        raise Stopping
    return {"item": item.to_dict() if item else None}


async def _delete_many(datastore: Datastore, command: Command) -> Result:
    return await _through(bulk.delete(datastore, **_filtered(command), triggers=not command.triggers_off))


async def _cancel_many(datastore: Datastore, command: Command) -> Result:
    return await _through(bulk.cancel(datastore, **_filtered(command)))


async def _redrive_many(datastore: Datastore, command: Command) -> Result:
    return await _through(bulk.redrive(datastore, **_filtered(command)))


async def _through(steps: AsyncGenerator[Progress, None]) -> Result:
    """Go through a change of many, as far as one command may."""
    taken = count(1)
    return describe_progress(await bulk.advance(steps, lambda _: next(taken) == STEPS_MAX))


async def _set_paused(datastore: Datastore, command: Command) -> Result:
    pauses = command.verb == "pause"
    await (datastore.pause if pauses else datastore.resume)(**command.fields)
    return {"key": command.fields["key"], "paused": pauses}


async def _show_keys(datastore: Datastore, command: Command) -> Result:
    stats = await datastore.stats(command.fields.get("prefix", ""))
    return {"keys": [describe_key(*counted) async for counted in paced((await by_key(stats)).items())]}


async def _settings(datastore: Datastore, command: Command) -> Result:
    """Change the settings that are named, if any, and show them all."""
    key = command.fields["key"]
    changes = {SETTINGS[name]: value for name, value in command.fields.items() if name != "key"}
    settings = await datastore.configure(key, **changes)
    return {"key": key, "settings": describe_settings(settings, await datastore.builds(key))}


_VERBS: dict[str, Callable[[Datastore, Command], Awaitable[Result]]] = {
    "create": _create,
    "update": _update,
    "query": _query,
    "count": _count,
    "get": _get,
    "delete": _delete,
    "delete items": _delete_many,
    "claim": _claim,
    "cancel": _cancel,
    "cancel items": _cancel_many,
    "redrive": _redrive,
    "redrive items": _redrive_many,
    "wait": _wait,
    "pause": _set_paused,
    "resume": _set_paused,
    "show keys": _show_keys,
    "show settings": _settings,
    "change settings": _settings,
    **rulecommands.VERBS,
}

_ARGUMENTS = {
    "sortField": "sort_field",
    "triggerUrls": "trigger_urls",
    "workerId": "worker_id",
    "lockFor": "lock_for",
    "retryAfter": "retry_after",
    "if": "only_if",
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
