"""How what the engine gives reads outside: items, pages, claims, outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from hookline import Claimed, Item, Outcome, Page
from hookline.bulk import Progress
from hookline.clock import format_time
from hookline.keysettings import KeySettings
from hookline.outcome import item_of
from hookline.query import ANSWER_MAX
from hookline.upkeep import Build
from hookline_server.answer import Answer
from hookline_server.problem import problem_of


def created(outcome: Outcome) -> Answer:
    """The answer to a create or replace of one item: 201 and its Location if it is new, else 200."""
    if not is_new(outcome):
        return updated(outcome)
    item = item_of(outcome)
    return Answer(describe(outcome), 201, {"Location": location_of(item)}, etag=item.etag, optional=True)


def location_of(item: Item) -> str:
    """The path of an item."""
    return f"/v1/items/{item.key}/{quote(item.sort_field, safe='')}"


def updated(outcome: Outcome) -> Answer:
    """The answer to an update of one item."""
    return Answer(describe(outcome), etag=item_of(outcome).etag, optional=True)


def is_new(outcome: Outcome) -> bool:
    """Whether a create or replace made the item: it begins at version 1, and a replacement leaves it above that."""
    return outcome.version == 1


def describe(outcome: Outcome) -> dict[str, Any]:
    """The item of an accepted write, with ``warnings`` where there are any."""
    shown = item_of(outcome).to_dict()
    if outcome.warnings:
        shown["warnings"] = outcome.warnings
    return shown


class Room:
    """What an answer of many has room for: one item more, as long as ``left``, which are bytes, is above 0."""

    left = ANSWER_MAX

    def take(self, item: Item) -> None:
        """Count an item."""
        self.left -= len(msgspec.json.encode((item.content, item.metadata)))


def describe_result(outcome: Outcome, room: Room, *, minimal: bool = False, creates: bool = True) -> dict[str, Any]:
    """What became of one write among many: its status, and the item (``minimal``: its names) or the problem.

    ``creates``: it was a create or replace. Without room there are no items.
    """
    made = creates and is_new(outcome)
    if room.left <= 0:
        outcome, minimal = msgspec.structs.replace(outcome, item=None), True
    elif outcome.item and not (outcome.ok and made):  # what is new came in the body of the request
        room.take(outcome.item)
    if not outcome.ok:
        return describe_error(outcome.error())
    status = 201 if made else 200
    if minimal:
        names = {"key": outcome.key, "sortField": outcome.sort_field, "version": outcome.version}
        return {"status": status, **names}
    return {"status": status, "item": describe(outcome)}


def describe_error(error: Exception) -> dict[str, Any]:
    """What became of one operation among many that could not be done."""
    problem = problem_of(error)
    return {"status": problem.status, "problem": problem.document()}


def describe_page(page: Page, *, light: bool = False) -> dict[str, Any]:
    """A page of a query; ``light`` leaves the contents out."""
    items = [item.to_dict() for item in page.items]
    if light:
        for item in items:
            del item["content"]
    return {"items": items, "cursor": page.cursor}


def describe_progress(progress: Progress) -> dict[str, Any]:
    """How far a change of many is."""
    return {"done": progress.done, "passedOver": progress.passed_over, "cursor": progress.cursor}


def describe_claimed(claimed: Claimed) -> dict[str, Any]:
    """What a claim took, and when there may be more; with the problem document of what kept it from more."""
    due = claimed.next_ms
    shown: dict[str, Any] = {
        "items": [item.to_dict() for item in claimed.items],
        "nextAt": None if due is None else format_time(due),
    }
    if claimed.paused:
        shown["paused"] = True
    return shown | ({"problem": problem_of(claimed.failure).document()} if claimed.failure else {})


def describe_settled(outcome: Outcome) -> dict[str, Any]:
    """What became of one claim; a refusal with its problem document."""
    shown: dict[str, Any] = {"sortField": outcome.sort_field, "outcome": outcome.word}
    if not outcome.ok:
        return shown | {"problem": problem_of(outcome.error()).document()}
    shown |= {"version": outcome.version, "status": outcome.status}
    if outcome.locked_until_ms is not None:
        shown["lockedUntil"] = format_time(outcome.locked_until_ms)
    return shown


def describe_settings(settings: KeySettings, builds: Mapping[str, Build]) -> dict[str, Any]:
    """The settings of a key as they hold, and how far the indexes are that are being built."""
    building = {name: {"done": build.done, "total": build.total} for name, build in builds.items()}
    return settings.to_dict() | ({"building": building} if building else {})


def describe_key(key: str, statuses: Mapping[str, int]) -> dict[str, Any]:
    """How many items a key has, also by status; ``statuses`` as :func:`hookline.stats.by_key` counts them."""
    named = {status: count for status, count in sorted(statuses.items()) if status}
    return {"key": key, "items": statuses.get("", 0), "statuses": named}
