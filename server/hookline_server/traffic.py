"""What passes through the API, counted by route: a few list items a request, so that nobody has to turn it off."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.routing import Route
from starlette.types import Scope

from hookline.figures import Family, Row
from hookline_server.caller import CALLER, Caller
from hookline_server.logs import FIELDS

log = logging.getLogger(__name__)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"
UNMATCHED = "unmatched"
"""The route of what was refused before one was found, or matches none."""
ABORTED = "aborted"
"""In place of a status: the client went away before it was answered."""

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DIGITS = 16
"""Of a Content-Length that can be true."""
IN_FLIGHT = Family("gauge", "hookline_http_requests_in_flight", "Requests under way, those that wait included")
_REQUESTS = Family(
    "counter",
    "hookline_http_requests",
    "Requests answered; status is its class such as 2xx, or aborted",
    ("route", "method", "status"),
)
_DURATION = Family(
    "histogram", "hookline_http_request_duration_seconds", "From the head of a request to the end of its answer",
    ("route", "method"), _BOUNDS,
)  # fmt: skip
_RECEIVED = Family(
    "counter", "hookline_http_request_bytes", "Bytes of bodies, as Content-Length declares them", ("route", "method")
)
_SENT = Family("counter", "hookline_http_response_bytes", "Bytes of bodies as they are sent", ("route", "method"))


class Traffic:
    """Counts requests, and logs them at ``level`` if that is one. ``routes`` are those of the application."""

    def __init__(self, routes: Iterable[Route], level: str = "off") -> None:
        self._level = 0 if level == "off" else logging.getLevelNamesMapping()[level.upper()]
        self._templates: Mapping[Any, str] = {route.endpoint: route.path for route in routes}
        self._rows: dict[tuple[Any, str, int], tuple[Row, Row, Row, Row]] = {}
        self.in_flight = IN_FLIGHT.row()

    def template(self, scope: Scope) -> str:
        """The route of a request, as it is written in the application: without anything that the client chose."""
        return self._templates.get(scope.get("endpoint"), UNMATCHED)

    def ended(self, scope: Scope, status: int, seconds: float, received: bytes | None, sent: int) -> None:
        """Count a request.

        Args:
            scope: of the request, after it was routed.
            status: of its answer, 0 without one.
            seconds: that it took.
            received: Content-Length, if it has that.
            sent: bytes of the answer's body.
        """
        name = (scope.get("endpoint"), scope["method"], status)
        rows = self._rows.get(name)
        if rows is None:
            rows = self._find(scope, status)
            if name[1] in METHODS:  # any word can be a method
                self._rows[name] = rows
        requests, duration, bytes_in, bytes_out = rows
        requests[0] += 1
        duration[0] += seconds
        duration[1 + bisect_left(_BOUNDS, seconds)] += 1
        if received and len(received) < _DIGITS and received.isdigit():
            bytes_in[0] += int(received)
        bytes_out[0] += sent
        if self._level and log.isEnabledFor(self._level):
            self._log(scope, status, seconds, sent)

    def _log(self, scope: Scope, status: int, seconds: float, sent: int) -> None:
        """One line of a request: nothing in it is the client's choice but the id that it may have given."""
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        route, ms = self.template(scope), round(seconds * 1000, 2)
        fields = {"method": method, "route": route, "status": status or ABORTED, "durationMs": ms, "bytes": sent}
        caller: Caller | None = scope.get(CALLER)
        if caller:
            fields["namespace"] = caller.namespace
        if caller and caller.id:
            fields["apiKey"] = caller.id
        log.log(self._level, "%s %s %s in %s ms", method, route, status or ABORTED, ms, extra={FIELDS: fields})

    def _find(self, scope: Scope, status: int) -> tuple[Row, Row, Row, Row]:
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        labels = (self.template(scope), method)
        told = f"{status // 100}xx" if status else ABORTED
        return _REQUESTS.row(*labels, told), _DURATION.row(*labels), _RECEIVED.row(*labels), _SENT.row(*labels)
