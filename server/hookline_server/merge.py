"""JSON Merge Patch (RFC 7396) on an item's content, metadata and triggers."""

from __future__ import annotations

from typing import Any

from hookline import Item
from hookline.errors import Flaw, Invalid
from hookline.item import check_value

_MEMBERS = ("content", "metadata", "triggerUrls")


def check_patch(patch: object) -> dict[str, Any]:
    """The patch, if it is one for an item. Its depth is checked here, since merging walks it.

    Raises:
        Invalid: it is not.
    """
    if not isinstance(patch, dict):
        raise Invalid.at("", "expected an object")
    flaws = [
        Flaw(f"/{name}", f"unknown field; expected one of {', '.join(_MEMBERS)}")
        for name in patch
        if name not in _MEMBERS
    ]
    if not isinstance(patch.get("metadata", {}), dict | None):
        flaws.append(Flaw("/metadata", "expected an object, or null"))
    if flaws:
        raise Invalid(*flaws)
    for name, value in patch.items():
        check_value(value, f"/{name}")
    return patch


def changes(item: Item, patch: dict[str, Any]) -> dict[str, Any]:
    """What an update must be told so that the item becomes the merger of what it is and the patch.

    Only what the patch names is in it: whoever patches ``status`` to ``started`` wants to claim, whatever it was.
    """
    told: dict[str, Any] = {}
    if "content" in patch:
        told["content"] = merge(item.content, patch["content"])
    if "triggerUrls" in patch:
        told["trigger_urls"] = merge([trigger.to_dict() for trigger in item.triggers], patch["triggerUrls"])
    if "metadata" in patch:
        named = patch["metadata"]
        if named is None:
            named = dict.fromkeys(name for name in item.metadata if name != "version")
        told["metadata"] = {name: merge(item.metadata.get(name), value) for name, value in named.items()}
    return told


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2: objects are merged, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
