"""The API's document as one page: no other file, no request, nothing but its own style and script may run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

BASE = "http://127.0.0.1:8080"
"""Where the examples go; in a browser the page puts its own address there."""
_STYLE = Path(__file__).with_name("page.css").read_text()
_SCRIPT = Path(__file__).with_name("page.js").read_text()
_VALUES = {
    "key": "jobs",
    "sortField": "job-001",
    "name": "reports",
    "id": "the-id",
    "delivery": "a-delivery",
    "endpoint": "an-endpoint",
    "workerId": "a-worker",
}
"""What stands for the parameters of a path in examples."""
_BOUNDS = ("pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties", "format")
Schema = Mapping[str, Any]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy that the page needs, and nothing more."""


def render(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document that is written as ``openapi.build`` writes them."""
    info = document["info"]
    return "".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style></head><body><header><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            '<label hidden><input id="find" type="search" placeholder="Find a route, a field, an error"></label>',
            "</header>",
            _prose(info["description"]),
            '<p>For programs: <a href="openapi.json">/openapi.json</a></p><main>',
            *_operations(document),
            "<h2>Webhooks</h2>",
            *(_operation(document, "post", name, path["post"]) for name, path in document["webhooks"].items()),
            "<h2>Objects</h2>",
            *(_object(name, schema) for name, schema in document["components"]["schemas"].items()),
            f"</main><script>{_SCRIPT}</script></body></html>\n",
        ]
    )


def curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """A command that calls the operation, with its example."""
    for name, value in _VALUES.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    parts = ["curl", "-sS"] + (["-X", method.upper()] if method != "get" else []) + [BASE + path]
    example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if example is not None:
        parts += ["-H", "Content-Type: application/json", "-d", json.dumps(example)]
    return shlex.join(parts)


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'].capitalize())}</h2><p>{_text(tag['description'])}</p>"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield _operation(document, method, path, operation)


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b> ',
        f"<code>{escape(path)}</code> <span>{_text(operation['summary'])}</span></summary>",
        _prose(operation.get("description", "")),
    ]
    parameters = [_resolve(document, parameter) for parameter in operation["parameters"]]
    if parameters:
        parts.append("<h3>Parameters</h3><dl>")
        parts += [_field(one["name"], one["schema"], one, f"in {one['in']}") for one in parameters]
        parts.append("</dl>")
    if "requestBody" in operation:
        parts += ["<h3>Body</h3><ul>", *_contents(operation["requestBody"]["content"]), "</ul>"]
    if path.startswith("/"):
        parts.append(f'<pre class="curl">{escape(curl(method, path, operation))}</pre>')
    parts.append("<h3>Answers</h3><dl>")
    for status, answer in operation["responses"].items():
        answer = _resolve(document, answer)
        parts.append(f"<dt><code>{status}</code> {_text(answer['description'])}</dt>")
        if headers := ", ".join(answer.get("headers", {})):
            parts.append(f"<dd><small>{escape(headers)}</small></dd>")
        if int(status[0]) < 4 if status[0].isdigit() else False:
            parts += ["<dd><ul>", *_contents(answer.get("content", {})), "</ul></dd>"]
    return "".join([*parts, "</dl></details>"])


def _contents(content: Mapping[str, Any]) -> Iterator[str]:
    """A line for each kind of body; those of one schema share it."""
    kinds: dict[str, list[str]] = {}
    for media_type, one in content.items():
        kinds.setdefault(_type(one["schema"]), []).append(media_type)
    for shown, media_types in kinds.items():
        yield f"<li>{shown} <small>{escape(', '.join(media_types))}</small></li>"


def _object(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    fields = [
        _field(field, one, one, "" if field in required else "may be left out")
        for field, one in schema.get("properties", {}).items()
    ]
    return "".join(
        [
            f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>',
            _prose(schema.get("description", "")),
            "" if schema.get("type") == "object" else f"<p>{_type(schema)}</p>",
            f"<dl>{''.join(fields)}</dl></details>",
        ]
    )


def _field(name: str, schema: Schema, described: Schema, note: str) -> str:
    return (
        f"<dt><code>{escape(name)}</code> {_type(schema)} <small>{escape(note)}</small></dt>"
        f"<dd>{_text(described.get('description', ''))}</dd>"
    )


def _type(schema: Schema) -> str:
    """What a value may be, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema or "allOf" in schema:
        return _either(schema.get("anyOf") or schema["allOf"])
    if "enum" in schema or "const" in schema:
        return _either(
            f"<code>{escape(json.dumps(value))}</code>" for value in schema.get("enum", [schema.get("const")])
        )
    kinds = schema.get("type", "any value")
    shown = escape(kinds if isinstance(kinds, str) else " or ".join(kinds))
    if "items" in schema:
        shown += f" of {_type(schema['items'])}"
    if isinstance(members := schema.get("additionalProperties"), dict) and members:
        shown += f" of {_type(members)}"
    bounds = ", ".join(f"{name} {schema[name]}" for name in _BOUNDS if name in schema)
    return f"{shown} <small>{escape(bounds)}</small>" if bounds else shown


def _either(kinds: Iterable[Schema | str]) -> str:
    return " or ".join(kind if isinstance(kind, str) else _type(kind) for kind in kinds)


def _resolve(document: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    for step in value["$ref"].split("/")[1:] if "$ref" in value else ():
        document = document[step]
    return document if "$ref" in value else value


def _prose(text: str) -> str:
    """Paragraphs, and lists of lines that begin with a dash."""
    shown = []
    for block in filter(None, text.strip().split("\n\n")):
        if block.startswith("- "):
            members = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
            shown.append(f"<ul>{''.join(f'<li>{_text(member)}</li>' for member in members)}</ul>")
        else:
            shown.append(f"<p>{_text(block)}</p>")
    return "".join(shown)


def _text(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))
