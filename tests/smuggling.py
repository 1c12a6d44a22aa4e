"""Requests that two programs in a chain might take apart differently, and what ours says to each.

Whatever a request hides in its body, after its end or in its head is a PUT of :data:`PRIZE`: nobody may get it done.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST = b"Host: localhost\r\n"
PRIZE = "smuggled"
HIDDEN = b"PUT /v1/items/smuggled/x HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}"
_POST = b"POST /v1/items HTTP/1.1\r\n" + HOST
_GET = b"GET /livez HTTP/1.1\r\n" + HOST
_ITEM = b'{"key":"jobs"}'
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """Bytes on a new connection. ``statuses`` are of all answers; ``closes``: the server ends the connection then."""

    name: str
    data: bytes
    statuses: tuple[int, ...] = (400,)
    closes: bool = True


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _post(name: str, headers: bytes, body: bytes = _LAST + HIDDEN) -> Case:
    return Case(name, _POST + headers + b"\r\n" + body)


def _get(name: str, headers: bytes) -> Case:
    return Case(name, b"GET /livez HTTP/1.1\r\n" + headers + b"\r\n" + HIDDEN)


def _line(name: str, line: bytes, host: bytes = HOST) -> Case:
    return Case(name, line + b"\r\n" + host + b"\r\n" + HIDDEN)


def _fine(name: str, data: bytes, *statuses: int, closes: bool = False) -> Case:
    return Case(name, data, statuses, closes)


CASES = [
    # Where the body ends
    _post("length and chunks", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
    _post("chunks and length", b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
    _post("length twice, the same", b"Content-Length: 0\r\nContent-Length: 0\r\n", HIDDEN),
    _post("length twice, another", b"Content-Length: 0\r\nContent-Length: 99\r\n", HIDDEN),
    _post("a list of lengths", b"Content-Length: 0, 0\r\n", HIDDEN),
    _post("length with a plus", b"Content-Length: +0\r\n", HIDDEN),
    _post("length with a minus", b"Content-Length: -0\r\n", HIDDEN),
    _post("length with a space", b"Content-Length: 0 0\r\n", HIDDEN),
    _post("length in hex", b"Content-Length: 0x0\r\n", HIDDEN),
    _post("length with an underscore", b"Content-Length: 0_0\r\n", HIDDEN),
    _post("length in words", b"Content-Length: none\r\n", HIDDEN),
    _post("empty length", b"Content-Length:\r\n", HIDDEN),
    _post("length beyond all", b"Content-Length: 99999999999999999999\r\n", HIDDEN),
    _post("space before the colon", b"Content-Length : 0\r\n", HIDDEN),
    _post("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    _post("chunked twice in a list", b"Transfer-Encoding: chunked, chunked\r\n"),
    _post("compressed, then chunked", b"Transfer-Encoding: gzip, chunked\r\n"),
    _post("chunked, then compressed", b"Transfer-Encoding: chunked, gzip\r\n"),
    _post("identity", b"Transfer-Encoding: identity\r\n"),
    _post("chunked, then identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
    _post("xchunked", b"Transfer-Encoding: xchunked\r\n"),
    _post("chunked in quotes", b'Transfer-Encoding: "chunked"\r\n'),
    _post("chunked with a parameter", b"Transfer-Encoding: chunked;q=1\r\n"),
    _post("chunked behind a vertical tab", b"Transfer-Encoding: \x0bchunked\r\n"),
    _post("chunked before a tab", b"Transfer-Encoding: chunked\t\r\n"),
    _post("no coding", b"Transfer-Encoding:\r\n"),
    _post("space before the colon of chunked", b"Transfer-Encoding : chunked\r\n"),
    _post("folded chunked", b"Transfer-Encoding:\r\n chunked\r\n"),
    Case(
        "chunks in HTTP/1.0",
        b"POST /v1/items HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + _LAST + HIDDEN,
    ),
    # Chunks
    *(
        Case(f"chunk: {name}", _CHUNKED + body + _LAST + HIDDEN)
        for name, body in (
            ("negative", b"-1\r\n"),
            ("0x", b"0xe\r\n" + _ITEM + b"\r\n"),
            ("plus", b"+e\r\n" + _ITEM + b"\r\n"),
            ("underscore", b"0_e\r\n" + _ITEM + b"\r\n"),
            ("space before", b" e\r\n" + _ITEM + b"\r\n"),
            ("space after", b"e \r\n" + _ITEM + b"\r\n"),
            ("no size", b"\r\n"),
            ("words", b"size\r\n"),
            ("beyond all", b"fffffffffffffffff\r\n"),
            ("bare LF", b"e\n" + _ITEM + b"\n"),
            ("bare CR", b"e\r" + _ITEM + b"\r"),
            ("longer than it says", b"d\r\n" + _ITEM + b"\r\n"),
            ("LF after its content", b"e\r\n" + _ITEM + b"\n"),
            ("LF in an extension", b"e;a\n" + _ITEM + b"\r\n"),
            ("CR in an extension", b"e;a\rb\r\n" + _ITEM + b"\r\n"),
            ("line end in a quoted extension", b'e;a="\r\n' + _ITEM + b'\r\n"'),
            ("NUL in an extension", b"e;a=\0\r\n" + _ITEM + b"\r\n"),
        )
    ),
    _fine("chunks", _CHUNKED + _chunk(_ITEM[:5]) + _chunk(_ITEM[5:]) + _LAST, 201),
    _fine("chunk with zeros before", _CHUNKED + b"0000000e\r\n" + _ITEM + b"\r\n" + _LAST, 201),
    _fine("chunk with extensions", _CHUNKED + b'e;a=b;c="d"\r\n' + _ITEM + b"\r\n0;e\r\n\r\n", 201),
    _fine("trailers", _CHUNKED + _chunk(_ITEM) + b"0\r\nX-Checksum: 1\r\nContent-Type: text/html\r\n\r\n", 201),
    Case("length in the trailers", _CHUNKED + _chunk(_ITEM) + b"0\r\nContent-Length: 5\r\n\r\n" + HIDDEN),
    Case("chunked in the trailers", _CHUNKED + _chunk(_ITEM) + b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN),
    Case("LF in the trailers", _CHUNKED + _chunk(_ITEM) + b"0\r\nX: y\n\n" + HIDDEN),
    # Lines and headers
    Case("LF alone", b"GET /livez HTTP/1.1\nHost: localhost\n\n" + HIDDEN),
    _get("LF after a header", b"Host: localhost\nX: y\r\n"),
    _get("CR after a header", b"Host: localhost\rX: y\r\n"),
    _get("CR in a value", HOST + b"X: y\rz\r\n"),
    _get("NUL in a value", HOST + b"X: y\0z\r\n"),
    _get("control character in a value", HOST + b"X: y\x01z\r\n"),
    _get("DEL in a value", HOST + b"X: y\x7fz\r\n"),
    _get("NUL in a name", HOST + b"X\0: y\r\n"),
    _get("no name", HOST + b": y\r\n"),
    _get("no colon", HOST + b"X\r\n"),
    _get("space in a name", HOST + b"X Y: z\r\n"),
    _get("folded header", HOST + b"X: y\r\n z\r\n"),
    _get("folded header, by a tab", HOST + b"X: y\r\n\tz\r\n"),
    _get("space before the first header", b" X: y\r\n" + HOST),
    Case("CR alone ends the head", b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\r\n" + HIDDEN),
    # The host
    _line("no host", b"GET /livez HTTP/1.1", b""),
    _line("host twice", b"GET /livez HTTP/1.1", HOST + HOST),
    _line("host twice, another", b"GET /livez HTTP/1.1", HOST + b"Host: other\r\n"),
    _line("host with a path", b"GET /livez HTTP/1.1", b"Host: localhost/x\r\n"),
    _line("host with a user", b"GET /livez HTTP/1.1", b"Host: me@localhost\r\n"),
    _line("two hosts in one", b"GET /livez HTTP/1.1", b"Host: localhost, other\r\n"),
    _line("host with a space", b"GET /livez HTTP/1.1", b"Host: local host\r\n"),
    _line("host with a port of words", b"GET /livez HTTP/1.1", b"Host: localhost:http\r\n"),
    _fine("host of IPv6", b"GET /livez HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200),
    _fine("no host in HTTP/1.0", b"GET /livez HTTP/1.0\r\n\r\n", 200, closes=True),
    # The target
    _fine("absolute form", b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    _fine("absolute form, upper case", b"GET HTTP://LOCALHOST/livez HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    _fine("absolute form without a path", b"GET http://localhost HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _line("absolute form, another host", b"GET http://other/livez HTTP/1.1"),
    _line("absolute form with a user", b"GET http://me@localhost/livez HTTP/1.1"),
    _line("another scheme", b"GET ftp://localhost/livez HTTP/1.1"),
    _line("authority form", b"GET localhost:80 HTTP/1.1"),
    _line("CONNECT", b"CONNECT localhost:80 HTTP/1.1"),
    _line("asterisk", b"GET * HTTP/1.1"),
    _line("no slash", b"GET livez HTTP/1.1"),
    _line("fragment", b"GET /livez#x HTTP/1.1"),
    _line("space in the target", b"GET /livez x HTTP/1.1"),
    _line("NUL in the target", b"GET /livez\0 HTTP/1.1"),
    _line("bytes beyond ASCII in the target", b"GET /livez\xff HTTP/1.1"),
    _fine("two slashes", b"GET //other/livez HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    # Versions and other protocols
    Case("HTTP/0.9", b"GET /livez\r\n\r\n" + HIDDEN),
    _line("HTTP/0.9 by name", b"GET /livez HTTP/0.9"),
    _line("HTTP/1.2", b"GET /livez HTTP/1.2"),
    _line("HTTP/1.10", b"GET /livez HTTP/1.10"),
    _line("HTTP/2.0", b"GET /livez HTTP/2.0"),
    _line("HTTPS/1.1", b"GET /livez HTTPS/1.1"),
    _line("space after the version", b"GET /livez HTTP/1.1 "),
    Case("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + HIDDEN),
    _line("unknown method", b"SMUGGLE /livez HTTP/1.1"),
    _line("method in lower case", b"get /livez HTTP/1.1"),
    _fine("known method that no route has", b"PROPFIND /livez HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    _fine("upgrade", _GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + HIDDEN, 200, closes=True),
    _fine(
        "upgrade to WebSocket", _GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + HIDDEN, 200, closes=True
    ),
    _fine(
        "upgrade with a body",
        _POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 14\r\n\r\n" + _ITEM + HIDDEN,
        201,
        closes=True,
    ),
    # One after another
    _fine("empty lines before", b"\r\n\r\n" + _GET + b"\r\n", 200),
    _fine(
        "body of a GET, which nobody reads",
        _GET + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        200,
        closes=True,
    ),
    _fine("two in a row", _GET + b"\r\n" + _GET + b"\r\n", 200, 200),
    _fine("one and a bad one", _GET + b"\r\n" + _GET + b"X\r\n\r\n" + HIDDEN, 200, 400, closes=True),
    _fine("after the last", _GET + b"Connection: close\r\n\r\n" + HIDDEN, 200, closes=True),
    _fine("after the last of HTTP/1.0", b"GET /livez HTTP/1.0\r\n\r\n" + HIDDEN, 200, closes=True),
    _fine("kept open in HTTP/1.0", b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + HIDDEN, 200, closes=True),
    _fine(
        "expectation",
        _POST + b"Expect: 100-continue\r\nContent-Length: 14\r\n\r\n" + _ITEM,
        100,
        201,
    ),
    _get("unknown expectation", HOST + b"Expect: 200-ok\r\n"),
]
