"""Who asks: what a request may do, and in which namespace."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from hookline import Datastore
from hookline.grant import Grant
from hookline.limited import Limited

CALLER = "hookline.caller"
"""Where a request's scope has its caller."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``id`` is that of the API key, which stays when the key is rotated; empty where none is asked for.

    ``datastore`` is the namespace as the caller may use it, ``whole`` the same without limits, for those few routes
    that keep something in keys of the engine's own.
    """

    datastore: Datastore
    whole: Datastore
    grant: Grant = Grant()
    id: str = ""

    @property
    def namespace(self) -> str:
        """The namespace of the API key."""
        return self.whole.settings.namespace


def anonymous(datastore: Datastore) -> Caller:
    """Who may do everything in a namespace, where no API key is asked for."""
    return Caller(datastore, datastore)


def admitted(whole: Datastore, grant: Grant, key_id: str) -> Caller:
    """Who has shown an API key."""
    return Caller(whole if grant.whole else Limited(whole, grant), whole, grant, key_id)


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.scope[CALLER]
    return caller


def datastore_of(request: Request) -> Datastore:
    """The datastore as the caller may use it: it holds what the API key allows."""
    return caller_of(request).datastore
