"""``/v1/items:batch``: many operations in one request, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Call, Datastore, HooklineError, Item, Outcome
from hookline.errors import Corrupt, Flaw, Incompatible, Invalid, NotFound, OutcomeUnknown, Refused, Unavailable
from hookline.query import ANSWER_MAX
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import CONDITION_PACKS, Body, pack_each
from hookline_server.caller import datastore_of
from hookline_server.fields import Condition, Key, SortField, Token
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.problem import Problem
from hookline_server.routes.item import TRIGGERS, Patch, Version
from hookline_server.routes.items import BATCH_MAX, NewItem
from hookline_server.view import Room, describe_error, describe_result


class Create(NewItem, tag_field="op", tag="create", kw_only=True):
    """Create an item."""


class Update(Patch, tag_field="op", tag="update", kw_only=True):
    """Update an item."""

    key: Key
    sort_field: SortField


class Delete(Body, tag_field="op", tag="delete", kw_only=True):
    """Delete an item."""

    packs: ClassVar = CONDITION_PACKS

    key: Key
    sort_field: SortField
    version: Version | UnsetType = UNSET
    token: Token | UnsetType = UNSET
    only_if: Condition = msgspec.field(default=UNSET, name="if")


class Get(Body, tag_field="op", tag="get", kw_only=True):
    """Read an item."""

    key: Key
    sort_field: SortField


class Batch(Body):
    """The operations, which run in order as far as they are on the same item."""

    tags: ClassVar[str] = "create, update, delete, get"
    packs: ClassVar = {"operations": partial(pack_each, pointer="/operations")}

    operations: Annotated[
        list[Create | Update | Delete | Get], Meta(extra_json_schema={"minItems": 1, "maxItems": BATCH_MAX})
    ]


@dataclass(frozen=True, slots=True)
class _Read:
    key: str
    sort_field: str


Result = Outcome | Item | HooklineError | Problem
_NO_ROOM = Problem(
    "body_too_large", f"the answer has its {ANSWER_MAX} bytes of items: ask for this one, and those after it, anew"
)


@Operation(
    name="runBatch",
    query=TRIGGERS,
    takes={JSON: (Batch,)},
    example={
        "operations": [
            {"op": "create", "key": "jobs", "sortField": "job-002"},
            {"op": "update", "key": "jobs", "sortField": "job-002", "metadata": {"progress": 50}},
            {"op": "get", "key": "jobs", "sortField": "job-002"},
        ]
    },
    replies={207: Reply("What became of each.", shapes.Results)},
    refuses=("reserved_key",),
    writes=True,
    optional=True,
)
async def run(request: Request) -> Response:
    """Run many operations.

    Not atomic, but what is on one item happens in the order written. One that is malformed refuses them all.
    """
    triggers, minimal = head.read_triggers(request), head.is_minimal(request)
    operations = (await body.read_json(request, Batch)).operations
    if not 1 <= len(operations) <= BATCH_MAX:
        raise Invalid.at("/operations", f"expected 1 to {BATCH_MAX} operations")
    datastore = datastore_of(request)
    steps: list[Call | _Read] = []
    flaws: list[Flaw] = []
    for place, operation in enumerate(operations):
        try:
            writes = sum(isinstance(step, Call) for step in steps) if datastore.marks else 0
            steps.append(_prepare(datastore, operation, datastore.partition_ahead(writes), triggers=triggers))
        except Invalid as invalid:
            flaws += body.within(invalid, f"/operations/{place}")
    if flaws:
        raise Invalid(*flaws)
    if len(steps) > 1:
        await datastore.begin()
    room = Room()
    results = await _run(datastore, steps, room)
    if all(map(_failed, results)):
        raise _failed(results[0]) or TypeError("a failure is one")
    shown = [_describe(step, result, room, minimal=minimal) for step, result in zip(steps, results, strict=True)]
    return Answer({"results": shown}, 207, head.applied(minimal=minimal))


def _prepare(
    datastore: Datastore, operation: Create | Update | Delete | Get, partition: int | None, *, triggers: bool
) -> Call | _Read:
    given = operation.given()
    match operation:
        case Get():
            return _Read(*datastore.calls.name(operation.key, operation.sort_field))
        case Create():
            return datastore.calls.create(**given, partition=partition, triggers=triggers)
        case Update():
            return datastore.calls.update(**given, triggers=triggers)
    return datastore.calls.delete(**given, triggers=triggers)


def _parts(steps: Sequence[Call | _Read]) -> Iterator[Sequence[Call | _Read]]:
    """Cut where an item is read after it is written, or written after it is read: all else may run at one time."""
    begin, reads = 0, dict[tuple[str, str], bool]()
    for place, step in enumerate(steps):
        is_read = isinstance(step, _Read)
        if reads.setdefault((step.key, step.sort_field), is_read) != is_read:
            yield steps[begin:place]
            begin, reads = place, {(step.key, step.sort_field): is_read}
    yield steps[begin:]


async def _run(datastore: Datastore, steps: Sequence[Call | _Read], room: Room) -> list[Result]:
    """The results in order. After a failure of the store nothing more is sent, but what runs at the same time."""
    results: list[Result] = []
    for part in _parts(steps):
        if any(map(_failed, results)):
            results += [Unavailable("an operation before this one failed")] * len(part)
            continue
        calls = [step for step in part if isinstance(step, Call)]
        names = [(step.key, step.sort_field) for step in part if isinstance(step, _Read)]
        written, read = map(iter, await asyncio.gather(_write(datastore, calls), _read(datastore, names, room)))
        results += [next(written if isinstance(step, Call) else read) for step in part]
    return results


async def _write(datastore: Datastore, calls: Sequence[Call]) -> Sequence[Result]:
    try:
        return await datastore.run(calls)
    except (Unavailable, OutcomeUnknown, Incompatible) as failure:
        return [failure] * len(calls)


async def _read(datastore: Datastore, names: Sequence[tuple[str, str]], room: Room) -> Sequence[Result]:
    found: Mapping[tuple[str, str], Item | None] | None = None
    try:
        found = await datastore.get_some(names, room.left)
    except (Unavailable, Incompatible) as failure:
        return [failure] * len(names)
    except Corrupt:
        pass  # of one of them: they are read one by one
    results: list[Result] = []
    for name in names:
        if room.left <= 0 or (found is not None and name not in found):
            room.left = 0  # it is all the rest that has to be asked for anew
            results.append(_NO_ROOM)
            continue
        result = await _read_one(datastore, *name) if found is None else found[name] or NotFound()
        results.append(result)
        if isinstance(result, Item):
            room.take(result)
    return results


async def _read_one(datastore: Datastore, key: str, sort_field: str) -> Result:
    try:
        return await datastore.get(key, sort_field)
    except (Refused, Unavailable, Incompatible) as error:
        return error


def _failed(result: Result) -> HooklineError | None:
    """The failure of the store that is the result of an operation."""
    if isinstance(result, Outcome):
        return result.failure
    return result if isinstance(result, Unavailable | OutcomeUnknown | Incompatible) else None


def _describe(step: Call | _Read, result: Result, room: Room, *, minimal: bool) -> dict[str, Any]:
    if isinstance(result, HooklineError | Problem):
        return describe_error(result)
    if isinstance(result, Item):
        return {"status": 200, "item": result.to_dict()}
    script = step.script if isinstance(step, Call) else ""
    if result.ok and script == "delete":
        return {"status": 204}
    return describe_result(result, room, minimal=minimal, creates=script == "create")


routes = [Route("/v1/items:batch", run, methods=["POST"])]
