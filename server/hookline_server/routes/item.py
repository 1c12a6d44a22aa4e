"""``/v1/items/{key}/{sortField}``: one item as a document: read, replace, patch, delete."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from hookline import Datastore, Item, Outcome
from hookline.codec import pack
from hookline.errors import Exists, NotFound, PreconditionFailed, VersionConflict
from hookline.optimistic import try_again
from hookline.reader import CHANGE_POLL
from hookline.wake import pause
from hookline_server import body, head, heavy, merge, shapes
from hookline_server.answer import Answer
from hookline_server.body import CONDITION_PACKS, ITEM_PACKS, MERGE_PATCH, VALUES, Body
from hookline_server.caller import datastore_of
from hookline_server.fields import Condition, Content, Metadata, TextDuration, Token, TriggerUrls
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource, while_connected
from hookline_server.shapes import NEW_ITEM, WrittenItem
from hookline_server.view import created, updated

Version = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class WholeItem(Body):
    """What an item is to be: what is left out is empty."""

    packs: ClassVar = ITEM_PACKS

    content: Content = UNSET
    metadata: Metadata | UnsetType = UNSET
    trigger_urls: TriggerUrls = UNSET


class Patch(Body):
    """An update: metadata is merged (null removes), content and triggers are replaced."""

    packs: ClassVar = ITEM_PACKS | CONDITION_PACKS

    content: Content = UNSET
    metadata: Metadata | UnsetType = UNSET
    trigger_urls: TriggerUrls = UNSET
    token: Token | UnsetType = UNSET
    version: Version | UnsetType = UNSET
    only_if: Condition = msgspec.field(default=UNSET, name="if")


class MergePatch(Body):
    """A JSON Merge Patch (RFC 7396) on an item: objects are merged, null removes, all else replaces."""

    content: Content = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    trigger_urls: Any = UNSET


_REFUSED = ("version_conflict", "precondition_failed", "reserved_key", "outbox_full", "invalid_header")
TRIGGERS = {"triggers": Annotated[Literal["on", "off"], msgspec.Meta(description="`off`: none fires.")]}


@Operation(
    name="getItem",
    query={"wait": TextDuration},
    headers=("If-None-Match",),
    replies={
        200: Reply("The item.", shapes.Item, ("ETag",)),
        304: Reply("It is as the client has it.", headers=("ETag",)),
    },
    refuses=("not_found", "body_too_large"),
)
async def get(request: Request) -> Response:
    """Read an item.

    With ``wait`` the answer comes when its ETag changes: from that in ``If-None-Match``, else from what it is now. In
    vain, and after 25 s at the latest, it is what it would have been at once.
    """
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


@Operation(
    name="putItem",
    query=TRIGGERS,
    headers=("If-Match", "If-None-Match: *"),
    takes={JSON: (WholeItem,)},
    example={"content": {"report": "monthly"}, "metadata": {"status": "not_started"}},
    replies={
        201: Reply("The item is new.", NEW_ITEM, ("ETag", "Location"), links=("getItem", "patchItem", "deleteItem")),
        200: Reply("The item was replaced.", WrittenItem, ("ETag",)),
    },
    refuses=(*_REFUSED, "not_found", "key_full"),
    writes=True,
    optional=True,
)
async def put(request: Request) -> Response:
    """Create an item, or replace it whole."""
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


@Operation(
    name="patchItem",
    query=TRIGGERS,
    headers=("If-Match",),
    takes={JSON: (Patch,), MERGE_PATCH: (MergePatch,)},
    example={"metadata": {"progress": 50}},
    replies={200: Reply("The item as it is now.", WrittenItem, ("ETag",))},
    refuses=(
        *_REFUSED,
        "not_found",
        "locked",
        "stale_token",
        "not_claimable",
        "cancelled",
        "paused",
        "too_many_fields",
    ),
    writes=True,
    optional=True,
)
async def patch(request: Request) -> Response:
    """Update an item.

    Metadata is merged: null removes a field, an object replaces one whole. Content and triggers are replaced. Setting
    ``status`` to ``started`` is a claim, and leaving it ends one.
    """
    datastore, (key, sort_field) = datastore_of(request), head.read_identity(request)
    triggers, match = head.read_triggers(request), head.if_match(request)
    version = None if match == head.ANY else match
    accept = (*VALUES, MERGE_PATCH)
    if body.media_type(request) != MERGE_PATCH:
        given = (await body.read_json(request, Patch, accept)).given()
        return updated(await datastore.update(key, sort_field, match=version, triggers=triggers, **given))
    wanted = await body.read_value(request, accept, merge.check_patch)

    async def merged(current: Item) -> Outcome:
        # As If-Match, not as a version that the client names: that would let it start what is completed.
        is_large = len(pack([current.content, current.metadata, wanted])) >= heavy.HEAVY_FROM
        work = partial(merge.changes, current, wanted)
        changes = await heavy.run(lambda: Patch(**work()).pack().given()) if is_large else work()
        return await datastore.update(key, sort_field, match=current.version, triggers=triggers, **changes)

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
    if again := await datastore.recall(key, sort_field):
        return again

    async def change() -> Outcome:
        current = await datastore.get(key, sort_field)
        if version not in (None, current.version):
            raise PreconditionFailed(item=current)
        return await write(current)

    if version is not None:
        return await change()
    try:
        return await try_again(change)
    except PreconditionFailed as changed:
        told = "the item kept changing while it was read and written; try again"
        raise VersionConflict(told, changed.item) from None


@Operation(
    name="deleteItem",
    query=TRIGGERS,
    headers=("If-Match",),
    replies={204: Reply("It is gone.")},
    refuses=(*_REFUSED, "not_found"),
    writes=True,
)
async def delete(request: Request) -> Response:
    """Delete an item."""
    triggers, match = head.read_triggers(request), head.if_match(request)
    version = None if match == head.ANY else match
    await datastore_of(request).delete(*head.read_identity(request), match=version, triggers=triggers)
    return Answer(status=204)


routes = [Resource("/v1/items/{key}/{sort_field:path}", GET=get, PUT=put, PATCH=patch, DELETE=delete)]
