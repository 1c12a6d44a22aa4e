"""Who asks: what a request may do, and in which namespace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from starlette.requests import Request

from hookline import Datastore
from hookline.grant import Grant
from hookline.limited import Limited

CALLER = "hookline.caller"
"""Where a request's scope has its caller."""
UNLIMITED, OPERATOR = "admin without patterns", "admin of the server's own namespace, without patterns"
"""Scopes that nobody writes: who may do everything in a namespace has its API keys as well, and who may do so in the
server's own namespace also sees what is of all of them."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``id`` is that of the API key, which stays when the key is rotated; empty where none is asked for.

    ``scopes`` are those of the key with all that they imply.
    ``datastore`` is the namespace as the caller may use it, ``whole`` the same without limits, for those few routes
    that keep something in keys of the engine's own.
    """

    datastore: Datastore
    whole: Datastore
    grant: Grant
    id: str
    scopes: frozenset[str]

    @property
    def namespace(self) -> str:
        """The namespace of the API key."""
        return self.whole.settings.namespace


_EVERYTHING = Grant()


@lru_cache(maxsize=1)
def anonymous(datastore: Datastore) -> Caller:
    """Who may do everything in a namespace, where no API key is asked for."""
    return Caller(datastore, datastore, _EVERYTHING, "", _EVERYTHING.allowed | {UNLIMITED, OPERATOR})


def admitted(whole: Datastore, grant: Grant, key_id: str, *, at_home: bool) -> Caller:
    """Who has shown an API key; ``at_home``: of the server's own namespace."""
    if not grant.whole:
        return Caller(Limited(whole, grant), whole, grant, key_id, grant.allowed)
    return Caller(whole, whole, grant, key_id, grant.allowed | {UNLIMITED, *((OPERATOR,) if at_home else ())})


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.scope[CALLER]
    return caller


def datastore_of(request: Request) -> Datastore:
    """The datastore as the caller may use it: it holds what the API key allows."""
    return caller_of(request).datastore


def whole_of(request: Request) -> Datastore:
    """The datastore without limits, for routes over what belongs to all keys, whose guard asks for no patterns."""
    return caller_of(request).whole
