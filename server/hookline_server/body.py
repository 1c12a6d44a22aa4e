"""Request bodies: read within their limit, and into typed requests that refuse what they do not know."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec
from starlette.requests import Request

from hookline.errors import Flaw, Invalid
from hookline.item import DEPTH_MAX, INTEGER_MAX, check_value
from hookline_server.problem import Problem

JSON = ("application/json",)
MERGE_PATCH = "application/merge-patch+json"


class Body(msgspec.Struct, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """A typed request: fields are camelCase outside and named as the engine's arguments inside."""

    def given(self) -> dict[str, Any]:
        """The fields that the request has, null included."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not msgspec.UNSET}


Kind = TypeVar("Kind")


async def read_json(request: Request, kind: type[Kind], accept: tuple[str, ...] = JSON) -> Kind:
    """The body as a typed request.

    Raises:
        Invalid: a field is unknown, missing or of the wrong type, or stands twice; each is named.
        Problem: too large, of another media type, or not JSON.
    """
    return convert(await read_value(request, accept), kind)


async def read_value(request: Request, accept: tuple[str, ...] = JSON) -> Any:
    """The body as a JSON value.

    Raises:
        Invalid: no body, a name that stands twice in an object, or a value that JSON readers do not agree on.
        Problem: too large, of another media type, or not JSON.
    """
    check_media_type(request, accept)
    return decode(await read_bytes(request, request.app.state.datastore.settings.body_max))


async def read_bytes(request: Request, most: int) -> bytes:
    """The whole body, of at most so many bytes, whatever Content-Length says of it.

    Raises:
        Problem: it is larger.
    """
    declared = request.headers.get("content-length", "")
    too_large = Problem("body_too_large", f"expected a body of at most {most} bytes")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def check_media_type(request: Request, accept: tuple[str, ...]) -> str:
    """The media type of the body; one that is not named is the first of ``accept``.

    Raises:
        Problem: it is none of ``accept``, or in another encoding than UTF-8.
    """
    written = request.headers.get("content-type")
    if not written:
        return accept[0]
    media_type, _, parameters = written.partition(";")
    media_type = media_type.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if media_type in accept and (charset is None or charset[1].lower() in ("utf-8", "utf8", "us-ascii")):
        return media_type
    header = "Accept-Patch" if request.method == "PATCH" else "Accept-Post" if request.method == "POST" else "Accept"
    raise Problem(
        "unsupported_media_type",
        f"expected Content-Type {' or '.join(accept)}, in UTF-8",
        {header: ", ".join(accept)},
    )


def decode(raw: bytes) -> Any:
    """JSON -> its value.

    msgspec keeps the last of two members of one name. So the value is encoded again, which is far cheaper than a
    walk in Python: where names were dropped, colons are missing; only then (or where an escape could hide
    one) does the slow reader look.

    Raises:
        Invalid: nothing there, nested too deeply, a name twice, a number beyond 64 bits, half a surrogate pair.
        Problem: not JSON.
    """
    if not raw:
        raise Invalid.at("", "expected a JSON body")
    try:
        value = msgspec.json.decode(raw)
        alike = b"\\u003" not in raw and raw.count(b":") == msgspec.json.encode(value).count(b":")
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, OverflowError) as error:
        _explain(raw, error)
    if not alike:
        _read_slowly(raw)
    return value


def _too_deep() -> Invalid:
    return Invalid.at("", f"expected at most {DEPTH_MAX} levels of nesting")


def _explain(raw: bytes, error: Exception) -> NoReturn:
    """Say what is wrong with a body that msgspec refuses: its own messages often do not tell the place."""
    try:
        check_value(_read_slowly(raw), "")
    except UnicodeDecodeError as flaw:
        raise Problem("invalid_json", f"expected UTF-8; byte {flaw.start} is not") from None
    except json.JSONDecodeError as flaw:
        raise _not_json(flaw) from None
    except RecursionError:
        raise _too_deep() from None
    raise Problem("invalid_json", str(error))


def _not_json(flaw: json.JSONDecodeError) -> Problem:
    detail = f"line {flaw.lineno}, column {flaw.colno}: {flaw.msg[:1].lower()}{flaw.msg[1:]}"
    return Problem("invalid_json", detail, line=flaw.lineno, column=flaw.colno)


def _read_slowly(raw: bytes) -> Any:
    return json.loads(raw.decode(), object_pairs_hook=_once, parse_int=_bounded, parse_constant=_refuse_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid.at(f"/{_escape(twice)}", "expected each name once in an object")
    return members


def _bounded(digits: str) -> int:
    """Python itself refuses thousands of digits; any number beyond the bounds will do to be refused for that."""
    return int(digits) if len(digits) <= 20 else INTEGER_MAX + 1


def _refuse_constant(name: str) -> NoReturn:
    raise Problem("invalid_json", f"{name} is not JSON; expected a finite number, or null")


def convert(value: Any, kind: type[Kind]) -> Kind:
    """A JSON value -> a typed request.

    Raises:
        Invalid: a field is unknown, missing or of the wrong type.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Invalid(_flaw(str(error), kind)) from None


_MESSAGE = re.compile(r"(.*?)(?: - at `\$((?:\.[A-Za-z]+|\[\d+\])*)[^`]*`)?", re.DOTALL)
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
    match = _MESSAGE.fullmatch(message)
    text, path = (match[1], match[2] or "") if match else (message, "")
    pointer = "".join(f"/{step.strip('[]')}" for step in re.findall(r"[A-Za-z]+|\[\d+\]", path))
    if missing := _MISSING.fullmatch(text):
        return Flaw(f"{pointer}/{missing[1]}", "expected a value: this field is required")
    if unknown := _UNKNOWN.fullmatch(text):
        names = getattr(kind, "__struct_encode_fields__", ())
        known = f"; expected one of {', '.join(names)}" if names and not pointer else ""
        return Flaw(f"{pointer}/{_escape(unknown[1])}", f"unknown field{known}")
    plain = re.sub(r"`([a-z |]+)`", lambda words: _plain(words[1]), text)
    return Flaw(pointer, plain[:1].lower() + plain[1:])


def _plain(kinds: str) -> str:
    return " or ".join(_WORDS.get(kind, kind) for kind in kinds.split(" | "))


def _escape(name: str) -> str:
    """A name as one step of a JSON pointer, RFC 6901."""
    return name.replace("~", "~0").replace("/", "~1")


def within(invalid: Invalid, place: str) -> list[Flaw]:
    """The flaws of a part of a request, each with the place of that part before it."""
    return [Flaw(place + flaw.pointer, flaw.detail) for flaw in invalid.flaws]
