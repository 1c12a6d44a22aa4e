"""What the routes of all kinds of rules have in common. Of each kind the rules are named, and a rule has ``key``."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, TypeVar

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from hookline.errors import NotFound
from hookline.grant import ADMIN
from hookline.item import check_key
from hookline.rules import Rules
from hookline_server import body, head, ruleshapes
from hookline_server.answer import Answer
from hookline_server.caller import caller_of
from hookline_server.fields import Cursor, PageLimit
from hookline_server.operation import Reply

NEXT_MAX = 100
R = TypeVar("R", bound=Rules[Any, Any])
COUNT = {"count": Annotated[int, Meta(description=f"How many: 1 to {NEXT_MAX}.", ge=1, le=NEXT_MAX)]}
PAGE = {"limit": PageLimit, "cursor": Cursor}
RUNS = {200: Reply("Its runs, the last ones first.", ruleshapes.Runs, ("Link",))}
NEXT = {200: Reply("When it runs next.", ruleshapes.NextRuns)}


def name_of(request: Request) -> str:
    """The name of the rule that a path names.

    Raises:
        Invalid: it is none.
    """
    return check_key(request.path_params["name"], "/name")


def rules_of(request: Request, kind: type[R]) -> R:
    """The rules of the caller's namespace.

    They are kept in a key of the engine's own. What an API key is limited to are the keys that they work on.
    """
    return kind(caller_of(request).whole)


async def check_stored(request: Request, kind: type[R]) -> R:
    """The rules, if the named one is of a key that the caller is allowed, or is not there.

    Raises:
        KeyNotAllowed
    """
    rules, grant = rules_of(request, kind), caller_of(request).grant
    if grant.patterns:
        with contextlib.suppress(NotFound):
            grant.check(ADMIN, rules.rule(await rules.get(name_of(request))).key)
    return rules


async def put(request: Request, kind: type[R], path: str) -> Response:
    """Store the rule that the body holds."""
    head.read_query(request)
    rule = await body.read_json(request, kind.kind)
    caller_of(request).grant.check(ADMIN, rule.key)
    rules = await check_stored(request, kind)
    item = await rules.put(name_of(request), rule)
    if item.version > 1:
        return Answer(rules.describe(item))
    return Answer(rules.describe(item), 201, {"Location": f"{path}/{item.sort_field}"})


async def get(request: Request, kind: type[R]) -> Response:
    """One rule."""
    head.read_query(request)
    rules = rules_of(request, kind)
    item = await rules.get(name_of(request))
    caller_of(request).grant.check(ADMIN, rules.rule(item).key)
    return Answer(rules.describe(item))


async def index(request: Request, kind: type[R]) -> Response:
    """A page of rules, in order of their names."""
    given = head.read_query(request, *PAGE)
    limit = head.read_limit(given.get("limit", "1000"))
    caller, rules = caller_of(request), rules_of(request, kind)
    page = await rules.page(limit=limit, cursor=given.get("cursor"))
    shown = [rules.describe(item) for item in page.items if caller.grant.covers(rules.rule(item).key)]
    return Answer({"items": shown, "cursor": page.cursor}, headers=head.next_page(given, page.cursor))


async def delete(request: Request, kind: type[R]) -> Response:
    """Remove a rule."""
    head.read_query(request)
    await (await check_stored(request, kind)).delete(name_of(request))
    return Answer(status=204)


async def enable(request: Request, kind: type[R], *, enabled: bool) -> Response:
    """Let a rule run at its ticks, or not."""
    head.read_query(request)
    rules = await check_stored(request, kind)
    return Answer(rules.describe(await rules.enable(name_of(request), enabled)))


async def runs(request: Request, kind: type[R]) -> Response:
    """What came of the runs of a rule."""
    given = head.read_query(request, *PAGE)
    rules = await check_stored(request, kind)
    limit = head.read_limit(given.get("limit", "50"))
    page = await rules.runs(name_of(request), limit=limit, cursor=given.get("cursor"))
    shown = {"items": [item.content for item in page.items], "cursor": page.cursor}
    return Answer(shown, headers=head.next_page(given, page.cursor))


async def upcoming(request: Request, kind: type[R]) -> Response:
    """When a rule runs next."""
    given = head.read_query(request, *COUNT)
    rules = await check_stored(request, kind)
    count = head.read_limit(given.get("count", "10"), "count", NEXT_MAX)
    return Answer({"ticks": await rules.next(name_of(request), count)})
