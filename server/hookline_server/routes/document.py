"""``/openapi.json`` and ``/docs``: the API's document, for programs and for people."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from hookline_server import head, page
from hookline_server.answer import FIELDS, Answer
from hookline_server.negotiate import takes_gzip
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
    """Read this document.

    OpenAPI 3.1: each route with all that it takes and answers, and the webhook; for generators of clients.
    """
    document = request.app.state.document
    return Answer(await asyncio.to_thread(lambda: document.value))


@Operation(
    name="getPage",
    headers=("If-None-Match",),
    replies={
        200: Reply("The page.", headers=("ETag",), media_types=("text/html",)),
        304: Reply("It is as the client has it.", headers=("ETag",)),
    },
)
async def docs(request: Request) -> Response:
    """Read this document as a page.

    For people, in one file that loads nothing else.
    """
    document = request.app.state.document
    written = await asyncio.to_thread(lambda: document.page)
    headers = {**_PAGE_HEADERS, "ETag": written.etag, "Vary": "accept-encoding"}
    if head.is_current(request, written.etag.removeprefix("W/")):
        return Response(status_code=304, headers=headers)
    if takes_gzip(request.scope[FIELDS].get(b"accept-encoding", b"")):
        return HTMLResponse(written.packed, headers={**headers, "Content-Encoding": "gzip"})
    return HTMLResponse(written.html, headers=headers)


routes = [
    Route("/openapi.json", openapi, methods=["GET"]),
    Route("/docs", docs, methods=["GET"]),
]
