"""``/v1/command``: the command language."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hookline.errors import REFUSALS
from hookline_server import body, head, negotiate, shapes, table
from hookline_server.answer import VARY, Answer
from hookline_server.body import VALUES, Body
from hookline_server.caller import datastore_of
from hookline_server.command import TEXT_MAX, CommandSyntaxError, parse
from hookline_server.command.names import Names
from hookline_server.interpreter import Stopped, interpret
from hookline_server.operation import Operation, Reply
from hookline_server.problem import Problem, problem_of

TEXT = ("text/plain", "application/octet-stream", "application/x-www-form-urlencoded")
"""Besides text, what clients call bytes of which they were told nothing: aiohttp the second, curl the third."""


class Script(Body):
    """A text of commands, with the values that names in it have from texts before it."""

    text: Annotated[str, msgspec.Meta(description="Commands, as `docs/commands.md` describes them.")]
    names: Annotated[dict[str, Any], msgspec.Meta(description="Name -> value, for placeholders such as `[name]`.")] = (
        msgspec.field(default_factory=dict)
    )


@Operation(
    name="runCommands",
    takes={negotiate.JSON: (Script,), negotiate.TEXT: (str,)},
    needed=False,
    example={"text": "query items where:\nkey: jobs"},
    replies={200: Reply("What each gave; tables, where the client wants text.", shapes.CommandResults, text=True)},
    refuses=("syntax_error", "unfit_placeholder", *REFUSALS, "reserved_key"),
    writes=True,
)
async def run(request: Request) -> Response:
    """Run a text of commands.

    The first that is refused stops it; its problem document has the ``results`` so far.
    """
    head.read_query(request)
    script = await _read(request)
    # 64 KiB take the parser a tenth of a second, in which the loop serves others.
    statements = await asyncio.to_thread(parse, script.text, script.names)
    try:
        results = await interpret(datastore_of(request), statements, Names(script.names))
    except Stopped as stopped:
        raise _problem(stopped) from stopped
    if head.wanted_type(request) == negotiate.TEXT:
        vary = {"Vary": VARY[1].decode()}
        return PlainTextResponse(await asyncio.to_thread(table.render, results), headers=vary)
    return Answer({"results": results})


async def _read(request: Request) -> Script:
    if body.media_type(request) in VALUES:
        return await body.read_json(request, Script)
    body.check_media_type(request, (*TEXT, *VALUES))
    return Script(text=_decode(await body.read_bytes(request, TEXT_MAX)))


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        column = len(before) - before.rfind("\n")
        raise CommandSyntaxError(
            before.count("\n") + 1, column, "text of UTF-8", f"byte 0x{raw[error.start]:02x}"
        ) from None


def _problem(stopped: Stopped) -> Problem:
    """The refused command's problem, and where it stands in the text."""
    problem = problem_of(stopped.cause)
    line, column = stopped.place
    problem.members |= {
        "index": stopped.index,
        "verb": stopped.verb,
        "line": line,
        "column": column,
        "results": stopped.results,
    }
    return problem


routes = [Route("/v1/command", run, methods=["POST"])]
