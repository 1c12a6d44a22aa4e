"""``/v1/command``: the command language."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hookline.errors import Invalid
from hookline_server import body, head
from hookline_server.answer import Answer
from hookline_server.command import TEXT_MAX, CommandSyntaxError, parse
from hookline_server.execute import Stopped, execute
from hookline_server.problem import Problem, problem_of

KINDS = ("text/plain", "application/octet-stream", "application/x-www-form-urlencoded")
"""Besides text, what clients call bytes of which they were told nothing: aiohttp the second, curl the third."""


async def run(request: Request) -> Response:
    """Run a text of commands; the first that is refused stops it."""
    head.read_query(request)
    body.check_media_type(request, KINDS)
    text = _decode(await body.read_bytes(request, TEXT_MAX))
    # 64 KiB take the parser a tenth of a second, in which the loop serves others.
    commands = await asyncio.to_thread(parse, text)
    try:
        return Answer({"results": await execute(request.app.state.datastore, commands)})
    except Stopped as stopped:
        raise _problem(stopped) from stopped


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
    """The refused command's problem, and where it stands in the text: at the bad field, if it has one."""
    cause, command = stopped.cause, stopped.command
    line, column = command.line, command.column
    if isinstance(cause, Invalid) and cause.flaws:
        line, column = command.place(cause.flaws[0].pointer)
    problem = problem_of(cause)
    problem.members |= {
        "index": stopped.index,
        "verb": command.verb,
        "line": line,
        "column": column,
        "results": stopped.results,
    }
    return problem


routes = [Route("/v1/command", run, methods=["POST"])]
