"""``/v1/triggers/test``: one sample webhook, sent at once, to see what a receiver makes of it."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline import Datastore, codec
from hookline.clock import format_time
from hookline.errors import Invalid
from hookline.trigger import read_trigger
from hookline.url import check_url
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import whole_of
from hookline_server.delivery import HINTS, attempt_of
from hookline_server.event import Delivery, Target
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.sender import Sender

SAMPLE_KEY, SAMPLE_SORT_FIELD = "hookline.test", "sample"


class Sample(Body):
    """Where a sample goes to, as an entry of ``triggerUrls`` says it."""

    url: Annotated[str, Meta(description="Where to, as triggers write it.")]
    api_key: Annotated[str, Meta(description="Sent as X-API-KEY.")] | None = None
    format: Annotated[str, Meta(description="cloudevents; null is Hookline's own.")] | None = None
    secret: Annotated[str, Meta(description="whsec_...: signs in place of the namespace's.")] | None = None


@Operation(
    name="testTrigger",
    takes={JSON: (Sample,)},
    example={"url": "http://127.0.0.1:9000/run"},
    replies={200: Reply("What came of it, also where it was not delivered.", shapes.SentSample)},
)
async def test(request: Request) -> Response:
    """Send a sample webhook.

    One attempt, at once, by the rules of all webhooks. Nothing is stored, and nothing tried again.
    """
    head.read_query(request)
    given = await body.read_json(request, Sample)
    datastore, now_ms = whole_of(request), time.time_ns() // 1_000_000
    delivery = _sample(datastore, given, now_ms)
    answer = await Sender(datastore, request.app.state.egress).post(delivery)
    told = {"delivered": answer.ok, "webhookId": delivery.webhook_id, "sent": msgspec.json.decode(delivery.body())}
    if answer.error in HINTS:
        told["hint"] = HINTS[answer.error]
    return Answer(told | attempt_of(answer, now_ms))


def _sample(datastore: Datastore, given: Sample, now_ms: int) -> Delivery:
    namespace = datastore.settings.namespace
    webhook_id = f"{namespace}-test-{now_ms}-{secrets.token_hex(4)}"
    target = _target(datastore, given)
    return Delivery(webhook_id, SAMPLE_KEY, SAMPLE_SORT_FIELD, _payload(now_ms), target, "")


def _target(datastore: Datastore, given: Sample) -> Target:
    """The trigger that the request describes, with its secrets sealed as those of a stored one are."""
    try:
        check_url(given.url)
    except ValueError as error:
        raise Invalid.at("/url", str(error)) from None
    entry = {"url": given.url, "apiKey": given.api_key, "format": given.format, "secret": given.secret}
    change = read_trigger(entry, "")
    owner = codec.identity(datastore.settings.namespace, SAMPLE_KEY, SAMPLE_SORT_FIELD)
    sealed_key = datastore.secrets.seal(change.api_key, owner) if change.api_key else b""
    sealed = tuple(datastore.secrets.seal(secret, owner) for secret in change.options.secrets or ())
    return Target(change.url, sealed_key, options=replace(change.options, secrets=None, sealed=sealed))


def _payload(now_ms: int) -> dict[str, Any]:
    """A job that was started, as its webhook tells of it."""
    return {
        "event": "updated",
        "dataChanged": {"metadata": {"status": "started"}},
        "newDataset": {
            "key": SAMPLE_KEY,
            "sortField": SAMPLE_SORT_FIELD,
            "content": {"sample": True},
            "metadata": {"status": "started", "version": 2},
        },
        "previous": {"metadata": {"status": "not_started"}},
        "version": 2,
        "occurredAt": format_time(now_ms),
    }


routes = [Route("/v1/triggers/test", test, methods=["POST"])]
