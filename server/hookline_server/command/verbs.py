"""The verbs of the command language: which fields each takes, of which kind, and what its result binds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hookline_server.command.placeholder import ITEM, ITEMS

KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "text": ("text", (str,)),
    "prose": ("text", (str,)),
    "integer": ("an integer", (int,)),
    "boolean": ("true or false", (bool,)),
    "duration": ("seconds as a number, or a duration such as 10m", (str, int, float)),
    "object": ("an object {...}", (dict,)),
    "list": ("a list [...]", (list,)),
    "json": ("a JSON value", (dict, list, str, int, float, bool, type(None))),
}
"""Kind -> how it is called in an error, and what its values are in Python. Prose is text that is no name."""

BRACKETS = ("object", "list", "json")
"""The kinds whose values may begin with a bracket."""
TEXTS = ("text", "prose")
"""The kinds that are always text, whatever it looks like."""


@dataclass(frozen=True, slots=True)
class Verb:
    """What one verb takes, and which names its result binds.

    ``fields`` are name -> kind: one of :data:`KINDS`, with ``?`` where null is taken too, or the words to choose from.
    Of each ``exclusive`` pair it takes one; where one of a pair is required, the other will do.
    """

    fields: Mapping[str, str]
    required: tuple[str, ...] = ("key",)
    exclusive: tuple[tuple[str, str], ...] = ()
    triggers_off: bool = False
    binds: tuple[str, ...] = ()


_IDENTITY = {"key": "text", "sortField": "text"}
_CHANGE = {"content": "json", "metadata": "object", "triggerUrls": "json"}
_FILTER = {"key": "text", "metadata": "object", "where": "object"}
_ONE = ("key", "sortField")
_EITHER = (("metadata", "where"),)
_SETTINGS = {
    "maxAttempts": "integer?",
    "lockFor": "duration?",
    "backoff": "json",
    "paused": "boolean?",
    "maxLength": "integer?",
    "indexes": "object?",
    "retention": "object?",
    "recordDeliveries": "boolean?",
    "triggerUrls": "json",
}


def _settle(**fields: str) -> Verb:
    return Verb({**_IDENTITY, "token": "text", **fields}, (*_ONE, "token"), binds=("current_version",))


def _rule(**fields: str) -> Verb:
    times = {"every": "duration", "cron": "text", "timeZone": "text", "jitter": "duration", "enabled": "boolean"}
    return Verb({"name": "text", "key": "text", **fields, **times}, ("name", "key"), exclusive=(("every", "cron"),))


def _many(**fields: str) -> Verb:
    return Verb({**_FILTER, "cursor": "text", **fields}, exclusive=_EITHER)


VERBS: dict[str, Verb] = {
    "create": Verb({**_IDENTITY, **_CHANGE, "upsert": "boolean"}, triggers_off=True, binds=ITEM),
    "update": Verb(
        {**_IDENTITY, **_CHANGE, "version": "integer", "token": "text", "if": "object"},
        _ONE,
        triggers_off=True,
        binds=ITEM,
    ),
    "query": Verb(
        {**_FILTER, "order": "text", "limit": "integer", "cursor": "text", "explain": "boolean"},
        exclusive=_EITHER,
        binds=ITEMS,
    ),
    "count": _many(explain="boolean"),
    "get": Verb(
        {**_IDENTITY, "sortFields": "list", "limit": "integer", "cursor": "text"},
        exclusive=(
            *(("sortField", other) for other in ("sortFields", "limit", "cursor")),
            *(("sortFields", other) for other in ("limit", "cursor")),
        ),
        binds=ITEMS,
    ),
    "delete": Verb({**_IDENTITY, "version": "integer"}, _ONE, triggers_off=True),
    "delete items": Verb({**_FILTER, "cursor": "text"}, ("key", "metadata"), exclusive=_EITHER, triggers_off=True),
    "claim": Verb(
        {
            **_FILTER,
            "limit": "integer",
            "workerId": "text",
            "lockFor": "duration",
            "wait": "duration",
            "triggers": "key|on|off",
        },
        exclusive=_EITHER,
        binds=ITEMS,
    ),
    "complete": _settle(metadata="object"),
    "fail": _settle(error="prose", retryAfter="duration", backoff="json", metadata="object"),
    "release": _settle(delay="duration"),
    "extend": _settle(lockFor="duration"),
    "cancel": Verb(_IDENTITY, _ONE, triggers_off=True, binds=ITEM),
    "cancel items": _many(),
    "redrive": Verb(_IDENTITY, _ONE, triggers_off=True, binds=ITEM),
    "redrive items": _many(),
    "wait": Verb({**_IDENTITY, "until": "object", "wait": "duration"}, _ONE, binds=ITEM),
    "pause": Verb({"key": "text"}),
    "resume": Verb({"key": "text"}),
    "show keys": Verb({"prefix": "text"}, ()),
    "show settings": Verb({"key": "text"}),
    "change settings": Verb({"key": "text", **_SETTINGS}),
    "create orchestration": _rule(where="object", limit="integer", lockFor="duration", maxInFlight="integer"),
    "create schedule": _rule(sortField="text", **_CHANGE, catchUp="skip|one|all"),
    **{
        f"{word} {noun}": Verb({"name": "text"}, ("name",))
        for word in ("show", "delete", "enable", "disable")
        for noun in ("orchestration", "schedule")
    },
    "show orchestrations": Verb({"prefix": "text", "cursor": "text"}, ()),
    "show schedules": Verb({"prefix": "text", "cursor": "text"}, ()),
    "run orchestration": Verb({"name": "text"}, ("name",), binds=ITEMS),
    "run schedule": Verb({"name": "text"}, ("name",), binds=ITEM),
}
"""By the words of its head that tell it from others. In filters ``where`` and ``metadata`` mean the same."""

WORDS = tuple(dict.fromkeys(name.split()[0] for name in VERBS))
"""The words that commands begin with."""

KIND_OF = {field.lower(): kind.rstrip("?") for verb in VERBS.values() for field, kind in verb.fields.items()}
"""A field is of the same kind in every verb, so its name alone tells what may follow."""
