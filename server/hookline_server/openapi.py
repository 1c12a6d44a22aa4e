"""The API's document (OpenAPI 3.1), made of what stands beside the routes."""

from __future__ import annotations

import gzip
import inspect
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from hookline_server import page, shapes
from hookline_server.fields import REFERENCE, SCHEMAS, ApiKeyId, DeliveryId, EndpointId, Key, Schema, SortField
from hookline_server.guard import OPEN, SCOPES
from hookline_server.negotiate import CLOUD_EVENT, JSON, LINES, MSGPACK, TEXT
from hookline_server.once import honours
from hookline_server.operation import Operation, Reply, operation_of
from hookline_server.problem import KINDS
from hookline_server.routes import Endpoint, served_by

PROBLEM = "application/problem+json"
_ABOUT = """\
Items are documents, versioned records and jobs at once.

- Bodies are JSON; names are camelCase, metadata fields are yours. `application/vnd.msgpack` (or `application/msgpack`,
  `application/x-msgpack`) holds the same values, both ways, problem documents included.
- `Accept: application/x-ndjson` streams a line for each item where a list says so, and gives all else as one line.
- Where API keys are in use, requests show one: `-H 'Authorization: Bearer hl_...'` in the examples.
- HEAD is there wherever GET is; OPTIONS, and 405 for a method that a path does not have, answer with `Allow`.
- An unknown path is 404 `unknown_path`; a query parameter or field that is unknown, or stands twice, is 422 `invalid`.
- A request body may be compressed (`Content-Encoding: gzip`), and so is an answer where `Accept-Encoding` says so.
"""
_TAGS = {
    "items": "Items as documents.",
    "jobs": "Items as jobs: claim them, end or prolong claims, change many.",
    "keys": "What the namespace holds, key by key, and the settings of keys.",
    "workers": "Who works now, and what they are asked to do.",
    "orchestrations": "Stored rules that claim items with triggers on.",
    "schedules": "Stored rules that create items.",
    "api-keys": "Who may do what.",
    "deliveries": "Webhooks that did not succeed at once.",
    "endpoints": "The URLs that webhooks go to.",
    "triggers": "Webhooks, tried out.",
    "command": "The command language.",
    "server": "The server itself.",
}
_PATH_TYPES = {
    "key": Key,
    "sortField": SortField,
    "workerId": SortField,
    "name": Key,
    "id": ApiKeyId,
    "delivery": DeliveryId,
    "endpoint": EndpointId,
}
_ETAG = '(W/)?"[0-9]{1,16}([.][0-9]{1,15}(-m)?)?"'
_REQUEST_HEADERS: dict[str, Schema] = {
    "If-Match": {
        "description": "The ETag, or version, that the item must have, else 412; `*`: it must be there.",
        "schema": {"anyOf": [{"enum": ["*"]}, {"type": "string", "pattern": f"^{_ETAG}$"}]},
    },
    "If-None-Match": {"description": "The ETags that the client has: 304.", "schema": {"type": "string"}},
    "If-None-Match: *": {
        "description": "The item must not be there yet, else 412.",
        "schema": {"type": "string", "enum": ["*"]},
    },
    "Idempotency-Key": {
        "description": "The same for a request that is sent again: it takes effect once, and is answered alike.",
        "schema": {"type": "string", "pattern": '^("[ !#-\\[\\]-~]{1,255}"|[!#-+.-~-]{1,255})$'},
    },
    "Prefer": {
        "description": "`return=minimal`: an answer without the item: 204, or 201 and its names; of many only these.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "description": "The trace that the request is part of (W3C Trace Context).",
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "description": "Names the request: up to 128 visible characters of ASCII, else the server makes a name.",
        "schema": {"type": "string"},
    },
}
_ANSWER_HEADERS: dict[str, Schema] = {
    "Cache-Control": {
        "description": "Of what is read for the caller: not for others, and to be asked for again; or not to be kept.",
        "schema": {"enum": ["private, no-cache", "no-store"]},
    },
    "ETag": {"description": 'Of an item: `"<version>.<end of its lock>"`.', "schema": {"pattern": f"^{_ETAG}$"}},
    "Location": {"description": "Of what was made.", "schema": {"pattern": "^/v1/"}},
    "Idempotency-Replayed": {
        "description": "That nothing was done: the request came before.",
        "schema": {"enum": ["true"]},
    },
    "Link": {
        "description": 'The next page, `rel="next"`, if there is one: relative to the URL that was asked for.',
        "schema": {"pattern": '^<[?].*>; rel="next"$'},
    },
    "Preference-Applied": {"description": "That the preference was met.", "schema": {"enum": ["return=minimal"]}},
    "Retry-After": {"description": "Seconds until a repeat makes sense.", "schema": {"pattern": "^[0-9]+$"}},
    "WWW-Authenticate": {"description": "Which key is asked for, and what is wrong with it.", "schema": {}},
    "RateLimit-Policy": {
        "description": "Requests of a caller in so many seconds, if limited.",
        "schema": {},
    },
    "RateLimit": {"description": "How many are left, and in how many seconds all are again.", "schema": {}},
    "X-Request-Id": {"description": "The request's own, or a new one.", "schema": {"minLength": 1}},
}
_ALWAYS = ("Cache-Control", "RateLimit-Policy", "RateLimit", "X-Request-Id")
_ANY_REQUEST = ("X-Request-Id", "traceparent")
_HEADERS_OF = {401: ("WWW-Authenticate",), 409: ("Retry-After",), 429: ("Retry-After",), 503: ("Retry-After",)}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer hl_...`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-KEY", "description": "The same, on its own."},
}
_WEBHOOK_HEADERS = {
    "webhook-id": "Names the event; the same at every attempt.",
    "webhook-timestamp": "Seconds since 1970; new at every attempt.",
    "webhook-signature": "`v1,` and the base64 HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks).",
    "X-API-KEY": "The trigger's API key, if it has one.",
    "traceparent": "The trace of the request that made the change, if it was part of one (W3C Trace Context).",
}
_WEBHOOK_OPTIONAL = ("X-API-KEY", "traceparent")
_MEMBERS = ("properties", "additionalProperties", "$ref")
"""What says which members an object has."""


@dataclass(frozen=True, slots=True)
class Described:
    """An operation where it stands. ``parameters`` are the names in its path."""

    method: str
    path: str
    endpoint: Endpoint
    operation: Operation
    scopes: Collection[str]
    repeatable: bool

    @property
    def parameters(self) -> list[str]:
        """The names in its path."""
        return re.findall(r"{(\w+)}", self.path)


def described(routes: Iterable[BaseRoute]) -> Iterator[Described]:
    """All operations of the routes.

    Raises:
        LookupError: nothing was said of one.
    """
    for route in routes:
        if isinstance(route, Route):
            path = re.sub(r"{(\w+?)(?::path)?}", lambda match: f"{{{_camel(match[1])}}}", route.path)
            for method, endpoint in served_by(route).items():
                endpoint = inspect.unwrap(endpoint)
                operation = operation_of(endpoint)
                if operation is None:
                    raise LookupError(f"{method} {route.path}: say what it takes and answers, by @Operation(...)")
                scopes = SCOPES.get((method, route.path), OPEN)
                yield Described(method, path, endpoint, operation, scopes, honours(method, route.path))


def build(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The document of these routes; a twentieth of a second, so it is kept.

    Raises:
        LookupError: a route is not described.
    """
    found = list(described(routes))
    builder = _Builder(found)
    paths: dict[str, dict[str, Any]] = {}
    for one in found:
        paths.setdefault(one.path, {})[one.method.lower()] = builder.operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hookline",
            "version": version("hookline"),
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "webhooks": {"itemChanged": {"post": builder.webhook()}},
        "components": builder.components(),
    }


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is and compressed, both with the same ETag."""

    html: bytes
    packed: bytes
    etag: str


class Document:
    """The document of an application's routes, made when it is first asked for, as a value and as a page."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = routes

    @cached_property
    def value(self) -> dict[str, Any]:
        """The document itself."""
        return build(self._routes)

    @cached_property
    def page(self) -> Page:
        """The document as a page to read."""
        html = page.render(self.value).encode()
        return Page(html, gzip.compress(html, mtime=0), f'W/"{zlib.crc32(html)}"')


class _Builder:
    def __init__(self, found: Sequence[Described]) -> None:
        self._by_name = {one.operation.name: one for one in found}
        kinds = {id(kind): kind for kind in _kinds(found)}
        schemas, self._components = msgspec.json.schema_components(kinds.values(), ref_template=REFERENCE)
        self._schemas = dict(zip(kinds, schemas, strict=True))
        self._problems: dict[str, Any] = {}

    def components(self) -> dict[str, Any]:
        """What the operations refer to, once they are made."""
        return {
            "securitySchemes": _SECURITY,
            "schemas": {name: _object(schema) for name, schema in sorted((self._components | SCHEMAS).items())},
            "responses": dict(sorted(self._problems.items())),
            "parameters": {name: _header_parameter(name) for name in _ANY_REQUEST},
            "headers": {
                name: told | {"schema": {"type": "string"} | told["schema"]} for name, told in _ANSWER_HEADERS.items()
            },
        }

    def operation(self, one: Described) -> dict[str, Any]:
        """One operation object."""
        said = one.operation
        summary, _, description = _plain(inspect.getdoc(one.endpoint) or "").partition("\n\n")
        shown: dict[str, Any] = {
            "operationId": said.name,
            "tags": [_tag(one.path)],
            "summary": summary.removesuffix("."),
            "parameters": self._parameters(one),
            "responses": self._responses(one),
            "security": [{name: sorted(one.scopes)} for name in _SECURITY] if one.scopes else [],
        }
        if one.scopes:
            description += f"\n\nScope: {' or '.join(f'`{scope}`' for scope in sorted(one.scopes))}."
        if description:
            shown["description"] = description.strip()
        if said.takes:
            shown["requestBody"] = {"required": said.needed, "content": self._request(said)}
        return shown

    def webhook(self) -> dict[str, Any]:
        """What is posted to triggers, as an operation that receivers serve."""
        return {
            "operationId": "itemChanged",
            "summary": "An item changed",
            "description": "Posted to each matching trigger, at least once and not always in order: `version` says "
            "which is later. Any 2xx is a delivery, 410 ends the attempts; all else is tried again.",
            "parameters": [
                {"name": name, "in": "header", "required": name not in _WEBHOOK_OPTIONAL, "description": text}
                | {"schema": {"type": "string"}}
                for name, text in _WEBHOOK_HEADERS.items()
            ],
            "security": [],
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": self._schema(shapes.Webhook)},
                    CLOUD_EVENT: {"schema": self._schema(shapes.CloudEvent)},
                },
            },
            "responses": {
                "2XX": {"description": "Delivered."},
                "410": {"description": "The endpoint is gone: no further attempts."},
                "default": {"description": "To be tried again."},
            },
        }

    def _schema(self, kind: Any) -> Schema:
        if isinstance(kind, tuple) and len(kind) > 1:
            return {"anyOf": [self._schema(one) for one in kind]}
        schema: Schema = _plain(self._schemas[id(kind[0] if isinstance(kind, tuple) else kind)])
        return schema

    def _parameters(self, one: Described) -> list[Any]:
        shown: list[Any] = [
            self._parameter(name, "path", _PATH_TYPES[name]) | {"required": True} for name in one.parameters
        ]
        shown += [self._parameter(name, "query", kind) for name, kind in one.operation.query.items()]
        headers = (*one.operation.headers, *(("Prefer",) if one.operation.optional else ()))
        headers += ("Idempotency-Key",) if one.repeatable else ()
        shown += [_header_parameter(name) for name in headers]
        return shown + [{"$ref": f"#/components/parameters/{name}"} for name in _ANY_REQUEST]

    def _parameter(self, name: str, place: str, kind: Any) -> dict[str, Any]:
        schema = dict(self._schema(kind))
        return {"name": name, "in": place, "description": schema.pop("description", ""), "schema": schema}

    def _request(self, said: Operation) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for media_type, kinds in said.takes.items():
            content[media_type] = {"schema": self._schema(kinds)}
            if media_type == JSON:
                content[MSGPACK] = dict(content[JSON])
                if said.example is not None:
                    content[JSON]["example"] = said.example
        return content

    def _responses(self, one: Described) -> dict[str, Any]:
        said = one.operation
        replies = dict(said.replies)
        if said.optional and 200 in replies:
            replies[204] = Reply("Done; the client wanted no body.", headers=replies[200].headers)
        more = ("Idempotency-Replayed",) if one.repeatable else ()
        shown = {status: self._reply(reply, more, optional=said.optional) for status, reply in replies.items()}
        codes: dict[int, list[str]] = {}
        for code in sorted(set(said.codes(one.method, one.path, guarded=bool(one.scopes), repeatable=one.repeatable))):
            codes.setdefault(KINDS[code][0], []).append(code)
        for status, some in codes.items():
            if status in shown:
                raise LookupError(f"{said.name}: {status} is a problem document and something else")
            shown[status] = self._problem(status, some)
        return {str(status): shown[status] for status in sorted(shown)}

    def _reply(self, reply: Reply, more: tuple[str, ...], *, optional: bool) -> dict[str, Any]:
        names = (*reply.headers, *more, *(("Preference-Applied",) if optional else ()), *_ALWAYS)
        shown: dict[str, Any] = {"description": reply.says, "headers": _refer(names)}
        if reply.media_types:
            shown["content"] = {kind: {"schema": {"type": "string"}} for kind in reply.media_types}
        elif reply.shape is not None:
            schema = self._schema(reply.shape)
            lines = self._schema(reply.lines) if reply.lines else schema
            shown["content"] = {JSON: {"schema": schema}, MSGPACK: {"schema": schema}, LINES: {"schema": lines}}
            if reply.text:
                shown["content"][TEXT] = {"schema": {"type": "string"}}
        if reply.links:
            shown["links"] = {name: self._link(name) for name in reply.links}
        return shown

    def _link(self, name: str) -> dict[str, Any]:
        names = self._by_name[name].parameters
        return {"operationId": name, "parameters": {name: f"$response.body#/{name}" for name in names}}

    def _problem(self, status: int, codes: list[str]) -> dict[str, str]:
        """A reference to the answer with one of these codes, which operations share."""
        name = f"{status}.{'.'.join(codes)}"
        told = {"properties": {"code": {"enum": codes}}}
        schema = {"allOf": [{"$ref": REFERENCE.format(name="Problem")}, told]}
        self._problems[name] = {
            "description": " ".join(f"`{code}`: {KINDS[code][1]}." for code in codes),
            "headers": _refer((*_HEADERS_OF.get(status, ()), *_ALWAYS)),
            "content": {PROBLEM: {"schema": schema}, MSGPACK: {"schema": schema}},
        }
        return {"$ref": f"#/components/responses/{name}"}


def _kinds(found: Iterable[Described]) -> Iterator[Any]:
    """Every type that the document shows."""
    yield from (shapes.Problem, shapes.Webhook, shapes.CloudEvent, *_PATH_TYPES.values())
    for one in found:
        yield from one.operation.query.values()
        for kinds in one.operation.takes.values():
            yield from kinds
        for reply in one.operation.replies.values():
            yield from reply.lines
            yield from reply.shape if isinstance(reply.shape, tuple) else (reply.shape,) if reply.shape else ()


def _header_parameter(name: str) -> dict[str, Any]:
    return {"name": name.partition(":")[0], "in": "header", **_REQUEST_HEADERS[name]}


def _refer(headers: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _tag(path: str) -> str:
    place = re.match(r"/v1/([\w-]+)", path)
    return place[1] if place else "server"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _object(schema: Schema) -> Schema:
    """An object as it is shown: its defaults are in words."""
    shown: Schema = _plain(schema)
    # A generator of clients takes a field with a default for one that is always there, and asks for it.
    for field in shown.get("properties", {}).values():
        default = field.pop("default", None)
        if default is not None:
            said = f"Default: `{json.dumps(default)}`."
            field["description"] = f"{field['description']} {said}" if "description" in field else said
    return shown


def _plain(value: Any) -> Any:
    """The same, where literals in descriptions are written as Markdown does, and objects of any members say so."""
    if isinstance(value, str):
        return value.replace("``", "`")
    if isinstance(value, Mapping):
        shown = {name: _plain(member) for name, member in value.items()}
        # A generator of clients may take silence for no.
        is_bare = shown.get("type") == "object" and shown.keys().isdisjoint(_MEMBERS)
        return {**shown, "additionalProperties": True} if is_bare else shown
    return [_plain(member) for member in value] if isinstance(value, list) else value
