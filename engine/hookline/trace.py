"""Trace context (W3C): which span a piece of work belongs to, from a request through the outbox to the webhook.

It is one text, ``traceparent``, in a context variable; where it is empty nothing is carried and nothing is paid. Spans
are made by whoever exports them, and sets :data:`exporter`; without one the context is passed on as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Literal, Protocol

Kind = Literal["server", "client", "consumer"]
Attributes = Mapping[str, str | int]
Note = Callable[[Attributes], None]
"""Adds attributes to a span that is under way; ``error.type`` makes it one that failed."""


class Exporter(Protocol):
    """Makes spans. Within one, :data:`PARENT` is its own."""

    def span(
        self, name: str, kind: Kind, parent: str, attributes: Attributes, links: Sequence[str] = ()
    ) -> AbstractContextManager[Note]:
        """A span below ``parent``, a root if that is empty; ``links`` are spans that it works for as well."""


PARENT: ContextVar[str] = ContextVar("traceparent", default="")
"""The ``traceparent`` of the span that is under way, or empty."""
LINKS: ContextVar[Sequence[str]] = ContextVar("links", default=())
"""Those of the operations that share the call of the store under way."""
exporter: Exporter | None = None

_VERSION = b"00"
_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def read(header: bytes) -> str:
    """A ``traceparent`` as a header has it; empty if it is none: then, by the specification, it does not count.

    One of a later version counts as far as it is known: ids, and whether the trace is sampled.
    """
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return ""
    version, ids, flags, more = match.groups()
    if version == _VERSION:
        return "" if more else header.decode()
    return f"{_VERSION.decode()}-{ids.decode()}-{int(flags, 16) & 1:02x}"


def span(name: str, kind: Kind, parent: str, attributes: Attributes) -> AbstractContextManager[Note]:
    """A span if somebody exports them, else just what it would have been part of."""
    if exporter is not None:
        return exporter.span(name, kind, parent, attributes)
    return _NOTHING if parent == PARENT.get() else _below(parent)


@contextmanager
def _below(parent: str) -> Iterator[Note]:
    before = PARENT.set(parent)
    try:
        yield _note_nothing
    finally:
        PARENT.reset(before)


def _note_nothing(attributes: Attributes) -> None:
    pass


_NOTHING: AbstractContextManager[Note] = nullcontext(_note_nothing)


@contextmanager
def call_span(script: str, partition: int) -> Iterator[None]:
    """A span of a call of the store: of one operation below what that belongs to, of a batch linked to all of them.

    What belongs to nothing, such as a sweep, has none.
    """
    links = LINKS.get()
    parent = PARENT.get() or (links[0] if len(links) == 1 else "")
    if exporter is None or not (parent or links):
        yield
        return
    attributes: Attributes = {"db.system.name": "redis", "db.operation.name": script, "hookline.partition": partition}
    with exporter.span(script, "client", parent, attributes, () if parent else links) as note:
        try:
            yield
        except Exception as error:
            note({"error.type": getattr(error, "code", type(error).__name__)})
            raise
