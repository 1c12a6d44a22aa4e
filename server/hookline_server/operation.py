"""What one method of a path takes and answers, said beside the function that serves it, for the API's document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

READS = frozenset({"GET", "HEAD"})
_ANY = ("internal", "malformed_request", "request_timeout", "target_too_long", "headers_too_large")
_STORE = ("unavailable", "corrupt")
_API = ("not_acceptable", "invalid", "rate_limited", "overloaded", *_STORE)
_WRITES = ("store_full", "outcome_unknown")
_BODY = ("invalid_json", "invalid_msgpack", "invalid_gzip", "body_too_large", "unsupported_media_type")
_KEYS = ("missing_api_key", "invalid_api_key", "too_many_attempts", "missing_scope", "key_not_allowed")
_GUARDED = ("unknown_host", *_KEYS, *_STORE)
_REPEATABLE = ("invalid_header", "idempotency_key_reused", "idempotency_key_in_use")
_NAMED = ("invalid_path", "unknown_path")


@dataclass(frozen=True, slots=True)
class Reply:
    """One kind of answer.

    ``shape`` is the type of its body (or several; None: no body), ``lines`` those of its lines, where it can be a
    stream; ``text``: it can be plain text too; ``media_types``: it is text of these kinds, and no value. ``links`` name
    the operations on what the body shows.
    """

    says: str
    shape: Any = None
    headers: tuple[str, ...] = ()
    lines: tuple[Any, ...] = ()
    text: bool = False
    media_types: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one method of a path takes and answers. Its summary and description are the function's docstring.

    Attributes:
        name: the ``operationId``, which stays what it is.
        replies: status -> what is answered, but for problem documents.
        takes: media type -> the types that a body may have; JSON stands for msgpack too.
        needed: whether there must be a body.
        query: name -> type of each query parameter, none of which must be there.
        headers: request headers that mean something here, by their names in the document's table.
        refuses: codes of problem documents, beyond those that every operation of its kind may answer.
        example: a body, for the reader and for curl.
        writes: whether it changes the store.
        optional: whether ``Prefer: return=minimal`` leaves the item out.
    """

    name: str
    replies: Mapping[int, Reply]
    takes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    needed: bool = True
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    example: Any = None
    writes: bool = False
    optional: bool = False

    def codes(self, method: str, path: str, *, guarded: bool, repeatable: bool) -> Iterator[str]:
        """The codes of all problem documents that it may answer with.

        ``guarded``: it asks for an API key. ``repeatable``: it honours Idempotency-Key.
        """
        yield from (*_ANY, *self.refuses)
        if path.startswith("/v1/"):
            yield from _API
        if method not in READS:
            yield "cross_site"
        if self.writes:
            yield from _WRITES
        if self.takes:
            yield from _BODY
        if "{" in path:
            yield from _NAMED
        if guarded:
            yield from _GUARDED
        if repeatable:
            yield from _REPEATABLE

    def __call__(self, endpoint: Function) -> Function:
        """As a decorator: say it of a function, which stays as it is."""
        _OPERATIONS[endpoint] = self
        return endpoint


def operation_of(endpoint: Callable[..., Any] | None) -> Operation | None:
    """What was said of a function, if anything was."""
    return _OPERATIONS.get(endpoint)


_OPERATIONS: dict[Callable[..., Any] | None, Operation] = {}
