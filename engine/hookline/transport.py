"""What both clients have: how a request is written, what an answer or a failure of the transport means."""

from __future__ import annotations

import copy
import math
import random
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from typing import Self

import msgspec
from yarl import URL

from hookline import answers
from hookline.calls import UNSET
from hookline.errors import HooklineError, Incompatible, Invalid, OutcomeUnknown, Unavailable
from hookline.flow import Answer, Request, encode
from hookline.operations import Operations

TRIES = 4
"""Times that a request is sent, at most, where a repeat does no harm or where it was not sent at all."""
KEEP_ALIVE = 4.0
"""Seconds for which an idle connection is kept. Hookline closes one after 75, by its default, but a proxy before it
perhaps after 5, and a request must not meet that."""
INTERNAL = "internal"
"""The code of what went wrong inside the server."""
_REFUSED = frozenset({400, 413, 415, 422})
"""Statuses by which a proxy, too, says that the request is at fault."""
WAITS_MAX = 100
"""Connections for reads that wait, and for others that wait by themselves, as claims do: neither must hold up the
other, nor what does not wait."""
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)
_KEY = re.compile(r"[!#-+\--\[\]-~]{1,200}", re.ASCII)


class Http:
    """Where the server is, and how requests to it are written. The API key is never shown."""

    _marks: Iterator[int] | None = None
    _idempotency_key = ""

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 15.0, connections: int = 20) -> None:
        self.url = _address(url)
        if api_key and not _VISIBLE.fullmatch(api_key):
            raise Invalid.at("/apiKey", "expected visible characters of ASCII, and no line break or space around them")
        if not 0 < timeout < math.inf:
            raise Invalid.at("/timeout", "expected more than 0 seconds")
        if connections < 1:
            raise Invalid.at("/connections", "expected at least 1")
        self.calls = Operations()
        self.timeout = timeout
        self.connections = connections
        # Compression costs both ends more than it saves on the networks that a worker and its server are on.
        self.headers = {"Accept-Encoding": "identity", "User-Agent": "hookline-python"} | (
            {"Authorization": f"Bearer {api_key}"} if api_key else {}
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def once(self, idempotency_key: str) -> Self:
        """The same client, whose writes take effect once however often they are made, and are sent again by themselves.

        Who makes the same writes in the same order by another client under the same key gets the answers of the first
        time, for as long as the server remembers them (a day). Name the sortFields in ``run`` and with triggers off:
        another one is another write. What this client opened is closed by the one that it was made of.

        Args:
            idempotency_key: 1 to 200 visible characters of ASCII, but no quotation marks, commas and backslashes.
        """
        if not _KEY.fullmatch(idempotency_key):
            raise Invalid.at(
                "/idempotencyKey",
                "expected 1 to 200 visible characters of ASCII, but no quotation marks, commas and backslashes",
            )
        view = copy.copy(self)
        view._idempotency_key, view._marks = idempotency_key, count(1)  # which threads may share
        return view

    def _mark(self, request: Request, keys: Iterator[dict[str, str]]) -> Request:
        """The request under the next of these idempotency keys, if it is a write and has none yet."""
        if request.harmless or "Idempotency-Key" in request.headers:
            return request
        return replace(request, headers={**request.headers, **next(keys)})

    def _keys(self) -> Iterator[dict[str, str]]:
        """The headers for the writes of one verb, counted by themselves: one not sent shifts no other verb's."""
        first = self._next_key()
        yield first
        for number in count(2):
            yield {name: f"{key}.{number}" for name, key in first.items()}

    def _next_key(self) -> dict[str, str]:
        """The header that has the next idempotency key, of a client that has one."""
        return {} if self._marks is None else {"Idempotency-Key": f"{self._idempotency_key}.{next(self._marks)}"}


def _address(url: str) -> str:
    """The address of a server, without the user and password that it may have.

    Raises:
        Invalid: it is none.
    """
    with suppress(ValueError):
        parsed = URL(url)
        more = re.search(r"[\s?#]", url)
        if parsed.scheme in ("http", "https") and parsed.host and not more:
            return str(parsed.with_user(None)).rstrip("/")
    raise Invalid.at("/url", "expected an address such as http://127.0.0.1:8080")


def trusted(url: str) -> ssl.SSLContext:
    """The certificates that the system trusts, or those that ``SSL_CERT_FILE`` names; none where there is no TLS."""
    if url.startswith("https:"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def write(request: Request) -> tuple[bytes | None, dict[str, str]]:
    """The body of a request, if it has one, and the headers that are its own."""
    if request.body is UNSET:
        return None, dict(request.headers)
    return encode(request.body), {"Content-Type": "application/json", **request.headers}


def read(request: Request, url: str, status: int, body: bytes) -> Answer:
    """The answer, or the error that it is raised. What Hookline does not say is a proxy's, or no Hookline is there."""
    if status in (204, 304):
        return Answer(status, None)
    try:
        data = msgspec.json.decode(body)
    except msgspec.DecodeError:
        data = None
    problem = data if isinstance(data, Mapping) else {}
    if 200 <= status < 300:
        if isinstance(data, Mapping):
            return Answer(status, data)
        raise explain(f"an answer of status {status} that is not Hookline's", request, url, sent=True)
    code, reason = problem.get("code"), f"status {status}: {problem.get('detail', 'no reason given')}"
    # Behind a proxy that has lost its patience, too, a request may have been carried out.
    if code in (None, INTERNAL) and (
        status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        raise explain(reason, request, url, sent=True)
    if code is None and status not in _REFUSED:
        raise _unreached(url, reason)
    raise answers.read_error(problem, status)


def explain(reason: str, request: Request, url: str, *, sent: bool) -> HooklineError:
    """What a failure of the transport says of the request; ``sent``: it may have been taken."""
    if request.harmless or not sent:
        error = _unreached(url, reason)
        error.unsent = not sent
        return error
    return OutcomeUnknown(f"{url} was sent the request and did not tell what became of it: {reason}")


def room(request: Request, timeout: float) -> float:
    """Seconds for which a request may wait for a connection that is free: a read that waits, no longer than it may."""
    return request.patience if request.watches else timeout


def admit(request: Request, waited: float) -> Request:
    """The request once it has waited for a connection: that is part of the time of a read that waits."""
    return replace(request, patience=max(0.0, request.patience - waited)) if request.watches else request


def none_free(request: Request, most: int) -> Unavailable:
    """No connection got free in time, so nothing was sent."""
    error = Unavailable(f"all {most} connections {'for waits ' if request.patience else ''}of this client are in use")
    error.unsent = True
    return error


def _unreached(url: str, reason: str) -> Unavailable:
    return Unavailable(f"no Hookline server answers at {url}: {reason}")


def repeat(request: Request, error: HooklineError, tries: int, left: float) -> Request | None:
    """What to send next, if anything. With an Idempotency-Key any request may be sent again, and any that was not sent.

    What a server refuses as unavailable was sent: of a text a part may be done, and a store that is full stays so.
    A read that waits goes on for the seconds that are ``left`` of its time, since its server may be starting anew, or
    all connections for such be in use. After that it does not wait any more.
    """
    if isinstance(error, Incompatible) or not isinstance(error, Unavailable | OutcomeUnknown):
        return None
    unsent = isinstance(error, Unavailable) and error.unsent
    if not (request.harmless or unsent or "Idempotency-Key" in request.headers):
        return None
    if request.watches:
        request = replace(request, patience=max(0.0, left))
    return request if tries < TRIES or request.watches else None


def outcome(error: HooklineError, before: HooklineError | None) -> HooklineError:
    """What has come of a request by its last failure and the ones before.

    Where one of those leaves it open whether it was carried out, a server that is away now does not tell.
    """
    return before if isinstance(before, OutcomeUnknown) and isinstance(error, Unavailable) else error


def pause(tries: int) -> float:
    """Seconds before the next try."""
    return min(1.0, 0.05 * 4.0 ** (tries - 1)) * random.uniform(0.5, 1)  # noqa: S311 - spreads repeats
