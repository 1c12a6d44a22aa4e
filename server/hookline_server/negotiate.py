"""What a client can read: Accept, Accept-Encoding and Prefer, with their weights (RFC 9110 12.5, RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

JSON = "application/json"
LINES = "application/x-ndjson"
TEXT = "text/plain"
MSGPACK = "application/vnd.msgpack"
MSGPACKS = (MSGPACK, "application/msgpack", "application/x-msgpack")
"""The registered name, and those that were in use before it."""
CLOUD_EVENT = "application/cloudevents+json"
"""The structured form of CloudEvents 1.0."""

_OFFERS = (JSON, *MSGPACKS, LINES)
"""What an answer can be; among what a client likes equally well, the first of it."""
_WEIGHT = re.compile(r"q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
_MINIMAL = re.compile(rb"(?:^|[,;])\s*return\s*=\s*\"?minimal\"?\s*(?:$|[,;])", re.IGNORECASE)
_REMEMBERED = 256
"""Bytes of a header beyond which what it means is not kept: clients could fill the memory with it."""


def media_type(accept: bytes, *more: str) -> str | None:
    """The kind of answer that an Accept header likes best, ``more`` offered last; None: it takes none that there is."""
    choose = _media_type if len(accept) <= _REMEMBERED else _media_type.__wrapped__
    return choose(accept, *more)


@lru_cache(maxsize=256)
def _media_type(accept: bytes, *more: str) -> str | None:
    wanted, offers = dict(_weights(accept)) or {"*/*": 1.0}, (*_OFFERS, *more)
    weights = {offer: _weight(wanted, offer, f"{offer.partition('/')[0]}/*", "*/*") for offer in offers}
    best = max(offers, key=weights.__getitem__)
    return best if weights[best] else None


def takes_gzip(accept_encoding: bytes) -> bool:
    """Whether an Accept-Encoding header takes gzip."""
    return _takes_gzip(accept_encoding[:_REMEMBERED])


@lru_cache(maxsize=256)
def _takes_gzip(accept_encoding: bytes) -> bool:
    return _weight(dict(_weights(accept_encoding)), "gzip", "x-gzip", "*") > 0


def is_minimal(prefer: bytes) -> bool:
    """Whether a Prefer header asks for ``return=minimal``."""
    return _MINIMAL.search(prefer) is not None


def _weight(wanted: dict[str, float], *names: str) -> float:
    """The weight of the first of the names, the most exact, that is mentioned at all."""
    return next((wanted[name] for name in names if name in wanted), 0.0)


def _weights(written: bytes) -> Iterator[tuple[str, float]]:
    """Each member of the list with its weight. One whose weight cannot be read is not wanted."""
    for member in written.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        if name:
            weights = [parameter for parameter in parameters if parameter.startswith("q")]
            match = _WEIGHT.fullmatch(weights[0]) if weights else None
            yield name, float(match[1]) if match else 0.0 if weights else 1.0
