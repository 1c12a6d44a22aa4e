"""The API's document: whole, valid, and readable as a page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import Api, asking
from contract import Contract
from hookline import Datastore
from hookline_server import page
from hookline_server.app import ROUTES, create_app
from hookline_server.body import Body
from hookline_server.egress import Egress
from hookline_server.openapi import build
from hookline_server.orchestrations import Orchestration
from hookline_server.problem import KINDS

DOCUMENT = build(ROUTES)
OPERATIONS = [
    (method, path, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]


def kinds(kind: type[Any]) -> Iterator[type[Any]]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds(one)


async def undescribed(request: Request) -> Response:
    return Response()


def test_a_route_that_says_nothing_is_found() -> None:
    with pytest.raises(LookupError, match="GET /new"):
        build([*ROUTES, Route("/new", undescribed, methods=["GET"])])


@pytest.mark.parametrize("kind", [*kinds(Body), Orchestration], ids=lambda kind: kind.__name__)
def test_every_field_of_a_request_is_described(kind: type[Body]) -> None:
    shown = DOCUMENT["components"]["schemas"].get(kind.__name__)
    if shown is None:
        assert list(kinds(kind)), "a request that no operation takes, and no other is made of"
        return
    assert set(kind.__struct_encode_fields__) <= shown["properties"].keys()
    assert shown["description"]


def test_what_is_referred_to_is_there() -> None:
    for reference in set(re.findall(r'"#/components/[^"]+"', json.dumps(DOCUMENT))):
        _, _, group, name = json.loads(reference).split("/")
        assert name in DOCUMENT["components"][group], reference


def test_names_of_operations_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("schema", DOCUMENT["components"]["schemas"].values(), ids=DOCUMENT["components"]["schemas"])
def test_schemas_are_json_schema(schema: dict[str, Any]) -> None:
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_operation_says_what_key_it_asks_for() -> None:
    """Silence may mean none, or that it was forgotten: linters ask."""
    asked = {operation["operationId"]: operation.get("security") for _, _, operation in OPERATIONS}
    open_to_all = {"livez", "readyz", "getDocument", "getPage"}
    assert {name for name, security in asked.items() if security == []} == open_to_all
    assert all(asked[name] for name in asked.keys() - open_to_all)
    assert DOCUMENT["webhooks"]["itemChanged"]["post"]["security"] == []


def test_every_operation_is_described() -> None:
    assert [operation["operationId"] for _, _, operation in OPERATIONS if not operation.get("description")] == []


def test_its_license_is_that_of_the_package() -> None:
    package = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["license"]["identifier"] == package["license"]


def objects(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object within a value, with its place."""
    if isinstance(value, dict):
        yield place, value
    for name, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from objects(member, f"{place}/{name}")


def takes(kind: str, schema: dict[str, Any]) -> bool:
    kinds = schema.get("type", ())
    return kind in ([kinds] if isinstance(kinds, str) else kinds)


def test_what_must_be_there_is_described() -> None:
    found = {place: one for place, one in objects(DOCUMENT) if isinstance(one.get("required"), list)}
    assert "/components/schemas/CommandResults/properties/results/items" in found
    assert [place for place, one in found.items() if set(one["required"]) - one.get("properties", {}).keys()] == []


def test_every_array_says_what_is_in_it() -> None:
    """A generator of clients passes over a schema whose array does not, and over all that refers to it."""
    found = {place: one for place, one in objects(DOCUMENT) if takes("array", one)}
    assert {"/components/schemas/Filter/anyOf/0", "/components/schemas/NewTrigger/properties/retry"} <= found.keys()
    assert [place for place, schema in found.items() if "items" not in schema] == []


def test_no_choice_has_text_before_numbers() -> None:
    """A generator of clients turns a value into the first kind that takes it, and text takes every number."""
    choices = ((place, one["anyOf"]) for place, one in objects(DOCUMENT) if isinstance(one.get("anyOf"), list))
    found = {place: [one.get("type") for one in kinds] for place, kinds in choices}
    assert found["/components/schemas/Orchestration/properties/jitter"] == ["integer", "number", "string"]
    for place, types in found.items():
        numbers = [at for at, kind in enumerate(types) if kind in ("integer", "number")]
        assert "string" not in types[: max(numbers, default=0)], place


def test_what_may_be_left_out_has_its_default_in_words() -> None:
    """A generator of clients takes a field that has a default for one that is always there, and asks for it."""
    schemas = DOCUMENT["components"]["schemas"]
    fields = [(name, field) for name, one in schemas.items() for field in one.get("properties", {}).items()]
    assert [(name, field) for name, (field, told) in fields if "default" in told] == []
    described = {(name, field): told.get("description", "") for name, (field, told) in fields}
    assert described["Orchestration", "lockFor"].endswith('`7d`. Default: `"10m"`.')
    assert described["Settle", "complete"] == "Default: `[]`."
    assert "Default" not in described["Orchestration", "every"]


def test_what_is_open_says_so() -> None:
    """A generator of clients takes silence for no: what is yours would be lost between reading and writing."""
    found = {place: one for place, one in objects(DOCUMENT) if takes("object", one)}
    for name in ("Metadata", "Changed/properties/metadata", "SentSample/properties/sent", "Script/properties/names"):
        assert found[f"/components/schemas/{name}"]["additionalProperties"] is True
    told = {"properties", "additionalProperties", "$ref"}
    assert [place for place, one in found.items() if told.isdisjoint(one)] == []


def test_what_is_read_of_a_trigger_fits_what_is_written() -> None:
    """Else a typed client cannot send settings back as it read them."""
    schemas = DOCUMENT["components"]["schemas"]
    shown, taken = schemas["Trigger"]["properties"], schemas["NewTrigger"]["properties"]
    assert shown.keys() <= taken.keys()
    assert set(shown["format"]["enum"]) <= set(taken["format"]["enum"])


def test_an_error_is_told_by_its_status_and_narrowed_by_its_codes() -> None:
    """Generators of clients can narrow a text to some of its values, but no number to one."""
    for name, answer in DOCUMENT["components"]["responses"].items():
        for content in answer["content"].values():
            narrowed = content["schema"]["allOf"][1]["properties"]
            assert narrowed == {"code": {"enum": name.split(".")[1:]}}


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=lambda value: str(value)[:40])
def test_an_operation_says_what_it_does(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    for parameter in operation["parameters"]:
        assert parameter.get("$ref") or parameter["description"], parameter
    if "requestBody" in operation:
        assert operation["requestBody"]["content"]["application/json"]["example"]
    assert all(tag in {one["name"] for one in DOCUMENT["tags"]} for tag in operation["tags"])


async def test_it_is_served(api: Api) -> None:
    answer = await api("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.data == json.loads(json.dumps(DOCUMENT))


async def test_every_example_is_taken(datastore: Datastore) -> None:
    """What a reader copies works: bodies first, then reads, then deletions."""
    made = ""
    order = {"put": 0, "post": 0, "patch": 1, "get": 2, "delete": 3}
    egress = Egress(allow_loopback=True, deadline=5)
    async with asking(create_app(datastore, egress=egress)) as api:
        for method, path, operation in sorted(OPERATIONS, key=lambda one: order[one[0]]):
            if "{delivery}" in path or "{endpoint}" in path:
                continue  # made by what fails: test_deliveries asks for them
            command = shlex.split(page.curl(method, path, operation))
            url = next(word for word in command if word.startswith(page.BASE))
            body = json.loads(command[command.index("-d") + 1]) if "-d" in command else None
            answer = await api(method.upper(), url.removeprefix(page.BASE).replace("the-id", made), body)
            made = answer.data["id"] if path == "/v1/api-keys" and method == "post" else made
            assert 200 <= answer.status < 300, (command, answer)
    await egress.close()


async def test_the_page_may_run_only_its_own_script_and_style(api: Api) -> None:
    answer = await api("GET", "/docs")
    text = answer.body.decode()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    # Nothing that a policy would have to refuse, and nothing from elsewhere.
    assert not re.search(r"<(link|img|iframe|object|embed|form)\b|\bsrc=|\bon\w+=|\bstyle=|url\(|@import", text)
    # Beside the page, wherever a proxy has put both.
    assert {target for target in re.findall(r'href="([^"]*)"', text) if target[0] != "#"} == {"openapi.json"}


async def test_the_page_is_sent_once_and_compressed(api: Api) -> None:
    whole = await api("GET", "/docs", headers={"Accept-Encoding": "identity"})
    packed = await api("GET", "/docs", headers={"Accept-Encoding": "gzip"})
    # The client inflates what it gets.
    assert packed.body == whole.body
    assert int(packed.headers["content-length"]) < len(whole.body) / 4
    assert packed.headers["content-encoding"] == "gzip"
    again = await api("GET", "/docs", headers={"If-None-Match": packed.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", whole.headers["etag"])
    assert (await api("GET", "/docs", headers={"If-None-Match": '"1"'})).status == 200


async def test_the_page_leads_to_everything(api: Api) -> None:
    text = (await api("GET", "/docs")).body.decode()
    assert '<meta name="viewport"' in text
    shown = unescape(re.sub(r"<[^>]+>", "", text))
    ids = set(re.findall(r'id="([^"]+)"', text))
    for method, path, operation in OPERATIONS:
        assert operation["operationId"] in ids
        assert path in shown
        assert page.curl(method, path, operation) in shown
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert f"schema-{name}" in ids
        assert all(f"<code>{field}</code>" in text for field in schema.get("properties", {}))
    assert {target[1:] for target in re.findall(r'href="(#[^"]+)"', text)} <= ids
    described_codes = {code for name in DOCUMENT["components"]["responses"] for code in name.split(".")[1:]}
    assert set(KINDS) - described_codes == {"bad_request", "method_not_allowed"}
    assert all(f"<code>{code}</code>" in text for code in described_codes)


async def test_no_example_of_the_page_keeps_a_placeholder(api: Api) -> None:
    examples = re.findall(r'<pre class="curl">(.*?)</pre>', (await api("GET", "/docs")).body.decode(), re.DOTALL)
    urls = [word for example in examples for word in shlex.split(unescape(example)) if word.startswith(page.BASE)]
    assert len(urls) == len(OPERATIONS)
    assert [url for url in urls if "{" in url] == []


def test_markup_in_a_description_is_text() -> None:
    spoilt = json.loads(json.dumps(DOCUMENT).replace("Read an item", "<script>alert(1)</script>"))
    assert page.render(spoilt).count("<script>") == 1


def test_the_contract_refuses_what_is_not_described() -> None:
    contract = Contract()
    headers = {"content-type": "application/json", "x-request-id": "r"}
    contract.check("GET", "/livez", 200, headers, b'{"status": "ok"}')
    for status, more, body in [
        (201, {}, b'{"status": "ok"}'),
        (200, {"x-new": "1"}, b'{"status": "ok"}'),
        (200, {"content-type": "text/html"}, b'{"status": "ok"}'),
        (200, {}, b'{"status": "ok", "new": 1}'),
        (500, {"content-type": "application/problem+json"}, b'{"code": "locked"}'),
    ]:
        with pytest.raises(AssertionError):
            contract.check("GET", "/livez", status, headers | more, body)
