"""The bodies that are in memory at one time, counted in bytes: many large ones together could be more than there is."""

from __future__ import annotations

from starlette.types import Scope

from hookline_server.problem import Problem

HELD = "hookline.held"
"""Where a request's scope has how many bytes of its body are counted."""


class Bodies:
    """Counts what came in more than one piece: a body that came with its head is small, and gone at once."""

    def __init__(self) -> None:
        self.held = 0

    def hold(self, scope: Scope, size: int, most: int) -> None:
        """Count so many bytes in all for a request, until its answer; all together may be ``most``.

        Raises:
            Problem: they would be more.
        """
        more = size - scope.get(HELD, 0)
        if more > 0 and self.held + more > most:
            raise Problem("overloaded", "the bodies of other requests take all the memory that there is for them now")
        self.held += more
        scope[HELD] = size

    def release(self, scope: Scope) -> None:
        """Count nothing more for a request."""
        self.held -= scope.pop(HELD)
