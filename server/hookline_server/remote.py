"""What the command line asks of a server over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp

from hookline.clock import parse_duration
from hookline.errors import HooklineError, Unavailable

Say = Callable[[str], None]


async def run_text(url: str, text: str, say: Say) -> None:
    """Run a text of commands on a server and say each result as JSON.

    Raises:
        HooklineError: a command was refused; what came before it has been said.
        Unavailable: there is no server.
    """
    status, answer = await _post(url, "/v1/command", text.encode(), "text/plain; charset=utf-8")
    for result in answer.get("results", ()):
        say(json.dumps(result, indent=2, ensure_ascii=False))
    if status != 200:
        where = f"command {answer['index'] + 1}, line {answer['line']}: " if "index" in answer else ""
        raise HooklineError(where + _explain(answer))


async def orchestrate(
    *, url: str, key: str, limit: int, every: str, lock_for: str, where: Any, once: bool, say: Say
) -> None:
    """Claim items with triggers on, every so often, until cancelled; a run that fails is said and tried again.

    Raises:
        HooklineError: the server refused the claim, or ``once`` and it could not be reached.
    """
    claim = json.dumps(
        {
            "workerId": "orchestrate",
            "limit": limit,
            "lockFor": lock_for,
            "where": where,
            "triggers": "on",
        }
    ).encode()
    while True:
        try:
            status, answer = await _post(url, f"/v1/jobs/{quote(key, safe='')}/claim", claim, "application/json")
            if status != 200:
                raise HooklineError(_explain(answer))
            names = " ".join(item["sortField"] for item in answer["items"])
            say(f"{time.strftime('%H:%M:%S')} claimed {len(answer['items'])} of {key} {names}".rstrip())
        except Unavailable as error:
            if once:
                raise
            say(f"{time.strftime('%H:%M:%S')} {error}")
        if once:
            return
        await asyncio.sleep(parse_duration(every) / 1000)


async def _post(url: str, path: str, body: bytes, content_type: str) -> tuple[int, Any]:
    timeout = aiohttp.ClientTimeout(total=60)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url + path, data=body, headers={"Content-Type": content_type}) as response,
        ):
            return response.status, await response.json(content_type=None)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unavailable(
            f"no Hookline server answers at {url}: start one with 'hookline serve', or name its --url"
        ) from error


def _explain(problem: dict[str, Any]) -> str:
    """A problem document as text, each bad field on a line."""
    flaws = [f"{flaw['pointer']}: {flaw['detail']}" for flaw in problem.get("errors", ())]
    if len(flaws) == 1:
        return flaws[0]
    return "\n  ".join([str((flaws and problem.get("title")) or problem.get("detail") or problem.get("title")), *flaws])
