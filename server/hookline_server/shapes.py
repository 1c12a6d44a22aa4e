"""How answers and webhooks read: types that nothing is made of, for the API's document.

The tests hold every answer that they get against them, so what is said here is so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hookline.errors import OUTCOMES
from hookline_server.fields import (
    REFERENCE,
    Backoff,
    Content,
    Cursor,
    Duration,
    Filters,
    Key,
    Metadata,
    SortField,
    Time,
)
from hookline_server.problem import KINDS

Event = Literal["created", "updated", "deleted"]
Count = Annotated[int, Meta(ge=0)]
Version = Annotated[int, Meta(ge=1, description="Grows with every accepted change but the extension of a lock.")]
Status = Annotated[int, Meta(ge=200, le=599, description="As if it had been a request of its own.")]
ClaimToken = Annotated[str, Meta(description="The token of the claim that was just made, shown once.")]
AnyProblem = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": REFERENCE.format(name="Problem")})]


class Shape(msgspec.Struct, rename="camel"):
    """What an answer holds."""


class Trigger(Shape):
    """A URL that is called when the item changes."""

    url: str
    events: list[str]
    has_api_key: bool
    where: Filters | UnsetType = UNSET
    retry: list[str] | UnsetType = UNSET
    ordered: bool | UnsetType = UNSET
    format: Literal["cloudevents"] | UnsetType = UNSET
    has_secret: bool | UnsetType = UNSET


class ListedItem(Shape, kw_only=True):
    """An item as a list shows it: with ``format=light`` it has no content."""

    key: Key
    sort_field: SortField
    content: Content | UnsetType = UNSET
    metadata: Metadata
    trigger_urls: list[Trigger]
    version: Version
    created_at: Time
    updated_at: Time


class Item(ListedItem, kw_only=True):
    """An item as it stands."""

    content: Content


class WrittenItem(Item):
    """An item after a write: with the token, if the write was a claim, and what is to be said of it."""

    token: ClaimToken | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET


class NamedItem(Shape):
    """An item that was made, as ``Prefer: return=minimal`` asks for it."""

    key: Key
    sort_field: SortField
    version: Version


NEW_ITEM = (WrittenItem, NamedItem)
"""What a 201 shows; the larger first, as the first that fits is what generated clients take."""


class ClaimedItem(Item, kw_only=True):
    """An item that was claimed."""

    token: ClaimToken


class Flaw(Shape):
    """One bad field."""

    pointer: Annotated[
        str,
        Meta(description="Where it stands: a JSON pointer (RFC 6901) into the body. A long one is cut, as `...` says."),
    ]
    detail: Annotated[str, Meta(description="What was expected there.")]


class Problem(Shape):
    """What went wrong (RFC 9457)."""

    type: Annotated[str, Meta(description="`urn:hookline:problem:` and the code.")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    code: Annotated[str, Meta(description="Stable, for programs.", extra_json_schema={"enum": sorted(KINDS)})]
    detail: Annotated[str, Meta(description="For people: what was expected.")]
    instance: Annotated[str, Meta(description="Names the request.")] | UnsetType = UNSET
    errors: Annotated[list[Flaw], Meta(description="With `invalid`: each bad field.")] | UnsetType = UNSET
    item: Annotated[Item, Meta(description="With a conflict: the item as it stands.")] | UnsetType = UNSET
    cursor: Annotated[str | None, Meta(description="Of a stream: where to go on.")] | UnsetType = UNSET
    line: Annotated[int, Meta(description="Of a text of commands: where.")] | UnsetType = UNSET
    column: int | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    found: str | UnsetType = UNSET
    hint: str | UnsetType = UNSET
    excerpt: Annotated[str, Meta(description="The line, and a caret under the column.")] | UnsetType = UNSET
    index: Annotated[int, Meta(description="Which command was refused, from 0.")] | UnsetType = UNSET
    verb: str | UnsetType = UNSET
    results: Annotated[list[dict[str, Any]], Meta(description="Of the commands before it, which ran.")] | UnsetType = (
        UNSET
    )


class Result(Shape):
    """What became of one operation among many: its ``item`` (by ``return=minimal`` its names), or the ``problem``."""

    status: Status
    item: WrittenItem | UnsetType = UNSET
    key: Key | UnsetType = UNSET
    sort_field: SortField | UnsetType = UNSET
    version: Version | UnsetType = UNSET
    problem: AnyProblem | UnsetType = UNSET


class Results(Shape):
    """What became of each, in the order of the request."""

    results: list[Result]


class LineResult(Result, kw_only=True):
    """What became of one line."""

    line: Annotated[int, Meta(ge=1, description="Its number.")]


class Explanation(Shape):
    """How a query was answered."""

    index: Annotated[str, Meta(description="What was walked: `sortField`, `status`, or a field with an index.")]
    examined: Annotated[int, Meta(ge=0, description="How many of its entries were looked at.")]
    candidates: Annotated[dict[str, int], Meta(description="How many entries each index had within the filters.")]


class Page(Shape):
    """A page of items. It may be short, even empty, and still have a cursor."""

    items: list[ListedItem]
    cursor: Annotated[Cursor | None, Meta(description="Where the next page begins; null: there is none.")]
    explain: Explanation | UnsetType = UNSET


class Counted(Shape):
    """How many match; with a cursor only so far."""

    count: Count
    cursor: Cursor | None
    explain: Explanation | UnsetType = UNSET


class BrokenOff(Shape):
    """The last line of a stream that could not go on."""

    problem: AnyProblem


class Claimed(Shape):
    """What a claim took."""

    items: list[ClaimedItem]
    next_at: Annotated[Time | None, Meta(description="When there may be more.")]
    paused: Annotated[bool, Meta(description="The key is paused: nothing of it can be claimed.")] | UnsetType = UNSET
    problem: Annotated[AnyProblem, Meta(description="What kept it from more.")] | UnsetType = UNSET


class Settled(Shape):
    """What became of one claim."""

    sort_field: SortField
    outcome: Annotated[str, Meta(extra_json_schema={"enum": sorted(OUTCOMES)})]
    version: Version | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    locked_until: Time | UnsetType = UNSET
    problem: AnyProblem | UnsetType = UNSET


class AllSettled(Shape):
    """What became of each claim, in order, and of the claim that followed."""

    complete: list[Settled]
    fail: list[Settled]
    release: list[Settled]
    extend: list[Settled]
    claimed: Claimed | UnsetType = UNSET


class Progress(Shape):
    """How far a change of many is."""

    done: Count
    passed_over: Annotated[int, Meta(ge=0, description="What changed between being found and being changed.")]
    cursor: Annotated[str | None, Meta(description="Send the same again with it; null: that was all.")]


class Kept(Shape):
    """How long, and how many items of a status are kept."""

    age: Duration | UnsetType = UNSET
    count: Count | UnsetType = UNSET


class Build(Shape):
    """How far an index is that is being built."""

    done: Count
    total: Count


class Settings(Shape):
    """The settings of a key as they hold."""

    max_attempts: Count
    lock_for: Duration
    backoff: Backoff
    paused: bool
    max_length: int | None
    indexes: dict[str, Literal["number", "string", "time"]]
    retention: dict[str, Kept]
    record_deliveries: bool
    trigger_urls: list[Trigger]
    generation: Annotated[int, Meta(ge=0, description="Counts the changes of the settings.")]
    building: dict[str, Build] | UnsetType = UNSET


class Worker(Shape):
    """A worker that lives."""

    key: Key
    worker_id: str
    host: str
    pid: Count
    handlers: list[str]
    concurrency: Count
    in_flight: Count
    seen_at: Time
    signal: Literal["quiet", "stop"] | None


class Workers(Shape):
    """The workers that live."""

    workers: list[Worker]
    left_out: Annotated[int, Meta(ge=0, description="Workers that live and are not listed, at least.")]


class Heard(Shape):
    """What a worker is asked to do."""

    signal: Literal["quiet", "stop"] | None


class KeyCounts(Shape):
    """What one key holds."""

    key: Key
    items: Count
    statuses: dict[str, int]
    refused_claims: Count
    lost_locks: Count
    expired_locks: Count
    bytes: Annotated[int, Meta(ge=0, description="What its items take in the store, estimated from a few.")]


class Keys(Shape):
    """A page of keys, in order of their names."""

    keys: list[KeyCounts]
    cursor: str | None


class Attempt(Shape):
    """What came of one attempt; ``ms`` are from its start, null where it came not so far."""

    at: Time
    status: int | None
    error: str | None
    ms: dict[str, int | None]
    answer: Annotated[str, Meta(description="Up to 200 bytes of it.")] | UnsetType = UNSET


class SentSample(Attempt, kw_only=True):
    """What came of a sample; ``sent`` is its body."""

    delivered: bool
    webhook_id: str
    sent: dict[str, Any]
    hint: Annotated[str, Meta(description="What is to be set, where the server refuses the address.")] | UnsetType = (
        UNSET
    )


class Delivery(Shape):
    """A webhook that did not succeed at once, or whose key has recordDeliveries."""

    id: str
    endpoint: str
    url: str
    webhook_id: str
    event: Event | None
    item: dict[str, str]
    status: str
    attempts: Count
    max_attempts: Count | None
    next_at: Time | None
    last_error: str | None
    occurred_at: Time | None
    created_at: Time
    updated_at: Time
    log: list[Attempt]


class WholeDelivery(Delivery):
    """With the body that it posts, as far as that is kept."""

    payload: Any


class Deliveries(Shape):
    """A page of deliveries."""

    items: list[Delivery]
    cursor: str | None


class Endpoint(Shape):
    """A URL that webhooks go to."""

    id: str
    url: str
    status: Literal["active", "paused", "disabled"]
    reason: str | None
    since: Time | None
    concurrency: Annotated[int, Meta(ge=1)] | None
    rate: Annotated[float, Meta(gt=0)] | None
    failing_since: Time | None
    retry_at: Time | None
    breaker: Literal["closed", "open"]
    deliveries: Annotated[dict[str, Count], Meta(description="How many are kept, by status.")]


class Endpoints(Shape):
    """A page of endpoints."""

    items: list[Endpoint]
    cursor: str | None


class CommandResults(Shape):
    """What each command gave, in order; a loop has its ``rounds``."""

    results: list[
        Annotated[
            dict[str, Any],
            Meta(
                extra_json_schema={
                    "properties": {"verb": {"type": "string", "description": "Which command it was."}},
                    "required": ["verb"],
                    "additionalProperties": True,
                }
            ),
        ]
    ]


class ApiKey(Shape):
    """An API key, without its secret."""

    id: Annotated[str, Meta(description="Names it for good.")]
    name: str
    namespace: str
    scopes: list[str]
    patterns: Annotated[list[str], Meta(description="Item keys that it is limited to; none: all.")]
    created_at: Time
    used_at: Time | None
    ends_at: Time | None
    revoked_at: Time | None


class ApiKeys(Shape):
    """The API keys of a namespace."""

    api_keys: list[ApiKey]


class ShownApiKey(ApiKey, kw_only=True):
    """An API key that was just made."""

    api_key: Annotated[str, Meta(description="The secret, shown this once.")]


class Alive(Shape):
    """The process answers."""

    status: Literal["ok"]


class Health(Shape):
    """Whether the parts can serve: ``ok``, or what is wrong with each."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


class Dataset(Shape):
    """The item after the change."""

    key: Key
    sort_field: SortField
    content: Content
    metadata: Metadata


class Changed(Shape):
    """The parts that changed; what is not there reads null."""

    metadata: dict[str, Any] | UnsetType = UNSET
    content: Content | UnsetType = UNSET
    trigger_urls: list[Trigger] | UnsetType = UNSET


class Webhook(Shape):
    """What is posted when an item changes. Byte for byte the same at every attempt."""

    event: Event
    data_changed: Annotated[Changed, Meta(description="The new values of what changed.")]
    new_dataset: Dataset
    previous: Annotated[Changed, Meta(description="The old values of the same.")]
    version: Version
    occurred_at: Time
    token: Annotated[str, Meta(description="If the change is a claim: show it to complete it.")] | UnsetType = UNSET


class CloudEvent(Shape):
    """The same for a trigger with ``"format": "cloudevents"``: CloudEvents 1.0, in its structured form."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(description="As `webhook-id`.")]
    source: Annotated[str, Meta(description="`/hookline/`, the namespace, `/` and the item's key.")]
    type: Literal["hookline.item.created", "hookline.item.updated", "hookline.item.deleted"]
    subject: Annotated[SortField, Meta(description="The item's sortField.")]
    time: Time
    datacontenttype: Literal["application/json"]
    data: Webhook
