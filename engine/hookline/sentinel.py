"""Sentinels: they say which server of a store is its primary, also after a failover."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis.asyncio as aioredis
from redis import exceptions as redis_errors
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

SCHEME = "+sentinel"
"""What the scheme of their URL ends with; what is before it is how the store, and they, are spoken to."""
PORT = 26379
Address = tuple[str, int]


class Sentinels:
    """The sentinels that a URL names: ``redis+sentinel://[user:password@]host[:port],.../primary[/database][?...]``.

    ``options`` are redis-py's for a connection to the primary, but for where that is. User and password are the
    store's; the sentinels' own are ``sentinel_username`` and ``sentinel_password`` of the query.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Ask them for so many seconds, all of them together.

        Raises:
            ValueError: the URL has another form.
        """
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        name, _, database = parts.path.removeprefix("/").partition("/")
        scheme = parts.scheme.removesuffix(SCHEME)
        self.name = unquote(name)
        self.addresses = [_address(host) for host in hosts.split(",")]
        self.options: dict[str, Any] = dict(parse_url(urlunsplit((scheme, f"{login}{at}_", database, parts.query, ""))))
        del self.options["host"]
        self._options: dict[str, Any] = {
            **{name: value for name, value in self.options.items() if name.startswith("ssl_")},
            "ssl": scheme == "rediss",
            "username": self.options.pop("sentinel_username", None),
            "password": self.options.pop("sentinel_password", None),
            "socket_timeout": timeout / len(self.addresses),
            "socket_connect_timeout": timeout / len(self.addresses),
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }

    async def primary(self) -> Address:
        """Where the primary is by now, as the first of them says that knows; the next time it is asked first.

        Raises:
            redis.exceptions.AuthenticationError: none says, and one of them refuses user or password.
            redis.exceptions.ConnectionError: none says.
        """
        reasons: list[str] = []
        kind: type[redis_errors.ConnectionError] = redis_errors.ConnectionError
        for address in self.addresses:
            try:
                async with aioredis.Redis(host=address[0], port=address[1], **self._options) as sentinel:
                    found = await sentinel.sentinel_get_master_addr_by_name(self.name)
            except (redis_errors.RedisError, OSError) as error:
                reasons.append(f"{address[0]}:{address[1]}: {error}")
                if isinstance(error, redis_errors.AuthenticationError):
                    kind = redis_errors.AuthenticationError
                continue
            if isinstance(found, tuple):
                self.addresses = [address, *(each for each in self.addresses if each != address)]
                return _text(found[0]), int(found[1])
            reasons.append(f"{address[0]}:{address[1]} knows of none")
        raise kind(f"no sentinel says where {self.name} is: {'; '.join(reasons)}")


def _text(host: bytes | str) -> str:
    return host.decode() if isinstance(host, bytes) else host


def _address(host: str) -> Address:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("expected the hosts of sentinels, separated by commas")
    return parts.hostname, parts.port or PORT
