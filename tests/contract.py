"""Holds what the server answers, and what it posts, against the API's document."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import msgpack
from starlette.routing import Match

from hookline_server.app import ROUTES
from hookline_server.negotiate import CLOUD_EVENT, JSON, LINES, MSGPACK, MSGPACKS
from hookline_server.openapi import PROBLEM, build, described
from hookline_server.routes import served_by

_PLUMBING = frozenset(
    {
        *("allow", "connection", "content-encoding", "content-length", "content-type", "date"),
        *("accept", "accept-encoding", "accept-patch", "accept-post", "server", "transfer-encoding", "vary"),
        *("content-security-policy", "referrer-policy", "x-content-type-options"),
    }
)
"""Headers that mean for every HTTP server what they mean here."""


class Contract:
    """The document, closed: a field that it does not name is refused, while clients are to pass over it."""

    def __init__(self) -> None:
        self._document = build(ROUTES)
        for schema in self._document["components"]["schemas"].values():
            if "properties" in schema and schema["title"] != "Metadata":
                schema.setdefault("additionalProperties", False)
        paths = self._document["paths"]
        self._operations: dict[Any, dict[str, Any]] = {
            one.endpoint: paths[one.path][one.method.lower()] for one in described(ROUTES)
        }

    def check(self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Whether the document says that this may be the answer; ``path`` is decoded, as servers are given it."""
        place = f"{method} {path}: {status}"
        operation = self._operation(method, path)
        if operation is None:
            assert status in (200, 204, 403, 404, 405, 406), place
            return
        assert str(status) in operation["responses"], f"{place} is not described"
        answer = self._resolve(operation["responses"][str(status)])
        names = {name.lower() for name in answer.get("headers", {})}
        cors = {name for name in headers if name.startswith("access-control-")}
        assert headers.keys() - names - _PLUMBING - cors == set(), place
        assert "x-request-id" in headers, place
        if body:
            self._check_body(place, answer.get("content", {}), headers["content-type"].partition(";")[0], body)

    def check_webhook(self, headers: Mapping[str, str], body: bytes) -> None:
        """Whether the document says that this may be posted; the names of headers in lower case."""
        operation = self._document["webhooks"]["itemChanged"]["post"]
        known = {one["name"].lower(): one["required"] for one in operation["parameters"]}
        assert {name for name, required in known.items() if required} <= headers.keys()
        assert headers.keys() - known <= _PLUMBING | {"host", "user-agent"}, headers.keys()
        self._check_body("webhook", operation["requestBody"]["content"], headers["content-type"], body)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The operation that serves this, if one does."""
        scope = {"type": "http", "method": method, "path": path, "root_path": ""}
        for route in ROUTES:
            if route.matches(scope)[0] is Match.FULL:
                return self._operations[inspect.unwrap(served_by(route)["GET" if method == "HEAD" else method])]
        return None

    def _check_body(self, place: str, content: Mapping[str, Any], media_type: str, body: bytes) -> None:
        described_as = MSGPACK if media_type in MSGPACKS else media_type
        assert described_as in content, f"{place}: {media_type} is not described"
        validator = self._validator(json.dumps(content[described_as]["schema"]))
        for value in _values(media_type, body):
            error = next(validator.iter_errors(value), None)
            assert error is None, f"{place}: {error}"

    def _resolve(self, value: dict[str, Any]) -> dict[str, Any]:
        return self._document["components"]["responses"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value

    @cache  # noqa: B019 - there is one contract
    def _validator(self, schema: str) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(json.loads(schema) | {"components": self._document["components"]})


def _values(media_type: str, body: bytes) -> list[Any]:
    if media_type in MSGPACKS:
        return [msgpack.unpackb(body)]
    if media_type == LINES:
        return [json.loads(line) for line in body.splitlines()]
    return [json.loads(body) if media_type in (JSON, PROBLEM, CLOUD_EVENT) else body.decode()]


CONTRACT = Contract()
