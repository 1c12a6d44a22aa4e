"""The head of a request as every reader must understand it alike: where it ends, and which resource it names.

The parser refuses most of what is ambiguous (two lengths, a length and chunks, bare CR or LF, folded lines). Here is
the rest: what one program in a chain might read in another way than the next one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hookline_server.answer import Header
from hookline_server.problem import Problem

VERSIONS = frozenset({"1.0", "1.1"})
FRAMING = frozenset({b"transfer-encoding", b"expect"})
"""Headers that :func:`check_framing` looks at: HTTP/1.1 without them, and with none twice, has no need of it."""
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?[ \t]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


def fields_of(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """The header fields by their names in lower case; one that stands twice is a list (RFC 9110, 5.3)."""
    fields = dict(headers)
    if len(fields) < len(headers):
        fields = {}
        for name, value in headers:
            fields[name] = b"%b, %b" % (fields[name], value) if name in fields else value
    return fields


def check_framing(headers: Sequence[Header], fields: dict[bytes, bytes], version: str) -> None:
    """Let pass a head of which everybody sees the same end.

    Raises:
        Problem: of another version, or of a coding that is not taken here.
    """
    if version not in VERSIONS:
        raise malformed("expected HTTP/1.1")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or version != "1.1"):
        raise malformed("Transfer-Encoding: expected chunked, in HTTP/1.1, or none")
    expected = fields.get(b"expect")
    if expected is not None and expected.strip().lower() != b"100-continue":
        raise malformed("Expect: expected 100-continue, or none")
    if len(fields) < len(headers) and sum(name == b"host" for name, _ in headers) > 1:
        raise malformed("expected Host once")


def check_host(host: bytes | None, version: str) -> None:
    """Let pass a Host that names one host, or its absence in HTTP/1.0.

    Raises:
        Problem: there is none, or it names no host.
    """
    if host is None:
        if version != "1.0":
            raise malformed("expected Host")
    elif not _HOST.fullmatch(host):
        raise malformed("Host: expected a name or an address, and perhaps a port")


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """Path and query of a target.

    Raises:
        Problem: it has a fragment, names another host than Host does, or is no path at all.
    """
    if target[:1] == b"/" and b"#" not in target:
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise malformed("expected a path such as /v1/items in the request's line")
    if host is not None and absolute[1].lower() != host.strip().lower():
        raise malformed("expected the host of the request's line to be that of Host")
    return absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]


def malformed(detail: str) -> Problem:
    """What is said of a request that cannot be read safely."""
    return Problem("malformed_request", detail)
