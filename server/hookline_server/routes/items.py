"""``/v1/items`` and ``/v1/items/{key}``: create items, list and query those of a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Call, Datastore
from hookline.calls import CLAIM_MAX, QUERY_MAX
from hookline.codec import NATIVE
from hookline.errors import Flaw, HooklineError, Incompatible, Invalid, OutcomeUnknown, Refused, Unavailable
from hookline.item import check_value
from hookline.query import Count, Page
from hookline_server import body, head, shapes, strictjson
from hookline_server.answer import Answer
from hookline_server.body import ITEM_PACKS, VALUES, Body, pack_each
from hookline_server.caller import datastore_of
from hookline_server.fields import (
    Content,
    Cursor,
    Key,
    Metadata,
    Order,
    PageLimit,
    SortField,
    TriggerUrls,
    Upsert,
    Where,
)
from hookline_server.ndjson import Stream, join, split, while_read
from hookline_server.negotiate import JSON, LINES
from hookline_server.operation import Operation, Reply
from hookline_server.problem import Problem, problem_of
from hookline_server.routes import search
from hookline_server.view import Room, created, describe_error, describe_page, describe_result

BATCH_MAX = CLAIM_MAX
"""Operations of one request."""
STREAM_STEP = 250
"""Items of one step of a stream."""
CREATES = (*VALUES, LINES)
"""What items to create may be written as; a body of lines is read on its own."""
ITEM_LINES = (shapes.ListedItem, shapes.BrokenOff)
ITEM_LINKS = ("getItem", "patchItem", "deleteItem")


class NewItem(Body):
    """An item to create. Without a ``sortField`` it gets one, ordered by time."""

    packs: ClassVar = ITEM_PACKS

    key: Key
    sort_field: SortField | UnsetType = UNSET
    content: Content = UNSET
    metadata: Metadata | UnsetType = UNSET
    trigger_urls: TriggerUrls = UNSET
    upsert: Upsert | UnsetType = UNSET


class NewItems(Body):
    """Many items to create. ``upsert`` holds for those that do not say themselves."""

    packs: ClassVar = {"items": partial(pack_each, pointer="/items")}

    items: Annotated[list[NewItem], Meta(extra_json_schema={"minItems": 1, "maxItems": BATCH_MAX})]
    upsert: Upsert = False


class Query(Body):
    """A search among the items of a key."""

    where: Where = UNSET
    order: Order | UnsetType = UNSET
    limit: PageLimit | UnsetType = UNSET
    cursor: Cursor | UnsetType | None = UNSET
    explain: Annotated[bool, Meta(description="Tell how it was answered.")] = False
    count: Annotated[bool, Meta(description="Only how many match; not with `order` or `limit`.")] = False


@Operation(
    name="createItems",
    takes={JSON: (NewItem, NewItems), LINES: (NewItem,)},
    example={
        "key": "jobs",
        "sortField": "job-001",
        "content": {"report": "monthly"},
        "metadata": {"status": "not_started", "type": "report_generation"},
    },
    replies={
        201: Reply("The item is new.", shapes.NEW_ITEM, ("ETag", "Location"), links=ITEM_LINKS),
        200: Reply("The item was replaced, by `upsert`.", shapes.WrittenItem, ("ETag",)),
        207: Reply("Of many: what became of each.", shapes.Results, lines=(shapes.LineResult, shapes.BrokenOff)),
    },
    refuses=("exists", "reserved_key", "key_full", "outbox_full"),
    writes=True,
    optional=True,
)
async def create(request: Request) -> Response:
    """Create one item, or many.

    ``items`` has up to 500: 207 tells what became of each. A stream of lines has any number, and the answer a line for
    each, in order and as they are done; read it while you send.
    """
    head.read_query(request)
    datastore = datastore_of(request)
    if body.is_lines(request):
        body.check_media_type(request, (LINES,))
        minimal = head.is_minimal(request)
        return Stream(_create_lines(request, datastore, minimal=minimal), 207, head.applied(minimal=minimal))
    new = await body.read_value(request, CREATES, _one_or_many)
    if isinstance(new, NewItems):
        return await _create_many(datastore, new, minimal=head.is_minimal(request))
    return created(await datastore.create(**new.given()))


def _one(value: Any) -> NewItem:
    return body.convert(value, NewItem)


def _one_or_many(value: Any) -> NewItem | NewItems:
    if isinstance(value, dict) and "items" in value:
        return body.convert(value, NewItems)
    return _one(value)


async def _create_many(datastore: Datastore, batch: NewItems, *, minimal: bool) -> Response:
    """A malformed item refuses the batch as a whole; what the store refuses is told item by item."""
    if not 1 <= len(batch.items) <= BATCH_MAX:
        raise Invalid.at("/items", f"expected 1 to {BATCH_MAX} items")
    calls: list[Call] = []
    flaws: list[Flaw] = []
    for place, item in enumerate(batch.items):
        options: dict[str, Any] = {"upsert": batch.upsert, "partition": datastore.partition_ahead(place)}
        try:
            calls.append(datastore.calls.create(**(options | item.given())))
        except Invalid as invalid:
            flaws += body.within(invalid, f"/items/{place}")
    if flaws:
        raise Invalid(*flaws)
    room = Room()
    results = [describe_result(outcome, room, minimal=minimal) for outcome in await datastore.run(calls)]
    return Answer({"results": results}, 207, head.applied(minimal=minimal))


@Operation(
    name="listItems",
    query={
        "status": Annotated[str, Meta(description="Only items with this status.")],
        "metadata": Annotated[
            dict[str, str],
            Meta(
                description="Only items with these values: `metadata.size=3` finds the number and the text.",
                extra_json_schema={"propertyNames": {"pattern": "^metadata[.]"}},
            ),
        ],
        "order": Order,
        "limit": PageLimit,
        "cursor": Cursor,
        "format": Annotated[Literal["full", "light"], Meta(description="`light` leaves the contents out.")],
    },
    replies={
        200: Reply(
            "A page, or a line for each that matches.",
            shapes.Page,
            ("Link",),
            lines=ITEM_LINES,
        )
    },
    refuses=("body_too_large",),
)
async def list_items(request: Request) -> Response:
    """List items of a key.

    A page has 50 items unless ``limit`` says otherwise. As lines it is all that match.
    """
    given = head.read_query(request, "status", "order", "limit", "cursor", "format", prefix="metadata.")
    where = {name.removeprefix("metadata."): text for name, text in given.items() if name.startswith("metadata.")}
    if "status" in given and where.setdefault("status", given["status"]) != given["status"]:
        raise Invalid.at("/status", "expected the same status as metadata.status, or one of the two alone")
    if given.get("format", "full") not in ("full", "light"):
        raise Invalid.at("/format", "expected full or light")
    light = given.get("format") == "light"
    wanted: dict[str, Any] = {
        "where": {name: _read_literal(name, text) for name, text in where.items()},
        "order": given.get("order"),
        "cursor": given.get("cursor") or None,
    }
    if head.wanted_type(request) == LINES:
        limit = head.read_limit(given["limit"]) if "limit" in given else None
        await body.read_bytes(request, 0)
        return _stream(request, wanted, limit, light=light)
    datastore = datastore_of(request)
    limit = head.read_limit(given.get("limit", "50"))
    page = await search(request, datastore, datastore.query(head.read_key(request), limit=limit, **wanted))
    shown = describe_page(page, light=light)
    return Answer(shown, headers=head.next_page(given, page.cursor))


def _read_literal(name: str, text: str) -> Any:
    """A filter's value from a query string, which has no types: ``3`` finds the number 3 and the text."""
    try:
        value = msgspec.json.decode(text)
        check_value(value, "")
    except (ValueError, RecursionError, Invalid):
        return text
    if name == "version" or NATIVE.get(name, ("", ""))[1] == "number":
        return value
    if name in NATIVE or isinstance(value, dict | list):
        return text
    return value if isinstance(value, str) else {"in": [value, text]}


@Operation(
    name="queryItems",
    takes={JSON: (Query,)},
    example={"where": {"status": "not_started"}, "limit": 10},
    replies={
        200: Reply(
            "A page, how many match, or a line for each.",
            (shapes.Page, shapes.Counted),
            lines=(*ITEM_LINES, shapes.Page, shapes.Counted),
        )
    },
)
async def query(request: Request) -> Response:
    """Query items of a key.

    Those that meet the filters, or with ``count`` how many there are. As lines it is all that match.
    """
    head.read_query(request)
    given = (await body.read_json(request, Query)).given()
    explain, count = given.pop("explain"), given.pop("count")
    if head.wanted_type(request) == LINES and not (explain or count):
        return _stream(request, given, given.pop("limit", None))
    datastore = datastore_of(request)
    found: Page | Count
    if count:
        found = await search(request, datastore, datastore.count(head.read_key(request), **_countable(given)))
        shown = {"count": found.count, "cursor": found.cursor}
    else:
        found = await search(request, datastore, datastore.query(head.read_key(request), **given))
        shown = describe_page(found)
    return Answer(shown | {"explain": found.explanation.to_dict()} if explain else shown)


def _countable(given: dict[str, Any]) -> dict[str, Any]:
    flaws = [Flaw(f"/{name}", "not together with count") for name in ("order", "limit") if name in given]
    if flaws:
        raise Invalid(*flaws)
    return given


def _stream(request: Request, wanted: dict[str, Any], limit: int | None, *, light: bool = False) -> Response:
    if limit is not None and not 1 <= limit <= QUERY_MAX:
        raise Invalid.at("/limit", f"expected a whole number from 1 to {QUERY_MAX}")
    datastore = datastore_of(request)
    parts = _all_lines(datastore, head.read_key(request), wanted, limit, light=light)
    return Stream(while_read(request, parts))


async def _all_lines(
    datastore: Datastore, key: str, wanted: dict[str, Any], limit: int | None, *, light: bool
) -> AsyncGenerator[bytes, None]:
    """The items that match, as lines, to their end or to ``limit``: of each bounded read those that it gave.

    Raises:
        Problem: what kept it from going on, with the ``cursor`` to do so.
        Invalid: the query is malformed.
    """
    left, cursor = limit, wanted.get("cursor")
    while left is None or left > 0:
        most = STREAM_STEP if left is None else min(left, STREAM_STEP)
        try:
            page = await datastore.query(key, **wanted | {"cursor": cursor, "limit": most, "rounds": 1})
        except (Refused, Unavailable, Incompatible) as error:
            problem = problem_of(error)
            problem.members["cursor"] = cursor
            raise problem from error
        yield join(describe_page(page, light=light)["items"])
        left, cursor = None if left is None else left - len(page.items), page.cursor
        if cursor is None:
            return


async def _create_lines(request: Request, datastore: Datastore, *, minimal: bool) -> AsyncGenerator[bytes, None]:
    """Create the item of each line -> a line of what became of it, in order."""
    most, hold = datastore.settings.body_max, partial(body.hold, request)
    async with aclosing(split(body.content(request), most, hold)) as found:
        async for numbered in found:
            for start in range(0, len(numbered), BATCH_MAX):
                yield join(await _create_some(request, datastore, numbered[start : start + BATCH_MAX], minimal=minimal))


async def _create_some(
    request: Request, datastore: Datastore, numbered: list[tuple[int, bytes | None]], *, minimal: bool
) -> list[dict[str, Any]]:
    """Create the items of some lines.

    Each write is marked by the number of its line, so that a repeat finds it whatever became of the lines before: one
    that was refused, or that the store did not get, may be taken by then.
    """
    results: dict[int, dict[str, Any]] = {}
    calls: dict[int, Call] = {}
    for number, line in numbered:
        try:
            if line is None:
                raise body.too_large(datastore.settings.body_max)
            given = (await body.decoded(request, strictjson.decode, line, _one)).given()
            call = datastore.calls.create(**given, partition=datastore.partition_ahead(number - 1))
            calls[number] = datastore.marked(call, number - 1)
        except (Problem, HooklineError) as error:
            results[number] = describe_error(error)
    if not calls:
        await asyncio.sleep(0)  # nothing waits for the store: others are served in between
    try:
        outcomes = await datastore.unmarked().run([*calls.values()])
        room = Room()
        described = [describe_result(outcome, room, minimal=minimal) for outcome in outcomes]
    except (Unavailable, OutcomeUnknown, Incompatible) as failure:
        described = [describe_error(failure)] * len(calls)
    results |= zip(calls, described, strict=True)
    return [{"line": number} | results[number] for number, _ in numbered]


routes = [
    Route("/v1/items", create, methods=["POST"]),
    Route("/v1/items/{key}", list_items, methods=["GET"]),
    # Before the items themselves: one whose sortField is "query" has every method but this.
    Route("/v1/items/{key}/query", query, methods=["POST"]),
]
