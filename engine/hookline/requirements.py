"""What a store must be to be used, by what it says of itself."""

from __future__ import annotations

import logging

from hookline.errors import Incompatible

log = logging.getLogger(__name__)

REDIS_MIN, VALKEY_MIN = (7, 0), (7, 2)
"""Script flags and sharded pub/sub begin here."""


def read_info(answer: bytes) -> dict[str, str]:
    """The answer to INFO, by name."""
    lines = (line.partition(":") for line in answer.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


def check_server(info: dict[str, str]) -> None:
    """Raise Incompatible where the store is too old."""
    valkey = info.get("valkey_version")
    name, text, oldest = (
        ("Valkey", valkey, VALKEY_MIN) if valkey else ("Redis", info.get("redis_version", "0"), REDIS_MIN)
    )
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version < oldest:
        raise Incompatible(
            f"the store is {name} {text}; Hookline needs Redis >= 7.0 or Valkey >= 7.2: upgrade it, or start without"
            " --store to use the embedded one"
        )


def check_policy(info: dict[str, str]) -> None:
    """Raise Incompatible where the store may drop what it was given; where only a crash may, the log says so."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Incompatible(
            f"the store's maxmemory-policy is {policy}, under which it may drop items: set it to noeviction, e.g."
            " CONFIG SET maxmemory-policy noeviction"
        )
    if info.get("maxmemory") == "0":
        log.info("the store has no maxmemory: it may use all memory of its machine")
    if info.get("aof_enabled") == "0":
        log.warning(
            "the store has no append-only file: if it crashes, it loses writes that were acknowledged; set appendonly"
            " to yes, and appendfsync to always"
        )
