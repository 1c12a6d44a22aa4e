"""Request bodies: read within their limit, and into typed requests that refuse what they do not know."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import msgspec
from starlette.requests import Request
from starlette.types import Message, Receive

from hookline.calls import CLAIM_MAX
from hookline.clock import parse_duration
from hookline.codec import Packed, encode_content, encode_metadata
from hookline.errors import Flaw, Invalid, below
from hookline.trigger import read_triggers
from hookline.where import compile_where
from hookline_server import head, heavy, rounds, strictjson, strictmsgpack
from hookline_server.answer import FIELDS
from hookline_server.caller import caller_of
from hookline_server.inflate import inflate
from hookline_server.limits import peer_of
from hookline_server.negotiate import JSON, LINES, MSGPACKS
from hookline_server.problem import UNREAD, Problem

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
VALUES = (JSON, *MSGPACKS)
"""What a value may be written as: msgpack holds the same ones."""
_PLAIN = JSON.encode()
KEPT = "hookline.body"
"""Where a request's scope has its body, if that was read before its time."""
MERGE_PATCH = "application/merge-patch+json"
WAIT_MAX = 25.0
"""Seconds: well below the minute after which load balancers give an idle connection up."""
Packs = dict[str, Callable[[Any], Any]]


class Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """A typed request: fields are camelCase outside and named as the engine's arguments inside."""

    packs: ClassVar[Packs] = {}
    """Fields that take long where they are large -> what makes of one that which the engine takes in its place."""
    passed_over: ClassVar[tuple[str, ...]] = ()
    """Fields that only answers have: they may be left in what was read and is written back."""

    def given(self) -> dict[str, Any]:
        """The fields that the request has, null included, but for those that are passed over."""
        held = msgspec.structs.asdict(self).items()
        return {name: value for name, value in held if value is not msgspec.UNSET and name not in self.passed_over}

    def pack(self) -> Self:
        """Encode ahead.

        Raises:
            Invalid: a field has a value that it cannot have; each is named.
        """
        flaws: list[Flaw] = []
        for name, encode in self.packs.items():
            held = getattr(self, name)
            try:
                if held is not msgspec.UNSET and held is not None:
                    setattr(self, name, encode(held))
            except Invalid as invalid:
                flaws += invalid.flaws
        if flaws:
            raise Invalid(*flaws)
        return self


def pack_content(content: object) -> Packed:
    """Content, encoded ahead.

    Raises:
        Invalid: it is not of allowed depth and size of integers.
    """
    return Packed(encode_content(content))


def pack_each(parts: list[Any], pointer: str) -> list[Any]:
    """Requests of a list, each encoded ahead; too many are left to who refuses them.

    Raises:
        Invalid: each flaw of each is named.
    """
    flaws: list[Flaw] = []
    for place, part in enumerate(parts if len(parts) <= CLAIM_MAX else ()):
        try:
            part.pack()
        except Invalid as invalid:
            flaws += within(invalid, f"{pointer}/{place}")
    if flaws:
        raise Invalid(*flaws)
    return parts


ITEM_PACKS: Packs = {"content": pack_content, "metadata": encode_metadata, "trigger_urls": read_triggers}
"""Of the fields of an item those that take long where they are large."""
CONDITION_PACKS: Packs = {"only_if": partial(compile_where, pointer="/if")}


Kind = TypeVar("Kind")
Then = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


async def read_json(request: Request, kind: type[Kind], accept: tuple[str, ...] = VALUES) -> Kind:
    """The body as a typed request.

    Raises:
        Invalid: a field is unknown, missing or of the wrong type, or stands twice; each is named.
        Problem: too large, of another media type, or not JSON.
    """
    made: Kind = await read_value(request, accept, partial(convert, kind=kind))
    return made


async def read_value(request: Request, accept: tuple[str, ...] = VALUES, then: Then = _same) -> Any:
    """The body as a JSON value, or what ``then`` makes of that.

    Raises:
        Invalid: no body, a name that stands twice in an object, or a value that JSON readers do not agree on.
        Problem: too large, of another media type, or not of the one that it names.
    """
    # Which every route takes, and nearly every request brings.
    plain = request.scope[FIELDS].get(b"content-type") == _PLAIN
    if not plain:
        check_media_type(request, accept)
    most = request.app.state.datastore.settings.body_max
    declared = request.scope[FIELDS].get(b"content-length", b"")
    if declared.isdigit() and heavy.HEAVY_FROM <= int(declared) <= most and KEPT not in request.scope:
        heavy.check_rest(_sender(request))  # so that it is not sent for nothing
    raw = await read_bytes(request, most)
    if plain and len(raw) < rounds.ROUND_FROM:
        return then(strictjson.decode(raw))
    decode = (strictjson if plain or media_type(request) not in MSGPACKS else strictmsgpack).decode
    return await decoded(request, decode, raw, then)


async def decoded(request: Request, decode: heavy.Decode, raw: bytes, then: Then) -> Any:
    """What ``then`` makes of the value of a body or of a line, in its round; if that is large, its contents are packed.

    Raises:
        Problem: it is large, and the caller has just sent one that could not be read.
        Exception: whatever ``decode`` and ``then`` raise.
    """
    if len(raw) < heavy.HEAVY_FROM:
        if len(raw) >= rounds.ROUND_FROM:
            await request.app.state.rounds.take()
        return then(decode(raw))

    def work(raw: bytes) -> Any:
        made = then(decode(raw))
        return made.pack() if isinstance(made, Body) else made

    return await heavy.read(work, raw, _sender(request))


def _sender(request: Request) -> str:
    """Whose large bodies are one account: the API key's, or else the address's."""
    return caller_of(request).id or peer_of(request.scope)


async def keep_bytes(request: Request, most: int) -> bytes:
    """The whole body, which :func:`read_bytes` gives once more.

    Raises:
        Problem: as that.
    """
    request.scope[KEPT] = raw = await read_bytes(request, most)
    return raw


async def read_bytes(request: Request, most: int) -> bytes:
    """The whole body, of at most so many bytes once it is inflated, whatever Content-Length says of it.

    Raises:
        Problem: it is larger, or not compressed as it says; or there are too many others.
    """
    fields = request.scope[FIELDS]
    declared = fields.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > most:
        raise too_large(most)
    if KEPT in request.scope:
        kept: bytes = request.scope[KEPT]
        if len(kept) > most:
            raise too_large(most)
        return kept
    try:
        if b"content-encoding" not in fields:
            message = await request.receive()
            if message["type"] == "http.request" and not message["more_body"] and len(message["body"]) <= most:
                whole: bytes = message["body"]  # as most are: they came with their head
                return whole
            request = Request(request.scope, _again(message, request.receive))
        pieces: list[bytes] = []
        size = 0
        async for piece in content(request):
            size += len(piece)
            if size > most:
                raise too_large(most)
            hold(request, size)
            pieces.append(piece)
    except asyncio.CancelledError:
        request.scope[UNREAD] = True
        raise
    return b"".join(pieces)


def hold(request: Request, size: int) -> None:
    """Note that so much of the body is in memory.

    Raises:
        Problem: with those of all other requests, or of the caller's, that is too much.
    """
    state = request.app.state
    state.bodies.hold(request.scope, size, state.datastore.settings.bodies_max, _sender(request))


def _again(message: Message, receive: Receive) -> Receive:
    """What gives a message that was received once more, and then what follows."""
    first: list[Message] = [message]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def content(request: Request) -> AsyncIterator[bytes]:
    """The body piece by piece, inflated where it is compressed.

    Raises:
        Problem: it is compressed in a way that is not taken here, or not as it says.
    """
    coding = (head.field(request, b"content-encoding") or "identity").strip().lower()
    if coding == "identity":
        return request.stream()
    if coding not in ("gzip", "x-gzip"):
        raise Problem("unsupported_media_type", "expected no Content-Encoding, or gzip", {"Accept-Encoding": "gzip"})
    return inflate(request.stream())


def too_large(most: int) -> Problem:
    """What is said of a body of more bytes."""
    return Problem("body_too_large", f"expected a body of at most {most} bytes")


def media_type(request: Request) -> str:
    """The media type of the body, without parameters; empty if it is not named."""
    return (head.field(request, b"content-type") or "").partition(";")[0].strip().lower()


def is_lines(request: Request) -> bool:
    """Whether the body is a stream of JSON values, one a line."""
    written = request.scope[FIELDS].get(b"content-type", _PLAIN)
    return written != _PLAIN and media_type(request) == LINES


def check_media_type(request: Request, accept: tuple[str, ...]) -> None:
    """Let pass what is one of ``accept`` in UTF-8, or is not named at all.

    Raises:
        Problem: it is something else.
    """
    written = head.field(request, b"content-type")
    if not written:
        return
    charset = _CHARSET.search(written)
    if media_type(request) in accept and (charset is None or charset[1].lower() in ("utf-8", "utf8", "us-ascii")):
        return
    header = "Accept-Patch" if request.method == "PATCH" else "Accept-Post" if request.method == "POST" else "Accept"
    raise Problem(
        "unsupported_media_type",
        f"expected Content-Type {' or '.join(accept)}, in UTF-8",
        {header: ", ".join(accept)},
    )


def convert(value: Any, kind: type[Kind]) -> Kind:
    """A JSON value -> a typed request.

    Raises:
        Invalid: a field is unknown, missing or of the wrong type.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(_flaw(str(error), kind)) from None


_PATH = re.compile(r"(?:\.[A-Za-z]+|\[\d+\])*")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def _flaw(message: str, kind: type[Any]) -> Flaw:
    """A message such as ``Expected `int`, got `str` - at `$.claim.limit` `` -> pointer and plain words."""
    text, _, place = message.rpartition(" - at `$")
    if not text or place.find("`") != len(place) - 1:  # or it is part of a name
        text, place = message, ""
    path = _PATH.match(place)
    pointer = "".join(f"/{step.strip('[]')}" for step in re.findall(r"[A-Za-z]+|\[\d+\]", path[0] if path else ""))
    if missing := _MISSING.fullmatch(text):
        return Flaw(below(pointer, missing[1]), "expected a value: this field is required")
    if unknown := _UNKNOWN.fullmatch(text):
        passed_over = getattr(kind, "passed_over", ())
        names = [name for name in getattr(kind, "__struct_encode_fields__", ()) if name not in passed_over]
        known = f"; expected one of {', '.join(names)}" if names and not pointer else ""
        return Flaw(below(pointer, unknown[1]), f"unknown field{known}")
    if text.startswith("Invalid value") and (tags := getattr(kind, "tags", "")):
        return Flaw(pointer, f"expected one of {tags}")
    plain = re.sub(r"`([a-z |]+)`", lambda words: _plain(words[1]), text)
    return Flaw(pointer, plain[:1].lower() + plain[1:])


def _plain(kinds: str) -> str:
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds.split(" | "))


def read_wait(value: object) -> float:
    """How long a claim or a reader waits, in seconds; more is cut to :data:`WAIT_MAX`.

    Raises:
        Invalid: not a duration.
    """
    try:
        return min(parse_duration(value) / 1000, WAIT_MAX)
    except ValueError as error:
        raise Invalid.at("/wait", str(error)) from None


def within(invalid: Invalid, place: str) -> list[Flaw]:
    """The flaws of a part of a request, each with the place of that part before it."""
    return [Flaw(place + flaw.pointer, flaw.detail) for flaw in invalid.flaws]
