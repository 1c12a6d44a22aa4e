"""The URL of a store: where it says that the store is, and how to speak to it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.asyncio.connection import parse_url

from hookline.errors import Invalid
from hookline.sentinel import SCHEME, Sentinels

_DATABASE = re.compile(r"/?(\d+/?)?", re.ASCII)


def read_url(url: str, timeout: float) -> tuple[Sentinels | None, list[dict[str, Any]]]:
    """The sentinels that a URL names, if any, to be asked for so many seconds; and redis-py's options of each node.

    Raises:
        Invalid: it cannot be read. It is not repeated: a password may be anywhere in it.
    """
    sentinels = None
    try:
        if urlsplit(url).scheme.endswith(SCHEME):
            sentinels = Sentinels(url, timeout)
            starts = [sentinels.options]
        else:
            starts = [_options(each) for each in url.split(",")]
        for start in starts:
            aioredis.ConnectionPool(**start).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise Invalid.at(
            "/store_url",
            "expected a URL such as redis://user:password@host:6379/0 or redis+sentinel://host:26379,host:26379/mymaster,"
            " what stands for something else in percent (%2F, %40), and after ? only options of redis-py",
        ) from None
    return sentinels, starts


def _options(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        raise ValueError("expected a database that is a number")  # redis-py would take the one numbered 0
    return dict(parse_url(url))
