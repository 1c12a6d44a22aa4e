"""Sentinels: they say which server of a store is its primary, also after a failover."""

from __future__ import annotations

import asyncio
from collections import Counter
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
_PATIENCE = 2.0
"""Seconds that one of them has for its answer, at most."""
Address = tuple[str, int]


class Sentinels:
    """The sentinels that a URL names: ``redis+sentinel://[user:password@]host[:port],.../primary[/database][?...]``.

    ``options`` are redis-py's for a connection to the primary, but for where that is. User and password are the
    store's; the sentinels' own are ``sentinel_username`` and ``sentinel_password`` of the query.
    """

    def __init__(self, url: str, timeout: float) -> None:
        """Ask each of them for so many seconds at most.

        Raises:
            ValueError: the URL has another form.
        """
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        name, _, database = parts.path.removeprefix("/").partition("/")
        scheme = parts.scheme.removesuffix(SCHEME)
        self.name = unquote(name)
        if not self.name:
            raise ValueError("expected the name of a primary")
        if (number := database.removesuffix("/")) and not (number.isascii() and number.isdigit()):
            raise ValueError("expected a database that is a number")
        self.addresses = [_address(host) for host in hosts.split(",")]
        self.options: dict[str, Any] = dict(parse_url(urlunsplit((scheme, f"{login}{at}_", database, parts.query, ""))))
        del self.options["host"]
        self._options: dict[str, Any] = {
            **{name: value for name, value in self.options.items() if name.startswith("ssl_")},
            "ssl": scheme == "rediss",
            "username": self.options.pop("sentinel_username", None),
            "password": self.options.pop("sentinel_password", None),
            "socket_timeout": min(timeout, _PATIENCE),
            "socket_connect_timeout": min(timeout, _PATIENCE),
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }

    async def primary(self) -> Address:
        """Where the primary is by now, as most of them say: one that is cut off from the others does not know.

        All are asked at once; as soon as more than half of them agree, the others are not waited for.

        Raises:
            redis.exceptions.AuthenticationError: none says, and one of them refuses user or password.
            redis.exceptions.ConnectionError: none says.
        """
        said: Counter[Address] = Counter()
        reasons: list[str] = []
        kind: type[redis_errors.ConnectionError] = redis_errors.ConnectionError
        asking = [asyncio.create_task(self._ask(*address)) for address in self.addresses]
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    found = await answer
                except redis_errors.ConnectionError as error:
                    reasons.append(str(error))
                    if isinstance(error, redis_errors.AuthenticationError):
                        kind = redis_errors.AuthenticationError
                    continue
                said[found] += 1
                if said[found] > len(self.addresses) // 2:
                    return found
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if not said:
            raise kind(f"no sentinel says where {self.name} is: {'; '.join(sorted(reasons))}")
        return said.most_common(1)[0][0]

    async def _ask(self, host: str, port: int) -> Address:
        """Where one of them says that the primary is.

        Raises:
            redis.exceptions.ConnectionError: it does not say, and why.
        """
        try:
            async with aioredis.Redis(host=host, port=port, **self._options) as sentinel:
                found = await sentinel.sentinel_get_master_addr_by_name(self.name)
            if isinstance(found, tuple):
                return _text(found[0]), int(found[1])
        except redis_errors.AuthenticationError as error:
            raise redis_errors.AuthenticationError(f"{host}:{port}: {error}") from error
        except (redis_errors.RedisError, OSError, ValueError, LookupError) as error:  # also where it is no sentinel
            raise redis_errors.ConnectionError(f"{host}:{port}: {error}") from error
        raise redis_errors.ConnectionError(f"{host}:{port} knows of none")


def _text(host: bytes | str) -> str:
    return host.decode() if isinstance(host, bytes) else host


def _address(host: str) -> Address:
    parts = urlsplit(f"//{host}")
    if not parts.hostname or " " in host:
        raise ValueError("expected the hosts of sentinels, separated by commas")
    return parts.hostname, parts.port or PORT
