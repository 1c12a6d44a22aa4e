"""What an API key may do: its scopes, and the item keys that it is limited to."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hookline.errors import Flaw, Invalid, KeyNotAllowed, MissingScope
from hookline.item import FLAWS_MAX, RESERVED_PREFIX

READ, WRITE, WORK, ADMIN = "read", "write", "work", "admin"
IMPLIED = {
    READ: frozenset({READ}),
    WRITE: frozenset({READ, WRITE}),
    WORK: frozenset({WORK}),
    ADMIN: frozenset({READ, WRITE, WORK, ADMIN}),
}
"""What each scope allows. A write answers with the item, so who may write may read."""
PATTERNS_MAX = 32

_PATTERN = re.compile(r"[A-Za-z0-9._*-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be done: ``scopes`` as they were written, on keys that match one of ``patterns``; none is every key.

    In a pattern ``*`` stands for any characters, none included.
    """

    scopes: tuple[str, ...] = (ADMIN,)
    patterns: tuple[str, ...] = ()
    allowed: frozenset[str] = field(init=False, repr=False, compare=False)
    """The scopes with all that they imply."""
    _keys: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Not ".*" in its place, which takes for ever over a pattern of many.
        words = map(fnmatch.translate, self.patterns)
        object.__setattr__(self, "allowed", frozenset().union(*(IMPLIED[scope] for scope in self.scopes)))
        object.__setattr__(self, "_keys", re.compile("|".join(words)) if self.patterns else None)

    @property
    def whole(self) -> bool:
        """Whether it allows everything."""
        return ADMIN in self.allowed and self._keys is None

    def covers(self, key: str) -> bool:
        """Whether a key is one of those that it is limited to; none of them is the engine's own."""
        if key.startswith(RESERVED_PREFIX):
            return self.whole
        return self._keys is None or self._keys.fullmatch(key) is not None

    def check(self, scope: str, key: object = None) -> None:
        """Refuse what it does not allow. What is no text is no key, which the verb itself refuses.

        Raises:
            MissingScope, KeyNotAllowed
        """
        if scope not in self.allowed:
            raise MissingScope(f"the API key lacks the scope {scope}")
        if isinstance(key, str) and not self.covers(key):
            if key.startswith(RESERVED_PREFIX) and ADMIN not in self.allowed:
                raise MissingScope(f"keys that begin with '{RESERVED_PREFIX}' ask for the scope {ADMIN}")
            raise KeyNotAllowed


def read_grant(scopes: object, patterns: object = ()) -> Grant:
    """A grant as it is written: a list of scopes, and one of patterns.

    Raises:
        Invalid: a scope is unknown or none is named, or a pattern is none; each is named.
    """
    flaws: list[Flaw] = []
    found = _texts(scopes)
    expected = f"one of {', '.join(IMPLIED)}"
    if not found:
        flaws.append(Flaw("/scopes", f"expected a list of at least {expected}"))
    unknown = (n for n, scope in enumerate(found or ()) if scope not in IMPLIED)
    flaws += [Flaw(f"/scopes/{n}", f"expected {expected}") for n in islice(unknown, FLAWS_MAX)]
    limits = _texts(patterns)
    if limits is None or len(limits) > PATTERNS_MAX:
        flaws.append(Flaw("/patterns", f"expected a list of at most {PATTERNS_MAX} patterns such as reports.*"))
        limits = ()
    for place, pattern in enumerate(limits or ()):
        if not _PATTERN.fullmatch(pattern):
            flaws.append(Flaw(f"/patterns/{place}", "expected 1 to 128 characters of A-Z a-z 0-9 . _ - *"))
    if flaws:
        raise Invalid(*flaws)
    return Grant(_once(found or ()), _once(limits or ()))


def _texts(value: object) -> Sequence[str] | None:
    listed = isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
    return value if listed else None  # type: ignore[return-value]


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
