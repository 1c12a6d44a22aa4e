"""Hookline: a Redis-backed datastore whose items are also jobs.

The names are found when they are first asked for: who needs the settings alone does not wait for the store's client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookline.calls import UNSET, Call, Calls
    from hookline.datastore import Datastore
    from hookline.embedded import EmbeddedStore
    from hookline.errors import HooklineError
    from hookline.item import Item, Trigger
    from hookline.outcome import Claimed, Outcome
    from hookline.query import Page
    from hookline.secret import SecretBox
    from hookline.settings import Settings

_HOMES = {
    "UNSET": "calls",
    "Call": "calls",
    "Calls": "calls",
    "Claimed": "outcome",
    "Datastore": "datastore",
    "EmbeddedStore": "embedded",
    "HooklineError": "errors",
    "Item": "item",
    "Outcome": "outcome",
    "Page": "query",
    "SecretBox": "secret",
    "Settings": "settings",
    "Trigger": "item",
}
__all__ = [
    "UNSET",
    "Call",
    "Calls",
    "Claimed",
    "Datastore",
    "EmbeddedStore",
    "HooklineError",
    "Item",
    "Outcome",
    "Page",
    "SecretBox",
    "Settings",
    "Trigger",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found
