"""``/v1/api-keys``: the API keys of the caller's namespace. None is shown but in the answer that makes it."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.clock import parse_duration
from hookline.errors import Invalid, UnknownApiKey
from hookline.grant import IMPLIED
from hookline.keyring import GRACE, ApiKey, Keyring
from hookline_server import body, head, shapes
from hookline_server.answer import Answer
from hookline_server.body import Body
from hookline_server.caller import caller_of
from hookline_server.fields import Duration
from hookline_server.negotiate import JSON
from hookline_server.operation import Operation, Reply
from hookline_server.routes import Resource

_NO_STORE = {"Cache-Control": "no-store"}
Scopes = Annotated[
    list[str],
    Meta(description="What it may do.", extra_json_schema={"items": {"enum": [*IMPLIED]}, "minItems": 1}),
]
Patterns = Annotated[list[str], Meta(description="Item keys that it is limited to, such as `jobs` and `team-a.*`.")]


class NewApiKey(Body):
    """A key to make; ``lasts`` is after how long it ends by itself."""

    name: Annotated[str, Meta(description="For people.")] | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    patterns: Patterns | UnsetType = UNSET
    lasts: Duration | None = None


class Rotation(Body):
    """For how long the secret before is good, and after how long the new one ends."""

    grace: Duration = GRACE
    lasts: Duration | None = None


@Operation(
    name="createApiKey",
    takes={JSON: (NewApiKey,)},
    example={"name": "ci", "scopes": ["read", "work"], "patterns": ["jobs"], "lasts": "90d"},
    replies={201: Reply("The key, shown this once.", shapes.ShownApiKey, links=("rotateApiKey", "revokeApiKey"))},
    writes=True,
)
async def create(request: Request) -> Response:
    """Make an API key of the caller's namespace."""
    head.read_query(request)
    given = (await body.read_json(request, NewApiKey)).given()
    lasts = _seconds(given.pop("lasts"), "/lasts")
    key, text = await _keyring(request).create(caller_of(request).namespace, **given, lasts=lasts)
    return Answer({**key.to_dict(), "apiKey": text}, 201, _NO_STORE)


@Operation(name="listApiKeys", replies={200: Reply("The keys, without their secrets.", shapes.ApiKeys)})
async def index(request: Request) -> Response:
    """List the API keys of the caller's namespace.

    In the order in which they were made.
    """
    head.read_query(request)
    found = await _keyring(request).all(caller_of(request).namespace)
    return Answer({"apiKeys": [key.to_dict() for key in found]})


@Operation(
    name="rotateApiKey",
    takes={JSON: (Rotation,)},
    example={"grace": "1h"},
    replies={200: Reply("The key, shown this once.", shapes.ShownApiKey)},
    refuses=("unknown_api_key",),
    writes=True,
)
async def rotate(request: Request) -> Response:
    """Give an API key another secret.

    What it allows stays, and so does its ``id``.
    """
    head.read_query(request)
    given = await body.read_json(request, Rotation)
    grace, lasts = _seconds(given.grace, "/grace") or 0.0, _seconds(given.lasts, "/lasts")
    key = await _own(request)
    text = await _keyring(request).rotate(key.id, grace=grace, lasts=lasts)
    return Answer({**(await _own(request)).to_dict(), "apiKey": text}, 200, _NO_STORE)


@Operation(
    name="revokeApiKey", replies={204: Reply("It is no longer good.")}, refuses=("unknown_api_key",), writes=True
)
async def revoke(request: Request) -> Response:
    """End an API key."""
    head.read_query(request)
    await _keyring(request).revoke((await _own(request)).id)
    return Answer(status=204)


async def _own(request: Request) -> ApiKey:
    """The key that the path names, if it is of the caller's namespace.

    Raises:
        UnknownApiKey: it is not.
    """
    key = await _keyring(request).get(request.path_params["id"])
    if key is None or key.namespace != caller_of(request).namespace:
        raise UnknownApiKey
    return key


def _keyring(request: Request) -> Keyring:
    whole = caller_of(request).whole
    return Keyring(whole.connection, whole.secrets)


def _seconds(duration: Duration | None, pointer: str) -> float | None:
    try:
        return None if duration is None else parse_duration(duration) / 1000
    except ValueError as error:
        raise Invalid.at(pointer, str(error)) from None


routes = [
    Resource("/v1/api-keys", GET=index, POST=create),
    Route("/v1/api-keys/{id}", revoke, methods=["DELETE"]),
    Route("/v1/api-keys/{id}/rotate", rotate, methods=["POST"]),
]
