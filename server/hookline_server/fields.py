"""What the fields of requests and answers hold, said once: types with the words and bounds of the API's document.

Bounds that are written as ``extra_json_schema`` are described here and checked by the engine, which says what it
expected in its own words; the document may promise less than the engine takes, and never more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from hookline.bound import IN_FLIGHT_MAX
from hookline.calls import CLAIM_MAX, QUERY_MAX, TRIGGER_MODES
from hookline.clock import DURATION_MAX_MS
from hookline.codec import LIMITS, NATIVE, TEXT_MAX, WORD_MAX
from hookline.index import INDEXES_MAX, KINDS
from hookline.item import EVENTS, FIELDS_MAX, METADATA_FIELDS_MAX, SORT_FIELD_MAX, TERMINAL, TRIGGERS_MAX
from hookline.keysettings import ATTEMPTS_MAX, BACKOFFS_MAX, LENGTH_MAX
from hookline.trigger import EVENTS_MAX, OPERANDS_MAX, RETRIES_MAX
from hookline.where import CONDITIONS_MAX, IN_MAX, OPERATORS

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"


def _ref(name: str) -> Schema:
    return {"$ref": REFERENCE.format(name=name)}


_DURATION = r"\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d)\s*"
_SECONDS: Schema = {"minimum": 0, "maximum": DURATION_MAX_MS // 1000}
_DURATIONS: Schema = {"type": ["number", "string"], "pattern": f"^{_DURATION}$", **_SECONDS}
_TIME = "an RFC 3339 time, or `CURRENT_TIMESTAMP`"

Key = Annotated[
    str,
    Meta(
        description="The collection that the item is in: 1 to 128 characters of `A-Z a-z 0-9 . _ -`.",
        extra_json_schema={"pattern": "^[A-Za-z0-9._-]{1,128}$"},
    ),
]
SortField = Annotated[
    str,
    Meta(
        description=f"Orders and identifies the item in its key: 1 to {SORT_FIELD_MAX} bytes of UTF-8 without NUL.",
        extra_json_schema={"minLength": 1, "maxLength": SORT_FIELD_MAX},
    ),
]
Content = Annotated[Any, Meta(description="The payload: any JSON value.")]
Metadata = Annotated[dict[str, Any], Meta(extra_json_schema=_ref("Metadata"))]
Results = Annotated[
    dict[str, Any], Meta(description="More metadata, such as results.", extra_json_schema=_ref("Metadata"))
]
TriggerUrls = Annotated[Any, Meta(extra_json_schema=_ref("TriggerUrls"))]
Where = Annotated[Any, Meta(extra_json_schema=_ref("Where"))]
Filters = Annotated[dict[str, Any], Meta(extra_json_schema=_ref("Where"))]
Condition = Annotated[
    Any, Meta(description="Filters that the current metadata must meet, else 412.", extra_json_schema=_ref("Where"))
]
ApiKeyId = Annotated[str, Meta(description="The `id` of the API key.", extra_json_schema={"minLength": 1})]
Upsert = Annotated[bool, Meta(description="Replace the item if it exists.")]
Token = Annotated[str, Meta(description="The token that the claim returned: shows that it is still yours.")]
WorkerId = Annotated[
    str, Meta(description="Who claims.", extra_json_schema={"minLength": 1, "maxLength": WORD_MAX, "examples": ["w1"]})
]
InFlight = Annotated[
    int,
    Meta(
        description="So many items of the key may have a live lock at once by such claims of this worker.",
        extra_json_schema={"minimum": 1, "maximum": IN_FLIGHT_MAX},
    ),
]
Duration = Annotated[
    int | float | str,  # in this order: a generator of clients makes of a default the first that it can be
    Meta(
        description="Seconds as a number, or text such as `500ms` `30s` `10m` `2h` `7d`.",
        extra_json_schema={"pattern": f"^{_DURATION}$", **_SECONDS},
    ),
]
TextDuration = Annotated[
    str,
    Meta(
        description="How long to wait, at most 25 s: seconds, or text such as `500ms` `20s`.",
        extra_json_schema={"pattern": f"^([0-9]+|{_DURATION})$"},
    ),
]
Limit = Annotated[
    int,
    Meta(description=f"How many at most: 1 to {CLAIM_MAX}.", extra_json_schema={"minimum": 1, "maximum": CLAIM_MAX}),
]
PageLimit = Annotated[
    int,
    Meta(description=f"How many at most: 1 to {QUERY_MAX}.", extra_json_schema={"minimum": 1, "maximum": QUERY_MAX}),
]
Order = Annotated[
    str,
    Meta(
        description="`sortField`, `status` (within the one asked for) or a field with an index; `:desc` reverses it.",
        extra_json_schema={"minLength": 1},
    ),
]
Cursor = Annotated[str, Meta(description="Where to go on: the `cursor` of the answer before.")]
ClaimTriggers = Annotated[
    str,
    Meta(
        description="Which triggers fire: the key's, all (`on`), or none.",
        extra_json_schema={"enum": list(TRIGGER_MODES), "default": TRIGGER_MODES[0]},
    ),
]
Backoff = Annotated[
    Any,
    Meta(
        description="How long a failed item waits: a duration, a list with one for each attempt, or the first and the "
        "longest of delays that double.",
        extra_json_schema={
            "anyOf": [
                {"type": "null"},
                _DURATIONS,
                {"type": "array", "items": _DURATIONS, "minItems": 1, "maxItems": BACKOFFS_MAX},
                {
                    "type": "object",
                    "properties": {"first": _DURATIONS, "longest": _DURATIONS},
                    "required": ["first", "longest"],
                    "additionalProperties": False,
                },
            ]
        },
    ),
]
CatchUp = Annotated[
    Literal["skip", "one", "all"],
    Meta(
        description="What becomes of ticks missed by more than a minute: nothing, one item for the last, or one each."
    ),
]
Error = Annotated[str, Meta(description="Why it failed, kept as `last_error`.")]
Time = Annotated[str, Meta(description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"})]

PassedOver = Annotated[
    Any,
    Meta(description="Passed over, so that what was read can be written.", extra_json_schema={"readOnly": True}),
]


def _described(text: str, schema: Schema, *types: str) -> Any:
    """A setting of a key: one of the types, or null for its default."""
    return Annotated[Any, Meta(description=text, extra_json_schema={"type": [*types, "null"], **schema})]


MaxAttempts = _described(
    "Claims before an item becomes a dead letter; 0 is no limit.", {"minimum": 0, "maximum": ATTEMPTS_MAX}, "integer"
)
LockFor = _described("How long a claim holds.", {"pattern": f"^{_DURATION}$", **_SECONDS}, "number", "string")
Paused = _described("No claims until it is resumed.", {}, "boolean")
RecordDeliveries = _described("Webhooks that succeed at once are told of as well.", {}, "boolean")
MaxLength = _described("As many items the key may hold.", {"minimum": 1, "maximum": LENGTH_MAX}, "integer")
Indexes = _described(
    "Metadata fields by which queries are answered, and of which kind their values are.",
    {"additionalProperties": {"enum": [*KINDS]}, "maxProperties": INDEXES_MAX},
    "object",
)
Retention = _described(
    "What is beyond this is removed, oldest first, by status.",
    {
        "properties": {
            status: {
                "type": "object",
                "properties": {
                    "age": {**_DURATIONS, "type": ["number", "string", "null"]},
                    "count": {"type": ["integer", "null"], "minimum": 0, "maximum": LENGTH_MAX},
                },
                "minProperties": 1,
                "additionalProperties": False,
            }
            for status in sorted(TERMINAL)
        },
        "additionalProperties": False,
    },
    "object",
)

_NATIVE_KINDS: dict[str, Schema] = {
    "word": {"minLength": 1, "maxLength": WORD_MAX},
    "text": {"minLength": 1, "maxLength": TEXT_MAX},
    "time": {"description": f"{_TIME}."[0].upper() + f"{_TIME}."[1:]},
    "later": {"description": f"A{_TIME[1:]}, or a duration from now such as `+10m`."},
}


def _native(name: str, kind: str) -> Schema:
    if kind == "number":
        low, high = LIMITS[name]
        return {"type": ["integer", "null"], "minimum": low, "maximum": high}
    return {"type": ["string", "null"], **_NATIVE_KINDS[kind]}


def _filter() -> Schema:
    operands: Schema = {name: {} for name in OPERATORS}
    operands["in"] = {"type": "array", "items": {}, "minItems": 1, "maxItems": IN_MAX}
    operands["exists"] = {"type": "boolean"}
    operands["prefix"] = {"type": "string"}
    return {
        "description": "What a field must be: a value, or operators.",
        "anyOf": [
            {"type": ["string", "number", "boolean", "null", "array"], "items": {}},
            {"type": "object", "properties": operands, "minProperties": 1, "additionalProperties": False},
        ],
    }


SCHEMAS: dict[str, Schema] = {
    "Metadata": {
        "title": "Metadata",
        "description": "The queryable state. The engine gives meaning to the fields named here, all others are yours. "
        "Where it is merged into what is there, null removes a field. In an update, `version` is the expected one. "
        f"An item has {FIELDS_MAX:,} fields of yours at most.",
        "type": "object",
        "properties": {
            **{name: _native(name, kind) for name, (_, kind) in NATIVE.items()},
            "version": {"type": "integer", "minimum": 1, "exclusiveMaximum": 2**53},
        },
        "propertyNames": {"minLength": 1, "maxLength": WORD_MAX},
        "additionalProperties": True,
        "maxProperties": METADATA_FIELDS_MAX,
    },
    "TriggerUrls": {
        "title": "TriggerUrls",
        "description": "URLs that are called when the item changes: a map of URL to API key, or a "
        "list. An API key is never read back; an entry without one keeps what is stored for the same URL. The filters "
        f"of all entries have {OPERANDS_MAX} operands at most, where a condition counts as its operands, one at least.",
        "anyOf": [
            {
                "type": "object",
                "propertyNames": {"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"},
                "additionalProperties": {"type": ["string", "null"], "maxLength": 4096},
                "maxProperties": TRIGGERS_MAX,
            },
            {"type": "array", "items": _ref("NewTrigger"), "maxItems": TRIGGERS_MAX},
            {"type": "null"},
        ],
        "examples": [{"https://worker.example/run": "its-api-key"}],
    },
    "NewTrigger": {
        "title": "NewTrigger",
        "type": "object",
        "properties": {
            "url": {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength": 2048},
            "apiKey": {"type": ["string", "null"], "maxLength": 4096, "description": "Sent as `X-API-KEY`."},
            "events": {
                "type": "array",
                "items": {"anyOf": [{"enum": [*EVENTS]}, {"type": "string", "pattern": r"^status:[^\u0000]{1,64}$"}]},
                "minItems": 1,
                "maxItems": EVENTS_MAX,
            },
            "where": {"anyOf": [_ref("Where"), {"type": "null"}]},
            "retry": {
                "type": ["array", "null"],
                "items": _DURATIONS,
                "maxItems": RETRIES_MAX,
                "description": "Waits between attempts.",
            },
            "ordered": {"type": ["boolean", "null"], "description": "An item's events arrive one after the other."},
            "format": {"enum": ["cloudevents", None]},
            "secret": {
                "type": ["string", "array", "null"],
                "items": {"type": "string"},
                "description": "Signs in place of the namespace's.",
            },
            "hasSecret": {"description": "As it was read; passed over."},
            "hasApiKey": {"description": "Ignored, so that what was read can be written."},
        },
        "required": ["url"],
        "additionalProperties": False,
    },
    "Where": {
        "title": "Where",
        "description": "Filters that must all hold: metadata field -> value or operators. A dotted name leads into an "
        "object; `sortField`, `createdAt`, `updatedAt` and `version` are the item's own.",
        "type": ["object", "null"],
        "additionalProperties": _ref("Filter"),
        "propertyNames": {"minLength": 1},
        "maxProperties": CONDITIONS_MAX,
        "examples": [{"status": "not_started", "size": {"gt": 3}}],
    },
    "Filter": _filter() | {"title": "Filter"},
}
"""Schemas that no type says."""

DeliveryId = Annotated[
    str,
    Meta(
        description="The `id` of the delivery: its endpoint's, a dot, its `webhookId`.",
        extra_json_schema={"minLength": 1},
    ),
]
EndpointId = Annotated[
    str, Meta(description="The `id` of the endpoint: 20 hexadecimal digits.", extra_json_schema={"minLength": 1})
]
