"""What Schemathesis does not know of this API: how bodies are written and read, and what it must leave alone."""

from __future__ import annotations

import json
import os
from typing import Any

import msgpack
import schemathesis

MSGPACK, LINES = "application/vnd.msgpack", "application/x-ndjson"


@schemathesis.serializer(MSGPACK)
def write_msgpack(context: schemathesis.SerializationContext, value: Any) -> bytes:
    packed: bytes = msgpack.packb(_fit(value))
    return packed


def _fit(value: Any) -> Any:
    """The same, where integers are those that msgpack has."""
    if isinstance(value, dict):
        return {name: _fit(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_fit(member) for member in value]
    return max(min(value, 2**64 - 1), -(2**63)) if type(value) is int else value


@schemathesis.deserializer(MSGPACK)
def read_msgpack(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    return msgpack.unpackb(response.content)


@schemathesis.serializer(LINES)
def write_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer(LINES)
def read_lines(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """Its first line: the schema is that of each."""
    return json.loads(response.content.splitlines()[0])


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """A bad line is answered in its own line, not by the status of the whole.

    What follows from the schemas is the same in both formats: without ``make probe`` it is sent in one.
    """
    negative = case.meta is not None and case.meta.generation.mode.is_negative
    covering = case.meta is not None and case.meta.phase.name == "coverage"
    again = covering and case.media_type == MSGPACK and "HOOKLINE_TEST_EXAMPLES" not in os.environ
    return not (case.media_type == LINES and negative) and not again


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """The API key of the run itself is not ended, and not exchanged: it is one of those that are listed."""
    if case.path_parameters.get("id") == os.environ["HOOKLINE_TEST_API_KEY"].split("_")[1]:
        case.path_parameters["id"] = "0" * 12
