"""``/metrics``: figures for Prometheus, of all processes of this server and of what the store holds."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline_server import head
from hookline_server.answer import FIELDS, VARY, compress
from hookline_server.operation import Operation, Reply


@Operation(
    name="getMetrics", replies={200: Reply("The figures.", media_types=("text/plain", "application/openmetrics-text"))}
)
async def metrics(request: Request) -> Response:
    """Read figures for Prometheus.

    Without those of the store while it does not answer.
    """
    content, media_type = await request.app.state.metrics.page(head.field(request, b"accept") or "")
    headers = {"Content-Type": media_type, "Vary": VARY[1].decode()}
    packed = await compress(content, request.scope[FIELDS])
    if packed is not None:
        content, headers["Content-Encoding"] = packed, "gzip"
    return Response(content, headers=headers)


routes = [Route("/metrics", metrics, methods=["GET"])]
