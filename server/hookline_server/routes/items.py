"""``/v1/items``: items as documents: create, read, list, query, replace, patch, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Call, Datastore, Item, Outcome, Page
from hookline.calls import CLAIM_MAX
from hookline.codec import NATIVE
from hookline.datastore import new_sort_field
from hookline.errors import Exists, Flaw, Invalid, NotFound, PreconditionFailed, VersionConflict
from hookline_server import body, head, merge
from hookline_server.answer import Json, created, describe, is_new, updated
from hookline_server.body import MERGE_PATCH, Body
from hookline_server.problem import problem_of

BATCH_MAX = CLAIM_MAX
"""Operations of one request."""
_CAS_TRIES = 8
"""How often a change that depends on the item as it stands is tried anew when another got in between."""

Version = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class NewItem(Body):
    """An item to create."""

    key: str
    sort_field: str | UnsetType = UNSET
    content: Any = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    trigger_urls: Any = UNSET
    upsert: bool | UnsetType = UNSET


class NewItems(Body):
    """Many items to create. ``upsert`` holds for those that do not say themselves."""

    items: list[NewItem]
    upsert: bool = False


class WholeItem(Body):
    """What an item is to be: what is left out is empty."""

    content: Any = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    trigger_urls: Any = UNSET


class Patch(Body):
    """An update: metadata is merged (null removes), content and triggers are replaced."""

    content: Any = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    trigger_urls: Any = UNSET
    token: str | UnsetType = UNSET
    version: Version | UnsetType = UNSET


class Query(Body):
    """A search among the items of a key."""

    where: Any = UNSET
    order: str | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    cursor: str | UnsetType | None = UNSET
    explain: bool = False


async def create(request: Request) -> Response:
    """Create one item, or the list of ``items``."""
    head.read_query(request)
    value = await body.read_value(request)
    if isinstance(value, dict) and "items" in value:
        return await _create_many(_datastore(request), body.convert(value, NewItems))
    return created(await _datastore(request).create(**body.convert(value, NewItem).given()))


async def _create_many(datastore: Datastore, batch: NewItems) -> Response:
    """A malformed item refuses the batch as a whole; what the store refuses is told item by item."""
    if not 1 <= len(batch.items) <= BATCH_MAX:
        raise Invalid.at("/items", f"expected 1 to {BATCH_MAX} items")
    calls: list[Call] = []
    flaws: list[Flaw] = []
    for place, item in enumerate(batch.items):
        options: dict[str, Any] = {"sort_field": new_sort_field(), "upsert": batch.upsert}
        try:
            calls.append(datastore.calls.create(**(options | item.given())))
        except Invalid as invalid:
            flaws += body.within(invalid, f"/items/{place}")
    if flaws:
        raise Invalid(*flaws)
    return Json({"results": [_result(outcome) for outcome in await datastore.run(calls)]}, 207)


def _result(outcome: Outcome) -> dict[str, Any]:
    if outcome.ok:
        return {"status": 201 if is_new(outcome) else 200, "item": describe(outcome)}
    problem = problem_of(outcome.error())
    return {"status": problem.status, "problem": problem.document()}


async def list_items(request: Request) -> Response:
    """Items of a key, filtered by what the query string can say."""
    query = head.read_query(request, "status", "order", "limit", "cursor", "format", prefix="metadata.")
    where = {name.removeprefix("metadata."): text for name, text in query.items() if name.startswith("metadata.")}
    if "status" in query and where.setdefault("status", query["status"]) != query["status"]:
        raise Invalid.at("/status", "expected the same status as metadata.status, or one of the two alone")
    shown = query.get("format", "full")
    if shown not in ("full", "light"):
        raise Invalid.at("/format", "expected full or light")
    limit = query.get("limit", "50")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4):
        raise Invalid.at("/limit", "expected a whole number from 1 to 1000")
    page = await _datastore(request).query(
        head.read_key(request),
        where={name: _read_literal(name, text) for name, text in where.items()},
        order=query.get("order"),
        limit=int(limit),
        cursor=query.get("cursor") or None,
    )
    return Json(_describe_page(page, light=shown == "light"))


def _read_literal(name: str, text: str) -> Any:
    """A filter's value from a query string, which has no types: ``3`` finds the number, and the text, 3."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    if name == "version" or NATIVE.get(name, ("", ""))[1] == "number":
        return value
    if name in NATIVE or isinstance(value, dict | list):
        return text
    return value if isinstance(value, str) else {"in": [value, text]}


async def query(request: Request) -> Response:
    """Items of a key, filtered by a body."""
    head.read_query(request)
    wanted = await body.read_json(request, Query)
    given = wanted.given()
    explain = given.pop("explain")
    page = await _datastore(request).query(head.read_key(request), **given)
    answer = _describe_page(page)
    return Json({**answer, "explain": {"examined": page.examined}} if explain else answer)


def _describe_page(page: Page, *, light: bool = False) -> dict[str, Any]:
    items = [item.to_dict() for item in page.items]
    if light:
        for item in items:
            del item["content"]
    return {"items": items, "cursor": page.cursor}


async def get(request: Request) -> Response:
    """One item, or 304 where the client has it already."""
    head.read_query(request)
    item = await _datastore(request).get(*head.read_identity(request))
    headers = {"ETag": item.etag}
    return Response(None, 304, headers) if head.is_known(request, item) else Json(item.to_dict(), 200, headers)


async def put(request: Request) -> Response:
    """Create the item, or replace it whole."""
    datastore, (key, sort_field) = _datastore(request), head.read_identity(request)
    triggers, match, new = not head.read_triggers_off(request), head.if_match(request), head.must_be_new(request)
    given = (await body.read_json(request, WholeItem)).given() | {"triggers": triggers}
    if new:
        try:
            return created(await datastore.create(key, sort_field, **given))
        except Exists as exists:
            raise PreconditionFailed("If-None-Match asks that there is no such item", exists.item) from None
    if match != "*":
        return created(await datastore.create(key, sort_field, upsert=True, match=match, **given))
    try:
        return created(
            await _change(
                datastore,
                key,
                sort_field,
                lambda item: datastore.create(key, sort_field, upsert=True, match=item.version, **given),
            )
        )
    except NotFound:
        raise PreconditionFailed("If-Match asks that there is such an item") from None


async def patch(request: Request) -> Response:
    """Update the item, or merge a document into it."""
    datastore, (key, sort_field) = _datastore(request), head.read_identity(request)
    triggers, match = not head.read_triggers_off(request), head.if_match(request)
    kinds = (*body.JSON, MERGE_PATCH)
    options: dict[str, Any] = {"triggers": triggers}
    if body.check_media_type(request, kinds) != MERGE_PATCH:
        if isinstance(match, int):
            options["match"] = match
        changes = (await body.read_json(request, Patch, kinds)).given()
        return updated(await datastore.update(key, sort_field, **changes, **options))
    wanted = merge.check_patch(await body.read_value(request, kinds))

    async def merged(item: Item) -> Outcome:
        # As If-Match, not as a version that the client names: that would let it start what is completed.
        return await datastore.update(key, sort_field, **merge.changes(item, wanted), match=item.version, **options)

    return updated(await _change(datastore, key, sort_field, merged, match if isinstance(match, int) else None))


async def _change(
    datastore: Datastore,
    key: str,
    sort_field: str,
    write: Callable[[Item], Awaitable[Outcome]],
    match: int | None = None,
) -> Outcome:
    """Read and write, again if the item changed in between; not if the client asked for that very version.

    Raises:
        PreconditionFailed: the item is not at version ``match``.
        VersionConflict: it changed in between every time.
    """
    for _ in range(_CAS_TRIES):
        item = await datastore.get(key, sort_field)
        if match not in (None, item.version):
            raise PreconditionFailed(item=item)
        try:
            return await write(item)
        except PreconditionFailed as changed:
            latest = changed.item
    raise VersionConflict("the item kept changing while it was read and written; try again", latest)


async def delete(request: Request) -> Response:
    """Delete the item."""
    triggers, match = not head.read_triggers_off(request), head.if_match(request)
    await _datastore(request).delete(
        *head.read_identity(request), match=match if isinstance(match, int) else None, triggers=triggers
    )
    return Response(status_code=204)


def _datastore(request: Request) -> Datastore:
    datastore: Datastore = request.app.state.datastore
    return datastore


_ITEM = "/v1/items/{key}/{sort_field:path}"

routes = [
    Route("/v1/items", create, methods=["POST"]),
    Route("/v1/items/{key}", list_items, methods=["GET"]),
    Route("/v1/items/{key}/query", query, methods=["POST"]),
    Route(_ITEM, get, methods=["GET"]),
    Route(_ITEM, put, methods=["PUT"]),
    Route(_ITEM, patch, methods=["PATCH"]),
    Route(_ITEM, delete, methods=["DELETE"]),
]
