"""Answers: JSON, encoded once and straight to bytes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from hookline import Item, Outcome


class Json(Response):
    """An answer whose body is the JSON of a value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return msgspec.json.encode(content)


def describe(outcome: Outcome) -> dict[str, Any]:
    """The item of an accepted write as it reads outside, with ``warnings`` where there are any."""
    shown = item_of(outcome).to_dict()
    if outcome.warnings:
        shown["warnings"] = outcome.warnings
    return shown


def item_of(outcome: Outcome) -> Item:
    """The item that an accepted write gives."""
    if outcome.item is None:
        raise TypeError(f"{outcome.word}: an accepted write shows its item")
    return outcome.item


def created(outcome: Outcome) -> Json:
    """The answer to a create or replace of one item: 201 and its Location if it is new, else 200."""
    item = item_of(outcome)
    if not is_new(outcome):
        return updated(outcome)
    return Json(describe(outcome), 201, {"ETag": item.etag, "Location": location(item)})


def updated(outcome: Outcome) -> Json:
    """The answer to an update of one item."""
    return Json(describe(outcome), 200, {"ETag": item_of(outcome).etag})


def is_new(outcome: Outcome) -> bool:
    """Whether a create or replace made the item: it begins at version 1, and a replacement leaves it above that."""
    return outcome.version == 1


def location(item: Item) -> str:
    """The path of an item; slashes in its sortField are escaped."""
    return f"/v1/items/{item.key}/{quote(item.sort_field, safe='')}"
