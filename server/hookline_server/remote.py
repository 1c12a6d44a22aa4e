"""What the command line asks of a server over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from hookline import transport
from hookline.answers import read_error
from hookline.calls import UNSET
from hookline.errors import HooklineError
from hookline.flow import Request
from hookline.session import Session
from hookline.transport import Http
from hookline_server import table
from hookline_server.command.source import excerpt

Say = Callable[[str], None]

PATIENCE = 330.0
"""Seconds that a server may think about a write: a text may take 300, and its last command wait for 25 more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to a text: the results, and the problem that stopped it, if one did."""

    results: list[dict[str, Any]]
    problem: dict[str, Any] | None = None


async def send(server: Http, text: str, names: Mapping[str, Any]) -> Answer:
    """Run a text of commands on a server; ``names`` are what earlier texts have bound.

    Raises:
        Unavailable: there is no server.
        OutcomeUnknown: it gave no answer.
    """
    request = Request("POST", "/v1/command", {"text": text, "names": dict(names)}, patience=PATIENCE)
    status, content = await _send(server, request)
    problem = {} if status == HTTPStatus.OK else _problem(content)
    if problem:
        return Answer(problem.get("results", []), problem)
    return Answer(transport.read(request, server.url, status, content).data["results"])


async def run_text(server: Http, text: str, say: Say, output: str = "json") -> None:
    """Run a text of commands on a server and say each result, as JSON or as a ``table``.

    Raises:
        HooklineError: a command was refused; what came before it has been said.
        Unavailable: there is no server.
        OutcomeUnknown: it gave no answer.
    """
    answer = await send(server, text, {})
    for result in answer.results:
        say(show(result, output))
    if answer.problem:
        raise HooklineError(explain(answer.problem, text)) from read_error(answer.problem)


def show(result: Any, output: str = "json") -> str:
    """A result as ``json``, as JSON on one of the ``lines``, or as a ``table``. Nothing in it acts on the terminal."""
    if output == "table":
        return table.render([result])
    return table.harmless(json.dumps(result, indent=None if output == "lines" else 2, ensure_ascii=False))


def explain(problem: dict[str, Any], text: str) -> str:
    """Why a text was refused, and below that the line which was, with a caret under the word."""
    where = f"command {problem['index'] + 1}, line {problem['line']}: " if "index" in problem else ""
    shown = problem.get("excerpt") or (excerpt(text, problem["line"], problem["column"]) if "line" in problem else "")
    return table.harmless("\n".join([where + _explain(problem), *(f"  {line}" for line in shown.splitlines())]))


async def ask(server: Http, method: str, path: str, body: Any = None) -> Any:
    """What a server answers to a request of a JSON value.

    Raises:
        HooklineError: it refused.
        Unavailable: there is no server.
        OutcomeUnknown: it did not tell what became of a write.
    """
    reads = method == "GET"
    sent = UNSET if body is None else body
    request = Request(method, path, sent, harmless=reads, patience=0.0 if reads else PATIENCE)
    status, content = await _send(server, request)
    return transport.read(request, server.url, status, content).data


async def _send(server: Http, request: Request) -> tuple[int, bytes]:
    session = Session(server, most=1)
    try:
        return await session.ask(request)
    finally:
        await session.close()


def _problem(content: bytes) -> dict[str, Any]:
    """The problem document that it is, if it is one."""
    with suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict) and "code" in found:
            return found
    return {}


def _explain(problem: dict[str, Any]) -> str:
    """A problem document as text, each bad field on a line."""
    flaws = [f"{flaw['pointer']}: {flaw['detail']}" for flaw in problem.get("errors", ())]
    if len(flaws) == 1:
        return flaws[0]
    return "\n  ".join([str((flaws and problem.get("title")) or problem.get("detail") or problem.get("title")), *flaws])
