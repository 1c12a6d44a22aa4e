"""Answers: a value as JSON or msgpack, encoded once, when it is known what the client can read."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hookline_server.negotiate import JSON, MSGPACKS, is_minimal, takes_gzip

FIELDS, MEDIA_TYPE = "hookline.fields", "hookline.media_type"
"""Where a request's scope has its header fields, and what its client wants to read if that is not JSON."""
Header = tuple[bytes, bytes]
ADDED = "hookline.added"
"""Where a request's scope has the list of headers that its answer gets from outside."""

NAMES = ("key", "sortField", "version")
"""What is left of an item that was made, for a client that can do without the rest."""
GZIP_FROM = 4096
"""Bytes of a body from which it is compressed: below, that costs more than it saves."""
THREAD_FROM = 65_536
"""Bytes of a body from which it is compressed beside the loop: this many take half a millisecond."""
GZIP = 31
"""zlib's word for a window of 32 KiB and gzip's header."""
VARY = (b"vary", b"accept, accept-encoding")
_JSON_TYPES = {False: (b"content-type", b"application/json"), True: (b"content-type", b"application/problem+json")}
_PREFERENCE_APPLIED = (b"preference-applied", b"return=minimal")


class Answer(Response):
    """An answer whose body is a value, or that has none."""

    def __init__(
        self,
        value: Any = msgspec.UNSET,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        etag: str | None = None,
        optional: bool = False,
        problem: bool = False,
    ) -> None:
        """Keep the parts until it is sent.

        Args:
            value: the body; UNSET is none.
            status: the status.
            headers: more headers.
            etag: of the item that the body shows, as :attr:`Item.etag`.
            optional: whether the body is an item that the client may do without, by ``Prefer: return=minimal``; of one
                that it made it gets the names.
            problem: whether the body is a problem document.
        """
        self.value = value
        self.status_code = status
        self.etag = etag
        self.background = None
        self.more = headers
        self._optional = optional
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Encode and send."""
        fields: dict[bytes, bytes] = scope[FIELDS]
        media_type: str = scope.get(MEDIA_TYPE, JSON)
        headers: list[Header] = [VARY]
        status, value, etag = self.status_code, self.value, self.etag
        if self.more:
            headers += [(name.lower().encode(), text.encode("latin-1")) for name, text in self.more.items()]
        if self._optional and b"prefer" in fields and is_minimal(fields[b"prefer"]):
            headers.append(_PREFERENCE_APPLIED)
            status, value = (status, {name: value[name] for name in NAMES}) if status == 201 else (204, msgspec.UNSET)
        body = b""
        if value is not msgspec.UNSET:
            body = encode(value, media_type)
            headers.append(content_type(media_type, problem=self._problem))
            packed = await compress(body, fields) if len(body) >= GZIP_FROM else None  # most are short
            if packed is not None:
                body = packed
                headers.append((b"content-encoding", b"gzip"))
                etag = etag and f"W/{etag}"
        if etag:
            headers.append((b"etag", tag(etag, media_type).encode()))
        if status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def encode(value: Any, media_type: str) -> bytes:
    """A value -> its bytes."""
    return msgspec.msgpack.encode(value) if media_type in MSGPACKS else msgspec.json.encode(value)


def content_type(media_type: str, *, problem: bool = False) -> Header:
    """The header that names the kind of a body; in msgpack a problem document is told by its status alone."""
    if media_type == JSON or (problem and media_type not in MSGPACKS):
        return _JSON_TYPES[problem]
    return (b"content-type", media_type.encode())


def tag(etag: str, media_type: str) -> str:
    """The ETag of an item as this kind of body shows it: strong tags of different bytes have to differ."""
    return f'{etag[:-1]}-m"' if media_type in MSGPACKS else etag


async def compress(body: bytes, fields: Mapping[bytes, bytes]) -> bytes | None:
    """A body in gzip; None where a request with these fields does not take that, or it is too short to gain by it."""
    encodings = fields.get(b"accept-encoding")
    if not encodings or len(body) < GZIP_FROM or not takes_gzip(encodings):
        return None
    if len(body) < THREAD_FROM:
        return zlib.compress(body, 1, wbits=GZIP)
    return await asyncio.to_thread(zlib.compress, body, 1, wbits=GZIP)
