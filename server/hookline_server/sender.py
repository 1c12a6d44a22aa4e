"""The sender: one attempt at one delivery, signed and with its API key, through the guarded way out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hookline import Datastore, codec, trace
from hookline.figures import Family
from hookline_server.egress import Answer, Egress
from hookline_server.event import Delivery
from hookline_server.signature import read_secret, sign
from hookline_server.signing import Signer

_IN_FLIGHT = Family("gauge", "hookline_deliveries_in_flight", "Webhooks being posted now", ("namespace",))
_ATTEMPTS = Family(
    "counter",
    "hookline_delivery_attempts",
    "Attempts by outcome: the class of the status such as 2xx, or why there is none, such as timeout",
    ("namespace", "outcome"),
)
_DURATION = Family("histogram", "hookline_delivery_duration_seconds", "Attempts, from lookup to answer", ("namespace",))


class Sender:
    """Posts deliveries of one datastore."""

    def __init__(self, datastore: Datastore, egress: Egress) -> None:
        self._egress = egress
        self._namespace = datastore.settings.namespace
        self._secrets = datastore.secrets
        self._signer = Signer(datastore)
        self._in_flight = _IN_FLIGHT.row(self._namespace)

    async def post(self, delivery: Delivery) -> Answer:
        """Make one attempt. Whatever is wrong with it ends in an answer.

        Raises:
            Unavailable: the store, of which it asks now and then which secrets sign.
        """
        self._in_flight[0] += 1
        try:
            attributes = {"http.request.method": "POST", "hookline.event": delivery.webhook_id}
            with trace.span("POST", "client", trace.PARENT.get() or delivery.trace, attributes) as note:
                headers = self._headers(delivery, body := delivery.body(), await self._signing(delivery))
                answer = await self._egress.post(
                    delivery.target.url, body, headers, [delivery.token], payer=self._namespace
                )
                note(_described(answer))
        except ValueError as error:
            _ATTEMPTS.add(self._namespace, "unopenable")
            return Answer(None, str(error), None, 0, "")
        finally:
            self._in_flight[0] -= 1
        _ATTEMPTS.add(self._namespace, answer.outcome)
        _DURATION.observe(answer.duration_ms / 1000, self._namespace)
        return answer

    def _headers(self, delivery: Delivery, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
        timestamp = int(time.time())
        signatures = [sign(secret, delivery.webhook_id, timestamp, body) for secret in secrets]
        headers = {
            "Content-Type": delivery.media_type,
            "webhook-id": delivery.webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
        api_key = self._open(delivery, delivery.target.sealed_key)
        if api_key:
            headers["X-API-KEY"] = api_key
        if parent := trace.PARENT.get():
            headers["traceparent"] = parent
        return headers

    async def _signing(self, delivery: Delivery) -> Sequence[bytes]:
        """The secrets that sign a delivery: its trigger's, or the namespace's."""
        sealed = delivery.target.options.sealed
        if not sealed:
            return await self._signer.secrets()
        return [read_secret(self._open(delivery, secret)) for secret in sealed]

    def _open(self, delivery: Delivery, sealed: bytes) -> str:
        """A secret of the trigger, which is sealed for the item, or the key, that the trigger is on."""
        if not sealed:
            return ""
        sort_field = "" if delivery.target.of_key else delivery.source_sort_field
        return self._secrets.open(sealed, codec.identity(self._namespace, delivery.source_key, sort_field))


def _described(answer: Answer) -> trace.Attributes:
    """What a span says of an attempt."""
    told: dict[str, str | int] = {} if answer.status is None else {"http.response.status_code": answer.status}
    return told if answer.ok else {**told, "error.type": answer.error or str(answer.status)}
