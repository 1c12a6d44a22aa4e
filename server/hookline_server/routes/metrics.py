"""``/metrics``: figures for Prometheus, of all processes of this server and of what the store holds."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline_server import head


async def metrics(request: Request) -> Response:
    """The page; it comes without the store's figures while the store does not answer."""
    content, media_type = await request.app.state.metrics.page(head.field(request, b"accept") or "")
    return Response(content, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


routes = [Route("/metrics", metrics, methods=["GET"])]
