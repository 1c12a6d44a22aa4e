"""Cursors: where a query goes on, sealed so that nobody can point one elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any

from hookline.codec import pack, unpack
from hookline.errors import Invalid

Position = list[Any] | bool | None
"""In one partition: None not begun, ``[score, member]`` the last entry taken, False nothing is left."""
_MAC = 16


def write(secret: bytes, query: object, state: object) -> str:
    """The cursor of a query (any JSON value that tells queries apart) in this state: what goes on, and from where."""
    body = pack([_digest(query), state])
    return _encode(_mac(secret, body) + body)


def read(secret: bytes, query: object, cursor: object) -> Any:
    """The state of a cursor.

    Raises:
        Invalid: it is not a cursor of this query and this namespace.
    """
    flaw = Invalid.at("/cursor", "expected the cursor of the page before, with the same key, filters and order")
    if not isinstance(cursor, str):
        raise flaw
    try:
        sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise flaw from None
    body = sealed[_MAC:]
    if not hmac.compare_digest(sealed[:_MAC], _mac(secret, body)) or cursor != _encode(sealed):
        raise flaw
    digest, state = unpack(body)
    if digest != _digest(query):
        raise flaw
    return state


def _encode(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _digest(query: object) -> str:
    return hashlib.sha256(repr(query).encode()).hexdigest()[:16]


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256")[:_MAC]
