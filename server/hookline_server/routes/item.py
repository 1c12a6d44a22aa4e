"""``/v1/items/{key}/{sortField}``: one item as a document: read, replace, patch, delete."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from hookline import Datastore, Item, Outcome
from hookline.errors import Exists, NotFound, PreconditionFailed, VersionConflict
from hookline.reader import CHANGE_POLL
from hookline.wake import pause
from hookline_server import body, head, merge
from hookline_server.answer import Answer
from hookline_server.body import JSON, MERGE_PATCH, Body
from hookline_server.caller import datastore_of
from hookline_server.routes import resource, while_connected
from hookline_server.view import created, updated

_TRIES = 8
"""How often a change that depends on the item as it stands is tried anew when another got in between."""

Version = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


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
    only_if: Any = msgspec.field(default=UNSET, name="if")


async def get(request: Request) -> Response:
    """The item, or 304 where the client has it already; with ``wait`` it may change until then."""
    wait = head.read_query(request, "wait").get("wait")
    found = await datastore_of(request).get(*head.read_identity(request))
    if wait is not None:
        seconds = body.read_wait(float(wait) if wait.isascii() and wait.isdigit() else wait)
        if "if-none-match" not in request.headers or head.is_known(request, found):
            await body.read_bytes(request, 0)
            found = await while_connected(request, _changed(datastore_of(request), found, seconds))
    if head.is_known(request, found):
        return Answer(status=304, etag=found.etag)
    return Answer(found.to_dict(), etag=found.etag)


async def _changed(datastore: Datastore, found: Item, seconds: float) -> Item:
    """The item once its ETag is another one, or as it stands after so long."""
    deadline = time.monotonic() + seconds
    async with datastore.changes.listening(datastore.calls.item_name(found.key, found.sort_field)) as changed:
        while True:
            latest = await datastore.get(found.key, found.sort_field)
            left = deadline - time.monotonic()
            if latest.etag != found.etag or left <= 0 or datastore.changes.released:
                return latest
            await pause(changed, min(left, CHANGE_POLL))


async def put(request: Request) -> Response:
    """Create the item, or replace it whole."""
    datastore, (key, sort_field) = datastore_of(request), head.read_identity(request)
    triggers, match, new = head.read_triggers(request), head.if_match(request), head.must_be_new(request)
    given = (await body.read_json(request, WholeItem)).given() | {"triggers": triggers}
    if new:
        try:
            return created(await datastore.create(key, sort_field, **given))
        except Exists as exists:
            raise PreconditionFailed("If-None-Match asks that there is no such item", exists.item) from None

    def replace(version: int | None) -> Awaitable[Outcome]:
        return datastore.create(key, sort_field, upsert=True, match=version, **given)

    if match != head.ANY:
        return created(await replace(match))
    try:
        return updated(await _change(datastore, key, sort_field, lambda current: replace(current.version)))
    except NotFound:
        raise PreconditionFailed("If-Match asks that there is such an item") from None


async def patch(request: Request) -> Response:
    """Update the item, or merge a document into it."""
    datastore, (key, sort_field) = datastore_of(request), head.read_identity(request)
    triggers, match = head.read_triggers(request), head.if_match(request)
    version = None if match == head.ANY else match
    value = await body.read_value(request, (*JSON, MERGE_PATCH))
    if body.media_type(request) != MERGE_PATCH:
        given = body.convert(value, Patch).given()
        return updated(await datastore.update(key, sort_field, match=version, triggers=triggers, **given))
    wanted = merge.check_patch(value)

    def merged(current: Item) -> Awaitable[Outcome]:
        # As If-Match, not as a version that the client names: that would let it start what is completed.
        changes = merge.changes(current, wanted)
        return datastore.update(key, sort_field, match=current.version, triggers=triggers, **changes)

    return updated(await _change(datastore, key, sort_field, merged, version))


async def _change(
    datastore: Datastore,
    key: str,
    sort_field: str,
    write: Callable[[Item], Awaitable[Outcome]],
    version: int | None = None,
) -> Outcome:
    """Read and write, again if the item changed in between; not if the client asked for that very version.

    Raises:
        NotFound: there is no such item.
        PreconditionFailed: the item is not at ``version``.
        VersionConflict: it changed in between every time.
    """
    latest = None
    for _ in range(_TRIES):
        current = await datastore.get(key, sort_field)
        if version not in (None, current.version):
            raise PreconditionFailed(item=current)
        try:
            return await write(current)
        except PreconditionFailed as changed:
            latest = changed.item
    raise VersionConflict("the item kept changing while it was read and written; try again", latest)


async def delete(request: Request) -> Response:
    """Delete the item."""
    triggers, match = head.read_triggers(request), head.if_match(request)
    version = None if match == head.ANY else match
    await datastore_of(request).delete(*head.read_identity(request), match=version, triggers=triggers)
    return Answer(status=204)


routes = [resource("/v1/items/{key}/{sort_field:path}", GET=get, PUT=put, PATCH=patch, DELETE=delete)]
