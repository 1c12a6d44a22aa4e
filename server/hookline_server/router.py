"""The router: Starlette's routes, found by where they stand, and the application around them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from hookline_server.answer import Answer
from hookline_server.problem import Problem
from hookline_server.shares import Shares


class Application(Starlette):
    """Starlette without its two layers that make answers of errors: the edge does that, once, for every request."""

    def __init__(self, routes: Sequence[Route]) -> None:
        super().__init__()
        self.router = Table(routes)
        self.edge: ASGIApp = self.router
        self.requests: Shares | None = None

    def build_middleware_stack(self) -> ASGIApp:
        """What a request passes."""
        return self.edge


class Table(Router):
    """Routes by the segment of their path that tells most of them apart. Of two that match the first one wins."""

    def __init__(self, routes: Sequence[Route]) -> None:
        super().__init__(routes, redirect_slashes=False)
        self._near: dict[str, list[Route]] = {}
        for route in routes:
            # A path may hold a newline, as a sortField may.
            route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
            self._near.setdefault(_place(route.path), []).append(route)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Problem: no route has the path, or none of those that have it the method.
        """
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        near = self._near.get(_place(path), ())
        for route in near:
            match = route.path_regex.match(path)
            if match and method in route.methods:  # type: ignore[operator]  # every route here names its methods
                scope["endpoint"] = route.endpoint
                scope["path_params"] = match.groupdict()
                await route.app(scope, receive, send)
                return
        matching = [route for route in near if route.path_regex.match(path)]
        if not matching:
            raise Problem(
                "unknown_path",
                "no route has this path; items are at /v1/items/{key}/{sortField}, all else in /docs and /openapi.json",
            )
        scope["endpoint"] = matching[0].endpoint
        allowed = ", ".join(sorted({"OPTIONS"}.union(*(route.methods or () for route in matching))))
        if method != "OPTIONS":
            raise Problem("method_not_allowed", f"expected one of {allowed}", {"Allow": allowed})
        await Answer(status=204, headers={"Allow": allowed})(scope, receive, send)


def _place(path: str) -> str:
    """``items`` of ``/v1/items/jobs``; of a path that is shorter, its end."""
    return path.split("/", 3)[:3][-1]
