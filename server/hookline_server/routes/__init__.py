"""The routes, one module per resource; each has ``routes``, which ``app`` puts together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Datastore

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class Resource(Route):
    """A path with several methods, as one route: so a method that it does not have is told of all that it has."""

    def __init__(self, path: str, **methods: Endpoint) -> None:
        async def dispatch(request: Request) -> Response:
            return await methods["GET" if request.method == "HEAD" else request.method](request)

        super().__init__(path, dispatch, methods=list(methods))
        self.endpoints = methods


def served_by(route: Route) -> Mapping[str, Endpoint]:
    """Method -> the function that serves it."""
    if isinstance(route, Resource):
        return route.endpoints
    return {method: route.endpoint for method in sorted(route.methods or ()) if method != "HEAD"}


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives, which is given up when the client goes away. A body must have been read.

    Raises:
        ClientDisconnect: it went.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Wait for the end of the connection; of a body that nobody reads, nothing is kept."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def search(request: Request, datastore: Datastore, work: Coroutine[Any, Any, T]) -> T:
    """What a search gives; where it may have to wait for others, as long as the client is there.

    To watch for the end of the connection costs as much as the tenth part of a short search.

    Raises:
        ClientDisconnect: it went.
    """
    return await (while_connected(request, work) if datastore.connection.searches.crowded else work)
