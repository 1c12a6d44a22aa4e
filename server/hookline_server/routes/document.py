"""``/openapi.json`` and ``/docs``: the API's document, for programs and for people."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from hookline_server import page
from hookline_server.answer import Answer
from hookline_server.operation import Operation, Reply

_PAGE_HEADERS = {
    "Content-Security-Policy": page.POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@Operation(
    name="getDocument",
    replies={200: Reply("The document.", Annotated[dict[str, Any], Meta(description="An OpenAPI 3.1 document.")])},
)
async def openapi(request: Request) -> Response:
    """Read this document."""
    document = request.app.state.document
    return Answer(await asyncio.to_thread(lambda: document.value))


@Operation(name="getPage", replies={200: Reply("The page.", media_types=("text/html",))})
async def docs(request: Request) -> Response:
    """Read this document as a page."""
    document = request.app.state.document
    return HTMLResponse(await asyncio.to_thread(lambda: document.page), headers=_PAGE_HEADERS)


routes = [
    Route("/openapi.json", openapi, methods=["GET"]),
    Route("/docs", docs, methods=["GET"]),
]
