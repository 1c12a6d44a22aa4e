"""Events: what the outbox holds, and the body that a receiver gets, byte for byte the same at every attempt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from yarl import URL

from hookline import codec
from hookline.clock import format_time
from hookline.item import PLAIN, Options
from hookline.trigger import CLOUDEVENTS
from hookline_server.endpoint import lane_of
from hookline_server.negotiate import CLOUD_EVENT, JSON


@lru_cache(maxsize=4096)
def endpoint_of(url: str) -> str:
    """The id of the endpoint at a URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:20]


def origin_of(url: str) -> str:
    """Scheme, host and port: what of a URL may be logged, for path and query may hold secrets."""
    parsed = URL(url)
    return f"{parsed.scheme}://{parsed.host}:{parsed.port}"


class Target(msgspec.Struct, frozen=True):
    """One trigger of an event: where to post, and the API key, sealed for the item, or the key, that it is on."""

    url: str
    sealed_key: bytes
    of_key: bool = False
    options: Options = PLAIN

    @property
    def origin(self) -> str:
        """Scheme, host and port of its URL."""
        return origin_of(self.url)

    @property
    def endpoint_id(self) -> str:
        """The same URL is the same endpoint, whatever item it is on."""
        return endpoint_of(self.url)

    @property
    def lane(self) -> str:
        """The key of this endpoint's deliveries."""
        return lane_of(self.endpoint_id)


class Delivery(msgspec.Struct, frozen=True):
    """One event for one URL. ``token`` is that of a claim, told to the worker that the webhook calls."""

    webhook_id: str
    source_key: str
    source_sort_field: str
    payload: dict[str, Any]
    target: Target
    token: str
    trace: str = ""
    """The ``traceparent`` of the request that made the change, if it had one."""
    record: bool = False
    """Whether it is told of also where it succeeds at once."""

    @property
    def stream_id(self) -> str:
        """Its event's id in the outbox."""
        return "-".join(self.webhook_id.rsplit("-", 2)[1:])

    @property
    def partition(self) -> int:
        """The partition of its item."""
        return int(self.webhook_id.rsplit("-", 3)[1])

    @property
    def media_type(self) -> str:
        """The Content-Type of the body."""
        return CLOUD_EVENT if self.target.options.format == CLOUDEVENTS else JSON

    def body(self) -> bytes:
        """The bytes to post: they depend on nothing but the event and the format that its trigger asks for."""
        payload = {**self.payload, "token": self.token} if self.token else self.payload
        return msgspec.json.encode(self._cloud_event(payload) if self.target.options.format == CLOUDEVENTS else payload)

    def _cloud_event(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The event by CloudEvents 1.0, in its structured form; ``webhook_id`` begins with the namespace."""
        namespace = self.webhook_id.rsplit("-", 3)[0]
        return {
            "specversion": "1.0",
            "id": self.webhook_id,
            "source": f"/hookline/{namespace}/{self.source_key}",
            "type": f"hookline.item.{payload['event']}",
            "subject": self.source_sort_field,
            "time": payload["occurredAt"],
            "datacontenttype": "application/json",
            "data": payload,
        }

    def content(self) -> dict[str, Any]:
        """What the lane's item shows of it. API key and token stay out: they are kept with its sealed triggers."""
        return {
            **self.receipt(),
            "payload": self.payload,
            **({"traceparent": self.trace} if self.trace else {}),
            **({"record": True} if self.record else {}),
        }

    def receipt(self) -> dict[str, Any]:
        """What is left of it once it has succeeded."""
        return {
            "url": self.target.url,
            "webhookId": self.webhook_id,
            "source": {"key": self.source_key, "sortField": self.source_sort_field},
        }

    def facts(self) -> dict[str, Any]:
        """What kept deliveries can be filtered by."""
        return {
            "event": self.payload["event"],
            "item_key": self.source_key,
            "item_sort_field": self.source_sort_field,
            "occurred_at": self.payload["occurredAt"],
        }

    def sealed(self) -> bytes:
        """The trigger as the lane's item keeps it: no events, so it never fires by itself."""
        target = self.target
        options = codec.pack_options(target.options, list(target.options.sealed))
        return codec.pack_request([[target.url, target.sealed_key, [], self.token, target.of_key, *options]])


def from_lane(content: dict[str, Any], sealed_triggers: bytes) -> Delivery:
    """The delivery that a lane's item holds."""
    url, sealed_key, _, token, *more = codec.unpack_answer(sealed_triggers)[0]
    source = content["source"]
    return Delivery(
        content["webhookId"],
        source["key"],
        source["sortField"],
        content["payload"],
        Target(url.decode(), sealed_key, any(more[:1]), _options(more)),
        token.decode(),
        content.get("traceparent", ""),
        content.get("record", False),
    )


def from_outbox(namespace: str, partition: int, stream_id: str, entry: Mapping[bytes, bytes]) -> list[Delivery]:
    """An entry of the outbox -> one delivery for each trigger that matched."""
    key, sort_field = entry[b"key"].decode(), entry[b"sort"].decode()
    payload = _payload(entry, key, sort_field)
    token, trace = entry[b"token"].decode(), entry.get(b"trace", b"").decode()
    webhook_id = f"{namespace}-{partition}-{stream_id}"
    return [
        Delivery(
            webhook_id,
            key,
            sort_field,
            payload,
            Target(url.decode(), sealed, any(more[:1]), _options(more)),
            token,
            trace,
            b"record" in entry,
        )
        for url, sealed, _, *more in codec.unpack_answer(entry[b"triggers"])
    ]


def _options(more: list[Any]) -> Options:
    """The options of a trigger, which stand behind whether it is its key's."""
    return codec.decode_options(more[1]) if len(more) > 1 and more[1] else PLAIN


def _payload(entry: Mapping[bytes, bytes], key: str, sort_field: str) -> dict[str, Any]:
    after, before = (dict(sorted(codec.unpack_answer(entry[name]).items())) for name in (b"after", b"before"))
    content, metadata = codec.unpack(after[b"c"]), codec.decode_metadata(after)
    changed: dict[str, Any] = {}
    previous: dict[str, Any] = {}
    # As an item's parts; what is absent reads null.
    if old := codec.decode_metadata(before):
        changed["metadata"] = {name: metadata.get(name) for name in old}
        previous["metadata"] = old
    if b"c" in before:
        changed["content"] = content
        previous["content"] = codec.unpack(before[b"c"]) if before[b"c"] else None
    if b"t" in before:
        changed["triggerUrls"] = _triggers(after.get(b"t"))
        previous["triggerUrls"] = _triggers(before[b"t"])
    return {
        "event": entry[b"event"].decode(),
        "dataChanged": changed,
        "newDataset": {"key": key, "sortField": sort_field, "content": content, "metadata": metadata},
        "previous": previous,
        "version": int(after[b"v"]),
        "occurredAt": format_time(int(entry[b"at"])),
    }


def _triggers(packed: bytes | None) -> list[dict[str, Any]]:
    return [trigger.to_dict() for trigger in codec.decode_triggers(packed)] if packed else []
