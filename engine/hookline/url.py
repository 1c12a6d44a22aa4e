"""URLs of triggers: what can be posted to at all. Where one leads, the egress guard checks at each connection."""

from __future__ import annotations

import re

from yarl import URL

URL_MAX = 2048
"""Characters."""

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", re.ASCII)


def check_url(url: str) -> None:
    """Whether a URL can be posted to; where it leads is checked on each connection.

    Raises:
        ValueError: it cannot; says what was expected and never repeats the URL, which may hold a secret.
    """
    if len(url) > URL_MAX:
        raise ValueError(f"expected a URL of at most {URL_MAX} characters")
    if " " in url or not url.isprintable():  # no other white space is printable
        raise ValueError("expected a URL without spaces and control characters")
    if "#" in url:
        raise ValueError("expected a URL without a fragment")
    try:
        parts = URL(url)  # the parser that the client uses: two parsers could see two hosts
    except ValueError:
        raise ValueError("expected a URL such as https://host/path with a port from 1 to 65535") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("expected a URL that begins with http:// or https://")
    if not parts.raw_host or not _HOST.fullmatch(parts.raw_host):
        raise ValueError("expected a URL with a host: a name, an IPv4 address or an IPv6 address in brackets")
    if "@" in re.split("[/?]", url.partition("//")[2])[0]:
        raise ValueError("expected a URL without user name and password")
    if not parts.port:
        raise ValueError("expected a port from 1 to 65535")
