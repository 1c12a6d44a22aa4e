"""Hookline: a Redis-backed datastore whose items are also jobs."""

from hookline.calls import UNSET, Call, Calls
from hookline.datastore import Datastore
from hookline.embedded import EmbeddedStore
from hookline.errors import HooklineError
from hookline.item import Item, Trigger
from hookline.job import Cancel, Job, Release, Retry
from hookline.outcome import Claimed, Outcome
from hookline.query import Page
from hookline.secret import SecretBox
from hookline.settings import Settings
from hookline.worker import Worker

__all__ = [
    "UNSET",
    "Call",
    "Calls",
    "Cancel",
    "Claimed",
    "Datastore",
    "EmbeddedStore",
    "HooklineError",
    "Item",
    "Job",
    "Outcome",
    "Page",
    "Release",
    "Retry",
    "SecretBox",
    "Settings",
    "Trigger",
    "Worker",
]
