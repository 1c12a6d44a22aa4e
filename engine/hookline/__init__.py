"""Hookline: a Redis-backed datastore whose items are also jobs.

A name is loaded when it is first asked for: who needs the settings alone does not wait for the store's client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookline.call import Call as Call
    from hookline.calls import UNSET as UNSET
    from hookline.calls import Calls as Calls
    from hookline.client import Client as Client
    from hookline.datastore import Datastore as Datastore
    from hookline.embedded import EmbeddedStore as EmbeddedStore
    from hookline.errors import HooklineError as HooklineError
    from hookline.item import Item as Item
    from hookline.item import Trigger as Trigger
    from hookline.job import Cancel as Cancel
    from hookline.job import Job as Job
    from hookline.job import Release as Release
    from hookline.job import Retry as Retry
    from hookline.outcome import Changed as Changed
    from hookline.outcome import Claimed as Claimed
    from hookline.outcome import Outcome as Outcome
    from hookline.query import Page as Page
    from hookline.rule import Orchestration as Orchestration
    from hookline.rule import Schedule as Schedule
    from hookline.secret import SecretBox as SecretBox
    from hookline.secret import load_key as load_key
    from hookline.settings import Settings as Settings
    from hookline.syncclient import SyncClient as SyncClient
    from hookline.worker import Worker as Worker

_NAMES = {
    "call": ("Call",),
    "calls": ("UNSET", "Calls"),
    "client": ("Client",),
    "datastore": ("Datastore",),
    "embedded": ("EmbeddedStore",),
    "errors": ("HooklineError",),
    "item": ("Item", "Trigger"),
    "job": ("Cancel", "Job", "Release", "Retry"),
    "outcome": ("Changed", "Claimed", "Outcome"),
    "query": ("Page",),
    "rule": ("Orchestration", "Schedule"),
    "secret": ("SecretBox", "load_key"),
    "settings": ("Settings",),
    "syncclient": ("SyncClient",),
    "worker": ("Worker",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
