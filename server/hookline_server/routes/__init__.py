"""The routes, one module per resource; each has ``routes``, which ``app`` puts together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]


def resource(path: str, **methods: Endpoint) -> Route:
    """A path with several methods, as one route: so a method that it does not have is told of all that it has."""

    async def dispatch(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, dispatch, methods=list(methods))
