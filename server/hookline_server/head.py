"""What the head of a request says: names in its path, its query, its preconditions. Read strictly."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

from starlette.requests import Request

from hookline import Item
from hookline.calls import QUERY_MAX
from hookline.errors import Flaw, Invalid
from hookline_server import negotiate
from hookline_server.answer import FIELDS, MEDIA_TYPE, tag
from hookline_server.negotiate import JSON
from hookline_server.problem import Problem

_TAG = re.compile(r'(?:W/)?"[!#-~\x80-\xff]*"')
_ETAG = re.compile(r'(?:W/)?"(\d{1,16})(?:\.\d{1,15}(?:-m)?)?"', re.ASCII)
_PREFIX_SEGMENTS = 3
"""Of ``/v1/items/{key}...`` and ``/v1/jobs/{key}...``: what stands before the key, the empty one included."""


def field(request: Request, name: bytes) -> str | None:
    """A header field, by its name in lower case."""
    value: bytes | None = request.scope[FIELDS].get(name)
    return None if value is None else value.decode("latin-1")


def wanted_type(request: Request) -> str:
    """The kind of answer that the client likes best."""
    wanted: str = request.scope.get(MEDIA_TYPE, JSON)
    return wanted


def is_minimal(request: Request) -> bool:
    """Whether the client can do without the items that it writes, by ``Prefer: return=minimal``."""
    written: bytes | None = request.scope[FIELDS].get(b"prefer")
    return written is not None and negotiate.is_minimal(written)


def applied(*, minimal: bool) -> dict[str, str]:
    """The header that says so."""
    return {"Preference-Applied": "return=minimal"} if minimal else {}


def read_key(request: Request) -> str:
    """The key in the path.

    Raises:
        Problem: it is not UTF-8.
    """
    return _unquote(_segments(request)[0])


def read_identity(request: Request) -> tuple[str, str]:
    """Key and sortField in the path. ``%2F`` and ``/`` both stand for a slash of the sortField.

    Raises:
        Problem: they are not UTF-8, or what stands before them has no slashes of its own.
    """
    key, sort_field = _segments(request)
    return _unquote(key), _unquote(sort_field)


def _segments(request: Request) -> list[bytes]:
    # The decoded path has U+FFFD for what is not UTF-8, and no longer tells %2F from a slash.
    raw: bytes = request.scope["raw_path"]
    segments = raw.split(b"/", _PREFIX_SEGMENTS)
    if len(segments) <= _PREFIX_SEGMENTS:
        raise Problem("unknown_path", "no route has this path; only a sortField may have %2F for its slashes")
    key, _, rest = segments[_PREFIX_SEGMENTS].partition(b"/")
    return [key, rest]


def _unquote(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Problem("invalid_path", "expected percent-encoded UTF-8 in the path") from None


def read_query(request: Request, *allowed: str, prefix: str | None = None) -> dict[str, str]:
    """The query's parameters.

    Args:
        request: the request.
        allowed: their names.
        prefix: names that begin so are allowed too.

    Raises:
        Invalid: one is unknown, given twice, or not UTF-8.
    """
    written: bytes = request.scope["query_string"]
    if not written:
        return {}
    try:
        pairs = parse_qsl(written.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeError:
        raise Invalid.at("", "expected percent-encoded UTF-8 in the query") from None
    flaws = [Flaw(f"/{name}", _unknown(allowed, prefix)) for name, _ in pairs if not _known(name, allowed, prefix)]
    found = dict(pairs)
    if len(found) < len(pairs):
        flaws.append(Flaw("", "expected each query parameter once"))
    if flaws:
        raise Invalid(*flaws)
    return found


def read_limit(text: str, name: str = "limit", most: int = QUERY_MAX) -> int:
    """How many a page may have.

    Raises:
        Invalid: it is no number from 1 to ``most``.
    """
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= most:
        return int(text)
    raise Invalid.at(f"/{name}", f"expected a whole number from 1 to {most}")


def next_page(given: dict[str, str], cursor: str | None) -> dict[str, str]:
    """The header ``Link`` to the page at the cursor (RFC 8288), if there is one: the same query further on.

    It is relative to the URL that was asked for, so it is right also where a proxy has put the API below a path.
    """
    return {} if cursor is None else {"Link": f'<?{urlencode(given | {"cursor": cursor})}>; rel="next"'}


def _known(name: str, allowed: Collection[str], prefix: str | None) -> bool:
    return name in allowed or (prefix is not None and name.startswith(prefix) and name != prefix)


def _unknown(allowed: Collection[str], prefix: str | None) -> str:
    names = [*allowed, *([f"{prefix}<field>"] if prefix else [])]
    return f"unknown query parameter; expected {', '.join(names) if names else 'none'}"


def read_triggers(request: Request) -> bool:
    """Whether triggers fire: unless the query says ``triggers=off``.

    Raises:
        Invalid: it says something else.
    """
    wanted = read_query(request, "triggers").get("triggers", "on")
    if wanted not in ("on", "off"):
        raise Invalid.at("/triggers", "expected on or off")
    return wanted == "on"


ANY, NONE = -1, 0
"""The versions of ``If-Match: *``, which any item has, and of a tag that is not ours, which none has."""


def if_match(request: Request) -> int | None:
    """If-Match: the version that it names, :data:`ANY` or :data:`NONE`; None without one.

    An ETag is ``"<version>.<locked_until ms>"``, but a precondition is about the version alone: a holder that
    extends its lock does not get in the way of others. So a tag that a proxy has made weak will do.

    Raises:
        Problem: it is no single ETag. That is not 412, upon which a client would read the item and try the same again.
    """
    written = field(request, b"if-match")
    if written is None:
        return None
    if written.strip() == "*":
        return ANY
    if not _TAG.fullmatch(written.strip()):
        raise Problem("invalid_header", 'If-Match: expected one ETag such as "3.0", a version such as "3", or *')
    match = _ETAG.fullmatch(written.strip())
    return int(match[1]) if match else NONE


def must_be_new(request: Request) -> bool:
    """Whether ``If-None-Match: *`` asks that the item does not exist yet.

    Raises:
        Problem: the header has another value, which means nothing in a write.
    """
    written = field(request, b"if-none-match")
    if written is None:
        return False
    if written.strip() != "*":
        raise Problem("invalid_header", "If-None-Match: expected * in a write")
    return True


def is_known(request: Request, item: Item) -> bool:
    """Whether If-None-Match says that the client has the item as it stands."""
    return is_current(request, tag(item.etag, wanted_type(request)))


def is_current(request: Request, etag: str) -> bool:
    """Whether If-None-Match says that the client has what has this tag."""
    written = field(request, b"if-none-match")
    if written is None:
        return False
    tags = [known.strip().removeprefix("W/") for known in written.split(",")]
    return etag in tags or tags == ["*"]
