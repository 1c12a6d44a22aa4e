"""The routes of stored rules, made alike for each kind of them by :func:`routes_of`. A rule has a name, and ``key``."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.errors import NotFound
from hookline.grant import ADMIN
from hookline.item import check_key
from hookline.rules import Rules
from hookline_server import body, head, ruleshapes
from hookline_server.answer import Answer
from hookline_server.caller import caller_of
from hookline_server.fields import Cursor, PageLimit
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Endpoint, Resource

NEXT_MAX = 100
_COUNT = {"count": Annotated[int, Meta(description=f"How many: 1 to {NEXT_MAX}.", ge=1, le=NEXT_MAX)]}
_PAGE = {"limit": PageLimit, "cursor": Cursor}
_RUNS = {200: Reply("Its runs, the last ones first.", ruleshapes.Runs, ("Link",))}
_NEXT = {200: Reply("When it runs next.", ruleshapes.NextRuns)}
Kind = type[Rules[Any, Any]]
Work = Callable[[Request, Kind], Awaitable[Response]]


def routes_of(
    kind: Kind, stored: type, page: type, run: Endpoint, example: Mapping[str, Any], says: Mapping[str, str]
) -> list[Route]:
    """The routes of one kind of rules.

    Args:
        kind: the rules.
        stored: how one of them reads.
        page: how a page of them reads.
        run: runs one of them now: what comes of that is of its kind.
        example: one of them, as it is put.
        says: what the API's document says of ``put``, ``delete`` and ``disable`` beside their first line.
    """
    noun, name = kind.noun, kind.noun.capitalize()
    one = f"{'an' if noun == 'orchestration' else 'a'} {noun}"

    def route(
        work: Work, operation: str, text: str, replies: Mapping[int, Reply], *refuses: str, **said: Any
    ) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await work(request, kind)

        endpoint.__doc__ = text
        return Operation(name=operation, replies=replies, refuses=refuses, **said)(endpoint)

    links = (f"get{name}", f"run{name}", f"delete{name}")
    new, replaced = f"The {noun} is new.", f"The {noun} was replaced."
    replies = {201: Reply(new, stored, ("Location",), links=links), 200: Reply(replaced, stored)}
    more: dict[str, Any] = {"takes": {JSON: (kind.kind,)}, "example": example, "writes": True}
    put = route(_put, f"put{name}", f"Store {one}.\n\n{says['put']}", replies, "reserved_key", **more)

    text, replies = f"Read {one}.\n\nWith its last and next run.", {200: Reply(f"The {noun}.", stored)}
    get = route(_get, f"get{name}", text, replies, "not_found")

    text = f"List {noun}s.\n\nIn order of name; a page has 1,000 unless ``limit`` says otherwise."
    index = route(_index, f"list{name}s", text, {200: Reply(f"A page of {noun}s.", page, ("Link",))}, query=_PAGE)

    text, replies = f"Delete {one}.\n\n{says['delete']}", {204: Reply("It is gone.")}
    delete = route(_delete, f"delete{name}", text, replies, "not_found", writes=True)

    refuses, replies = ("not_found", "precondition_failed"), {200: Reply("It runs at its next tick.", stored)}
    enable = route(_enable, f"enable{name}", f"Enable {one}.", replies, *refuses, writes=True)
    text, replies = f"Disable {one}.\n\n{says['disable']}", {200: Reply("It runs by hand alone.", stored)}
    disable = route(_disable, f"disable{name}", text, replies, *refuses, writes=True)

    text = f"List runs of {one}.\n\nThe last ones first; 1,000 are kept, for 30 days."
    runs = route(_runs, f"list{name}Runs", text, _RUNS, "not_found", query=_PAGE)
    text = f"Preview the next runs of {one}.\n\nIn UTC and by the clock of its time zone, without the random delay."
    upcoming = route(_upcoming, f"preview{name}", text, _NEXT, "not_found", query=_COUNT)

    path = f"/v1/{noun}s"
    return [
        Route(path, index, methods=["GET"]),
        Resource(path + "/{name}", GET=get, PUT=put, DELETE=delete),
        Route(path + "/{name}/run", run, methods=["POST"]),
        Route(path + "/{name}/enable", enable, methods=["POST"]),
        Route(path + "/{name}/disable", disable, methods=["POST"]),
        Route(path + "/{name}/runs", runs, methods=["GET"]),
        Route(path + "/{name}/next", upcoming, methods=["GET"]),
    ]


def name_of(request: Request) -> str:
    """The name of the rule that a path names.

    Raises:
        Invalid: it is none.
    """
    return check_key(request.path_params["name"], "/name")


def _rules_of(request: Request, kind: Kind) -> Rules[Any, Any]:
    """The rules of the caller's namespace.

    They are kept in a key of the engine's own. What an API key is limited to are the keys that they work on.
    """
    return kind(caller_of(request).whole)


async def check_stored(request: Request, kind: Kind) -> Rules[Any, Any]:
    """The rules, if the named one is of a key that the caller is allowed, or is not there.

    Raises:
        KeyNotAllowed
    """
    rules, grant = _rules_of(request, kind), caller_of(request).grant
    if grant.patterns:
        with contextlib.suppress(NotFound):
            grant.check(ADMIN, rules.rule(await rules.get(name_of(request))).key)
    return rules


async def _put(request: Request, kind: Kind) -> Response:
    head.read_query(request)
    rule = await body.read_json(request, kind.kind)
    caller_of(request).grant.check(ADMIN, rule.key)
    rules = await check_stored(request, kind)
    item = await rules.put(name_of(request), rule)
    if item.version > 1:
        return Answer(rules.describe(item))
    return Answer(rules.describe(item), 201, {"Location": f"/v1/{kind.noun}s/{item.sort_field}"})


async def _get(request: Request, kind: Kind) -> Response:
    head.read_query(request)
    rules = _rules_of(request, kind)
    item = await rules.get(name_of(request))
    caller_of(request).grant.check(ADMIN, rules.rule(item).key)
    return Answer(rules.describe(item))


async def _index(request: Request, kind: Kind) -> Response:
    given = head.read_query(request, *_PAGE)
    limit = head.read_limit(given.get("limit", "1000"))
    caller, rules = caller_of(request), _rules_of(request, kind)
    page = await rules.page(limit=limit, cursor=given.get("cursor"))
    shown = [rules.describe(item) for item in page.items if caller.grant.covers(rules.rule(item).key)]
    return Answer({"items": shown, "cursor": page.cursor}, headers=head.next_page(given, page.cursor))


async def _delete(request: Request, kind: Kind) -> Response:
    head.read_query(request)
    await (await check_stored(request, kind)).delete(name_of(request))
    return Answer(status=204)


async def _enable(request: Request, kind: Kind) -> Response:
    return await _switch(request, kind, enabled=True)


async def _disable(request: Request, kind: Kind) -> Response:
    return await _switch(request, kind, enabled=False)


async def _switch(request: Request, kind: Kind, *, enabled: bool) -> Response:
    head.read_query(request)
    rules = await check_stored(request, kind)
    return Answer(rules.describe(await rules.enable(name_of(request), enabled)))


async def _runs(request: Request, kind: Kind) -> Response:
    given = head.read_query(request, *_PAGE)
    rules = await check_stored(request, kind)
    limit = head.read_limit(given.get("limit", "50"))
    page = await rules.runs(name_of(request), limit=limit, cursor=given.get("cursor"))
    shown = {"items": [item.content for item in page.items], "cursor": page.cursor}
    return Answer(shown, headers=head.next_page(given, page.cursor))


async def _upcoming(request: Request, kind: Kind) -> Response:
    given = head.read_query(request, *_COUNT)
    rules = await check_stored(request, kind)
    count = head.read_limit(given.get("count", "10"), "count", NEXT_MAX)
    return Answer({"ticks": await rules.next(name_of(request), count)})
