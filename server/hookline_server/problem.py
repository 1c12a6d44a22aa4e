"""Problem documents (RFC 9457): how every error reads over HTTP.

``code`` is stable and for programs, ``detail`` is for people. ``errors`` names each bad field by JSON pointer;
``item`` is the item as it stands, where the store refused a change to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Scope

from hookline.errors import (
    Flaw,
    Incompatible,
    Invalid,
    OutcomeUnknown,
    Overloaded,
    Refused,
    StoreFull,
    Unavailable,
    cut,
)
from hookline_server.answer import Answer
from hookline_server.command import CommandSyntaxError
from hookline_server.command.names import Unfit
from hookline_server.operation import READS, operation_of
from hookline_server.stop import Stopping

KINDS: dict[str, tuple[int, str]] = {
    # What is wrong with the request
    "invalid": (422, "The request has bad fields"),
    "syntax_error": (422, "The text is not in the command language"),
    "unfit_placeholder": (422, "A placeholder stands for nothing that fits its place"),
    "invalid_json": (400, "The body is not JSON"),
    "invalid_msgpack": (400, "The body is not msgpack"),
    "invalid_gzip": (400, "The body is not compressed as it says"),
    "invalid_path": (400, "The path is not UTF-8"),
    "invalid_header": (400, "A header cannot be read"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body is of a kind that is not taken here"),
    "unknown_path": (404, "There is nothing at this path"),
    "method_not_allowed": (405, "The path does not have this method"),
    "not_acceptable": (406, "There is no answer of a kind that the client takes"),
    "cross_site": (403, "The request comes from a page of another site"),
    "unknown_host": (403, "The request is for a host that the server is not known as"),
    "missing_api_key": (401, "The request shows no API key"),
    "invalid_api_key": (401, "The API key is not good"),
    "missing_scope": (403, "The API key lacks a scope"),
    "key_not_allowed": (403, "The API key is limited to other keys"),
    "too_many_attempts": (429, "Too many wrong API keys"),
    "unknown_api_key": (404, "There is no such API key"),
    "bad_request": (400, "The request cannot be served"),
    "malformed_request": (400, "The request is not HTTP as it is taken here"),
    "request_timeout": (408, "The request came too slowly"),
    "target_too_long": (414, "The path and query are too long"),
    "headers_too_large": (431, "The headers are too large"),
    "rate_limited": (429, "Too many requests in a short time"),
    # What the store says no to
    "not_found": (404, "There is no such item"),
    "exists": (409, "The item exists already"),
    "version_conflict": (409, "The item has another version"),
    "locked": (409, "The item is held by a worker"),
    "stale_token": (409, "The claim has ended"),
    "not_claimable": (409, "The item cannot be claimed"),
    "cancelled": (409, "The item was cancelled"),
    "idempotency_key_reused": (422, "The idempotency key came with another request"),
    "idempotency_key_in_use": (409, "The idempotency key is in use"),
    "precondition_failed": (412, "The item is not as the request wants it"),
    "reserved_key": (403, "The key is reserved"),
    "paused": (409, "The key is paused"),
    "too_many_fields": (409, "The item has too many metadata fields"),
    "key_full": (503, "The key is full"),
    "outbox_full": (503, "Too many webhook events wait"),
    "corrupt": (500, "The store holds something unexpected"),
    # What cannot be done now
    "overloaded": (503, "The server has too much to do"),
    "unavailable": (503, "The store is not available"),
    "store_full": (503, "The store is full"),
    "outcome_unknown": (503, "It is not known whether the request took effect"),
    "internal": (500, "Something went wrong inside the server"),
}
"""Code -> status and title. One code always has the same two."""

_FLAWS_TOLD, _FLAWS_MAX = 3, 100
"""Bad fields that ``detail`` names, and that ``errors`` lists."""
_DETAIL_MAX = 4000
"""Characters of ``detail``, which may have several names of the caller's."""
RETRY_AFTER = "1"
"""Seconds until a repeat makes sense, for what is refused with 503."""
UNREAD = "hookline.unread"
"""What a request's scope has where the server stops before the body has come whole, and so before anything is done."""


class Problem(Exception):
    """One problem document. ``members`` are what it says beyond ``type, title, status, code, detail``."""

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = KINDS[code]
        self.detail = cut(detail, _DETAIL_MAX)
        self.headers = dict(headers or {})
        self.members = members
        if self.status == 503:
            self.headers["Retry-After"] = RETRY_AFTER

    def document(self) -> dict[str, Any]:
        """The document as a value."""
        return {
            "type": f"urn:hookline:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }

    def response(self) -> Answer:
        """The answer that carries the document."""
        return Answer(self.document(), self.status, self.headers, problem=True)


def problem_of(error: Exception) -> Problem:
    """Any error -> its problem document; what was not raised on purpose says nothing of itself."""
    match error:
        case Problem():
            return error
        case Invalid():
            return _of_flaws(error.flaws)
        case CommandSyntaxError():
            return Problem(
                "syntax_error",
                str(error),
                line=error.line,
                column=error.column,
                expected=cut(error.expected),
                found=cut(error.found),
                hint=cut(error.hint),
                excerpt=error.excerpt,
            )
        case Refused():
            problem = Problem(error.code, str(error))
            if error.item is not None:
                problem.members["item"] = error.item.to_dict()
            return problem
        case StoreFull() | Overloaded() | OutcomeUnknown() | Unfit() | Stopping():
            return Problem(error.code, str(error))
        case Unavailable() | Incompatible():
            # A store that does not let us in now may do so again. The error's own text names addresses of the store;
            # it goes to the log.
            return Problem("unavailable", "the store cannot take the call now; nothing was written, a repeat is safe")
        case HTTPException():
            return Problem("bad_request", error.detail, error.headers)
    return Problem("internal", "the server's log says more, under the X-Request-Id of this answer")


def cut_off(scope: Scope) -> Problem:
    """What is told where the server stops before a request has ended."""
    operation = operation_of(scope.get("endpoint"))
    writes = operation.writes if operation else scope["method"] not in READS
    if writes and UNREAD not in scope:
        return Problem("outcome_unknown", "the server has stopped before it was done; read the item to see its state")
    return Problem("unavailable", "the server has stopped before it was done; nothing was written, a repeat is safe")


def _of_flaws(flaws: Sequence[Flaw]) -> Problem:
    """All that is wrong with a request, within reason; the sentence of it names the first few."""
    errors = [{"pointer": _told(flaw.pointer), "detail": _told(flaw.detail)} for flaw in flaws[:_FLAWS_MAX]]
    texts = [": ".join(filter(None, error.values())) for error in errors[:_FLAWS_TOLD]]
    if len(flaws) > _FLAWS_TOLD:
        texts.append(f"and {len(flaws) - _FLAWS_TOLD} more")
    return Problem("invalid", "; ".join(texts), errors=errors)


def _told(text: str) -> str:
    """Text that can be sent: cut, and sound, as a name that is refused for half a surrogate pair is in its pointer."""
    return cut(text).encode(errors="replace").decode()
