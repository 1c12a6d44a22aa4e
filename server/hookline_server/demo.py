"""``hookline demo``: a job's whole life, with a real server process and a real webhook receiver on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from hookline_server.receiver import Receiver, receiving

API_KEY = "demo-api-key"
TIME_MAX = 30.0
"""Seconds after which the demo gives up."""

_CREATE = """\
/datastore create item with:
key: jobs
sortField: {name}
content: {{ "report_type": "monthly", "department": "sales" }}
metadata: {{ "status": "not_started", "type": "report_generation" }}
triggerUrls: {{ "{receiver}": "{api_key}" }}
"""
_COMPLETE = """\
/datastore update item with triggers off:
key: jobs
sortField: {name}
metadata: {{ "status": "completed", "result": {{ "success": true, "records_processed": 1000 }} }}
"""


class Demo:
    """The play: each scene does its part over HTTP and notes whether it held."""

    def __init__(self, console: Console, session: aiohttp.ClientSession, base: str, receiver: Receiver) -> None:
        self._console = console
        self._session = session
        self._base = base
        self._receiver = receiver
        self.held: dict[str, bool] = {}
        self.figures: dict[str, float] = {}
        """Milliseconds, by what took them."""

    def _check(self, promise: str, holds: bool) -> None:
        self.held[promise] = holds
        self._console.print(f"  [{'green' if holds else 'red'}]{'✓' if holds else '✗'}[/] {promise}")

    async def _command(self, text: str) -> list[dict[str, Any]]:
        async with self._session.post(f"{self._base}/v1/command", data=text.encode()) as response:
            answer = await response.json(content_type=None)
            if response.status != 200:
                raise RuntimeError(f"the command was refused: {json.dumps(answer)}")
            results: list[dict[str, Any]] = answer["results"]
            return results

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        async with self._session.post(self._base + path, json=body) as response:
            return response.status, await response.json(content_type=None)

    async def life(self) -> None:
        """Five jobs: created, orchestrated, called by webhook, completed with triggers off."""
        self._console.print("\n[bold]One job's whole life[/], five times")
        names = [f"job-{number:03d}" for number in range(1, 6)]
        texts = [_CREATE.format(name=name, receiver=self._receiver.url, api_key=API_KEY) for name in names]
        await self._command("\n".join(texts))
        self._console.print(f"  created {', '.join(names)} with status not_started and a trigger")
        began = time.perf_counter()
        rule = {"key": "jobs", "limit": 10, "every": "1s", "lockFor": "10m"}
        async with self._session.put(f"{self._base}/v1/orchestrations/demo", json=rule) as response:
            self._check("an orchestration is stored and kept by the server", response.status in (200, 201))
        await self._receiver.wait_for(5)
        self.figures["orchestration stored → five webhooks received"] = (time.perf_counter() - began) * 1000
        for _, body in self._receiver.calls:
            dataset = body["newDataset"]
            self._console.print(f"  webhook: {dataset['sortField']} is {body['dataChanged']['metadata']['status']}")
        self._check(
            "each job's worker was called once, with the job's API key and the whole job",
            sorted(body["newDataset"]["sortField"] for _, body in self._receiver.calls) == names
            and all(
                key == API_KEY
                and body["dataChanged"]["metadata"]["status"] == "started"
                and body["newDataset"]["metadata"]["type"] == "report_generation"
                for key, body in self._receiver.calls
            ),
        )
        await self._command("\n".join(_COMPLETE.format(name=name) for name in names))
        found = await self._command('query items where:\nkey: jobs\nmetadata: {"status": "completed"}\n')
        self._check("all five are completed, and completing fired nothing", len(found[0]["items"]) == 5)

    async def race(self) -> None:
        """Twenty claimers, ten jobs: each job goes to exactly one."""
        self._console.print("\n[bold]Twenty claimers race for ten jobs[/]")
        items = [{"key": "race", "metadata": {"status": "not_started"}} for _ in range(10)]
        await self._post("/v1/items", {"items": items})
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(self._post("/v1/jobs/race/claim", {"workerId": f"claimer-{number}"}) for number in range(20))
        )
        elapsed = time.perf_counter() - began
        winners = Counter(item["sortField"] for _, answer in answers for item in answer["items"])
        self._check("ten claimers got one job each, ten got none", len(winners) == 10 == sum(winners.values()))
        self.figures["twenty racing claims answered"] = elapsed * 1000

    async def crash(self) -> None:
        """A worker dies: its job is taken over once its lock has passed, and its token is worth nothing."""
        self._console.print("\n[bold]A worker dies[/]")
        await self._post("/v1/items", {"key": "fragile", "sortField": "job", "metadata": {"status": "not_started"}})
        _, first = await self._post("/v1/jobs/fragile/claim", {"workerId": "doomed", "lockFor": "1s"})
        self._console.print("  doomed claims the job for 1 s, and is never heard of again")
        _, early = await self._post("/v1/jobs/fragile/claim", {"workerId": "heir"})
        self._check("while its lock holds, nobody else gets the job", early["items"] == [])
        began = time.perf_counter()
        _, second = await self._post("/v1/jobs/fragile/claim", {"workerId": "heir", "wait": "10s"})
        self._check(
            "after it, the next claimer takes the job over",
            [item["metadata"]["attempts"] for item in second["items"]] == [2],
        )
        self.figures["waiting claim → job of the dead worker"] = (time.perf_counter() - began) * 1000
        _, late = await self._post("/v1/jobs/fragile/settle", {"complete": [_shown(first)]})
        _, done = await self._post("/v1/jobs/fragile/settle", {"complete": [_shown(second)]})
        self._check(
            "a late completion by the dead worker is refused, the heir's is accepted",
            [late["complete"][0]["outcome"], done["complete"][0]["outcome"]] == ["stale_token", "ok"],
        )

    async def silence(self) -> None:
        """Nothing more was called than the five jobs' workers."""
        self._check("no webhook came that should not have", len(self._receiver.calls) == 5)

    def report(self) -> None:
        """The figures."""
        table = Table(title="Figures of this run", title_justify="left")
        table.add_column("what")
        table.add_column("took", justify="right")
        for what, took in self.figures.items():
            table.add_row(what, f"{took:.0f} ms")
        self._console.print()
        self._console.print(table)


def _shown(claimed: dict[str, Any]) -> dict[str, str]:
    item = claimed["items"][0]
    return {"sortField": item["sortField"], "token": item["token"]}


async def play(console: Console) -> dict[str, Any]:
    """Play the demo -> whether all promises ``held`` within the time, which did, and the figures in milliseconds."""
    try:
        async with (
            asyncio.timeout(TIME_MAX),
            receiving() as receiver,
            _server(console) as base,
            aiohttp.ClientSession() as session,
        ):
            demo = Demo(console, session, base, receiver)
            for scene in (demo.life, demo.race, demo.crash, demo.silence):
                await scene()
            demo.report()
            figures = {what: round(took, 1) for what, took in demo.figures.items()}
            return {"held": all(demo.held.values()), "promises": demo.held, "milliseconds": figures}
    except TimeoutError:
        error = f"not done within {TIME_MAX:.0f} s"
    except (RuntimeError, aiohttp.ClientError) as failure:
        error = str(failure)
    console.print(f"[red]{error}[/]")
    return {"held": False, "error": error}


@contextlib.asynccontextmanager
async def _server(console: Console) -> AsyncIterator[str]:
    """A server process of its own, on a free port, with its data in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="hookline-demo-") as data:
        command = [sys.executable, "-m", "hookline_server", "serve", "--port", "0", "--data", str(Path(data, "data"))]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            if process.stdout is None:
                raise RuntimeError("the server process has no output to read")
            async for line in process.stdout:
                found = re.search(r"listens on (http://\S+)", line.decode())
                if found:
                    console.print(f"Server started on [bold]{found[1]}[/], with its own store")
                    yield found[1]
                    break
            else:
                raise RuntimeError("the server did not start; 'hookline serve' says why")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
