"""Hookline: a Redis-backed datastore whose items are also jobs."""

from hookline.call import Call
from hookline.calls import UNSET, Calls
from hookline.datastore import Datastore
from hookline.embedded import EmbeddedStore
from hookline.errors import HooklineError
from hookline.item import Item, Trigger
from hookline.outcome import Claimed, Outcome
from hookline.query import Page
from hookline.secret import SecretBox
from hookline.settings import Settings

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
